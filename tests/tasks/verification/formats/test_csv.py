"""Verification's own reading of CSV agrees with the format, and with Python's reader where there is a header line."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import example, given, settings

from tasks.formats.csv import CsvFormat
from tasks.formats.csv_header import HeaderFormat
from tasks.settings.sorts import KeyColumn, parse_columns
from tasks.verification.formats.base import Columns, Request, Wanted
from tasks.verification.formats.csv import make_csv_reader
from tasks.verification.keys import Encoded, RecordKeys
from tasks.verification.terms import Column, Kind, read_sort
from tests.csv_values import NUMBERS, blocks, headed_values, key_columns
from tests.record_blocks import make_block


def encode(values: Sequence[bytes | None], sort: str, columns: str, delimiter: str = ",") -> Encoded:
    facts = {"columns": columns, "delimiter": delimiter}
    key = read_sort(sort, facts)
    return RecordKeys(facts, [key], [key]).encode(make_block(values))


@pytest.mark.parametrize("columns", ["id:int,name", "name,id:int", "id:int", "name", "a:int,name,b:int"])
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_the_same_rows_are_rejected_and_keys_agree(columns: str, data: st.DataObject) -> None:
    """Two parsers that share no code reject the same values, and order the others alike."""
    names = list(parse_columns(columns))
    delimiter, values = data.draw(blocks(len(names)))
    parsed = CsvFormat(parse_columns(columns), key_columns(columns, names), delimiter).parse_values(
        pa.array(values, pa.binary())
    )
    encoded = encode(values, ",".join(names), columns, delimiter)
    assert encoded.rejected == sorted(parsed.rejected)
    pairs = list(zip(*(parsed.columns[name].to_pylist() for name in names), strict=True))
    assert rank(pairs) == rank(encoded.keys[0])


def rank(items: Sequence[Any]) -> list[int]:
    """Return the place of each among all of them in order, the same for equal ones."""
    order = sorted(items)
    return [order.index(item) for item in items]


@settings(max_examples=100, deadline=None)
@given(blocks(2))
@example((",", [field + b",a" for field in NUMBERS]))
def test_a_block_encodes_as_its_values_one_by_one(drawn: tuple[str, list[bytes | None]]) -> None:
    """The fate of a value depends on its own bytes only, by this parser too."""
    delimiter, values = drawn
    alone = [encode([value], "id,name", "id:int,name", delimiter) for value in values]
    encoded = encode(values, "id,name", "id:int,name", delimiter)
    assert encoded.keys[0] == [key for one in alone for key in one.keys[0]]
    assert encoded.rejected == [i for i, one in enumerate(alone) if one.rejected]


def read(values: Sequence[bytes | None], names: str, **facts: str) -> Columns:
    wanted = [Wanted(Column("", (name,)), Kind("text")) for name in names.split(",")]
    return make_csv_reader(Request({"columns": names, **facts}, wanted)).read(values, [None] * len(values))


NAMES = st.permutations(["a", "b", "c,d", 'e"f'])
FIELDS = st.lists(st.text(alphabet='x,"\r\n \ufeff', max_size=4), min_size=4, max_size=4)
BREAKS = st.sampled_from(["\n", "\r\n", "\r"])


@st.composite
def records(draw: st.DrawFn) -> tuple[bytes, list[str]]:
    """Draw a value with a header line, by Python's writer, and its fields by the order of names."""
    names, fields, line_break = draw(NAMES), draw(FIELDS), draw(BREAKS)
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator=line_break).writerows([names, fields])
    mark, end = draw(st.sampled_from(["", "\ufeff"])), draw(st.booleans())
    value = mark + (text.getvalue() if end else text.getvalue().removesuffix(line_break))
    by_name = dict(zip(names, fields, strict=True))
    return value.encode(), [by_name["b"], by_name["a"]]


@settings(max_examples=80, deadline=None)
@given(st.lists(records(), max_size=5))
def test_fields_are_found_by_the_names_of_their_header(drawn: list[tuple[bytes, list[str]]]) -> None:
    """Whatever the order of names, a field is that of its name; marks, line breaks and quotes are no part of it."""
    found = read([value for value, _ in drawn], "b,a", header="yes")
    assert found.refused == set()
    assert [list(row) for row in zip(*found.columns, strict=True)] == [
        [field.encode() for field in fields] for _, fields in drawn
    ]


