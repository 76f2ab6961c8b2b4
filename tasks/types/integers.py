"""The type `int`: signed 64-bit integers, stored as they are.

Guarantee: the outcome of an entry depends on its own bytes only. An integer is an optional minus sign and decimal
digits, or `0x` and 1 to 16 hexadecimal digits, which are taken by their bits; blanks and tabs around it are permitted.
"""

import re
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute

from tasks.printable import excerpt
from tasks.types.base import Encoded

_LARGEST = str(2**63 - 1)
_HEXADECIMAL = "0[xX][0-9a-fA-F]"
_OVERFLOWING = re.compile(rb"[ \t]*(?:-?[0-9]+|0[xX][0-9a-fA-F]+)[ \t]*")


def _digits_up_to(largest: str) -> str:
    """Return a pattern for the numbers with as many digits as `largest` that do not exceed it."""
    below = [f"{largest[:i]}[0-{int(d) - 1}][0-9]{{{len(largest) - i - 1}}}" for i, d in enumerate(largest) if d > "0"]
    return "|".join([*below, largest])


_INTEGER = (
    rf"\A[ \t]*(?:-?0*(?:[0-9]{{1,{len(_LARGEST) - 1}}}|{_digits_up_to(_LARGEST)})|-0*{2**63}|{_HEXADECIMAL}{{1,16}})"
    r"[ \t]*\z"
)


@dataclass(frozen=True)
class IntegerType:
    """Reads integers from text; columns that are integers already stay as they are."""

    stored: pa.DataType = field(default_factory=pa.int64)
    filler: int = 0

    def accepts(self, kind: pa.DataType) -> bool:
        """Take int64 beside text."""
        return kind in {pa.binary(), pa.int64()}

    def encode(self, values: pa.Array) -> Encoded:
        """Return int64."""
        return (values, {}) if pa.types.is_int64(values.type) else read_integers(values)

    def show(self, stored: int) -> int:
        """Return the number."""
        return stored


def read_integers(texts: pa.Array) -> Encoded:
    """Turn binary into int64, null where null or refused; return that, and index → reason of each refusal."""
    try:
        return _cast(texts), {}
    except pa.ArrowInvalid:
        fits = pa.compute.match_substring_regex(texts, _INTEGER).fill_null(True)
        refused = np.flatnonzero(~np.asarray(fits)).tolist()
        return _cast(pa.compute.if_else(fits, texts, None)), {i: _explain(texts[i].as_py()) for i in refused}


def _cast(texts: pa.Array) -> pa.Array:
    return pa.compute.ascii_trim(texts.cast(pa.string()), " \t").cast(pa.int64())


def _explain(text: bytes) -> str:
    what = "overflows 64 bits" if _OVERFLOWING.fullmatch(text) else "is not an integer"
    return f"{what}: {excerpt(text)}"
