"""The verifier's own reading of rows and keys agrees with the format, and its bytes compare as the sort does."""

from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import example, given, settings

from tasks.formats.csv import CsvFormat
from tasks.settings.sorts import parse_columns
from tasks.verification.rows import KeyEncoder, read_key, read_kinds

COLUMNS = "id:int,name,place"
NUMBERS = [
    b"1",
    b"-7",
    b" 3\t",
    b"0x1f",
    b"0XFF",
    b"0x",
    b"+1",
    b"1_0",
    b"--1",
    b"-",
    b"00",
    b"1-2",
    b"\xd9\xa1",
    b"3\x0b",
]
LIMITS = [b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808", b"-9223372036854775809", b"0" * 5000]
FIELD = st.binary(max_size=6) | st.sampled_from(
    [*NUMBERS, *LIMITS, b'"q"', b'"', b"a\nb", b"\r", b"0xFFFFFFFFFFFFFFFF"]
)
VALUE = st.none() | st.lists(FIELD, min_size=1, max_size=4).map(b",".join)


def encode(values: Sequence[bytes | None], sort: str, columns: str = COLUMNS) -> tuple[list[bytes], list[int]]:
    kinds = read_kinds(columns)
    key = read_key(sort, kinds)
    integers = frozenset(column.name for column in key if column.is_int)
    encoded = KeyEncoder(kinds, ",", [key], integers).encode(values)
    return encoded.keys[0], encoded.rejected


@settings(max_examples=1000, deadline=None)
@given(st.lists(VALUE, max_size=8))
@example([field + b",a,b" for field in NUMBERS + LIMITS])
def test_the_same_rows_are_rejected_and_keys_agree(values: list[bytes | None]) -> None:
    """Two parsers that share no code reject the same values, and order the others alike."""
    parsed = CsvFormat(parse_columns(COLUMNS), ["id", "name"]).parse(pa.array(values, pa.binary()))
    keys, rejected = encode(values, "id,name")
    assert rejected == sorted(parsed.rejected)
    pairs = list(zip(*(parsed.columns[name].to_pylist() for name in ("id", "name")), strict=True))
    rank = sorted(range(len(pairs)), key=lambda i: pairs[i])
    assert rank == sorted(range(len(keys)), key=lambda i: keys[i])


TEXT = st.binary(max_size=4).filter(lambda text: not set(b',"\r\n') & set(text))
NUMBER = st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(NUMBER, TEXT, TEXT), min_size=2, max_size=2))
@example([(0, b"a", b""), (0, b"a\0", b"")])
@example([(0, b"a", b"b"), (0, b"", b"ab")])
@pytest.mark.parametrize(
    "sort", ["id", "id:desc", "name", "name:desc", "name,id:desc", "name:desc,place", "place,name,id"]
)
def test_encoded_keys_compare_as_the_sort(sort: str, rows: list[tuple[int, bytes, bytes]]) -> None:
    """Integers by value, text by bytes, each column in its direction, the most significant first."""
    keys, _ = encode([b"%d,%s,%s" % r for r in rows], sort)
    assert (keys[0] > keys[1]) - (keys[0] < keys[1]) == compare_rows(rows, sort)


def compare_rows(rows: list[tuple[int, bytes, bytes]], sort: str) -> int:
    names = list(read_kinds(COLUMNS))
    for column in read_key(sort, read_kinds(COLUMNS)):
        index = names.index(column.name)
        pair: list[Any] = [r[index] for r in rows]
        if pair[0] != pair[1]:
            return (1 if pair[0] > pair[1] else -1) * (-1 if column.descending else 1)
    return 0
