"""Parts of a sort by key: each row is where its key belongs, by Python's own comparison."""

from bisect import bisect_right

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from tasks.sorting.bound import encode_key
from tasks.sorting.key_parts import KeyParts, first_words, sample_parts
from tasks.sorting.order import Order, Term

ORDERS = {
    "integer": Order((Term("k0"),)),
    "integer, descending": Order((Term("k0", descending=True),)),
    "text": Order((Term("k1"),)),
    "text, descending": Order((Term("k1", descending=True),)),
    "flag, text, integer": Order((Term("n1", is_flag=True), Term("k1", descending=True), Term("k0"))),
    "partition, integer": Order((Term("p0"), Term("k0"))),
}
TEXTS = st.one_of(
    st.binary(max_size=20), st.sampled_from([b"", b"\0", b"\0\0", b"customer-000", b"customer-000\0", b"c"])
)
NUMBERS = st.one_of(st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1))
ROWS = st.lists(st.tuples(NUMBERS, TEXTS, st.integers(0, 1), st.integers(0, 3)), max_size=60)


def table_of(rows: list[tuple[int, bytes, int, int]]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ((), (), (), ())
    kinds = {"k0": pa.int64(), "k1": pa.binary(), "n1": pa.int64(), "p0": pa.int32()}
    return pa.table([pa.array(c, kind) for c, kind in zip(columns, kinds.values(), strict=True)], pa.schema(kinds))


def keys_of(order: Order, rows: pa.Table) -> list[bytes]:
    if order == ORDERS["text"]:
        return [row["k1"] for row in rows.to_pylist()]
    return [encode_key(order, tuple(row[name] for name in order.columns)) for row in rows.to_pylist()]


@settings(max_examples=80, deadline=None)
@given(ROWS, ROWS, st.sampled_from(sorted(ORDERS)), st.integers(1, 12))
def test_rows_are_where_their_keys_belong(
    sampled: list[tuple[int, bytes, int, int]], rows: list[tuple[int, bytes, int, int]], name: str, parts: int
) -> None:
    """Whatever the sample, a row's part is the number of bounds that its key reaches; equal keys have equal parts."""
    order, sample, table = ORDERS[name], table_of(sampled), table_of([*rows, *sampled])
    columns = {name: sample.column(name).combine_chunks() for name in order.columns}
    made = sample_parts(order, columns, np.ones(len(sample)), parts)
    assert made.count <= parts
    assert list(made.bounds) == sorted(set(made.bounds))
    found = made.find(table).tolist()
    assert found == [bisect_right(made.bounds, key) for key in keys_of(order, table)]


def test_parts_have_equal_weights() -> None:
    """A partition of which few offsets were sampled counts as much as it holds."""
    order, numbers = ORDERS["integer"], np.arange(1000)
    columns = {"k0": pa.array(numbers)}
    even = sample_parts(order, columns, np.ones(1000), 4)
    assert np.bincount(even.find(table_of([(i, b"", 0, 0) for i in range(1000)]))).tolist() == [250] * 4
    # The upper half of the keys stands for nine times as many rows.
    weighted = sample_parts(order, columns, np.where(numbers < 500, 1.0, 9.0), 10)
    counts = np.bincount(weighted.find(table_of([(i, b"", 0, 0) for i in range(1000)]))).tolist()
    assert counts[0] == 500
    assert max(counts[1:]) <= 56


def test_a_heavy_key_is_one_part() -> None:
    """A key that is more than a part's share is in one part; the others are divided all the same."""
    order, numbers = ORDERS["integer"], np.sort(np.concatenate([np.full(600, 300), np.arange(400)]))
    made = sample_parts(order, {"k0": pa.array(numbers)}, np.ones(1000), 10)
    assert 3 < made.count < 10
    table = table_of([(int(i), b"", 0, 0) for i in numbers])
    assert len({part for part, i in zip(made.find(table).tolist(), numbers, strict=True) if i == 300}) == 1


@pytest.mark.parametrize(("stem", "behind", "lengths"), [(0, 100, [64] * 3), (100, 100, [128] * 3), (5000, 0, [4096])])
def test_long_keys_make_short_bounds(stem: int, behind: int, lengths: list[int]) -> None:
    """A plan stays small, whatever the size of keys: a bound has no more of its key than tells it from others."""
    keys = [b"k" * stem + bytes([i]) + b"e" * behind for i in range(1, 100)]
    made = sample_parts(ORDERS["text"], {"k1": pa.array(keys, pa.binary())}, np.ones(99), 4)
    assert [len(bound) for bound in made.bounds] == lengths
    table = table_of([(1, key, 0, 0) for key in keys])
    found = made.find(table).tolist()
    assert found == [bisect_right(made.bounds, key) for key in keys_of(ORDERS["text"], table)]
    assert len(set(found)) == (4 if stem < 5000 else 1)


@pytest.mark.parametrize("keys", [[], [b""], [b"a", b"", b"12345678", b"123456789"]], ids=["none", "empty", "several"])
def test_first_words(keys: list[bytes]) -> None:
    """The first 8 bytes of a key as a number, also of an array that is a slice."""
    whole = pa.array([b"before", *keys, b"behind"], pa.binary())
    expected = [int.from_bytes(key[:8].ljust(8, b"\0"), "big") for key in keys]
    assert first_words(whole.slice(1, len(keys))).tolist() == expected


def test_no_bounds() -> None:
    """Without a sample all rows are in one part."""
    made = sample_parts(ORDERS["text"], {"k1": pa.array([], pa.binary())}, np.empty(0), 5)
    assert made == KeyParts(ORDERS["text"])
    assert made.find(table_of([(1, b"a", 0, 0)])).tolist() == [0]
