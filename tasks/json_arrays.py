r"""Sort keys of several columns as JSON arrays, written side by side.

The form is fixed, since equal keys must have equal bytes: no blanks; a numeral or a literal as it is printed; else a
string, in which quotes, backslashes and control characters alone are escaped. A byte that is no part of UTF-8 becomes
the escape of a lone surrogate, `\udc80` to `\udcff`, so that no two texts look alike.
"""

import json
from collections.abc import Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from tasks.types.base import KeyType
from tasks.types.columns import TextReader
from tasks.types.unicode_texts import is_utf8

_CONTROL: Final = r"[\x00-\x1f]"


def join_array(columns: Sequence[tuple[pa.Array, KeyType]]) -> pa.Array:
    """Return one JSON array a row (binary). A column has printed forms (binary), null where a row has no such key."""
    parts: list[pa.Array | bytes] = []
    for printed, kind in columns:
        item = printed if kind.is_json else quote_texts(printed)
        parts += [b",", item.fill_null(b"null")]
    return pc.binary_join_element_wise(b"[", *parts[1:], b"]", b"")


def quote_texts(texts: pa.Array) -> pa.Array:
    """Return texts (binary) as JSON strings (binary), null where null."""
    return _READER.read(texts)[0]


def _quote_all(texts: pa.Array) -> pa.Array:
    strings = texts.cast(pa.string())
    if pc.any(pc.match_substring_regex(strings, _CONTROL)).as_py():
        raise pa.ArrowInvalid("a control character")
    for mark in ("\\", '"'):
        strings = pc.replace_substring(strings, mark, f"\\{mark}")
    return pc.binary_join_element_wise('"', strings, '"', "").cast(pa.binary())


def _is_usual(texts: pa.Array) -> pa.Array:
    return pc.and_(is_utf8(texts), pc.invert(pc.match_substring_regex(texts, _CONTROL)))


def _quote_one(text: bytes) -> bytes:
    # Bytes that are not UTF-8 become lone surrogates, of which the second step makes escapes.
    return json.dumps(text.decode(errors="surrogateescape"), ensure_ascii=False).encode(errors="backslashreplace")


_READER: Final = TextReader(pa.binary(), _quote_all, _is_usual, _quote_one)