@pytest.mark.parametrize("quote", ["double", "none"])
@pytest.mark.parametrize("nulls", [(), ("id",), ("id", "name")])
@settings(max_examples=100, deadline=None)
@given(
    drawn=st.sampled_from(",;|").flatmap(
        lambda mark: st.tuples(st.just(mark), st.lists(headed_values(mark), max_size=6))
    )
)
def test_values_with_a_header_agree(nulls: tuple[str, ...], quote: str, drawn: tuple[str, list[bytes | None]]) -> None:
    """Two parsers that share no code reject the same values with header lines, and order the others alike."""
    delimiter, values = drawn
    types = parse_columns("id:int,name")
    wanted = [KeyColumn(name, kind, name in nulls) for name, kind in types.items()]
    fmt = HeaderFormat(types, wanted, delimiter, quotes=quote == "double")
    parsed = fmt.parse_values(pa.array(values, pa.binary()))
    facts = {**fmt.facts(), "name": "csv"}
    key = read_sort(",".join(f"{name}:nulls-first" if name in nulls else name for name in types), facts)
    encoded = RecordKeys(facts, [key], [key]).encode(make_block(values))
    assert encoded.rejected == sorted(parsed.rejected)
    rows = zip(*(parsed.columns[name].to_pylist() for name in types), strict=True)
    assert rank(encoded.keys[0]) == rank(
        [[(item is not None, item or 0) if item != b"" else (True, b"") for item in row] for row in rows]
    )


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"a,b",
        b"a,b\n",
        b"a,b\n\n",
        b"a,b\n1",
        b"a,b\n1,2,3",
        b"a,b\n1,2\n3,4",
        b"a,b\n\n1,2",
        b"a,b\n1,2\n\n",
        b"a,c\n1,2",
        b"a,b,b\n1,2,3",
        b'a,"b\n1,2',
        b'a,"b"x\n1,2',
        b"a,b\n\xef\xbb\xbf\xef\xbb\xbf",
        b"\xef\xbb\xbf\xef\xbb\xbfb,a\n1,2",
        b'a,b\n1,"2',
    ],
)
def test_refused_values_with_a_header(value: bytes | None) -> None:
    """A value must be one header line, with each name once, and one row of as many fields; neighbours do not matter."""
    good = b"b,a\r\n7,8\r\n"
    found = read([good, value, good], "a,b", header="yes")
    assert found.refused == {1}
    assert [list(column) for column in found.columns] == [[b"8", b"8"], [b"7", b"7"]]


def test_quotes_may_be_plain() -> None:
    """Without quotes a quote is a character like any other, and a line break never part of a row."""
    values = [b'"a,b"', b'"a\n,b"', b'a,"', b'"a","b"\r\n', b'"a,b']
    found = read(values, "x,y", quote="none")
    assert found.refused == {1}
    assert list(zip(*found.columns, strict=True)) == [(b'"a', b'b"'), (b"a", b'"'), (b'"a"', b'"b"'), (b'"a', b"b")]
    wanted = [Wanted(Column("", ('"x',)), Kind("text"))]
    reader = make_csv_reader(Request({"header": "yes", "quote": "none"}, wanted))
    headed = reader.read([b'"x,y"\n"1,2"', b"x,y\n1,2", b'y","x\n1","2'], [])
    assert (list(headed.columns), headed.refused) == ([(b'"1', b'"2')], {1})


def test_an_empty_field_is_null_where_that_is_permitted() -> None:
    """It is null for a type other than text; for text it is a text, and where no null is permitted it is refused."""
    facts = {"name": "csv", "columns": "n:int,t"}
    values = [b",", b"1,", b",x"]
    placed = read_sort("n:nulls-first,t:nulls-first", facts)
    keys = RecordKeys(facts, [placed], [placed]).encode(make_block(values))
    assert keys.rejected == []
    assert rank(keys.keys[0]) == [0, 2, 1]
    required = read_sort("n", facts)
    assert RecordKeys(facts, [placed], [placed, required]).encode(make_block(values)).rejected == [0, 2]
