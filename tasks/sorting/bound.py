"""Keys as bytes that compare as the order does, and bounds of key ranges, short enough for a ledger.

The encoding is memcomparable: a flag is a byte; an integer is 8 bytes,
big-endian, with the sign bit flipped; binary has 0x00 escaped and
a terminator; the bytes of a descending column are inverted.
"""

import base64
from dataclasses import dataclass
from typing import Any, Final, Self

from tasks.manifests import Key
from tasks.sorting.order import Order, Term

_KEPT_BYTES: Final = 64
# The mark of a bound that was cut; it is not in base64's alphabet.
_CUT: Final = "~"
_INVERT: Final = bytes(255 - byte for byte in range(256))
_SIGN: Final = 1 << 63


def encode_key(order: Order, key: Key) -> bytes:
    """Encode the key of a row as one sequence of bytes."""
    parts = ((term, _encode(term, value)) for term, value in zip(order.terms, key, strict=True))
    return b"".join(part.translate(_INVERT) if term.descending else part for term, part in parts)


def _encode(term: Term, value: Any) -> bytes:
    if term.is_flag:
        return bytes([value])
    if isinstance(value, int):
        return (value + _SIGN).to_bytes(8, "big")
    return bytes(value).replace(b"\0", b"\0\xff") + b"\0\0"


@dataclass(frozen=True)
class KeyBound:
    """An encoded key, or its first 64 bytes. A bound that was cut never excludes a key that begins with it."""

    prefix: bytes
    cut: bool = False

    @classmethod
    def of(cls, encoded: bytes) -> Self:
        """Make the bound of an encoded key."""
        return cls(encoded[:_KEPT_BYTES], len(encoded) > _KEPT_BYTES)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the bound that `str` wrote; ValueError if it did not."""
        return cls(base64.b64decode(text.removesuffix(_CUT), validate=True), text.endswith(_CUT))

    def __str__(self) -> str:
        return base64.b64encode(self.prefix).decode() + _CUT * self.cut

    def is_before(self, encoded: bytes) -> bool:
        """Whether the bound's key certainly comes before this one."""
        return self.prefix < (encoded[: len(self.prefix)] if self.cut else encoded)

    def is_behind(self, encoded: bytes) -> bool:
        """Whether the bound's key certainly comes behind this one."""
        return self.prefix > (encoded[: len(self.prefix)] if self.cut else encoded)
