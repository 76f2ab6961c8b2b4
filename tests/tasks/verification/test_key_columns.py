"""Keys by whole columns are the keys row by row, in the order of the records."""

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from tasks.arrow import HEADERS
from tasks.kafka import fetch
from tasks.verification.fetched import Fetched
from tasks.verification.key_columns import KeyEncoder
from tasks.verification.keys import RecordKeys
from tasks.verification.terms import read_sort
from tests.csv_values import NUMBERS

FACTS = {"columns": "id:int,name,n:decimal", "rules": "2"}
FIELD = st.sampled_from(NUMBERS) | st.binary(max_size=3) | st.integers(-99, 99).map(lambda n: b"%d" % n)
VALUE = st.lists(FIELD, min_size=3, max_size=3).map(b",".join) | st.none() | st.just(b"1,b,2\n") | st.just(b'1,"b",2')
RECORD = st.tuples(VALUE, st.none() | st.binary(max_size=2), st.integers(-1, 5))
SORTS = [
    ["id"],
    ["name:desc", "id"],
    ["name,id:desc"],
    ["@key"],
    ["@key:desc,id", "name"],
    ["@timestamp,@partition:desc,@offset"],
    ["id:nulls-first,name"],
    ["n"],
    ["@header.h"],
]


def fetched(records: list[tuple[bytes | None, bytes | None, int]]) -> Fetched:
    values, keys, times = ([record[i] for record in records] for i in range(3))
    headers = [[("h", b"x")] if i % 2 else None for i in range(len(records))]
    columns = fetch.Block(
        pa.array(values, pa.binary()),
        pa.array(keys, pa.binary()),
        pa.array(headers, HEADERS),
        np.array(times, np.int64),
        np.arange(len(records)) + 5,
    )
    return Fetched(2, columns)


@pytest.mark.parametrize("sorts", SORTS, ids=";".join)
@settings(max_examples=30, deadline=None)
@given(records=st.lists(RECORD, min_size=1, max_size=30))
def test_columns_give_the_keys_of_rows(sorts: list[str], records: list[tuple[bytes | None, bytes | None, int]]) -> None:
    """Whatever is beside a record, it has the same key, or is refused, by both ways."""
    keys = [read_sort(sort, FACTS) for sort in sorts]
    rows, block = RecordKeys(FACTS, keys, keys), fetched(records)
    found, expected = KeyEncoder(rows, FACTS, keys, keys).encode(block), rows.encode(block.listed)
    assert [column.to_pylist() for column in found.keys] == expected.keys
    assert found.rejected == expected.rejected


def test_plain_records_are_encoded_by_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows without anything odd do not go through the encoder of rows."""
    keys = [read_sort(sort, FACTS) for sort in ("id", "@key,name:desc", "@timestamp")]
    encoder = KeyEncoder(RecordKeys(FACTS, keys, keys), FACTS, keys, keys)
    monkeypatch.setattr(RecordKeys, "encode", None)
    encoded = encoder.encode(fetched([(b"%d,name,1" % i, b"k", 1) for i in range(9)]))
    assert encoded.rejected == []
    assert [len(column) for column in encoded.keys] == [9, 9, 9]
