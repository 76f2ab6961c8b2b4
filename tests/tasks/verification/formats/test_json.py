"""Verification's own reading of JSON: strict, exact, and with the first of equal names."""

import json
from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from tasks.formats.json import JsonFormat
from tasks.settings.column_types import parse_type
from tasks.settings.sorts import KeyColumn
from tasks.verification.formats.base import Columns, Request, Wanted
from tasks.verification.formats.json import JsonReader
from tasks.verification.keys import RecordKeys
from tasks.verification.terms import Column, Kind, Path, read_sort
from tests.json_values import blocks
from tests.ranks import assert_same_order
from tests.record_blocks import make_block

# What a JSON document may be, with names that hide in each other.
TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=4) | st.sampled_from(
    ['a"b', "\\", "\\ud800"]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
DOCUMENTS = st.recursive(
    LEAVES,
    lambda items: st.lists(items, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "a.b", ""]), items),
    max_leaves=12,
)
KINDS: dict[str, set[type]] = {"text": {str}, "bool": {bool}, "decimal": {int, float}}
PATHS = st.lists(st.sampled_from(["a", "b", "a.b", ""]) | st.integers(0, 2), max_size=3)


def read(values: Sequence[bytes | None], kind: str = "text", path: Path = ("a",), parameter: str = "") -> Columns:
    wanted = Wanted(Column("", path), Kind(kind, parameter))
    return JsonReader(Request({}, [wanted])).read(values, [None] * len(values))


def accepts(value: bytes, kind: str = "text", path: Path = ("b",)) -> bool:
    return not read([value], kind, path).refused


def find(document: Any, path: Sequence[Any]) -> Any:
    """Go the way of a path: objects and arrays are both maps, of names and of indexes, which are of different types."""
    for step in path:
        items = dict(enumerate(document)) if isinstance(document, list) else document
        document = items.get(step) if isinstance(items, dict) else None
    return document


@settings(max_examples=300, deadline=None)
@given(DOCUMENTS, PATHS, st.booleans(), st.sampled_from([None, 2]))
def test_what_stands_at_a_path(document: Any, path: list[str | int], ascii_only: bool, indent: int | None) -> None:  # noqa: FBT001  # drawn
    """It is found, and of the one type that takes such a token; escaped and spread over lines or not."""
    value = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode()
    found = find(document, path)
    for kind, types in KINDS.items():
        columns = read([value], kind, tuple(path))
        if found is None:
            assert (columns.refused, list(columns.columns[0])) == (set(), [None])
        elif type(found) in types:
            expected = found if kind == "bool" else found.encode() if kind == "text" else json.dumps(found).encode()
            assert (columns.refused, list(columns.columns[0])) == (set(), [expected])
        else:
            assert columns.refused == {0}


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b"{",
        b'{"a":1,}',
        b"[1,]",
        b'{"a":1} {}',
        b'{"a":1}x',
        b'{"a":1} // no',
        b"/**/{}",
        b"{'a':1}",
        b"{a:1}",
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b"Infinity",
        b'{"a":01}',
        b'{"a":+1}',
        b'{"a":1.}',
        b'{"a":.5}',
        b'{"a":-}',
        b'{"a":1e}',
        b'{"a":0x1}',
        b'{"a":"\n"}',
        b'{"a":"\x00"}',
        b'{"a":"\\x41"}',
        b'{"a":"\\u12"}',
        b'{"a":"\xff"}',
        b'{"\xc3":1}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\udc00\\ud800"}',
        b'{"a":"\\ud800\\ud800\\udc00"}',
        b'{"a":"\\\\\\ud800"}',
        b'{"\\uDBFF":1}',
        b'{"a":"\\ud800x\\udc00"}',
        b"\xef\xbb\xbf",
        b"\xef\xbb\xbf\xef\xbb\xbf{}",
        b"\xff\xfe{\x00}\x00",
        b"\x00{}",
        b"{}\x00",
        b"\x0b{}",
        b"\xc2\xa0{}",
        b"True",
        b'{"a":1',
        b'{"a":"x',
        b'"a',
    ],
)
def test_what_is_no_json(value: bytes) -> None:
    """It is refused wherever it is wrong, also where nobody looks; its neighbours are not."""
    found = read([b'{"b":"x"}', value, b'{"b":"y"}'], path=("b",))
    assert found.refused == {1}
    assert list(found.columns[0]) == [b"x", b"y"]


