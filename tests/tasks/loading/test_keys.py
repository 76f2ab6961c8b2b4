"""A row's key is the text of its column, whatever its neighbours are, or a reason says why it has none."""

import csv
import io
import json

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from tasks.loading.keys import FieldKeys, PathKeys, field_names, find_place

BY_PATH = PathKeys("a.b[1]")
NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)


def find(keys: FieldKeys | PathKeys, rows: list[bytes]) -> list[bytes | None]:
    found: list[bytes | None] = keys.find(pa.array(rows, pa.binary())).to_pylist()
    return found


@settings(max_examples=50)
@given(st.lists(st.lists(st.text("ab,\n\"' ", min_size=1, max_size=5), min_size=1, max_size=4), min_size=1, max_size=8))
def test_a_field_of_csv(rows: list[list[str]]) -> None:
    """The key is the field without its quotes; rows with another number of fields have none."""
    texts = []
    for row in rows:
        csv.writer(text := io.StringIO(), lineterminator="\n").writerow(row)
        texts.append(text.getvalue().removesuffix("\n").encode())
    expected = [row[1].encode() if len(row) == 3 else None for row in rows]
    assert find(FieldKeys(3, 1, ",", quotes=True), texts) == expected


def test_why_a_row_has_no_field() -> None:
    """The reason names the number of fields, or the quotes."""
    keys = FieldKeys(2, 0, ",", quotes=True)
    assert find(keys, [b"a,b", b"a", b'"a', b",x"]) == [b"a", None, None, b""]
    assert keys.explain(b"a") == "1 fields, expected 2: 'a'"
    assert keys.explain(b'"a').startswith("not a CSV row")


@settings(max_examples=30)
@given(st.lists(NUMBERS, min_size=1, max_size=6))
def test_a_number_is_its_digits(numbers: list[str]) -> None:
    """The key of a number in JSON is the number as it is written, also beyond 64 bits."""
    rows = [f'{{"a": {{"b": [0, {number}]}}}}'.encode() for number in numbers]
    assert find(BY_PATH, rows) == [number.encode() for number in numbers]


@settings(max_examples=30)
@given(st.lists(st.text(max_size=6), min_size=1, max_size=6), st.booleans())
def test_a_string_is_its_text(texts: list[str], ascii_only: bool) -> None:  # noqa: FBT001  # Hypothesis gives it
    """The key of a string in JSON is its text in UTF-8, without quotes and escapes."""
    rows = [json.dumps({"a": {"b": [0, text]}}, ensure_ascii=ascii_only).encode() for text in texts]
    assert find(BY_PATH, rows) == [text.encode() for text in texts]


@pytest.mark.parametrize(
    ("document", "key", "reason"),
    [
        ("true", b"true", ""),
        ("false", b"false", ""),
        ("-0", b"-0", ""),
        ("null", None, "is null"),
        ("{}", None, "is an object"),
        ("[1]", None, "is an array"),
        ("", None, "is missing"),
        ("1}", None, "not JSON"),
    ],
)
def test_what_is_no_text(document: str, key: bytes | None, reason: str) -> None:
    """True and false are texts; null, objects and arrays give no key, and the reason says which it was."""
    row = f'{{"a": {{"b": [0{", " * bool(document)}{document}]}}}}'.encode()
    whole = b'{"a": {"b": [0, "x"]}}'
    assert find(BY_PATH, [whole, row, whole]) == [b"x", key, b"x"]
    assert key is not None or reason in BY_PATH.explain(row)


def test_columns_are_found_by_name() -> None:
    """A header's names may be quoted; a name that is not there, or twice, is told with those that are."""
    names = field_names(b'id,"full, name",id', ",", quotes=True)
    assert find_place(names, "full, name") == 1
    with pytest.raises(ValueError, match="2 columns are called 'id': give names of your own by --columns"):
        find_place(names, "id")
    with pytest.raises(ValueError, match="no column is called 'ID'"):
        find_place(names, "ID")
    with pytest.raises(ValueError, match="the delimiter seems to be ';': give it by --delimiter"):
        find_place(field_names(b"id;name", ",", quotes=True), "name")
