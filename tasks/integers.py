"""Reads 64-bit integers from text, a column at a time.

Guarantee: the outcome of an entry depends on its own bytes only. An integer is an optional minus sign and decimal
digits, or `0x` and 1 to 16 hexadecimal digits, which are taken by their bits; blanks and tabs around it are permitted.
"""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute

from tasks.printable import excerpt

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


def read_integers(texts: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    """Turn binary without nulls into int64, null where refused; return that, and index → reason of each refusal."""
    try:
        return _cast(texts), {}
    except pa.ArrowInvalid:
        fits = pa.compute.match_substring_regex(texts, _INTEGER)
        refused = np.flatnonzero(~np.asarray(fits)).tolist()
        return _cast(pa.compute.if_else(fits, texts, None)), {i: _explain(texts[i].as_py()) for i in refused}


def _cast(texts: pa.Array) -> pa.Array:
    return pa.compute.ascii_trim(texts.cast(pa.string()), " \t").cast(pa.int64())


def _explain(text: bytes) -> str:
    what = "overflows 64 bits" if _OVERFLOWING.fullmatch(text) else "is not an integer"
    return f"{what}: {excerpt(text)}"
