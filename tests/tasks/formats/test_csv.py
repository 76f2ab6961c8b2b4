"""The CSV format: every value is accepted with its typed keys, or rejected with a reason."""

import hypothesis.strategies as st
import pyarrow as pa
from hypothesis import given, settings

from tasks.formats.csv import CsvFormat
from tasks.settings.sorts import parse_columns

FORMAT = CsvFormat(parse_columns("id:int,name,place"), ["id", "name"])
FIELD = st.binary(max_size=6) | st.sampled_from([b"1", b"-7", b" 3 ", b"x", b'"q"', b'"', b"a\nb", b"\r", b"0x1f"])
VALUE = st.none() | st.lists(FIELD, min_size=1, max_size=4).map(b",".join)


def columns_of(values: list[bytes | None]) -> tuple[dict[str, list[object]], dict[int, str]]:
    parsed = FORMAT.parse(pa.array(values, pa.binary()))
    return {name: column.to_pylist() for name, column in parsed.columns.items()}, parsed.rejected


@settings(max_examples=500, deadline=None)
@given(st.lists(VALUE, max_size=12))
def test_a_block_parses_as_its_values_one_by_one(values: list[bytes | None]) -> None:
    """Whatever is in a block, no record gets its neighbour's key: each value parses as it does alone."""
    columns, rejected = columns_of(values)
    ids, names, reasons = [], [], {}
    for index, value in enumerate(values):
        alone, reason = columns_of([value])
        ids += alone["id"]
        names += alone["name"]
        if reason:
            reasons[index] = reason[0]
    assert columns == {"id": ids, "name": names}
    assert rejected == reasons


def test_newline_and_empty_value_in_one_block() -> None:
    """The trap of joined values: a row with a line break beside an empty one keeps the number of lines."""
    columns, rejected = columns_of([b"1,a,x", b"2,b\n3,c,x", b"4,d,x", b"", b"5,e,x"])
    assert columns == {"id": [1, 4, 5], "name": [b"a", b"d", b"e"]}
    assert rejected == {1: "2 rows in one value", 3: "empty value"}


def test_reasons() -> None:
    """The reason says what is wrong with the value."""
    _, rejected = columns_of([None, b"1,a", b"1,a,b,c", b"x,a,b", b'1,"a,b', b"9223372036854775808,a,b", b"1,a,b"])
    assert rejected == {
        0: "null value",
        1: "2 fields, expected 3",
        2: "4 fields, expected 3",
        3: "column id is not an integer",
        4: "not a CSV row: unexpected end of data",
        5: "column id is not an integer",
    }


def test_text_is_bytes() -> None:
    """Text that is not UTF-8 passes through, quoted or not, and may be empty."""
    columns, rejected = columns_of([b"1,\xff\xfe,x", b'2,"\xff,\n""",x', b"3,,x"])
    assert not rejected
    assert columns["name"] == [b"\xff\xfe", b'\xff,\n"', b""]


def test_schema_names_the_key_columns() -> None:
    """Integers are int64, text is binary."""
    assert FORMAT.schema == pa.schema({"id": pa.int64(), "name": pa.binary()})
