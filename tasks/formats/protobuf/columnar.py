"""Places of messages by ptars, a block at a time: Arrow in, Arrow out, by a schema that has nothing but the places.

Guarantee: of records that are messages, it finds what google.protobuf finds, or says that it does not know. It does
not where several members of a oneof were sent, and where the number of a closed enum is unknown. Of records that are no
messages it knows nothing, and may read the wrong field of them: they must not come here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import ptars
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FieldDescriptor

from tasks.formats.protobuf.paths import Entry, Item, Member, Steps, fields_on, leaf_of, raw_type

# ptars keeps a table as long as the largest field number of a message: that of 2^29 would take 8 GB.
LARGEST_NUMBER: Final = 1 << 16
_Positions = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]
# What is read in place of a type: bytes are not checked twice, and an enum is its number, whether known or not.
_READ_AS: Final = {
    FieldDescriptor.TYPE_STRING: FieldDescriptor.TYPE_BYTES,
    FieldDescriptor.TYPE_ENUM: FieldDescriptor.TYPE_INT32,
}


def is_columnar(steps: Steps) -> bool:
    """Whether a place can be read by ColumnarReader."""
    # google.protobuf takes an entry of a map that has an unknown field for none; ptars does not tell of such fields.
    if any(isinstance(step, Entry) for step in steps):
        return False
    passed = [other for one in fields_on(steps) for other in (one, *_rivals(one))]
    plain = all(one.number <= LARGEST_NUMBER and one.type != FieldDescriptor.TYPE_GROUP for one in passed)
    # An unknown number of a closed enum is no item: those behind it move up.
    return plain and not (_is_closed(leaf_of(steps)) and leaf_of(steps).is_repeated)


def _is_closed(leaf: Any) -> bool:
    return leaf.enum_type is not None and bool(leaf.enum_type.is_closed)


def _rivals(one: Any) -> list[Any]:
    """Return the other members of the field's oneof: the last one sent removes the others."""
    union = one.containing_oneof
    return [] if union is None else [other for other in union.fields if other.number != one.number]


@dataclass
class _Node:
    """A message of the schema of the places. `fields`: by number, with the message that each is, if it is entered."""

    fields: dict[int, tuple[Any, "_Node | None"]] = field(default_factory=dict)

    def add(self, steps: Steps) -> None:
        """Add the fields that the steps pass."""
        node = self
        for step in steps:
            if isinstance(step, Member):
                node = node._enter(step.field)

    def _enter(self, one: Any) -> "_Node":
        _, node = self.fields.get(one.number, (None, None))
        node = node or _Node()
        self.fields[one.number] = (one, node if one.message_type is not None else None)
        for rival in _rivals(one):
            self.fields.setdefault(rival.number, (rival, None))
        return node


class ColumnarReader:
    """Reads places of messages, all columnar."""

    def __init__(self, places: Sequence[Steps]) -> None:
        root = _Node()
        for steps in places:
            root.add(steps)
        file = descriptor_pb2.FileDescriptorProto(name="places.proto", package="places", syntax="proto3")
        _describe(file, root)
        pool = descriptor_pool.DescriptorPool()
        pool.AddSerializedFile(file.SerializeToString())
        descriptor = pool.FindMessageTypeByName("places.M0")
        # The pool of handlers must live as long as the handler.
        self._handlers = ptars.HandlerPool([descriptor.file])
        self._handler = self._handlers.get_for_message(descriptor)
        self._places = tuple(places)

    def read(self, values: pa.Array) -> tuple[list[pa.Array], _Mask] | None:
        """Return one array for each place, and the records that it does not know; None if it knows nothing of these."""
        try:
            batch = self._handler.array_to_record_batch(values)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # noqa: BLE001  # a panic of Rust is no Exception, and the records have another way
            return None
        unknown = np.zeros(len(values), np.bool_)
        return [_Walk(batch, unknown).follow(steps) for steps in self._places], unknown


def _describe(file: Any, node: _Node) -> str:
    """Add a message to the file, and those in it; return its name."""
    message = file.message_type.add(name=f"M{len(file.message_type)}")
    for number, (one, inner) in node.fields.items():
        item = message.field.add(name=f"f{number}", number=number, type=_READ_AS.get(one.type, one.type))
        item.label = item.LABEL_REPEATED if one.is_repeated else item.LABEL_OPTIONAL
        if one.message_type is not None and inner is None:
            item.type = FieldDescriptor.TYPE_BYTES
        elif inner is not None:
            item.type_name = f".places.{_describe(file, inner)}"
        if one.has_presence and inner is None:
            item.proto3_optional, item.oneof_index = True, len(message.oneof_decl)
            message.oneof_decl.add(name=f"o{number}")
    return str(message.name)


class _Walk:
    """Follows steps in all rows at once.

    `positions`: for each row where it is in the current array, negative if the row has no such place; None: all rows
    are at their own number.
    """

    def __init__(self, batch: pa.RecordBatch, unknown: _Mask) -> None:
        self._array: Any = batch.to_struct_array()
        self._positions: _Positions | None = None
        self._unknown = unknown

    def follow(self, steps: Steps) -> pa.Array:
        for step in steps:
            if isinstance(step, Member):
                self._enter(step.field)
            elif isinstance(step, Item):
                self._pick(step.index)
        return self._leaf(steps)

    def _enter(self, one: Any) -> None:
        if rivals := _rivals(one):
            present = sum(self._at(self._child(other).is_valid()).astype(np.int64) for other in (one, *rivals))
            self._unknown |= np.asarray(present) > 1
        self._array = self._child(one)
        if one.message_type is not None and not one.is_repeated and self._array.null_count:
            self._restrict(np.asarray(self._array.is_valid()))

    def _child(self, one: Any) -> pa.Array:
        return self._array.field(f"f{one.number}")

    def _at(self, mask: pa.Array) -> _Mask:
        """Return a mask over the array as one over the rows; false where a row is not in the array."""
        flags = np.asarray(mask)
        if self._positions is None:
            return flags
        return np.append(flags, False)[self._positions] & (self._positions >= 0)

    def _restrict(self, valid: _Mask) -> None:
        """Forget the rows that are at no valid place."""
        positions = self._rows()
        self._positions = np.where(np.append(valid, False)[positions], positions, -1)

    def _rows(self) -> _Positions:
        return np.arange(len(self._array)) if self._positions is None else self._positions

    def _pick(self, index: int) -> None:
        """Go to an item of each row's list."""
        rows, offsets = self._rows(), np.asarray(self._array.offsets).astype(np.int64)
        items = offsets[rows] + index
        self._positions = np.where((rows >= 0) & (items < offsets[rows + 1]), items, -1)
        self._array = self._array.values

    def _leaf(self, steps: Steps) -> pa.Array:
        found = self._array
        if self._positions is not None:
            found = found.take(pa.array(self._positions, mask=self._positions < 0))
        leaf = leaf_of(steps)
        if _is_closed(leaf):
            numbers = pa.array([value.number for value in leaf.enum_type.values], found.type)
            self._unknown |= np.asarray(pc.and_not(found.is_valid(), pc.is_in(found, numbers)))
        return found if found.type == raw_type(steps) else found.cast(raw_type(steps))
