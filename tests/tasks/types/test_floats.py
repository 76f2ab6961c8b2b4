"""The type `float` beside Python's floats."""

import math
import struct

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from tasks.printable import excerpt
from tests.tasks.types.outcomes import assert_as_expected, assert_equal_fate, blocks, outcomes, read, shown

_NUMBERS = st.one_of(
    st.floats().map(lambda number: repr(number).encode()),
    st.floats(-10, 10).map(lambda number: b"%.3f" % number),
    st.sampled_from([b"1e308", b"1.8e308", b"-1e309", b"1e-400", b"-1e-400", b"4.9e-324", b".5", b"5.", b"-0", b"0"]),
    st.sampled_from([b"9007199254740993", b"9" * 400, b"0." + b"0" * 400 + b"1", b"1e5", b"1E+5", b"00.10"]),
)
_NAMES = st.sampled_from([b"nan", b"NaN", b"-nan", b"inf", b"-INF", b"Infinity", b"-infinity", b"infin", b"nan(1)"])


def expect(text: bytes) -> tuple[bool, float]:
    """Read a float, NaN behind all others; ValueError has the reason."""
    bare = text.strip(b" \t").lower()
    if bare.removeprefix(b"-") in {b"nan", b"inf", b"infinity"}:
        return (True, 0.0) if b"nan" in bare else (False, float(bare))
    plain = not bare.startswith(b"+") and set(bare) <= set(b"0123456789.e+-")
    try:
        number = float(bare if plain else b"")
    except ValueError:
        raise ValueError(f"is not a float: {excerpt(text)}") from None
    if math.isinf(number):
        raise ValueError(f"overflows a double: {excerpt(text)}")
    return False, number


@settings(max_examples=200, deadline=None)
@given(blocks(_NUMBERS | _NAMES) | blocks(_NUMBERS))
def test_floats_compare_as_numbers(texts: list[bytes | None]) -> None:
    """What is accepted, the double nearest to it, and the order are Python's; NaN is behind all."""
    assert_as_expected("float", texts, expect)


@settings(max_examples=30, deadline=None)
@given(blocks(_NUMBERS | _NAMES))
def test_equal_bytes_have_an_equal_fate(texts: list[bytes | None]) -> None:
    """The outcome of a text does not depend on what is beside it."""
    assert_equal_fate("float", texts, [b"1", b"nan", b"x", b"1e999", b"+1", b"nan(1)", b"", b"0x1p3"])


@pytest.mark.parametrize(
    "text", [b"+1", b"+inf", b"nan(1)", b"infin", b"0x1p3", b"1e", b"1_0", b"1,5", b".", b"-", b""]
)
def test_other_forms_are_refused(text: bytes) -> None:
    """Forms that a library may read are no floats, also where nothing is beside them."""
    assert read("float", text) == f"is not a float: {excerpt(text)}"


@given(st.floats())
def test_floats_are_shown_by_their_shortest_text(number: float) -> None:
    """The printed form is that of Python, and the double itself; -0 and all NaN are one."""
    expected = repr(number or 0.0)
    assert shown("float", repr(number).encode()) == expected


def test_native_floats() -> None:
    """Arrow's doubles keep their value, and other NaN or zeros are the same as their texts."""
    odd = struct.unpack("<d", struct.pack("<Q", 0xFFF0000000000001))[0]
    column = pa.array(np.array([odd, -0.0, -math.inf, 1.5, 0.0]), mask=np.array([False, False, False, False, True]))
    texts = [b"nan", b"0", b"-inf", b"1.5"]
    assert outcomes("float", column) == [*(read("float", text) for text in texts), None]


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32()])
def test_narrow_native_floats(kind: pa.DataType) -> None:
    """A narrow float is the double of the same value."""
    column = pa.array(np.array([0.1, 1.5], kind.to_pandas_dtype()))
    assert outcomes("float", column) == [read("float", repr(float(n.as_py())).encode()) for n in column]
