"""The type `int`."""

import re

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from tasks.printable import excerpt
from tests.csv_values import NUMBERS
from tests.tasks.types.outcomes import assert_as_expected, assert_equal_fate, blocks, outcomes, read, shown

_TEXTS = st.sampled_from(NUMBERS) | st.integers(-(2**64), 2**64).map(lambda n: b"%d" % n)


def expect(text: bytes) -> int:
    """Read an integer; ValueError has the reason."""
    bare = text.strip(b" \t")
    if not bare.isascii() or not re.fullmatch(rb"-?\d+|0[xX][\da-fA-F]+", bare):
        raise ValueError(f"is not an integer: {excerpt(text)}")
    sign, digits = -1 if bare[:1] == b"-" else 1, bare.lstrip(b"-0xX")
    # Python refuses to read thousands of digits.
    if bare[1:2] in {b"x", b"X"}:
        bits = bytes.fromhex(digits.decode().zfill(16)) if len(bare) <= 18 else None
        number = None if bits is None else int.from_bytes(bits, "big", signed=True)
    else:
        number = sign * int(digits or b"0") if len(digits) < 20 else None
    if number is None or not -(2**63) <= number < 2**63:
        raise ValueError(f"overflows 64 bits: {excerpt(text)}")
    return number


@settings(max_examples=100, deadline=None)
@given(blocks(_TEXTS))
def test_integers(texts: list[bytes | None]) -> None:
    """What is accepted, and the reason of each refusal, whatever is beside it."""
    assert_as_expected("int", texts, expect)
    assert_equal_fate("int", texts, [b"x", b"9" * 19, b"0x1F"])


def test_integers_are_shown_as_numbers() -> None:
    """The printed form is a number, of JSON too."""
    assert shown("int", b" 0x1F") == 31


@pytest.mark.parametrize("kind", [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint32(), pa.uint64()])
def test_native_integers(kind: pa.DataType) -> None:
    """Arrow's integers of any width."""
    assert outcomes("int", pa.array([1, None, 100], kind)) == [1, None, 100]


def test_a_native_integer_beyond_the_sign() -> None:
    """An unsigned integer may not fit; those beside it do."""
    column = pa.array([2**63, None, 2**63 - 1], pa.uint64())
    assert outcomes("int", column) == ["overflows 64 bits: '9223372036854775808'", None, 2**63 - 1]
    assert read("int", b"9223372036854775808") == outcomes("int", column)[0]
