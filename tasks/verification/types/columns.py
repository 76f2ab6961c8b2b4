"""Types that encode whole Arrow columns at once, into the same bytes as one by one.

A value that these do not take for sure is odd: it is left to the type itself, which encodes or refuses it.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.arrow import binary_buffers
from tasks.verification.terms import Kind

Mask = npt.NDArray[np.bool_]
# The encoded column, and which of its values are odd; the keys of those mean nothing.
EncodedColumn = tuple[pa.Array, Mask]

_MINUS, _ZERO = ord("-"), ord("0")
# The number of digits that always fit 64 bits.
_MOST_DIGITS = 18
_SIGN = np.uint64(1 << 63)
_END = pa.scalar(b"\0\0", pa.binary())
_EMPTY = pa.scalar(b"", pa.binary())


def encode_integers(numbers: npt.NDArray[np.int64]) -> pa.Array:
    """Return numbers as 8 bytes that compare as they do."""
    data = (numbers.view(np.uint64) ^ _SIGN).astype(">u8")
    edges = np.arange(0, data.nbytes + 1, data.itemsize, dtype=np.int32)
    return pa.Array.from_buffers(pa.binary(), len(numbers), [None, pa.py_buffer(edges), pa.py_buffer(data)])


def encode_integer_texts(texts: pa.Array) -> EncodedColumn:
    """Encode decimal integers of up to 18 digits."""
    edges, buffer = binary_buffers(texts)
    if buffer is None:
        return texts, np.zeros(0, np.bool_)
    data = np.frombuffer(buffer, np.uint8)
    # Behind the last text there may be nothing to look at.
    data = np.append(data, np.uint8(0)) if edges[-1] >= len(data) else data
    starts, ends = edges[:-1].astype(np.int64), edges[1:].astype(np.int64)
    is_negative = (data[starts] == _MINUS) & (ends > starts)
    starts = starts + is_negative
    lengths = ends - starts
    numbers, odd = _read_digits(data, starts, lengths)
    return encode_integers(np.where(is_negative, -numbers, numbers)), odd


def _read_digits(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], Mask]:
    """Read the texts digit by digit, side by side."""
    numbers = np.zeros(len(starts), np.int64)
    odd = (lengths < 1) | (lengths > _MOST_DIGITS)
    lengths = np.where(odd, 0, lengths)
    least = int(lengths.min(initial=_MOST_DIGITS))
    for i in range(int(lengths.max(initial=0))):
        # All have the first digits, and some the others.
        rows = np.flatnonzero(lengths > i) if i >= least else slice(None)
        digits = data[starts[rows] + i] - np.uint8(_ZERO)
        odd[rows] |= digits > 9
        numbers[rows] = numbers[rows] * 10 + digits
    return numbers, odd


def encode_texts(texts: pa.Array) -> EncodedColumn:
    """Encode texts without a NUL byte."""
    edges, buffer = binary_buffers(texts)
    odd = np.zeros(len(texts), np.bool_)
    if buffer is not None and not np.frombuffer(buffer, np.uint8)[edges[0] : edges[-1]].all():
        odd = np.asarray(pc.match_substring(texts, b"\0"))
    return pc.binary_join_element_wise(texts, _EMPTY, _END), odd


_ENCODERS: Final[dict[Kind, Callable[[pa.Array], EncodedColumn]]] = {
    Kind("int"): encode_integer_texts,
    Kind("text"): encode_texts,
}


def find_encoder(kind: Kind) -> Callable[[pa.Array], EncodedColumn] | None:
    """Return the encoder of the texts of a type; None if the type has none."""
    return _ENCODERS.get(kind)
