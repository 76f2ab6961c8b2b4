"""JSON by RFC 8259, by Python's own parser made strict.

Of names that an object has twice the first one counts. Numbers keep their digits. Refused are: what is no UTF-8, a
lone surrogate anywhere, NaN and Infinity, more than 500 levels of nesting, and a key that is no token of its type.
"""

import json
import re
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from tasks.verification.content import Headers
from tasks.verification.formats.base import Columns, Request, Values
from tasks.verification.terms import Kind, Path

_BOM = b"\xef\xbb\xbf"
_DEEPEST = 500
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)).difference(b"[]{}"))
# An escape: a pair of surrogates, a lone one (the group), or another.
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u([dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class _Number(str):
    """A number by its digits."""

    __slots__ = ()


_TOKENS: dict[str, type] = {
    "int": _Number,
    "decimal": _Number,
    "float": _Number,
    "bool": bool,
    "time": str,
    "uuid": str,
    "text": str,
}


class JsonReader:
    """Reads columns by their paths into one document a value."""

    def __init__(self, request: Request) -> None:
        self._wanted = [(_make_finder(wanted.column.path), _token_of(wanted.kind)) for wanted in request.columns]

    def read(self, values: Values, _: Sequence[Headers] = ()) -> Columns:
        """Return the tokens of the block as texts, true and false as they are."""
        rows, refused = [], set()
        for index, value in enumerate(values):
            try:
                document = parse_document(value)
                rows.append([_read_token(find(document), token) for find, token in self._wanted])
            except ValueError:
                refused.add(index)
        return Columns(list(zip(*rows, strict=True)) or [()] * len(self._wanted), refused)


def _read_token(found: Any, token: type) -> bytes | bool | None:
    if found is None:
        return None
    if type(found) is not token:
        raise ValueError
    return bool(found) if token is bool else str(found).encode()


def _token_of(kind: Kind) -> type:
    return _Number if kind.name == "time" and kind.parameter else _TOKENS[kind.name]


def parse_document(value: bytes | None) -> Any:
    """Return the document that a value is; numbers are of a subclass of str. ValueError if it is none."""
    if value is None:
        raise ValueError
    text = value.removeprefix(_BOM).decode()
    if _SURROGATE.search(text) and any(match[1] for match in _ESCAPE.finditer(text)):
        raise ValueError
    if value.count(b"[") + value.count(b"{") > _DEEPEST and _measure_depth(value) > _DEEPEST:
        raise ValueError
    return _DECODER.decode(text)


def _measure_depth(value: bytes) -> int:
    brackets = _STRING.sub(b"", value).translate(None, _NO_BRACKETS)
    return max(accumulate(1 if bracket in b"[{" else -1 for bracket in brackets), default=0)


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # The last one of equal names stays: here, the first.
    pairs.reverse()
    return dict(pairs)


def _refuse(name: str) -> Any:
    raise ValueError(name)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_make_object, parse_float=_Number, parse_int=_Number, parse_constant=_refuse
)


def _make_finder(path: Path) -> Callable[[Any], Any]:
    """Return the function from a document to what stands at the path; None if nothing does."""

    def find(found: Any) -> Any:
        for step in path:
            if isinstance(step, str) and isinstance(found, dict):
                found = found.get(step)
            elif isinstance(step, int) and isinstance(found, list) and step < len(found):
                found = found[step]
            else:
                return None
        return found

    return find
