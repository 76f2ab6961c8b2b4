"""Reads one JSON value strictly by RFC 8259, with the digits of numbers as they are, and says what is wrong with it.

It is for the few values that the fast reader refuses, may be too lenient with, or cannot read exactly.
"""

import json
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt
import orjson

from tasks.formats.base import RejectedError
from tasks.printable import excerpt
from tasks.settings.paths import Path

BOM: Final = b"\xef\xbb\xbf"
MOST_LEVELS: Final = 500

# The parser takes Python's literals for what JSON lacks.
_CONSTANT = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|(NaN|-?Infinity)', re.DOTALL)
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
# What orjson says of text that is certainly no JSON, and how a dead letter says it. Of a number that it cannot read it
# says other things, and the strict parser decides.
_CERTAIN: Final = {
    "unexpected end of data": "unexpected end",
    "unexpected content after document": "extra data",
    "trailing comma is not allowed": "trailing comma",
    "number with leading zero is not allowed": "leading zero",
    "unexpected control character in string": "control character in a string",
    **{
        f"unexpected character, expected {what}": f"expecting {what}"
        for what in ("a JSON value", "a string key", "':' after key", "',' or '}'", "',' or ']'")
    },
}
_LITERAL = re.compile("NaN|Infinity")
# A parsed value takes a multiple of its size, and the GIL lets one thread parse at a time anyway.
_parsing = threading.Lock()


class _Missing:
    """Stands for what a value does not have, which is not null."""


_MISSING = _Missing()


class _ConstantError(ValueError):
    """The value has NaN or Infinity."""


def _refuse_constant(name: str) -> NoReturn:
    raise _ConstantError(name)


def _take_first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object, in which the first of equal names counts."""
    return dict(reversed(pairs))


# Numbers become bytes, their digits, which tells them from strings.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_take_first,
    parse_int=str.encode,
    parse_float=str.encode,
    parse_constant=_refuse_constant,
)


def read_tokens(value: bytes, paths: Sequence[Path]) -> list[str | None]:
    """Return the token at each path, None where it is missing; RejectedError says what is wrong, and at which byte.

    A token is the value in JSON; for objects and arrays it is only their brackets.
    """
    with _parsing:
        root = _parse(value)
        return [_write(_follow(root, path)) for path in paths]


def read_document(value: bytes) -> Any:
    """Return the content of a value, in which numbers are bytes: their digits. RejectedError as `read_tokens`."""
    with _parsing:
        return _parse(value)


def _parse(value: bytes) -> Any:
    try:
        text = value.removeprefix(BOM).decode()
    except UnicodeDecodeError as error:
        raise _refusal(value, "not UTF-8", error.start + _mark(value)) from None
    if (place := find_nesting(value)) is not None:
        raise _refusal(value, f"more than {MOST_LEVELS} levels of nesting", place)
    if quick := _explain(text):
        raise _refusal(value, quick[0], _place(value, text, quick[1]))
    try:
        root = _decode(text)
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at").removesuffix(": ")
        raise _refusal(value, what[0].lower() + what[1:], _place(value, text, error.pos)) from None
    except _ConstantError as error:
        found = next(match.start() for match in _CONSTANT.finditer(text) if match[1])
        raise _refusal(value, f"{error} is no number of JSON", _place(value, text, found)) from None
    for match in _ESCAPE.finditer(text) if "\\u" in text else ():
        if match[1]:
            raise _refusal(value, "half of a surrogate pair", _place(value, text, match.start()))
    return root


def _explain(text: str) -> tuple[str, int] | None:
    """Return what is wrong with a text, and at which character, if that is quickly said."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        literal = _LITERAL.match(text, error.pos) if error.msg.startswith("unexpected") else None
        what = f"{literal[0]} is no number of JSON" if literal else _CERTAIN.get(error.msg)
        return (what, error.pos) if what else None
    return None


def _decode(text: str) -> Any:
    """Parse within the interpreter's limit of recursion, which a caller may have used up in part."""
    try:
        return _DECODER.decode(text)
    except RecursionError:
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(_DECODER.decode, text).result()


def _mark(value: bytes) -> int:
    return len(BOM) if value.startswith(BOM) else 0


def _place(value: bytes, text: str, position: int) -> int:
    return (position if text.isascii() else len(text[:position].encode())) + _mark(value)


def _refusal(value: bytes, what: str, place: int) -> RejectedError:
    return RejectedError(f"not JSON ({what}, byte {place}): {excerpt(value)}")


def _follow(value: Any, path: Path) -> Any:
    """Return what is at the path, or _MISSING."""
    for step in path:
        has_step = (step in value) if isinstance(value, dict) else isinstance(value, list) and _is_index(step, value)
        if not has_step:
            return _MISSING
        value = value[step]
    return value


def _is_index(step: str | int, items: list[Any]) -> bool:
    return isinstance(step, int) and step < len(items)


def _write(value: Any) -> str | None:
    match value:
        case _Missing():
            return None
        case bytes():
            return value.decode()
        case dict():
            return "{}"
        case list():
            return "[]"
        case _:
            return json.dumps(value, ensure_ascii=False)


def find_nesting(value: bytes) -> int | None:
    """Find the byte where the nesting exceeds MOST_LEVELS; None if it does nowhere."""
    if value.count(b"{") + value.count(b"[") <= MOST_LEVELS:
        return None
    if b"\\" in value:
        value = _ESCAPED.sub(b"  ", value)
    text = np.frombuffer(value, np.uint8)
    # The two kinds of brackets differ from each other by the same bit.
    folded = text | 0x20
    places = np.flatnonzero((text == ord('"')) | (folded == ord("{")) | (folded == ord("}")))
    outside = np.cumsum(text[places] == ord('"')) % 2 == 0
    levels = np.cumsum(outside * _steps(folded[places]))
    deep = np.flatnonzero(levels > MOST_LEVELS)
    return int(places[deep[0]]) if len(deep) else None


def _steps(folded: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    return np.asarray((folded == ord("{")).astype(np.int32) - (folded == ord("}")), np.int32)
