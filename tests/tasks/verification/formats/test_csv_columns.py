"""CSV by whole columns gives what the reader of single rows gives, and leaves the other rows to that."""

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from tasks.verification.formats.base import Request, Wanted
from tasks.verification.formats.csv import RowReader
from tasks.verification.formats.csv_columns import PlainRowReader
from tasks.verification.terms import Column, Kind
from tests.csv_values import blocks


def request(names: list[str], wanted: list[str], **facts: str) -> Request:
    columns = [Wanted(Column("", (name,)), Kind("text")) for name in wanted]
    return Request({"columns": ",".join(names), **facts}, columns)


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("quote", ["yes", "none"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_plain_rows_are_read_as_single_rows_are(width: int, quote: str, data: st.DataObject) -> None:
    """What is read by columns is what the other reader gives; a row that this one refuses is never read so."""
    delimiter, values = data.draw(blocks(width))
    names = [f"f{i}" for i in range(width)]
    asked = request(names, names[::-1], delimiter=delimiter, quote=quote)
    plain = PlainRowReader(asked).read(pa.array(values, pa.binary()))
    known = RowReader(asked, [name.encode() for name in names])
    left = [values[i] for i in np.flatnonzero(~plain.odd)]
    alone = [known.read([value]) for value in left]
    assert not any(one.refused for one in alone)
    expected = [[one.columns[at][0] for one in alone] for at in range(width)]
    assert [column.to_pylist() for column in plain.columns] == expected


def test_ordinary_rows_are_plain() -> None:
    """Rows of three fields are read by columns, with a line break behind or without; odd ones are left out."""
    values = [b"1,a,x", b"2,,y\r\n", b'3,"b",z', b"4,c", b"5,d,e,f", b",,\n", b"", b"6,g\nh,i", b"\xef\xbb\xbf7,a,b"]
    asked = request(["a", "b", "c"], ["a", "c"])
    # A slice of a longer array has its own beginning.
    plain = PlainRowReader(asked).read(pa.array([b"9,9,9", *values], pa.binary())[1:])
    assert np.flatnonzero(~plain.odd).tolist() == [0, 1, 5]
    assert [column.to_pylist() for column in plain.columns] == [[b"1", b"2", b""], [b"x", b"y", b""]]


@pytest.mark.parametrize(
    ("facts", "permitted"),
    [({}, True), ({"header": "yes"}, False), ({"name": "json"}, False), ({"delimiter": "€"}, False)],
    ids=["rows", "header lines", "json", "wide delimiter"],
)
def test_what_is_read_by_columns(facts: dict[str, str], *, permitted: bool) -> None:
    """Rows of CSV are, if their delimiter is one byte."""
    assert PlainRowReader.permits(request(["a"], ["a"], **facts)) is permitted
    assert not PlainRowReader.permits(request(["a"], ["b"], **facts))
