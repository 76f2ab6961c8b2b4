"""The type `decimal`: exact numbers of up to 38 significant digits, stored as bytes in numeric order.

A number is ±d.ddd… times 10^e, with a first digit other than zero. Its bytes are two of header, which have the sign and
e, and the digits: padded to 38, in two halves of 19, each 8 bytes big-endian. A second half that is zero is left out.
A negative number has the ten's complement of its digits, 10^38 less the digits: that is in the reverse order, and its
second half is zero where that of the digits is.
"""

import re
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.printable import excerpt
from tasks.types.base import Encoded
from tasks.types.columns import TextReader, characters, matches, trim
from tasks.types.printed_decimals import print_decimals

_DIGITS: Final = 38
_HALF: Final = 19
_LARGEST_EXPONENT: Final = 9999
_ZERO: Final = 0x8000
_MODULUS: Final = 10**_HALF

_PLAIN: Final = matches(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)")
_NUMBER: Final = re.compile(
    rb"[ \t]*(?P<sign>-?)(?:(?P<whole>[0-9]+)(?:\.(?P<part>[0-9]*))?|\.(?P<only>[0-9]+))"
    rb"(?:[eE](?P<power>[+-]?[0-9]+))?[ \t]*"
)
# Printed as plain digits; beyond, with an exponent.
_PLAIN_EXPONENTS: Final = range(-7, _DIGITS)


@dataclass(frozen=True)
class DecimalType:
    """Reads decimals from text, integers and Arrow's decimals."""

    stored: pa.DataType = field(default_factory=pa.binary)
    filler: bytes = b""
    # The decimals of a column differ in scale, by up to 20,000 digits: there is no one type for them but text.
    column: pa.DataType = field(default_factory=pa.string)
    compares_as_column: bool = False
    is_json: bool = True

    def accepts(self, kind: pa.DataType) -> bool:
        """Take integers and decimals beside text."""
        return bool(_is_decimal(kind) or pa.types.is_integer(kind) or pa.types.is_binary(kind))

    def encode(self, values: pa.Array) -> Encoded:
        """Return bytes that compare as the numbers do."""
        if _is_decimal(values.type):
            return _read(_unscaled(values), values.type.scale)
        return _read(values.cast(pa.string()).cast(pa.binary()) if pa.types.is_integer(values.type) else values)

    def show(self, stored: bytes) -> str:
        """Return the number without zeros behind its last digit: `1.1`, `-20`, `1e-9`."""
        head, digits = int.from_bytes(stored[:2], "big"), _digits_of(stored[2:])
        if head == _ZERO:
            return "0"
        if head > _ZERO:
            return _format(digits, head - _ZERO - 1 - _LARGEST_EXPONENT)
        return "-" + _format(10**_DIGITS - digits, _ZERO - 1 - head - _LARGEST_EXPONENT)

    def print_all(self, stored: pa.Array) -> pa.Array:
        """Return the same for all."""
        return print_decimals(stored, self.show)

    def to_column(self, stored: pa.Array) -> pa.Array:
        """Return the printed forms."""
        return self.print_all(stored).cast(pa.string())


def _is_decimal(kind: pa.DataType) -> bool:
    return bool(pa.types.is_decimal128(kind) or pa.types.is_decimal256(kind))


def _unscaled(values: pa.Array) -> pa.Array:
    """Return the digits of decimals as texts; Arrow writes an exponent for some scales."""
    kind = pa.decimal128 if pa.types.is_decimal128(values.type) else pa.decimal256
    whole = pa.Array.from_buffers(kind(values.type.precision, 0), len(values), values.buffers(), offset=values.offset)
    return whole.cast(pa.string()).cast(pa.binary())


def _read(texts: pa.Array, scale: int = 0) -> Encoded:
    return TextReader(
        pa.binary(), partial(_encode_all, scale=scale), _is_usual, partial(_encode_one, scale=scale)
    ).read(texts)


def _is_usual(texts: pa.Array) -> pa.Array:
    """Tell which texts have no exponent, and surely no more than 38 digits."""
    return pc.and_(_PLAIN(texts), pc.less_equal(pc.binary_length(texts), _DIGITS))


def _encode_all(texts: pa.Array, scale: int) -> pa.Array:
    """Encode texts that have no exponent; pa.ArrowInvalid if one has, or is refused."""
    trimmed = trim(texts).fill_null("0")
    negative = np.asarray(pc.starts_with(trimmed, "-"))
    dots = np.asarray(pc.find_substring(trimmed, "."))
    joined = pc.replace_substring(trimmed, ".", "", max_replacements=1)
    length = np.asarray(pc.binary_length(joined)) - negative
    # The cast below accepts digits alone, so it is enough to look at what goes before it.
    if (length < 1).any() or np.count_nonzero(characters(joined) == ord("-")) != np.count_nonzero(negative):
        raise pa.ArrowInvalid("no digits, or a minus sign among them")
    digits = pc.ascii_ltrim(joined, "-0")
    zeros = length - np.asarray(pc.binary_length(digits))
    exponent = np.where(dots < 0, length, dots - negative) - zeros - 1 - scale
    first, second = _halves(digits)
    return pc.if_else(texts.is_valid(), _pack(negative, exponent, first, second), None)


