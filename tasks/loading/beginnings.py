"""Looks at the beginning of a file for what would make no records of it, or wrong ones, and names the way out.

Guarantee: lines of the format that is loaded are never refused, whatever some of them are.
"""

import re
import shlex
from collections.abc import Sequence
from typing import Any, Final

from tasks.formats.base import RejectedError
from tasks.formats.json_strict import read_document
from tasks.loading.lines import BrokenInputError

_TAR: Final = slice(257, 262), b"ustar"
_QUOTED: Final = re.compile(rb'"[^"]*"')
_LOOKED_AT_BYTES: Final = 1000
_LOOKED_AT_ROWS: Final = 100
# With so many bytes and no line break, none is on its way.
_MANY_BYTES: Final = 1_000_000
_CLOSING: Final = {b"{": b"}", b"[": b"]"}


def check_block(block: bytes, kind: str, path: str, *, last: bool) -> None:
    """Raise BrokenInputError if the first block of a file has no lines of the format `kind`. `last`: it is all."""
    where, text = _TAR
    if block[where] == text:
        raise _no_lines("is a tar archive", "tar -xOf FILE", path, kind)
    if kind == "lines":
        return
    if encoding := _find_wide(block):
        raise _no_lines(f"is {encoding}", f"iconv -f {encoding} -t UTF-8 FILE", path, kind)
    if b"\n" in block or not (last or len(block) >= _MANY_BYTES):
        return
    if b"\r" in _QUOTED.sub(b"", block).rstrip(b"\r"):
        raise _no_lines("has lines that end at CR alone", r"tr '\r' '\n' < FILE", path, kind)
    if kind == "json" and not last and block.lstrip().startswith(b"["):
        raise _no_documents("[", path)


def _find_wide(block: bytes) -> str:
    """Return the encoding of text with two bytes for each letter, one of which is zero; empty for other text."""
    looked_at = block[:_LOOKED_AT_BYTES]
    even, odd = (looked_at[first::2].count(0) / (len(looked_at) // 2 or 1) for first in (0, 1))
    return "UTF-16LE" if odd > 0.7 > 4 * even else "UTF-16BE" if even > 0.7 > 4 * odd else ""


def check_documents(rows: Sequence[bytes], path: str, *, whole: bool) -> None:
    """Raise BrokenInputError if rows are pieces of documents, or all documents are in one. `whole`: there are no more.

    Other rows that are no JSON may be in the file: a job makes dead letters of them.
    """
    first = rows[0].strip()
    pieces = list(map(_is_piece, rows[:_LOOKED_AT_ROWS]))
    if first[:1] in _CLOSING and pieces[0] and 2 * sum(pieces) > len(pieces):
        raise _no_documents(first[:1].decode(), path)
    if whole and len(rows) == 1 and _holds_documents(_read(first)):
        raise BrokenInputError(f"{_no_documents('[', path)}; or --format lines, if the array is one record")


def _is_piece(row: bytes) -> bool:
    text = row.strip()
    return _read(text) is None and not text.endswith(_CLOSING.get(text[:1], b"\n"))


def _read(row: bytes) -> Any:
    """Return the document of a row; None if it is none."""
    try:
        return read_document(row)
    except RejectedError:
        return None


def _holds_documents(document: Any) -> bool:
    return isinstance(document, list) and bool(document) and isinstance(document[0], dict)


def _no_documents(begun: str, path: str) -> BrokenInputError:
    way = "jq -c '.[]' FILE" if begun == "[" else "jq -c . FILE"
    return _no_lines("is JSON, but not one document a line", way, path, "json")


def _no_lines(what: str, way: str, path: str, kind: str) -> BrokenInputError:
    """Make the error of a file that is something else, and name the command that makes lines of it."""
    given = "" if kind == "lines" else f" --format {kind}"
    return BrokenInputError(f"{what}: {way.replace('FILE', shlex.quote(path))} | kafka-sort load -{given}")
