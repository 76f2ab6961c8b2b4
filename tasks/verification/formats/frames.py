"""Confluent's wire format: the id of a value's schema, and the place of its message in it, which Protobuf's have."""

from uuid import UUID

from tasks.verification.content import Headers
from tasks.verification.formats.schemas import SchemaId

_NAMES = {"value": "__value_schema_id", "key": "__key_schema_id"}
_ID_BYTES, _GUID_BYTES = 5, 17
_MOST_INDEXES, _VARINT_BYTES = 100, 5


class FrameError(ValueError):
    """There is no frame."""


def find_header(headers: Headers, part: str) -> bytes | None:
    """Return the header with the id of the schema of a `part`, `value` or `key`; None if there is none."""
    found = dict(headers).get(_NAMES[part]) if headers else None
    return found.encode() if isinstance(found, str) else found


def split_frame(value: bytes, header: bytes | None) -> tuple[SchemaId, int]:
    """Return the id of a value's schema, and where its payload begins. The header goes before an id in front."""
    name, end = _read_id(value if header is None else header, is_header=header is not None)
    return name, end if header is None else 0


def split_message(value: bytes, header: bytes | None) -> tuple[SchemaId, tuple[int, ...], int]:
    """Return the same, and between them the indexes of the message, which stand behind the id wherever it is."""
    where = value if header is None else header
    name, end = _read_id(where, is_header=header is not None)
    count, end = _read_varint(where, end)
    if not 0 <= count <= _MOST_INDEXES:
        raise FrameError
    indexes = [] if count else [0]
    for _ in range(count):
        index, end = _read_varint(where, end)
        indexes.append(index)
    if min(indexes) < 0:
        raise FrameError
    return name, tuple(indexes), end if header is None else 0


def _read_id(where: bytes, *, is_header: bool) -> tuple[SchemaId, int]:
    if where[:1] == b"\0" and len(where) >= _ID_BYTES:
        return int.from_bytes(where[1:_ID_BYTES], "big"), _ID_BYTES
    if is_header and where[:1] == b"\1" and len(where) >= _GUID_BYTES:
        return UUID(bytes=where[1:_GUID_BYTES]), _GUID_BYTES
    raise FrameError


def _read_varint(where: bytes, start: int) -> tuple[int, int]:
    """Return a number in zigzag, and where it ends."""
    number = 0
    for i, byte in enumerate(where[start : start + _VARINT_BYTES]):
        number |= (byte & 0x7F) << 7 * i
        if byte <= 0x7F:
            return (number >> 1) ^ -(number & 1), start + i + 1
    raise FrameError
