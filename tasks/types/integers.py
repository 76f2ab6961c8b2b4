"""The type `int`: signed 64-bit integers, stored as they are.

Guarantee: the outcome of an entry depends on its own bytes only. An integer is an optional minus sign and decimal
digits, or `0x` and 1 to 16 hexadecimal digits, which are taken by their bits; blanks and tabs around it are permitted.
"""

import re
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.printable import excerpt
from tasks.types.base import Encoded
from tasks.types.columns import TextReader, matches

LARGEST = 2**63 - 1
_HEXADECIMAL = "0[xX][0-9a-fA-F]"
_OVERFLOWING = re.compile(rb"[ \t]*(?:-?[0-9]+|0[xX][0-9a-fA-F]+)[ \t]*")


def _digits_up_to(largest: str) -> str:
    """Return a pattern for the numbers with as many digits as `largest` that do not exceed it."""
    below = [f"{largest[:i]}[0-{int(d) - 1}][0-9]{{{len(largest) - i - 1}}}" for i, d in enumerate(largest) if d > "0"]
    return "|".join([*below, largest])


_DECIMAL = rf"-?0*(?:[0-9]{{1,{len(str(LARGEST)) - 1}}}|{_digits_up_to(str(LARGEST))})|-0*{LARGEST + 1}"


@dataclass(frozen=True)
class IntegerType:
    """Reads integers from text; columns that are integers already stay as they are."""

    stored: pa.DataType = field(default_factory=pa.int64)
    filler: int = 0
    column: pa.DataType = field(default_factory=pa.int64)
    compares_as_column: bool = True
    is_json: bool = True

    def accepts(self, kind: pa.DataType) -> bool:
        """Take integers of any width beside text."""
        return bool(pa.types.is_integer(kind) or pa.types.is_binary(kind))

    def encode(self, values: pa.Array) -> Encoded:
        """Return int64."""
        if pa.types.is_int64(values.type):
            return values, {}
        return _narrow(values) if pa.types.is_integer(values.type) else read_integers(values)

    def show(self, stored: int) -> int:
        """Return the number."""
        return stored

    def print_all(self, stored: pa.Array) -> pa.Array:
        """Return decimal digits."""
        return stored.cast(pa.string()).cast(pa.binary())

    def to_column(self, stored: pa.Array) -> pa.Array:
        """Return the numbers."""
        return stored


def read_integers(texts: pa.Array) -> Encoded:
    """Turn binary into int64, null where null or refused; return that, and index → reason of each refusal."""
    return _READER.read(texts)


def _narrow(numbers: pa.Array) -> Encoded:
    try:
        return numbers.cast(pa.int64()), {}
    except pa.ArrowInvalid:
        fits = pc.less_equal(numbers, pa.scalar(LARGEST, pa.uint64()))
        beyond = np.flatnonzero(~np.asarray(fits.fill_null(True))).tolist()
        reasons = {i: f"overflows 64 bits: {excerpt(b'%d' % numbers[i].as_py())}" for i in beyond}
        return pc.if_else(fits, numbers, None).cast(pa.int64()), reasons


def _cast(texts: pa.Array) -> pa.Array:
    return pc.ascii_trim(texts.cast(pa.string()), " \t").cast(pa.int64())


def _refuse(text: bytes) -> int:
    what = "overflows 64 bits" if _OVERFLOWING.fullmatch(text) else "is not an integer"
    raise ValueError(f"{what}: {excerpt(text)}")


_READER = TextReader(pa.int64(), _cast, matches(rf"{_DECIMAL}|{_HEXADECIMAL}{{1,16}}"), _refuse)
