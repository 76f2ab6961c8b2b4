"""The CSV format: every value is accepted with its typed keys, or rejected with a reason, by its own bytes alone."""

import csv
import io

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import example, given, settings

from tasks.formats.csv import CsvFormat
from tasks.formats.csv_rows import count_fields, find_strict
from tasks.formats.registry import make_format
from tasks.printable import excerpt
from tasks.settings.job import Job
from tasks.settings.sorts import parse_columns
from tasks.types.registry import key_type
from tests.csv_values import BOM, DELIMITERS, blocks, key_columns, values

FORMAT = CsvFormat(parse_columns("id:int,name,place"), key_columns("id:int,name,place", ["id", "name"]))
# The outcome of a value: its key, or the reason it has none.
Outcome = tuple[object, ...] | str


def columns_of(block: list[bytes | None]) -> tuple[dict[str, list[object]], dict[int, str]]:
    parsed = FORMAT.parse_values(pa.array(block, pa.binary()))
    return {name: column.to_pylist() for name, column in parsed.columns.items()}, parsed.rejected


def outcomes(fmt: CsvFormat, block: pa.Array) -> list[Outcome]:
    """Return one outcome for each value, in their order."""
    parsed = fmt.parse_values(block)
    assert {name: column.type for name, column in parsed.columns.items()} == {
        key.name: key_type(key.type).stored for key in fmt.keys
    }
    keys = iter(list(zip(*(parsed.columns[key.name].to_pylist() for key in fmt.keys), strict=True)))
    found = [parsed.rejected.get(i) or next(keys) for i in range(len(block))]
    assert next(keys, None) is None
    return found


