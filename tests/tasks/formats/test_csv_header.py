"""CSV with a header line in each value: fields by name, the outcome of a value by its own bytes alone."""

import csv
import io

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis.strategies import SearchStrategy

from tasks.formats import csv_header
from tasks.formats.csv_header import HeaderFormat
from tasks.formats.registry import describe_format, make_format
from tasks.settings.job import Job
from tasks.settings.sorts import KeyColumn, parse_columns
from tests.csv_values import BOM, fields

# The outcome of a value: its key (None for a null), or the reason it has none.
Outcome = tuple[object, ...] | str

NAMES = [b"id", b"name", b'"id"', b'"name"', b" id", b"x", b"", b'"a\nb"', b'a"b', b'"', b"ID"]
BREAKS = [b"\n", b"\r\n", b"\r"]


def make(columns: str = "id:int,name", *, nulls: str = "", delimiter: str = ",", quotes: bool = True) -> HeaderFormat:
    types = parse_columns(columns)
    keys = [KeyColumn(name, kind, name in nulls.split(",")) for name, kind in types.items()]
    return HeaderFormat(types, keys, delimiter, quotes=quotes)


def outcomes(fmt: HeaderFormat, block: pa.Array) -> list[Outcome]:
    """Return one outcome for each value, in their order."""
    parsed = fmt.parse_values(block)
    keys = iter(list(zip(*(parsed.columns[key.name].to_pylist() for key in fmt.keys), strict=True)))
    found = [parsed.rejected[i] if i in parsed.rejected else next(keys) for i in range(len(block))]
    assert next(keys, None) is None
    return found


def outcome(value: bytes | None, fmt: HeaderFormat | None = None) -> Outcome:
    return outcomes(fmt or make(), pa.array([value], pa.binary()))[0]


def values(delimiter: str) -> SearchStrategy[bytes | None]:
    """Values of a header line and a row that mostly fit, in few shapes, so that header lines are shared."""
    between = delimiter.encode()
    usual = st.sampled_from([[b"id", b"name"], [b"name", b"id"], [b"x", b"id", b"name"], [b'"id"', b"name"]])
    names = usual | usual | st.lists(st.sampled_from(NAMES), max_size=4)
    rows = st.lists(st.sampled_from([b"1", b"-7", b"a"]) | fields, min_size=2, max_size=3)
    end = st.sampled_from([b"", b"", *BREAKS, b"\n\n"])
    mark = st.sampled_from([b"", b"", b"", BOM, BOM + BOM])
    joined = st.builds(
        lambda mark, names, br, row, end: mark + between.join(names) + br + between.join(row) + end,
        *(mark, names, st.sampled_from(BREAKS), rows, end),
    )
    return st.one_of(joined, joined, joined, fields, st.none())


