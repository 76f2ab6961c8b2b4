"""The types `text`, by bytes, without case or by a collation, and `uuid`."""

import re
import sys
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pyarrow as pa

from tasks.verification.types.base import Encoded, RefusedError, encode_texts

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_HEX = "[0-9a-fA-F]"
_UUID = re.compile(rf"[ \t]*({_HEX}{{32}}|{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}})[ \t]*".encode())

# Letters that Unicode has got since version 14, which is that of the oldest Python: first and last, lower case of the
# first. Without them the order would depend on the version of Python.
_LATER_LETTERS = (
    (0x1C89, 0x1C89, 0x1C8A),
    (0xA7CB, 0xA7CB, 0x264),
    (0xA7DC, 0xA7DC, 0x19B),
    (0xA7DD, 0xA7DD, 0x277),
    (0xA7E2, 0xA7E2, 0x27C),
    (0xAB6C, 0xAB6D, 0xAB4B),
    (0x10D50, 0x10D65, 0x10D70),
    (0x16EA0, 0x16EB8, 0x16EBB),
)
# Likewise, capitals in front of their small letters.
_LATER_CAPITALS = (
    *(0xA7CC, 0xA7CE, 0xA7D2, 0xA7D4, 0xA7DA),
    *(0x1DF40, 0x1DF48, 0x1DF4A, 0x1DF4D, 0x1DF51),
    *(0x1DF68, 0x1DF6A, 0x1DF6C, 0x1DF6E),
    *range(0x1DF72, 0x1DF80, 2),
)


class TextType:
    """Texts by their bytes, whatever these are."""

    is_total = True

    def encode(self, values: Sequence[Any]) -> Encoded:
        """Encode bytes, or Python's texts."""
        try:
            return encode_texts(values), []
        except TypeError:
            return _encode_good(*_to_bytes(values))


class Utf8Type:
    """Texts in UTF-8, by their bytes."""

    is_total = False

    def encode(self, values: Sequence[Any]) -> Encoded:
        """Encode bytes, or Python's texts."""
        return _encode_good(*_to_utf8(values))


class NoCaseType:
    """Texts in UTF-8, by the simple lower case of each of their characters."""

    is_total = False

    def encode(self, values: Sequence[Any]) -> Encoded:
        """Encode the texts in lower case."""
        texts, refused = _to_utf8(values)
        return _encode_good([_lower(text) for text in texts], refused)


class CollatedType:
    """Texts in UTF-8, in the order of a language.

    The order is ICU's own by definition, and DuckDB has ICU. So this function alone is shared with the sorter.
    """

    is_total = False

    def __init__(self, collation: str) -> None:
        self._collation = collation

    def encode(self, values: Sequence[Any]) -> Encoded:
        """Encode the sort keys of the texts, by one query."""
        texts, refused = _to_utf8(values)
        table = pa.table({"text": pa.array(texts, pa.binary()).cast(pa.string())})
        with _database().cursor() as cursor:
            cursor.register("texts", table)
            rows = cursor.execute("SELECT icu_sort_key(text, $1) FROM texts", [self._collation]).fetchall()
        return _encode_good([bytes.fromhex(row[0]) for row in rows], refused)


@cache
def _database() -> "DuckDBPyConnection":
    """Return a database of one thread, so that rows keep their order. To open one takes 0.1 s."""
    # Runs of other types need not wait for DuckDB.
    import duckdb

    return duckdb.connect(config={"threads": 1})


def encode_uuid(value: Any) -> bytes:
    """Encode 16 bytes."""
    if isinstance(value, UUID):
        return value.bytes
    match = _UUID.fullmatch(value) if isinstance(value, bytes) else None
    if match is None:
        raise RefusedError
    return UUID(match[1].decode()).bytes


def _to_bytes(values: Sequence[Any]) -> tuple[list[bytes], list[int]]:
    """Return the bytes of each text, empty for what is none, and the indexes of these."""
    texts = [value.encode() if isinstance(value, str) else value for value in values]
    refused = [i for i, text in enumerate(texts) if not isinstance(text, bytes)]
    return [text if isinstance(text, bytes) else b"" for text in texts], refused


def _to_utf8(values: Sequence[Any]) -> tuple[list[bytes], list[int]]:
    texts, refused = _to_bytes(values)
    if not b"".join(texts).isascii() and (bad := [i for i, text in enumerate(texts) if not _is_utf8(text)]):
        return _blank(texts, bad), sorted({*refused, *bad})
    return texts, refused


def _blank(texts: list[bytes], indexes: Sequence[int]) -> list[bytes]:
    lost = set(indexes)
    return [b"" if i in lost else text for i, text in enumerate(texts)]


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _encode_good(texts: list[bytes], refused: list[int]) -> Encoded:
    keys = encode_texts(texts)
    return (_blank(keys, refused), refused) if refused else (keys, refused)


def _lower(text: bytes) -> bytes:
    return text.lower() if text.isascii() else text.decode().translate(_lower_cases()).encode()


@cache
def _lower_cases() -> dict[int, str]:
    """Return character → lower case, where they differ.

    The simple lower case is one character. Only that of a dotted capital i has more in Python: its first one is simple.
    """
    pairs = ((code, chr(code).lower()[0]) for code in range(sys.maxunicode + 1))
    known = {code: lower for code, lower in pairs if ord(lower) != code}
    later = {first + i: chr(lower + i) for first, last, lower in _LATER_LETTERS for i in range(last - first + 1)}
    return known | later | {code: chr(code + 1) for code in _LATER_CAPITALS}
