"""The protocol of the types, and bytes that compare as numbers and as texts do (memcomparable encoding).

A type takes the text form of its values (bytes), and the Python values that a format's reader may have in its place.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Keys = list[bytes]
# One key a value, empty where it is refused; and the indexes of those that are.
Encoded = tuple[Keys, list[int]]

LOWEST, HIGHEST = -(2**63), 2**63 - 1
INVERT = bytes(255 - byte for byte in range(256))
_SIGN = np.uint64(1 << 63)


class RefusedError(ValueError):
    """The value is none of the type."""


class KeyType(Protocol):
    """One type. The outcome of a value depends on nothing but the value."""

    @property
    def is_total(self) -> bool:
        """Whether it refuses no text form."""

    def encode(self, values: Sequence[Any]) -> Encoded:
        """Encode values, none of which is None, into bytes of which none begins with another."""


class EachType:
    """A type that encodes values one by one. `encode_one` raises RefusedError."""

    is_total = False

    def __init__(self, encode_one: Callable[[Any], bytes]) -> None:
        self._encode_one = encode_one

    def encode(self, values: Sequence[Any]) -> Encoded:
        """Encode values one by one."""
        try:
            return list(map(self._encode_one, values)), []
        except RefusedError:
            refused = [i for i, value in enumerate(values) if self._refuses(value)]
            lost = set(refused)
            return [b"" if i in lost else self._encode_one(value) for i, value in enumerate(values)], refused

    def _refuses(self, value: Any) -> bool:
        try:
            self._encode_one(value)
        except RefusedError:
            return True
        return False


def scatter(count: int, indexes: Iterable[int], items: Iterable[Any], filler: Any) -> list[Any]:
    """Return a list of `count`, with the items at their indexes."""
    whole = [filler] * count
    for index, item in zip(indexes, items, strict=True):
        whole[index] = item
    return whole


def encode_number(number: int) -> bytes:
    """Return 8 bytes, big-endian with the sign bit flipped, that compare as numbers. RefusedError beyond 64 bits."""
    if not LOWEST <= number <= HIGHEST:
        raise RefusedError
    return struct.pack(">Q", number - LOWEST)


def encode_numbers(numbers: npt.NDArray[np.int64]) -> Keys:
    """Return the same for many."""
    encoded: Keys = (numbers.view(np.uint64) ^ _SIGN).astype(">u8").view("V8").tolist()
    return encoded


def encode_texts(texts: Sequence[bytes]) -> Keys:
    """Return bytes that compare as the texts do, even with another column behind them."""
    if b"\0" in b"".join(texts):
        texts = [text.replace(b"\0", b"\0\xff") for text in texts]
    return [text + b"\0\0" for text in texts]