@pytest.mark.parametrize("most", [64, 1, 0])
@pytest.mark.parametrize("quotes", [True, False])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_equal_bytes_have_an_equal_fate(*, quotes: bool, most: int, data: st.DataObject) -> None:
    """A value has the key or the reason that it has alone, by the block or one by one, whatever its neighbours."""
    delimiter = data.draw(st.sampled_from([",", ";", "\t", "|", "."]))
    pool = data.draw(st.lists(values(delimiter), min_size=1, max_size=6))
    block = data.draw(st.lists(st.sampled_from(pool), max_size=12))
    fmt = make(nulls=data.draw(st.sampled_from(["", "id", "id,name"])), delimiter=delimiter, quotes=quotes)
    alone = {value: outcome(value, fmt) for value in block}
    expected = [alone[value] for value in block]
    whole, cut = pa.array(block, pa.binary()), data.draw(st.integers(0, len(block)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_header, "_COMMON_LINES", most)
        assert outcomes(fmt, whole) == expected
        assert outcomes(fmt, whole.slice(0, cut)) + outcomes(fmt, whole.slice(cut)) == expected


def read_alone(value: bytes | None, delimiter: str, *, quotes: bool) -> tuple[bytes, bytes] | None:
    """Return id and name as Python's own reader finds them; None if there is no such key."""
    if value is None:
        return None
    text = value.removeprefix(BOM).decode("latin-1")
    text = text.removesuffix("\r\n") if text.endswith("\r\n") else text[: len(text) - text.endswith(("\r", "\n"))]
    lines = io.StringIO(text + "\n" * text.endswith(("\r", "\n")), newline="")
    try:
        rows = list(
            csv.reader(lines, delimiter=delimiter, strict=True, quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE)
        )
    except csv.Error:
        return None
    if len(rows) != 2 or len(rows[0]) != len(rows[1]) or any(rows[0].count(name) != 1 for name in ("id", "name")):
        return None
    named = dict(zip(*rows, strict=True))
    return named["id"].encode("latin-1"), named["name"].encode("latin-1")


@pytest.mark.parametrize("quotes", [True, False])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_value_is_read_as_python_reads_it(*, quotes: bool, data: st.DataObject) -> None:
    """The fields of a value, and whether it has them, are those that `csv.reader` finds under the names."""
    delimiter = data.draw(st.sampled_from([",", ";", "\t"]))
    block = data.draw(st.lists(values(delimiter), max_size=8))
    fmt = make("id,name", delimiter=delimiter, quotes=quotes)
    found = outcomes(fmt, pa.array(block, pa.binary()))
    read = [read_alone(value, delimiter, quotes=quotes) for value in block]
    assert [key if isinstance(key, tuple) else None for key in found] == read


def test_fields_are_found_by_name() -> None:
    """The order of fields, other fields and other header lines make no difference."""
    block = [b"id,name\n1,a", b"name,id\nb,2", b"x,name,y,id\n?,c,?,3", b"id,name\n4,d\n", b"id;name\n5;e"]
    found = outcomes(make(), pa.array(block))
    assert found == [(1, b"a"), (2, b"b"), (3, b"c"), (4, b"d"), "column id is missing: header line 'id;name'"]


def test_a_line_break_is_whole() -> None:
    """CR that ends one header line is not the beginning of the CRLF that ends another."""
    block = [b"id,name\r1,a", b"id,name\r\n2,b", b"id,name\n3,c", b"id,name\r\n", b"id,name\r\r\n4,d"]
    for order in (block, block[::-1]):
        found = dict(zip(order, outcomes(make(), pa.array(order)), strict=True))
        assert [found[value] for value in block] == [
            (1, b"a"),
            (2, b"b"),
            (3, b"c"),
            "no row behind the header line",
            r"2 rows in one value: '\r\n4,d'",
        ]


VALUES: dict[str, tuple[bytes | None, Outcome]] = {
    "a mark": (BOM + b"id,name\n1,a", (1, b"a")),
    "two marks": (BOM + BOM + b"id,name\n1,a", "column id is missing: header line '\\ufeffid,name'"),
    "a mark before the row": (b"name,id\n" + BOM + b"a,1", (1, BOM + b"a")),
    "CRLF": (b"id,name\r\n1,a\r\n", (1, b"a")),
    "CR": (b"id,name\r1,a\r", (1, b"a")),
    "LF": (b"id,name\n1,a\n", (1, b"a")),
    "a line break in the row": (b'id,name\n1,"a\nb"', (1, b"a\nb")),
    "quoted names": (b'"id","name"\n1,a', (1, b"a")),
    "a line break in a name": (b'id,"x\ny",name\n1,?,a', (1, b"a")),
    "a doubled quote in a name": (b'id,"x""y",name\n1,?,a', (1, b"a")),
    "null": (None, "null value"),
    "empty": (b"", "empty value"),
    "only a mark": (BOM + b"\n", "empty value"),
    "only a header line": (b"id,name", "no row behind the header line"),
    "a header line and its end": (b"id,name\n", "no row behind the header line"),
    "a header line and an empty row": (b"id,name\n\n", "no row behind the header line"),
    "no header line": (b"\n1,a", "column id is missing: header line ''"),
    "two rows": (b"id,name\n1,a\n2,b", r"2 rows in one value: '1,a\n2,b'"),
    "an empty line between": (b"id,name\n\n1,a", r"2 rows in one value: '\n1,a'"),
    "a field too few": (b"id,name\n1", "1 fields, expected 2: '1'"),
    "a field too many": (b"id,name\n1,a,b", "3 fields, expected 2: '1,a,b'"),
    "a name missing": (b"id,Name\n1,a", "column name is missing: header line 'id,Name'"),
    "a name twice": (b"id,name,id\n1,a,1", "column id is twice in the header line: 'id,name,id'"),
    "another name twice": (b"id,x,name,x\n1,?,a,?", (1, b"a")),
    "blanks around a name": (b"id, name\n1,a", "column name is missing: header line 'id, name'"),
    "an open quote in the header": (b'id,"name\n1,a', "not a CSV row (unexpected end of data): 'id,\"name\\n1,a'"),
    "text behind a quote": (b'id,"n"x\n1,a', "not a CSV row (',' expected after '\"'): 'id,\"n\"x\\n1,a'"),
    "no integer": (b"id,name\n+1,a", "column id is not an integer: '+1'"),
}


@pytest.mark.parametrize("case", VALUES)
def test_a_value(case: str) -> None:
    """A value alone and among others has its key, or the reason that helps."""
    value, expected = VALUES[case]
    assert outcome(value) == expected
    assert outcomes(make(), pa.array([b"id,name\n7,z", value, b"name,id\nz,7"])) == [(7, b"z"), expected, (7, b"z")]


def test_quotes_that_are_text() -> None:
    """With `--csv-quote none` a quote belongs to its name or field, and a line break ends a line anywhere."""
    fmt = make('"""id""":int,name', quotes=False)
    assert outcome(b'"id",name\n1,"a', fmt) == (1, b'"a')
    assert outcome(b'"id",name\n1,"a\nb"', fmt) == r"""2 rows in one value: '1,"a\nb"'"""


def test_names_in_quotes() -> None:
    """A column is compared by its name, and not by the way it is written in a sort."""
    job = Job(source_topic="s", csv_header=True, sorts=['"a,b":int', '"say ""x""",naïve=t'])
    assert describe_format(job)["columns"] == '"a,b":int,"say ""x""",naïve'
    fmt = make_format(job)
    assert isinstance(fmt, HeaderFormat)
    assert outcome('naïve,"a,b","say ""x"""\nn,1,s'.encode(), fmt) == (1, b"s", b"n")


def test_nulls() -> None:
    """A field that may be null is null if its name is missing, or if it is empty and no text; a double name is none."""
    fmt = make("id:int,name", nulls="id,name")
    block = [b"id,name\n,", b"id\n1", b"name\na", b"x\n?", b"x\n?,?", b"id,id\n1,1", b"\nx"]
    assert outcomes(fmt, pa.array(block)) == [
        (None, b""),
        (1, None),
        (None, b"a"),
        (None, None),
        "2 fields, expected 1: '?,?'",
        "column id is twice in the header line: 'id,id'",
        "column id is missing: header line ''",
    ]


def test_what_the_ledger_records() -> None:
    """It has the fields that sorts name with their types, whatever else `--columns` lists, and the options given."""
    job = Job(source_topic="s", csv_header=True, sorts=["name,@offset=t"], columns="x:int,name:text")
    assert describe_format(job) == {"name": "csv", "columns": "name", "delimiter": ",", "header": "yes", "rules": "2"}
    job = Job(source_topic="s", csv_header=True, csv_quote="none", sorts=["@offset"])
    assert describe_format(job) == {"name": "csv", "delimiter": ",", "header": "yes", "quote": "none", "rules": "2"}
