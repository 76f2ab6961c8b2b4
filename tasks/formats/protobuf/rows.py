"""Messages by google.protobuf: which bytes are a message, and the values of one message at a time.

Guarantee: the parser of google.protobuf alone decides whether a record is a message, by the whole schema, whatever way
its block takes. Blocks are checked many records at a time: as the items of one repeated field, which are parsed
exactly as each would be alone.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.message import DecodeError

from tasks.arrow import binary_buffers
from tasks.formats.protobuf.paths import Entry, Item, Step, Steps, raw_type

# Records and bytes that are joined at a time, then those that are parsed at a time: they stay in the processor's cache,
# and of a part that fails only a part of it is parsed again.
_JOINED: Final = (16_384, 1 << 20)
_PARSED: Final = (256, 1 << 16)
_PARSED_AGAIN: Final = 16
_SHOWN_BYTES: Final = 16
# A length as a varint of always five bytes: seven bits each, all but the last with the mark that more follow.
_SHIFTS: Final = np.arange(0, 35, 7, dtype=np.int64)
_MARKS: Final = np.array([128, 128, 128, 128, 0], np.uint8)
_ROWS_TAG: Final = 1 << 3 | 2


class MessageChecker:
    """Finds the records that are no messages of a type (Descriptor)."""

    def __init__(self, message: Any) -> None:
        self._class = message_factory.GetMessageClass(message)
        self._block = message_factory.GetMessageClass(_block_of(message))

    def check(self, values: pa.Array) -> dict[int, str]:
        """Return index → reason of each value (binary, none null) that is no message."""
        offsets, data = binary_buffers(values)
        edges, text = offsets.astype(np.int64), memoryview(data or b"")
        refused: dict[int, str] = {}
        for start, end in _split(edges, 0, len(values), *_JOINED):
            part = values.slice(start, end - start)
            for i in range(1) if len(part) == 1 else self._search(part):
                if reason := self._explain(text[edges[start + i] : edges[start + i + 1]]):
                    refused[start + i] = reason
        return refused

    def _search(self, values: pa.Array) -> Iterator[int]:
        """Find the values that have to be parsed alone."""
        offsets, data = binary_buffers(_join(values))
        edges, text = offsets.astype(np.int64), memoryview(data or b"")
        for start, end in _split(edges, 0, len(values), *_PARSED):
            if not self._is_block(text[edges[start] : edges[end]]):
                bounds = [*range(start, end, _PARSED_AGAIN), end]
                for first, last in pairwise(bounds):
                    if not self._is_block(text[edges[first] : edges[last]]):
                        yield from range(first, last)

    def _is_block(self, data: memoryview) -> bool:
        try:
            self._block.FromString(data)
        except DecodeError:
            return False
        return True

    def _explain(self, value: memoryview) -> str:
        """Return why a value is no message; empty if it is one."""
        try:
            self._class.FromString(value)
        except DecodeError as error:
            reason = str(error).rpartition(": ")[2].strip()
            return f"is no {self._class.DESCRIPTOR.name} of Protobuf ({reason}): {show_bytes(value)}"
        return ""


def show_bytes(value: memoryview) -> str:
    """Return the first bytes in hexadecimal; an ellipsis stands for the rest."""
    return f"'{value[:_SHOWN_BYTES].hex(' ')}{'…' * (len(value) > _SHOWN_BYTES)}'"


def _block_of(message: Any) -> Any:
    """Return the Descriptor of a message with the field `rows`, which repeats `message`; it is in the same pool."""
    pool, name = message.file.pool, f"kafka_sort.blocks.{message.full_name}.Block"
    try:
        return pool.FindMessageTypeByName(name)
    except KeyError:
        package = name.rpartition(".")[0]
        file = descriptor_pb2.FileDescriptorProto(
            name=f"{package}.proto", package=package, syntax="proto3", dependency=[message.file.name]
        )
        rows = file.message_type.add(name="Block").field.add(name="rows", number=_ROWS_TAG >> 3)
        rows.label, rows.type = rows.LABEL_REPEATED, rows.TYPE_MESSAGE
        rows.type_name = f".{message.full_name}"
        pool.AddSerializedFile(file.SerializeToString())
        return pool.FindMessageTypeByName(name)


def _split(offsets: npt.NDArray[np.int64], start: int, end: int, rows: int, size: int) -> Iterator[tuple[int, int]]:
    """Split the rows from `start` to `end` into parts of at most so many rows and bytes, or of one row."""
    while start < end:
        fitting = int(np.searchsorted(offsets[: end + 1], offsets[start] + size, "right")) - 1
        last = max(start + 1, min(start + rows, fitting))
        yield start, last
        start = last


def _join(values: pa.Array) -> pa.Array:
    """Put in front of each value the tag of `rows` and its length."""
    lengths = np.diff(binary_buffers(values)[0]).astype(np.int64)
    prefix = np.empty((len(lengths), 1 + len(_SHIFTS)), np.uint8)
    prefix[:, 0] = _ROWS_TAG
    prefix[:, 1:] = (lengths[:, None] >> _SHIFTS).astype(np.uint8) & 0x7F | _MARKS
    edges = np.arange(0, prefix.size + 1, prefix.shape[1], dtype=np.int32)
    heads = pa.Array.from_buffers(pa.binary(), len(lengths), [None, pa.py_buffer(edges), pa.py_buffer(prefix)])
    return pc.binary_join_element_wise(heads, values, b"")


class RowReader:
    """Reads places of messages, a message at a time; the values of a place have its `raw_type`."""

    def __init__(self, message: Any, places: Sequence[Steps]) -> None:
        self._class = message_factory.GetMessageClass(message)
        self._places = tuple(places)

    def read(self, values: pa.Array) -> list[pa.Array]:
        """Return one array for each place; null where a message does not have it. All values must be messages."""
        found: list[list[Any]] = [[] for _ in self._places]
        for value in values:
            message = self._class.FromString(value.as_py())
            for column, steps in zip(found, self._places, strict=True):
                column.append(_read_place(message, steps))
        return [pa.array(column, raw_type(steps)) for column, steps in zip(found, self._places, strict=True)]


def _read_place(message: Any, steps: Steps) -> Any:
    """Return what the steps lead to; None if the message does not have it."""
    value = message
    for step in steps:
        if not _has(value, step):
            return None
        value = _take(value, step)
    return value


def _has(value: Any, step: Step) -> bool:
    if isinstance(step, Item):
        return step.index < len(value)
    if isinstance(step, Entry):
        return step.key in value
    return not step.field.has_presence or bool(value.HasField(step.field.name))


def _take(value: Any, step: Step) -> Any:
    if isinstance(step, Item):
        return value[step.index]
    return value[step.key] if isinstance(step, Entry) else getattr(value, step.field.name)
