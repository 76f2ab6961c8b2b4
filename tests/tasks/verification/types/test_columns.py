"""Types that encode whole columns give the bytes of the types that encode one by one."""

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings

from tasks.verification.terms import Kind
from tasks.verification.types.columns import encode_integers, find_encoder
from tasks.verification.types.registry import make_type
from tests.csv_values import NUMBERS

TEXTS = st.lists(
    st.sampled_from(NUMBERS) | st.binary(max_size=6) | st.integers(-(2**70), 2**70).map(lambda n: b"%d" % n),
    max_size=30,
)


@pytest.mark.parametrize("name", ["int", "text"])
@settings(max_examples=100, deadline=None)
@given(TEXTS)
@example([b"", b"-", b"0", b"1", b"-1", b"a\0b", b"999999999999999999", b"-0", b"/", b":"])
def test_columns_encode_as_single_values(name: str, texts: list[bytes]) -> None:
    """A value that is not odd has the same bytes, and is never one that the type refuses."""
    encode = find_encoder(Kind(name))
    assert encode is not None
    # A slice of a longer array has its own beginning.
    keys, odd = encode(pa.array([b"7", *texts, b"8"], pa.binary())[1 : len(texts) + 1])
    expected, refused = make_type(Kind(name)).encode(texts)
    assert not set(refused) & set(np.flatnonzero(~odd).tolist())
    assert [key for key, is_odd in zip(keys.to_pylist(), odd, strict=True) if not is_odd] == [
        key for key, is_odd in zip(expected, odd, strict=True) if not is_odd
    ]


@given(st.lists(st.integers(0, 10**18 - 1)))
def test_usual_integers_are_not_odd(numbers: list[int]) -> None:
    """Integers of up to 18 digits are encoded by columns, whatever their sign."""
    encode = find_encoder(Kind("int"))
    assert encode is not None
    assert not encode(pa.array([b"%d" % n for n in numbers] + [b"%d" % -n for n in numbers], pa.binary()))[1].any()


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_numbers_compare_as_their_bytes(numbers: list[int]) -> None:
    """The bytes of numbers are in the order of the numbers."""
    keys = encode_integers(np.array(numbers, np.int64)).to_pylist()
    assert [number for _, number in sorted(zip(keys, numbers, strict=True))] == sorted(numbers)
