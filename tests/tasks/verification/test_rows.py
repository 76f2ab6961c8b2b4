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
from tests.csv_values import NUMBERS, blocks, key_columns

COLUMNS = "id:int,name,place"


def encode(
    values: Sequence[bytes | None], sort: str, columns: str = COLUMNS, delimiter: str = ","
) -> tuple[list[bytes], list[int]]:
    kinds = read_kinds(columns)
    key = read_key(sort, kinds)
    integers = frozenset(column.name for column in key if column.is_int)
    encoded = KeyEncoder(kinds, delimiter, [key], integers).encode(values)
    return encoded.keys[0], encoded.rejected


@pytest.mark.parametrize("columns", ["id:int,name", "name,id:int", "id:int", "name", "a:int,name,b:int"])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_the_same_rows_are_rejected_and_keys_agree(columns: str, data: st.DataObject) -> None:
    """Two parsers that share no code reject the same values, and order the others alike."""
    names = list(parse_columns(columns))
    delimiter, values = data.draw(blocks(len(names)))
    parsed = CsvFormat(parse_columns(columns), key_columns(columns, names), delimiter).parse_values(
        pa.array(values, pa.binary())
    )
    keys, rejected = encode(values, ",".join(names), columns, delimiter)
    assert rejected == sorted(parsed.rejected)
    pairs = list(zip(*(parsed.columns[name].to_pylist() for name in names), strict=True))
    assert len(keys) == len(pairs)
    assert rank(pairs) == rank(keys)


def rank(items: Sequence[Any]) -> list[int]:
    """Return the place of each among all of them in order, the same for equal ones."""
    order = sorted(set(items))
    return [order.index(item) for item in items]


@settings(max_examples=100, deadline=None)
@given(blocks(2))
@example((",", [field + b",a" for field in NUMBERS]))
def test_a_block_encodes_as_its_values_one_by_one(drawn: tuple[str, list[bytes | None]]) -> None:
    """The fate of a value depends on its own bytes only, by this parser too."""
    delimiter, values = drawn
    alone = [encode([value], "id,name", "id:int,name", delimiter) for value in values]
    keys, rejected = encode(values, "id,name", "id:int,name", delimiter)
    assert keys == [key for one, _ in alone for key in one]
    assert rejected == [i for i, (one, _) in enumerate(alone) if not one]


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
    """Integers sort by value, text by bytes, each column in its direction, the most significant first."""
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
