"""The leaves of a schema, where keys are: the Arrow type of each, and how a column is made of what was found."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.arrow import slice_text
from tasks.formats.avro.cursors import PAD, Block, Ints, Mask
from tasks.formats.avro.schema import Enum, Fixed, Primitive, Type

_UNITS = {"millis": "ms", "micros": "us", "nanos": "ns"}
_MOST_DIGITS = 38
_WORD = 8


@dataclass(frozen=True)
class Leaf:
    """A type of the schema that may be a key. `arrow`: None if it cannot be one, as a record."""

    type: Type
    arrow: pa.DataType | None

    @property
    def name(self) -> str:
        """The Avro type as a person knows it."""
        return (isinstance(self.type, Primitive | Fixed) and self.type.logical) or self.type.kind

    def column(self, block: Block, values: Ints, lengths: Ints, there: Mask) -> pa.Array:
        """Make a column of what was found; null where `there` is false.

        It has the type `arrow`, or is text if there are decimals of more than 38 digits.
        """
        if isinstance(self.type, Enum):
            symbols = pa.array([symbol.encode() for symbol in self.type.symbols], pa.binary())
            return symbols.take(_masked(values, there))
        if pa.types.is_decimal(self.arrow):
            return _decimals(block, values, lengths, there, self.arrow)
        if pa.types.is_binary(self.arrow) or pa.types.is_fixed_size_binary(self.arrow):
            return _slices(block, values, lengths, there).cast(self.arrow)
        return _masked(self._numbers(values), there).view(self.arrow)

    def _numbers(self, values: Ints) -> npt.NDArray[Any]:
        """Return numbers as NumPy has them."""
        if self.arrow == pa.bool_():
            return values.astype(np.bool_)
        if self.arrow == pa.date32():
            # A day outside of 32 bits is none of a time either.
            return np.clip(values, -(2**31), 2**31 - 1).astype(np.int32)
        return values.view(np.float64) if self.arrow == pa.float64() else values


def leaf_of(kind: Type) -> Leaf:
    """Return the leaf that a type is."""
    return Leaf(kind, _arrow_type(kind))


def _arrow_type(kind: Type) -> pa.DataType | None:
    logical = kind.logical if isinstance(kind, Primitive | Fixed) else ""
    if isinstance(kind, Primitive | Fixed) and logical == "decimal":
        return pa.decimal128(_MOST_DIGITS, kind.scale) if kind.scale <= _MOST_DIGITS else None
    if logical == "date":
        return pa.date32()
    if "timestamp" in logical:
        return pa.timestamp(_UNITS[logical.rpartition("-")[2]], "UTC")
    if isinstance(kind, Fixed):
        return pa.binary(kind.size) if logical == "uuid" else pa.binary()
    simple = {"boolean": pa.bool_(), "float": pa.float64(), "double": pa.float64()}
    simple |= dict.fromkeys(("int", "long"), pa.int64()) | dict.fromkeys(("string", "bytes", "enum"), pa.binary())
    return simple.get(kind.kind)


def _masked(values: npt.NDArray[Any], there: Mask) -> pa.Array:
    return pa.array(values, mask=None if there.all() else ~there, from_pandas=False)


def _slices(block: Block, starts: Ints, lengths: Ints, there: Mask) -> pa.Array:
    """Return the bytes that lie within each record."""
    starts, ends = (np.where(there, at, block.starts) for at in (starts, starts + lengths))
    return slice_text(pa.py_buffer(block.data), starts, ends, there)


def _decimals(block: Block, starts: Ints, lengths: Ints, there: Mask, kind: pa.DataType) -> pa.Array:
    """Return big-endian numbers in two's complement as decimals; as text if one has more than 38 digits."""
    starts, lengths = np.where(there, starts, PAD), np.where(there, lengths, 0)
    low, high = _integers(block, starts, lengths)
    fits = _fit_digits(low, high) & ~_overflow(block, starts, lengths, high)
    pairs = np.column_stack([low, high])
    mask = pc.is_valid(_masked(low, there & fits)).buffers()[1]
    made = pa.Array.from_buffers(kind, len(low), [mask, pa.py_buffer(pairs)])
    large = np.flatnonzero(there & ~fits).tolist()
    if not large:
        return made
    texts = made.cast(pa.string()).cast(pa.binary()).to_pylist()
    for row in large:
        digits = block.data[starts[row] : starts[row] + lengths[row]].tobytes()
        # Python writes an integer of more than 4300 digits only as a decimal.
        texts[row] = f"{Decimal(int.from_bytes(digits, 'big', signed=True))}e-{kind.scale}".encode()
    return pa.array(texts, pa.binary())


def _integers(block: Block, starts: Ints, lengths: Ints) -> tuple[Ints, Ints]:
    """Return the low and the high 64 bits of numbers, of which longer ones lose the rest."""
    ends = starts + lengths
    low = block.words[np.maximum(ends - _WORD, 0)].byteswap().view(np.int64)
    high = block.words[np.maximum(ends - 2 * _WORD, 0)].byteswap().view(np.int64)
    # What is in front of the number goes, and its sign takes the place.
    low = np.where(lengths == 0, 0, _extend(low, lengths))
    return low, np.where(lengths <= _WORD, low >> 63, _extend(high, lengths - _WORD))


def _extend(word: Ints, lengths: Ints) -> Ints:
    shift = 8 * (_WORD - np.clip(lengths, 1, _WORD))
    return (word << shift) >> shift


def _fit_digits(low: Ints, high: Ints) -> Mask:
    """Whether numbers are within 38 digits."""
    most = 10**_MOST_DIGITS - 1
    negative = high < 0
    high, low = np.where(negative, ~high, high), np.where(negative, ~low, low).view(np.uint64)
    top, rest = most >> 64, np.uint64(most & (2**64 - 1))
    # For negative numbers this is one less than their distance from 0, so the last one may count as too large.
    fits: Mask = (high < top) | ((high == top) & (low < rest))
    return fits


def _overflow(block: Block, starts: Ints, lengths: Ints, high: Ints) -> Mask:
    """Whether numbers of more than 16 bytes need them."""
    over = np.zeros(len(starts), np.bool_)
    sign = (high >> 63).astype(np.uint8)
    for i in range(int(lengths.max(initial=0)) - 2 * _WORD):
        longer = np.flatnonzero(lengths - 2 * _WORD > i)
        over[longer] |= block.data[starts[longer] + i] != sign[longer]
    return over


def as_text(column: pa.Array) -> pa.Array:
    """Return a column in the text form of its type, as binary: where one path has values of several Arrow types."""
    if pa.types.is_fixed_size_binary(column.type):
        hexadecimal = [None if value is None else value.hex() for value in column.to_pylist()]
        return pa.array(hexadecimal, pa.string()).cast(pa.binary())
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s")).cast(pa.timestamp("s", "UTC"))
    if pa.types.is_binary(column.type):
        return column
    return column.cast(pa.string()).cast(pa.binary())
