"""Keys of many rows as bytes, beside those of one row."""

import hypothesis.strategies as st
import pyarrow as pa
from hypothesis import given

from tasks.sorting.bound import encode_key
from tasks.sorting.encoded import count_before, encode_rows, end_of, sort_keys
from tasks.sorting.order import Order, Term

INT64 = st.integers(-(2**63), 2**63 - 1)


@given(
    st.lists(st.tuples(st.integers(0, 1), INT64, st.binary(max_size=4)), min_size=1), st.tuples(*[st.booleans()] * 3)
)
def test_rows_are_encoded_as_one_by_one(rows: list[tuple[int, int, bytes]], descending: tuple[bool, ...]) -> None:
    """Flags, integers and texts in both directions have the bytes that bounds have, also within a larger array."""
    order = Order(tuple(Term(f"k{i}", down, is_flag=i == 0) for i, down in enumerate(descending)))
    kinds = (pa.int64(), pa.int64(), pa.binary())
    columns = {f"k{i}": pa.array([None, *(row[i] for row in rows)], kind)[1:] for i, kind in enumerate(kinds)}
    assert encode_rows(order, columns).to_pylist() == [encode_key(order, row) for row in rows]
    for i in range(3):
        alone = Order(order.terms[i : i + 1])
        assert encode_rows(alone, columns).to_pylist() == [encode_key(alone, row[i : i + 1]) for row in rows]


@given(st.lists(st.one_of(st.binary(max_size=2), st.binary(min_size=8, max_size=8))), st.binary(max_size=2))
def test_keys_are_sorted_and_counted(keys: list[bytes], bound: bytes) -> None:
    """The sort is that of bytes and stable; a bound cuts where it says."""
    column = pa.array(keys, pa.binary())
    assert sort_keys(column).to_pylist() == sorted(range(len(keys)), key=keys.__getitem__)
    ordered = sorted(keys)
    assert count_before(pa.array(ordered, pa.binary()), bound) == sum(key < bound for key in keys)
    assert count_before(pa.array(ordered, pa.binary()), bound, with_equal=True) == sum(key <= bound for key in keys)


@given(st.binary(max_size=3), st.binary(max_size=5))
def test_the_end_of_a_prefix(prefix: bytes, key: bytes) -> None:
    """A key is below the end and not below the prefix if it begins with it, and only then."""
    end = end_of(prefix)
    assert key.startswith(prefix) == (key >= prefix and (end is None or key < end))