def _halves(digits: pa.Array) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64] | None]:
    """Read the digits, padded to 38, in two halves. The second is None if all of them are zero."""
    if pc.max(pc.binary_length(digits)).as_py() in {None, *range(_HALF + 1)}:
        return np.asarray(pc.ascii_rpad(digits, _HALF, "0").cast(pa.uint64())), None
    padded = pc.ascii_rpad(pc.ascii_rtrim(digits, "0"), _DIGITS, "0")
    if pc.max(pc.binary_length(padded)).as_py() > _DIGITS:
        raise pa.ArrowInvalid("more than 38 digits")
    offsets = np.arange(0, len(padded) * _DIGITS + 1, _HALF, dtype=np.int32)
    halves = pa.Array.from_buffers(pa.string(), len(offsets) - 1, [None, pa.py_buffer(offsets), padded.buffers()[2]])
    numbers = np.asarray(halves.cast(pa.uint64())).reshape(-1, 2)
    return numbers[:, 0], numbers[:, 1]


def _pack(
    negative: npt.NDArray[np.bool_],
    exponent: npt.NDArray[np.int64],
    first: npt.NDArray[np.uint64],
    second: npt.NDArray[np.uint64] | None,
) -> pa.Array:
    """Make the bytes of numbers. `exponent` says nothing where `first` is zero: so is the number."""
    is_zero = first == 0
    size = np.where(is_zero, 0, exponent + _LARGEST_EXPONENT)
    if size.min(initial=0) < 0 or size.max(initial=0) > 2 * _LARGEST_EXPONENT:
        raise pa.ArrowInvalid("an exponent beyond 9999")
    kind = [("head", ">u2"), ("first", ">u8")] + [("second", ">u8")] * (second is not None)
    rows = np.empty(len(first), np.dtype(kind))
    rows["head"] = np.where(is_zero, _ZERO, np.where(negative, _ZERO - 1 - size, _ZERO + 1 + size))
    inverted, modulus = negative & ~is_zero, np.uint64(_MODULUS)
    if second is None:
        rows["first"] = np.where(inverted, modulus - first, first)
        return _fixed_rows(rows)
    rows["first"] = np.where(inverted, modulus - first - (second != 0), first)
    rows["second"] = np.where(inverted & (second != 0), modulus - second, second)
    return _fixed_rows(rows, np.where(second != 0, 18, 10))


def _fixed_rows(rows: npt.NDArray[np.void], lengths: npt.NDArray[np.int64] | None = None) -> pa.Array:
    """Return the rows as binary. `lengths`: how many bytes of each count, if not all."""
    size = rows.dtype.itemsize
    data, offsets = rows.view(np.uint8), np.arange(0, (len(rows) + 1) * size, size, dtype=np.int32)
    if lengths is not None:
        data = data.reshape(-1, size)[np.arange(size) < lengths[:, None]]
        offsets = np.concatenate([[0], lengths.cumsum()]).astype(np.int32)
    return pa.Array.from_buffers(pa.binary(), len(rows), [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def _encode_one(text: bytes, scale: int) -> bytes:
    """Encode a text of any form; ValueError says why it is refused."""
    match = _NUMBER.fullmatch(text + b"e-%d" % scale if scale else text)
    if match is None:
        raise ValueError(f"is not a decimal: {excerpt(text)}")
    whole, part = match["whole"] or b"", match["part"] or match["only"] or b""
    counted = (whole + part).lstrip(b"0")
    digits = counted.rstrip(b"0")
    if not digits:
        return _ZERO.to_bytes(2, "big") + bytes(8)
    if len(digits) > _DIGITS:
        raise ValueError(f"has more than {_DIGITS} digits: {excerpt(match[0])}")
    exponent = len(counted) - len(part) - 1 + _power(match["power"] or b"0")
    if abs(exponent) > _LARGEST_EXPONENT:
        raise ValueError(f"overflows a decimal: {excerpt(match[0])}")
    return _join(int(digits.ljust(_DIGITS, b"0")), exponent, negative=bool(match["sign"]))


def _power(text: bytes) -> int:
    """Read an exponent; Python refuses to read thousands of digits."""
    digits = text.lstrip(b"+-").lstrip(b"0") or b"0"
    size = int(digits) if len(digits) < _HALF else _MODULUS
    return -size if text.startswith(b"-") else size


def _join(digits: int, exponent: int, *, negative: bool) -> bytes:
    size = exponent + _LARGEST_EXPONENT
    head, shown = (_ZERO - 1 - size, 10**_DIGITS - digits) if negative else (_ZERO + 1 + size, digits)
    first, second = divmod(shown, _MODULUS)
    return head.to_bytes(2, "big") + first.to_bytes(8, "big") + (second.to_bytes(8, "big") if second else b"")


def _digits_of(halves: bytes) -> int:
    return int.from_bytes(halves[:8], "big") * _MODULUS + int.from_bytes(halves[8:], "big")


def _format(number: int, exponent: int) -> str:
    digits = str(number).rstrip("0")
    if exponent not in _PLAIN_EXPONENTS:
        return f"{digits[0]}{'.' * (len(digits) > 1)}{digits[1:]}e{exponent}"
    if exponent < 0:
        return f"0.{'0' * (-exponent - 1)}{digits}"
    whole, part = digits[: exponent + 1].ljust(exponent + 1, "0"), digits[exponent + 1 :]
    return f"{whole}.{part}" if part else whole
