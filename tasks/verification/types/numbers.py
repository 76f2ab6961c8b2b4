"""The types `int`, `decimal`, `float` and `bool`."""

import math
import re
import struct
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from tasks.verification.types.base import (
    HIGHEST,
    INVERT,
    LOWEST,
    Encoded,
    Keys,
    RefusedError,
    encode_numbers,
    scatter,
)

_INTEGER = re.compile(rb"[ \t]*(?:(-?)0*([0-9]{1,19})|0[xX]([0-9a-fA-F]{1,16}))[ \t]*")
_DIGITS = b"0123456789-"
_NUMBER = re.compile(rb"[ \t]*(-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))(?:[eE]([+-]?)0*([0-9]+))?[ \t]*")
_NO_NUMBER = re.compile(rb"[ \t]*(-?)(?:(nan)|inf|infinity)[ \t]*", re.IGNORECASE)
_MOST_DIGITS = 38
_LARGEST_EXPONENT = 9999
_BOOLS = {b"true": b"\1", b"1": b"\1", b"false": b"\0", b"0": b"\0"}
# Behind the digits of a decimal: less than each of them.
_END = b"\0"


class IntegerType:
    """64-bit integers: decimal digits, or hexadecimal ones by their bits."""

    is_total = False

    def encode(self, values: Sequence[Any]) -> Encoded:
        """Encode text or Python's integers; by one call for all if none is refused."""
        try:
            return _encode_integers(values), []
        except ValueError:
            refused = [i for i, value in enumerate(values) if not _is_integer(value)]
            lost = set(refused)
            good = [i for i in range(len(values)) if i not in lost]
            return scatter(len(values), good, _encode_integers([values[i] for i in good]), b""), refused


def _encode_integers(values: Sequence[Any]) -> Keys:
    try:
        plain = not b"".join(values).translate(None, _DIGITS)
    except TypeError:
        # They are not text.
        plain = False
    read: Callable[[Any], int] = int if plain else read_integer
    try:
        numbers = np.array(list(map(read, values)), np.int64)
    except (ValueError, OverflowError):
        # A number may have more digits than int() takes: zeros in front of it.
        numbers = np.array(list(map(read_integer, values)), np.int64)
    return encode_numbers(numbers)


def _is_integer(value: Any) -> bool:
    # This recognizes most integers at a tenth of the time.
    if isinstance(value, bytes) and value.isdigit() and len(value) < len(str(HIGHEST)):
        return True
    try:
        read_integer(value)
    except RefusedError:
        return False
    return True


def read_integer(value: Any) -> int:
    """Read a 64-bit integer: no plus, no underscores; hexadecimal by its bits."""
    number = _read_integer_text(value) if isinstance(value, bytes) else read_int(value)
    if not LOWEST <= number <= HIGHEST:
        raise RefusedError
    return number


def read_int(value: Any) -> int:
    """Return an integer of Python's, of any size."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise RefusedError
    return value


def _read_integer_text(value: bytes) -> int:
    match = _INTEGER.fullmatch(value)
    if match is None:
        raise RefusedError
    sign, digits, hexadecimal = match.groups()
    return int((sign or b"") + digits) if digits else _from_bits(int(hexadecimal, 16))


def _from_bits(bits: int) -> int:
    return bits - 2**64 if bits > HIGHEST else bits


def encode_decimal(value: Any) -> bytes:
    """Encode a number exactly: sign, scientific exponent, digits without zeros behind; negative ones inverted."""
    sign, digits, exponent = _read_decimal(value).as_tuple()
    if not isinstance(exponent, int):
        raise RefusedError
    text = "".join(map(str, digits)).lstrip("0")
    if not text:
        return b"\1"
    scientific, text = exponent + len(text) - 1, text.rstrip("0")
    if len(text) > _MOST_DIGITS or abs(scientific) > _LARGEST_EXPONENT:
        raise RefusedError
    encoded = struct.pack(">H", scientific + _LARGEST_EXPONENT) + text.encode() + _END
    return b"\0" + encoded.translate(INVERT) if sign else b"\2" + encoded


def _read_decimal(value: Any) -> Decimal:
    if not isinstance(value, bytes):
        return value if isinstance(value, Decimal) else Decimal(read_int(value))
    match = _NUMBER.fullmatch(value)
    if match is None:
        raise RefusedError
    number, sign, exponent = match.groups()
    # A larger exponent is of no use to more digits than a record holds, and Python's decimal does not take it.
    if exponent is not None and len(exponent) > 10:
        number, exponent = (number, b"9" * 10) if number.strip(b"-0.") else (b"0", b"0")
    return Decimal((number + b"e" + sign + exponent if exponent else number).decode())


def encode_float(value: Any) -> bytes:
    """Encode a double by its bits; all NaN are one, above infinity, and both zeros are one."""
    number = _read_float(value)
    if math.isnan(number):
        return b"\xff" * 8
    # Adding zero makes the negative zero positive.
    packed = struct.pack(">d", number + 0.0)
    return packed.translate(INVERT) if packed[0] & 0x80 else bytes([packed[0] | 0x80]) + packed[1:]


def _read_float(value: Any) -> float:
    if isinstance(value, float):
        return value
    if not isinstance(value, bytes):
        raise RefusedError
    if special := _NO_NUMBER.fullmatch(value):
        return math.nan if special[2] else -math.inf if special[1] else math.inf
    if not _NUMBER.fullmatch(value):
        raise RefusedError
    number = float(value.strip(b" \t"))
    if math.isinf(number):
        raise RefusedError
    return number


def encode_bool(value: Any) -> bytes:
    """Encode false and true."""
    if isinstance(value, bool):
        return b"\1" if value else b"\0"
    encoded = _BOOLS.get(value.strip(b" \t").lower()) if isinstance(value, bytes) else None
    if encoded is None:
        raise RefusedError
    return encoded
