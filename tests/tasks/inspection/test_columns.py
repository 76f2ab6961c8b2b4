"""Columns of a sample: the narrowest type that all values have, nulls, and how values are spread."""

import pyarrow as pa
import pytest

from tasks.inspection.columns import NUMBERS, STRINGS, describe_texts

UUID = b"00112233-4455-6677-8899-aabbccddeeff"
TYPES = {
    "int": [b"1", b"-7", b"9223372036854775807"],
    "decimal": [b"1", b"9223372036854775808", b"1.10"],
    "float": [b"1.5", b"nan"],
    "bool": [b"true", b"FALSE"],
    "uuid": [UUID, UUID.upper()],
    "time": [b"2026-01-31T12:00:00Z", b"2026-01-31 12:00+01:00"],
    "text": [b"2026-01-31T12:00:00", b"1,000", b"\xff"],
}


@pytest.mark.parametrize("kind", TYPES)
def test_the_narrowest_type(kind: str) -> None:
    """It is one that all values have; with a value of another kind it is text."""
    assert describe_texts("c", pa.array(TYPES[kind], pa.binary())).type == kind
    assert describe_texts("c", pa.array([*TYPES[kind], b"x"], pa.binary())).type == "text"


def test_counts() -> None:
    """Nulls, distinct values and the commonest one are those of the type: 1 and 1.0 are equal decimals."""
    column = describe_texts("c", pa.array([b"1", b"1.0", b"2.5", None, b""], pa.binary()), empty_is_null=True)
    assert (column.type, column.count, column.nulls, column.distinct) == ("decimal", 5, 2, 2)
    assert (column.commonest, column.heaviest, column.heaviest_share) == ("1", 2, 0.4)
    assert (column.null_share, column.distinct_share) == (0.4, 2 / 3)


def test_an_empty_text() -> None:
    """It is null in a row of CSV, but for a column of text; in a document it is a text."""
    texts = pa.array([UUID, b""], pa.binary())
    assert describe_texts("c", texts, empty_is_null=True).type == "uuid"
    assert describe_texts("c", texts, STRINGS).type == "text"
    assert describe_texts("c", pa.array([b"", b""], pa.binary()), empty_is_null=True).type == "text"


def test_a_value_that_most_are_not() -> None:
    """A rare value of another kind makes the column text, and is shown."""
    column = describe_texts("c", pa.array([*[b"%d" % i for i in range(5000)], b"n/a"], pa.binary()))
    assert (column.type, column.note) == ("text", "int, but for 1: 'n/a'")


@pytest.mark.parametrize(
    ("texts", "note"),
    [
        ([b"1700000000", b"1700000001"], "perhaps time(s)"),
        ([b"1700000000000"], "perhaps time(ms)"),
        ([b"1700000000000000"], "perhaps time(us)"),
        ([b"1700000000000000000"], "perhaps time(ns)"),
        ([b"1700000000", b"7"], ""),
        ([b"2026-01-31", b"2026-01-31 12:00:00.5"], "times without a zone, which compare as text"),
        ([b"a", b"", b""], "2 are empty"),
    ],
)
def test_remarks(texts: list[bytes], note: str) -> None:
    """A remark says what values seem to be, where the type does not."""
    assert describe_texts("c", pa.array(texts, pa.binary())).note == note


def test_no_type() -> None:
    """Numbers that no type holds are no column of a sort."""
    column = describe_texts("c", pa.array([b"1" * 400 + b"e400", b"1" * 39], pa.binary()), NUMBERS)
    assert (column.type, column.is_sortable) == ("", False)


@pytest.mark.parametrize("name", ["a", "a.b", '"total, net"', '"a.b"[0]', '"@key"', "a b"])
def test_names_that_a_sort_reads(name: str) -> None:
    """A name is offered if a sort reads it as it stands."""
    assert describe_texts(name, pa.array([b"1"], pa.binary())).is_sortable


@pytest.mark.parametrize("name", ["a,b", "a:int", "a=b", '"a\nb"', '"\x1b[31m"', '"', "", "a" * 501])
def test_names_that_a_sort_misreads(name: str) -> None:
    """Other names are not, whatever is in the data."""
    assert not describe_texts(name, pa.array([b"1"], pa.binary())).is_sortable
