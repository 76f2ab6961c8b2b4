"""Prints stored decimals: those with a plain form side by side, by their exponents; all others one by one.

The form is that of `DecimalType.show`; `tasks/types/decimals.py` says how decimals are stored.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.arrow import binary_buffers

_Bytes = npt.NDArray[np.uint8]
_Rows = npt.NDArray[np.int64]

_HALF: Final = 19
_MODULUS: Final = np.uint64(10**_HALF)
_ZERO: Final = 0x8000
_LARGEST_EXPONENT: Final = 9999
# A header; and the second half of the digits, if it is not zero, behind the first one.
_HEAD_BYTES, _HALF_BYTES = 2, 8
_PLAIN_EXPONENTS: Final = range(-7, 2 * _HALF)


def print_decimals(stored: pa.Array, show: Callable[[bytes], str]) -> pa.Array:
    """Return the printed forms (binary) of stored decimals, null where null; `show` prints one."""
    offsets, data = binary_buffers(stored)
    rows = np.flatnonzero(np.asarray(stored.is_valid()))
    starts, buffer = offsets[:-1].astype(np.int64)[rows], np.frombuffer(data or b"", np.uint8)
    head = _read_numbers(buffer, starts, _HEAD_BYTES).astype(np.int32)
    exponent = np.where(head == _ZERO, 0, np.abs(head - _ZERO) - 1 - _LARGEST_EXPONENT).astype(np.int16)
    # Decimals of one exponent are neighbours in this order.
    order = np.argsort(exponent, kind="stable")
    rows, starts, exponent, negative = rows[order], starts[order], exponent[order], (head < _ZERO)[order]
    is_long = np.diff(offsets)[rows] > _HEAD_BYTES + _HALF_BYTES
    digits = _read_digits(buffer, starts + _HEAD_BYTES, is_long, negative)
    edges = [0, *(np.flatnonzero(np.diff(exponent)) + 1).tolist(), len(rows)]
    printed = [pa.array([], pa.binary())]
    for first, end in pairwise(edges) if len(rows) else ():
        part = slice(first, end)
        if exponent[first] in _PLAIN_EXPONENTS:
            printed.append(_print_plain(digits[part], int(exponent[first]), negative[part]))
        else:
            others = stored.take(pa.array(rows[part])).to_pylist()
            printed.append(pa.array([show(item).encode() for item in others], pa.binary()))
    places = np.full(len(stored), -1)
    places[rows] = np.arange(len(rows))
    return pa.concat_arrays(printed).take(pa.array(places, mask=places < 0))


def _read_numbers(buffer: _Bytes, starts: _Rows, size: int) -> npt.NDArray[np.uint64]:
    """Read big-endian numbers of so many bytes."""
    numbers: npt.NDArray[np.uint64] = buffer[starts[:, None] + np.arange(size)].reshape(-1).view(f">u{size}")
    return numbers.astype(np.uint64)


def _read_digits(
    buffer: _Bytes, starts: _Rows, is_long: npt.NDArray[np.bool_], negative: npt.NDArray[np.bool_]
) -> pa.Array:
    """Return the digits of numbers (binary), 19 of each; or 38, if one has a second half."""
    first = _read_numbers(buffer, starts, _HALF_BYTES)
    if not is_long.any():
        return _pad(np.where(negative, _MODULUS - first, first))
    second = np.zeros_like(first)
    second[is_long] = _read_numbers(buffer, starts[is_long] + _HALF_BYTES, _HALF_BYTES)
    first = np.where(negative, _MODULUS - first - is_long, first)
    second = np.where(negative & is_long, _MODULUS - second, second)
    return pc.binary_join_element_wise(_pad(first), _pad(second), b"")


def _pad(numbers: npt.NDArray[np.uint64]) -> pa.Array:
    return pc.ascii_lpad(pa.array(numbers).cast(pa.string()), _HALF, "0").cast(pa.binary())


def _print_plain(digits: pa.Array, exponent: int, negative: npt.NDArray[np.bool_]) -> pa.Array:
    """Print numbers ±d.ddd… times 10 to this power, without zeros at the end."""
    sign = pc.if_else(pa.array(negative), b"-", b"") if negative.any() else b""
    if exponent < 0:
        return pc.binary_join_element_wise(sign, b"0." + b"0" * (-exponent - 1), _trim(digits), b"")
    whole, part = pc.binary_slice(digits, 0, exponent + 1), _trim(pc.binary_slice(digits, exponent + 1, 2 * _HALF))
    zeros = b"0" * (exponent + 1 - _HALF) if pc.max(pc.binary_length(digits)).as_py() == _HALF else b""
    point = pc.if_else(pc.equal(part, b""), b"", b".")
    return pc.binary_join_element_wise(sign, whole, zeros, point, part, b"")


def _trim(digits: pa.Array) -> pa.Array:
    return pc.ascii_rtrim(digits.cast(pa.string()), "0").cast(pa.binary())
