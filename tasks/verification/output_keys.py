"""The record keys that `--output-key sort` gives, by code of its own: printed forms of sort keys, or JSON arrays."""

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from tasks.verification.keys import Encoded
from tasks.verification.terms import KeyColumn, SortKey
from tasks.verification.types.base import INVERT, LOWEST

OutputKeys = list[bytes | None]

# Formats of record keys that Kafka's own serializers of integers write.
_INTEGERS: Final = frozenset({"int32", "int64"})
_JSON: Final = frozenset({"int", "decimal", "bool"})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST_EXPONENT: Final = 9999
_PLAIN: Final = range(-7, 38)


def make_output_keys(sort: SortKey, encoded: Encoded, own: Sequence[bytes | None], key_format: str) -> OutputKeys:
    """Return the record keys of an output. `own`: those of the source, of the records that can be sorted."""
    first = sort[0]
    if len(sort) == 1:
        is_own = first.column.field == "@key" and not first.column.path
        if is_own and (key_format in _INTEGERS or (key_format == "text" and first.kind.name == "text")):
            return list(own)
        return _print(first, encoded)
    columns = [_quote(key, _print(key, encoded)) for key in sort]
    return [b"[" + b",".join(items) + b"]" for items in zip(*columns, strict=True)]


def _print(key: KeyColumn, encoded: Encoded) -> OutputKeys:
    if key.kind.name == "text":
        return [text.encode() if isinstance(text, str) else text for text in encoded.values[key.column]]
    show = _PRINTERS[key.kind.name]
    return [None if item is None else show(item).encode() for item in encoded.columns[key.column]]


def _quote(key: KeyColumn, items: OutputKeys) -> list[bytes]:
    if key.kind.name in _JSON:
        return [b"null" if item is None else item for item in items]
    return [b"null" if item is None else _quote_text(item) for item in items]


def _quote_text(text: bytes) -> bytes:
    return json.dumps(text.decode(errors="surrogateescape"), ensure_ascii=False).encode(errors="backslashreplace")


def _read_number(key: bytes) -> int:
    return int.from_bytes(key, "big") + LOWEST


def _show_time(key: bytes) -> str:
    number = _read_number(key)
    moment = _EPOCH + timedelta(microseconds=number // 10**9 * 10**6)
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + f".{number % 10**9:09}".rstrip("0").rstrip(".") + "Z"


def _show_float(key: bytes) -> str:
    if key == b"\xff" * 8:
        return repr(math.nan)
    bits = bytes([key[0] & 0x7F]) + key[1:] if key[0] & 0x80 else key.translate(INVERT)
    return repr(struct.unpack(">d", bits)[0])


def _show_decimal(key: bytes) -> str:
    """Print a decimal as it is encoded: sign, exponent of its first digit, digits, and a byte that ends them."""
    if key == b"\1":
        return "0"
    sign, body = ("-", key[1:].translate(INVERT)) if key[:1] == b"\0" else ("", key[1:])
    exponent, digits = int.from_bytes(body[:2], "big") - _LARGEST_EXPONENT, body[2:-1].decode()
    if exponent not in _PLAIN:
        return f"{sign}{'.'.join(filter(None, (digits[0], digits[1:])))}e{exponent}"
    point = exponent + 1
    padded = digits.rjust(len(digits) + max(0, 1 - point), "0").ljust(point, "0")
    at = max(point, 1)
    return sign + ".".join(filter(None, (padded[:at], padded[at:])))


_PRINTERS: Final[Mapping[str, Callable[[bytes], str]]] = {
    "int": lambda key: str(_read_number(key)),
    "decimal": _show_decimal,
    "float": _show_float,
    "bool": lambda key: "true" if key == b"\1" else "false",
    "time": _show_time,
    "uuid": lambda key: str(UUID(bytes=key)),
}