@pytest.mark.parametrize(
    "value",
    [
        b"{}",
        b"\xef\xbb\xbf{}",
        b" \t\r\n{ \n}\r\n",
        b'{"a":"\\ud83d\\ude00"}',
        b'{"a":"\\\\ud800"}',
        b'{"a":"\\uD83D\\uDE00\\\\"}',
        b'{"a":"\\u0000"}',
        b'{"a":-0}',
        b'{"a":1E+400}',
        b"[]",
        b"7",
        b"null",
        b'{"a":1' + b"0" * 5000 + b"}",
    ],
)
def test_what_is_json(value: bytes) -> None:
    """Any document is one, and blanks around it and one byte order mark in front are no part of it."""
    assert accepts(value)


def test_null_values_are_refused() -> None:
    """A tombstone is no document; null is one, in which everything is missing."""
    assert read([None, b"null"]).refused == {0}


@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"b":', b"}"), (b'[{"b":', b"}]")])
def test_nesting(brackets: tuple[bytes, bytes]) -> None:
    """500 levels are read, 501 are not, brackets within texts are none, and no depth ends the program."""
    opening, closing = brackets
    width = opening.count(b"[") + opening.count(b"{")
    for levels in (500, 500 + width, 100_000):
        value = opening * (levels // width) + b"1" + closing * (levels // width)
        assert accepts(value, path=("c",)) == (levels <= 500)
    assert accepts(b'{"a":"' + b'[{\\"' * 10_000 + b'"}')
    assert accepts(b"[" + b",".join([b"[{}]"] * 1000) + b"]")


def test_the_first_of_equal_names_counts() -> None:
    """Also if one of them is written with escapes, in objects within, and if it is null."""
    values = [b'{"a":"1","a":"2"}', b'{"\\u0061":"1","a":"2"}', b'{"a":null,"a":"2"}', b'{"b":1,"a":"1","b":2,"a":3}']
    assert list(read(values).columns[0]) == [b"1", b"1", None, b"1"]
    assert list(read([b'{"a":{"b":"1","b":"2"},"a":{"b":"3"}}'], path=("a", "b")).columns[0]) == [b"1"]


TOKENS = [b"7", b"-0", b"1.0", b"1e3", b"true", b'"7"', b'"true"', b"[7]", b'{"x":7}', b"null"]


@pytest.mark.parametrize(
    ("kind", "parameter", "accepted"),
    [
        ("int", "", TOKENS[:4]),
        ("decimal", "", TOKENS[:4]),
        ("float", "", TOKENS[:4]),
        ("time", "ms", TOKENS[:4]),
        ("bool", "", TOKENS[4:5]),
        ("time", "", TOKENS[5:7]),
        ("uuid", "", TOKENS[5:7]),
        ("text", "", TOKENS[5:7]),
        ("text", "nocase", TOKENS[5:7]),
        ("text", "de", TOKENS[5:7]),
    ],
)
def test_tokens_of_a_type(kind: str, parameter: str, accepted: list[bytes]) -> None:
    """A text is no number, a number no text, and neither is true; null is missing. The type judges what is left."""
    found = read([b'{"a":%b}' % token for token in TOKENS], kind, ("a",), parameter)
    assert [TOKENS[i] for i in range(len(TOKENS)) if i not in found.refused] == [*accepted, b"null"]


def test_digits_are_kept() -> None:
    """A number comes as it is written, however long it is."""
    numbers = [b"0.12345678901234567890123456789", b"1.10", b"9" * 6000, b"-0.0", b"1E+5"]
    assert list(read([b'{"a":%b}' % number for number in numbers], "decimal").columns[0]) == numbers


@pytest.mark.parametrize("nulls", ["", ":nulls-last"])
@pytest.mark.parametrize("kind", ["int", "text"])
@settings(max_examples=60, deadline=None)
@given(values=blocks(), path=st.sampled_from(["a", "b", "n.b", "items[0]", "items[1].a", '"a.b"', '""']))
def test_the_sorter_reads_alike(kind: str, nulls: str, path: str, values: list[bytes | None]) -> None:
    """Two readers that share no code refuse the same values, and order the others alike."""
    fmt = JsonFormat({path: parse_type(kind)}, [KeyColumn(path, parse_type(kind), bool(nulls))])
    parsed = fmt.parse_values(pa.array(values, pa.binary()))
    key = read_sort(path + nulls, fmt.facts())
    encoded = RecordKeys(fmt.facts(), [key], [key]).encode(make_block(values))
    assert encoded.rejected == sorted(parsed.rejected)
    found = parsed.columns[path].to_pylist()
    assert_same_order(encoded.keys[0], [(item is None, item if item is not None else 0) for item in found])
