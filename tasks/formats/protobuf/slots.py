"""Keeps what the cursors of a block find at the places of messages, and makes Arrow arrays of it."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from google.protobuf.descriptor import FieldDescriptor

from tasks.arrow import slice_text
from tasks.formats.protobuf.paths import Member, Steps, leaf_of, raw_type

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def is_plain(steps: Steps) -> bool:
    """Whether a place can be noted by cursors: fields that are sent once, none of a oneof."""
    fields = [step.field for step in steps if isinstance(step, Member)]
    plain = len(fields) == len(steps) and not any(one.is_repeated or _is_rival(one) for one in fields)
    closed = plain and fields[-1].enum_type is not None and fields[-1].enum_type.is_closed
    return plain and not closed


def _is_rival(one: Any) -> bool:
    return one.containing_oneof is not None and len(one.containing_oneof.fields) > 1


class Slot:
    """One place: for each record whether it has a value, its bits or the position of its bytes, and their length."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.leaf = leaf_of(steps)
        self._type = raw_type(steps)
        self.begin(0)

    def begin(self, count: int) -> None:
        """Make room for so many records: nothing is found yet."""
        self._there = np.zeros(count, np.bool_)
        self._values, self._lengths = np.zeros(count, np.int64), np.zeros(count, np.int64)

    def note(self, rows: Ints | slice, values: Ints | int, lengths: Ints | int = 0) -> None:
        """Note a value of these records: its bits, or where its bytes begin."""
        self._there[rows], self._values[rows], self._lengths[rows] = True, values, lengths

    def column(self, text: pa.Buffer | None, edges: Ints, proven: Mask) -> pa.Array:
        """Make the array of the proven records, null for others; `text`: of all, each of which begins at its edge."""
        there = self._there & proven
        if pa.types.is_binary(self._type):
            starts = np.where(there & (self._lengths > 0), self._values, edges[:-1])
            return slice_text(text or pa.py_buffer(b""), starts, starts + self._lengths * there, there)
        convert = _CONVERSIONS.get(self.leaf.type)
        numbers = convert(self._values) if convert else self._values.view(self._type.to_pandas_dtype())
        return pa.array(numbers, self._type, mask=None if there.all() else ~there, from_pandas=False)


def _unfold(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return signed numbers, whose sign was in the lowest bit."""
    return (numbers >> 1) ^ (0 - (numbers & 1))


def _float(bits: Ints) -> npt.NDArray[Any]:
    return bits.astype(np.uint32).view(np.float32)


# From 64 bits to what google.protobuf reads: smaller types take the low ones.
_CONVERSIONS: Final[dict[int, Callable[[Ints], npt.NDArray[Any]]]] = {
    FieldDescriptor.TYPE_INT32: lambda bits: bits.astype(np.int32),
    FieldDescriptor.TYPE_SFIXED32: lambda bits: bits.astype(np.int32),
    FieldDescriptor.TYPE_ENUM: lambda bits: bits.astype(np.int32),
    FieldDescriptor.TYPE_UINT32: lambda bits: bits.astype(np.uint32),
    FieldDescriptor.TYPE_FIXED32: lambda bits: bits.astype(np.uint32),
    FieldDescriptor.TYPE_SINT32: lambda bits: _unfold(bits.astype(np.uint32)).view(np.int32),
    FieldDescriptor.TYPE_SINT64: lambda bits: _unfold(bits.view(np.uint64)).view(np.int64),
    FieldDescriptor.TYPE_BOOL: lambda bits: bits != 0,
    FieldDescriptor.TYPE_FLOAT: _float,
}