@pytest.mark.parametrize("columns", ["id:int,name", "name,id:int", "id:int", "name", "a:int,b:int,name"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_equal_bytes_have_an_equal_fate(columns: str, data: st.DataObject) -> None:
    """A value has the key or the reason that it has alone: whatever its neighbours, its place, the block, the path."""
    names = list(parse_columns(columns))
    delimiter, block = data.draw(blocks(len(names)))
    fmt = CsvFormat(parse_columns(columns), key_columns(columns, names), delimiter)
    alone = {value: outcomes(fmt, pa.array([value], pa.binary()))[0] for value in block}
    for order in (block, data.draw(st.permutations(block))):
        whole, cut = pa.array(order, pa.binary()), data.draw(st.integers(0, len(order)))
        expected = [alone[value] for value in order]
        assert outcomes(fmt, whole) == expected
        assert outcomes(fmt, whole.slice(0, cut)) + outcomes(fmt, whole.slice(cut)) == expected


@pytest.mark.parametrize("columns", ["id:int,name", "name", "a:int,b:int,name"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_path_parses_alike(columns: str, data: st.DataObject) -> None:
    """A value that is forced to the side of quoted, of uneven or of odd rows has the outcome of one left alone."""
    names = list(parse_columns(columns))
    delimiter, block = data.draw(blocks(len(names)))
    between = delimiter.encode()
    fmt = CsvFormat(parse_columns(columns), key_columns(columns, names), delimiter)
    alone = [outcomes(fmt, pa.array([value], pa.binary()))[0] for value in block]
    good = between.join([b"1"] * len(names))
    companions = {
        "plain": good,
        "a line break": good + b"\r",
        "quoted": between.join([b'"1"'] * len(names)),
        "a field too many": good + between + b"1",
        "no integer": between.join([b"?"] * len(names)),
        "overflow": between.join([b"9" * 20] * len(names)),
        "an open quote": good[:-1] + b'"1',
        "a mark": BOM + good,
        "two marks": BOM + BOM + good,
        "empty": b"",
        "null": None,
    }
    for companion in companions.values():
        assert outcomes(fmt, pa.array([companion, *block, companion], pa.binary()))[1:-1] == alone


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(DELIMITERS).flatmap(lambda d: st.tuples(st.just(d), values(d, 3))))
@example((",", b'"ab"c'))
@example((",", b'a"b'))
@example((",", b'""'))
@example((",", b'"a""b"'))
@example((",", b'"'))
@example((",", b'"""'))
@example((",", b'a,"b'))
@example((",", b'a"b,"c,d"'))
@example((",", b'"a"b"'))
@example((",", b'"a" ,b'))
@example((",", b' "a"'))
def test_rows_are_strict_where_python_is(case: tuple[str, bytes | None]) -> None:
    """A row that the vectorised proof lets pass is one row, with the fields that Python's strict reader finds."""
    delimiter, row = case
    if row and find_strict(pa.array([row], pa.binary()), delimiter)[0]:
        fields = read_strictly(row, delimiter)
        assert fields is not None
        assert count_fields(pa.array([row], pa.binary()), delimiter, quoted=True).tolist() == [len(fields)]
    elif row and not row.endswith((b"\r", b"\n")):
        assert read_strictly(row, delimiter) is None


def read_strictly(row: bytes, delimiter: str) -> list[str] | None:
    """Return the fields, or None if the value is not one row."""
    try:
        rows = list(csv.reader(io.StringIO(row.decode("latin-1"), newline=""), delimiter=delimiter, strict=True))
    except csv.Error:
        return None
    return rows[0] if len(rows) == 1 else None


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_quotes_that_are_text(data: st.DataObject) -> None:
    """With `--csv-quote none` a value is one line, split at each delimiter, whatever its neighbours and its quotes."""
    delimiter, block = data.draw(blocks(2))
    fmt = CsvFormat(parse_columns("a,b"), key_columns("a,b", ["a", "b"]), delimiter, quotes=False)

    def expected(value: bytes | None) -> Outcome | None:
        row = (value or b"").removeprefix(BOM)
        row = row.removesuffix(b"\r\n") if row.endswith(b"\r\n") else row[: len(row) - row.endswith((b"\r", b"\n"))]
        fields = tuple(row.split(delimiter.encode()))
        return fields if len(fields) == 2 and not {*b"\r\n"} & {*row} else None

    whole, cut = pa.array(block, pa.binary()), data.draw(st.integers(0, len(block)))
    found = outcomes(fmt, whole)
    assert [key if isinstance(key, tuple) else None for key in found] == [expected(value) for value in block]
    assert outcomes(fmt, whole.slice(0, cut)) + outcomes(fmt, whole.slice(cut)) == found


def test_reasons_where_quotes_are_text() -> None:
    """Rows and fields are counted without regard to quotes."""
    fmt = CsvFormat(parse_columns("a,b"), key_columns("a,b", ["a"]), quotes=False)
    block = [b'"a,b"', b'"a\n,b"', b'"a,b",c', b'"', None, b""]
    assert outcomes(fmt, pa.array(block, pa.binary())) == [
        (b'"a',),
        r"""2 rows in one value: '"a\n,b"'""",
        "3 fields, expected 2: '\"a,b\",c'",
        "1 fields, expected 2: '\"'",
        "null value",
        "empty value",
    ]


@pytest.mark.parametrize("delimiter", [r"\t", "pipe", "|", ";", "semicolon", r"\x1f", "space"])
@pytest.mark.parametrize("quote", ["double", "none"])
def test_delimiters_by_name(delimiter: str, quote: str) -> None:
    """A delimiter that is given by an escape or a name divides fields, and is text within quotes."""
    job = Job.model_validate(
        {
            "source_topic": "s",
            "columns": "id:int,name",
            "sorts": ["id,name"],
            "delimiter": delimiter,
            "csv_quote": quote,
        }
    )
    fmt, char = make_format(job), job.delimiter.encode()
    assert isinstance(fmt, CsvFormat)
    block = pa.array([b"1%sa,b" % char, b'2%s"a%sb"' % (char, char)])
    second = (2, b"a%sb" % char) if quote == "double" else f"3 fields, expected 2: {excerpt(block[1].as_py())}"
    assert outcomes(fmt, block) == [(1, b"a,b"), second]


@pytest.mark.parametrize("other", [b"1,a", b'1,"a"', b"x,a", b"1"])
def test_an_empty_field_is_null_where_that_is_permitted(other: bytes) -> None:
    """An empty integer has its place if all sorts say where; an empty text is a text."""
    permitted = make_format(
        Job(source_topic="s", columns="id:int,name", sorts=["id:nulls-last", "name,id:nulls-first"])
    )
    assert isinstance(permitted, CsvFormat)
    found = outcomes(permitted, pa.array([b",a", other, b'"",a', b",", b" ,a"]))
    assert [*found[:1], *found[2:]] == [(None, b"a"), (None, b"a"), (None, b""), "column id is not an integer: ' '"]
    one = make_format(Job(source_topic="s", columns="id:int,name", sorts=["id:int:nulls-last", "name,id"]))
    assert isinstance(one, CsvFormat)
    assert outcomes(one, pa.array([b",a", other, b"2,"]))[::2] == ["column id is not an integer: ''", (2, b"")]


def test_newline_and_empty_value_in_one_block() -> None:
    """The trap of joined values: a row with a line break beside an empty one keeps the number of lines."""
    columns, rejected = columns_of([b"1,a,x", b"2,b\n3,c,x", b"4,d,x", b"", b"5,e,x"])
    assert columns == {"id": [1, 4, 5], "name": [b"a", b"d", b"e"]}
    assert rejected == {1: r"2 rows in one value: '2,b\n3,c,x'", 3: "empty value"}


def test_an_open_quote_swallows_no_neighbour() -> None:
    """The other trap of joined values: a quote that stays open, and one that would close it a row later."""
    columns, rejected = columns_of([b'1,"a",x', b'2,"b,x', b"3,c,x", b'4,d",x', b'5,"e\n",x'])
    assert columns == {"id": [1, 3, 4, 5], "name": [b"a", b"c", b'd"', b"e\n"]}
    assert list(rejected) == [1]


def test_a_byte_order_mark_is_no_part_of_the_first_field() -> None:
    """At every place of a block, one mark is skipped, and a second belongs to the field; alone it is an empty value."""
    marked = BOM + b"10,a,x"
    columns, rejected = columns_of([marked, b"2,b,x", marked, BOM + b'"3",c,x', BOM + BOM + b"4,d,x", BOM, BOM + b"\n"])
    assert columns == {"id": [10, 2, 10, 3], "name": [b"a", b"b", b"a", b"c"]}
    assert rejected == {4: r"column id is not an integer: '\ufeff4'", 5: "empty value", 6: "empty value"}
    names = CsvFormat(parse_columns("name"), key_columns("name", ["name"])).parse_values(
        pa.array([BOM + b"b", BOM + BOM + b"b", b"a" + BOM])
    )
    assert names.columns["name"].to_pylist() == [b"b", BOM + b"b", b"a" + BOM]


def test_one_line_break_ends_a_row() -> None:
    """One LF, CR or CRLF at the end is accepted; a second one is a second row, in quotes it is text."""
    block = [b"1,a,x" + end for end in (b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\n\r", b"\r\n\r\n")]
    columns, rejected = columns_of([*block, b'8,"\r\n",x', b"\n"])
    assert columns == {"id": [1, 1, 1, 8], "name": [b"a", b"a", b"a", b"\r\n"]}
    assert [reason.partition(":")[0] for reason in rejected.values()] == ["2 rows in one value"] * 4 + ["empty value"]


INTEGERS = {
    b"7": 7,
    b"-7": -7,
    b"-0": 0,
    b" 7\t": 7,
    b"007": 7,
    b"0" * 5000 + b"7": 7,
    b"000000000009223372036854775807": 2**63 - 1,
    b"-9223372036854775808": -(2**63),
    b"0x1F": 31,
    b"0Xff": 255,
    b"0x7FFFFFFFFFFFFFFF": 2**63 - 1,
    b"0xFFFFFFFFFFFFFFFF": -1,
    b"9223372036854775808": "overflows 64 bits: '9223372036854775808'",
    b"-9223372036854775809": "overflows 64 bits: '-9223372036854775809'",
    b" 99999999999999999999": "overflows 64 bits: ' 99999999999999999999'",
    b"0x1FFFFFFFFFFFFFFFF": "overflows 64 bits: '0x1FFFFFFFFFFFFFFFF'",
    b"9" * 60: "overflows 64 bits: '" + "9" * 40 + "…'",
    b"+7": "is not an integer: '+7'",
    b"": "is not an integer: ''",
    b" ": "is not an integer: ' '",
    b"-": "is not an integer: '-'",
    b"1_000": "is not an integer: '1_000'",
    b"1'000": "is not an integer: '1'000'",
    b"1 000": "is not an integer: '1 000'",
    b"1.000": "is not an integer: '1.000'",
    b"1.0": "is not an integer: '1.0'",
    b"- 7": "is not an integer: '- 7'",
    b"0x": "is not an integer: '0x'",
    b"-0x1": "is not an integer: '-0x1'",
    b"7\0": r"is not an integer: '7\x00'",
    b"\xd9\xa1": "is not an integer: '\u0661'",
    b"\xff": r"is not an integer: '\xff'",
    b"\x1b[2J\xe2\x80\xae": r"is not an integer: '\x1b[2J\u202e'",
    b"\xc3\xa4" * 50: "is not an integer: '" + "ä" * 40 + "…'",
}


@pytest.mark.parametrize("others", [[], [b"1,a,b"], [b'1,"a",b'], [b"x,a,b"]], ids=["alone", "plain", "quoted", "bad"])
@pytest.mark.parametrize("text", INTEGERS)
def test_integers(text: bytes, others: list[bytes]) -> None:
    """Each text is an integer, or its reason names it, short and printable, and tells overflow from the rest."""
    expected = INTEGERS[text]
    columns, rejected = columns_of([text + b",a,b", *others])
    if isinstance(expected, int):
        assert columns["id"][0] == expected
    else:
        assert rejected[0] == f"column id {expected}"


def test_reasons() -> None:
    """The reason says what is wrong, and names the value that was refused."""
    _, rejected = columns_of([None, b"1,a", b"1,a,b,c\r\n", b"x,a,b", b'1,"a,b', b"", b"1,a,b"])
    assert rejected == {
        0: "null value",
        1: "2 fields, expected 3: '1,a'",
        2: "4 fields, expected 3: '1,a,b,c'",
        3: "column id is not an integer: 'x'",
        4: "not a CSV row (unexpected end of data): '1,\"a,b'",
        5: "empty value",
    }


def test_the_first_key_column_gives_the_reason() -> None:
    """If several columns refuse a row, the reason is that of the first one."""
    fmt = CsvFormat(parse_columns("a:int,b:int"), key_columns("a:int,b:int", ["b", "a"]))
    assert fmt.parse_values(pa.array([b"x,y"])).rejected == {0: "column b is not an integer: 'y'"}


def test_text_is_bytes() -> None:
    """Text that is not UTF-8 passes through, quoted or not, and may be empty."""
    columns, rejected = columns_of([b"1,\xff\xfe,x", b'2,"\xff,\n""",x', b"3,,x"])
    assert not rejected
    assert columns["name"] == [b"\xff\xfe", b'\xff,\n"', b""]


def test_a_value_is_split_as_it_is_parsed() -> None:
    """The fields of one value come without what surrounds the row."""
    assert FORMAT.split(BOM + b'1,"a,b",c\r\n') == [b"1", b"a,b", b"c"]
