"""The type `decimal` beside Python's decimals."""

import re
from decimal import Decimal, InvalidOperation

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from tasks.printable import excerpt
from tests.tasks.types.outcomes import (
    assert_as_expected,
    assert_equal_fate,
    blocks,
    outcomes,
    outcomes_of,
    read,
    shown,
)

_SIGNS = st.sampled_from([b"", b"", b"-"])
_DIGITS = st.one_of(
    st.integers(0, 99).map(lambda n: b"%d" % n),
    st.integers(0, 10**20).map(lambda n: b"%d" % n),
    st.builds(lambda n, zeros: b"0" * zeros + b"%d" % n + b"0" * zeros, st.integers(0, 10**38), st.integers(0, 3)),
    st.sampled_from([b"9" * 18, b"9" * 19, b"1" + b"0" * 19, b"9" * 38, b"9" * 39, b"1" + b"0" * 38, b"0" * 45 + b"7"]),
)
_PARTS = st.just(b"") | _DIGITS.map(lambda digits: b"." + digits) | st.just(b".")
_POWERS = st.one_of(
    st.just(b""),
    st.integers(-40, 40).map(lambda n: b"e%d" % n),
    st.integers(9990, 10_010).map(lambda n: b"E+%d" % n),
    st.integers(-10_045, -9990).map(lambda n: b"e%d" % n),
)
_PLAIN = st.builds(lambda *parts: b"".join(parts), _SIGNS, _DIGITS, _PARTS)
_TEXTS = _PLAIN | st.builds(lambda *parts: b"".join(parts), _SIGNS, _DIGITS | st.just(b""), _PARTS, _POWERS)


def expect(text: bytes) -> Decimal:
    """Read a decimal; ValueError has the reason."""
    bare = text.strip(b" \t")
    if bare.startswith(b"+") or not set(bare) <= set(b"0123456789.eE+-"):
        raise ValueError(f"is not a decimal: {excerpt(text)}")
    try:
        number = Decimal(bare.decode())
    except InvalidOperation:
        # Python has an end, too, and refuses an exponent of more digits as it does what is no number.
        digits, _, exponent = bare.lower().partition(b"e")
        if not re.fullmatch(rb"-?([0-9]+\.?[0-9]*|\.[0-9]+)e[+-]?[0-9]+", bare.lower()) or len(exponent) < 18:
            raise ValueError(f"is not a decimal: {excerpt(text)}") from None
        number = Decimal(digits.decode())
        if number:
            raise ValueError(f"overflows a decimal: {excerpt(text)}") from None
    if len("".join(map(str, number.as_tuple().digits)).strip("0")) > 38:
        raise ValueError(f"has more than 38 digits: {excerpt(text)}")
    if number and abs(number.adjusted()) > 9999:
        raise ValueError(f"overflows a decimal: {excerpt(text)}")
    return number


@settings(max_examples=200, deadline=None)
@given(blocks(_TEXTS) | blocks(_PLAIN))
def test_decimals_compare_as_numbers(texts: list[bytes | None]) -> None:
    """What is accepted, the order and the equality are Python's; reasons are by the rule that is broken."""
    assert_as_expected("decimal", texts, expect)


@settings(max_examples=30, deadline=None)
@given(blocks(_TEXTS))
def test_equal_bytes_have_an_equal_fate(texts: list[bytes | None]) -> None:
    """The outcome of a text does not depend on what is beside it."""
    assert_equal_fate("decimal", texts, [b"1", b"1e3", b"x", b"9" * 38, b"9" * 39, b"-", b"0x1F", b"1e10000", b" 1"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"1.10", "1.1"),
        (b"-0.0", "0"),
        (b"100", "100"),
        (b"-20.50", "-20.5"),
        (b"0.0000001", "0.0000001"),
        (b"0.00000001", "1e-8"),
        (b"9" * 38, "9" * 38),
        (b"-1.5e38", "-1.5e38"),
        (b"1e37", "1" + "0" * 37),
    ],
)
def test_decimals_are_shown_short(text: bytes, expected: str) -> None:
    """A decimal is shown without zeros that say nothing, and with an exponent only if it is very long."""
    assert shown("decimal", text) == expected


@settings(max_examples=100, deadline=None)
@given(_TEXTS)
def test_what_is_shown_is_the_number(text: bytes) -> None:
    """The printed form of a decimal is the decimal."""
    try:
        expected = expect(text)
    except ValueError:
        return
    assert Decimal(str(shown("decimal", text))) == expected


@pytest.mark.parametrize("power", [b"e" + b"9" * 30, b"E-" + b"9" * 6000, b"e+" + b"1" * 20])
def test_exponents_of_many_digits(power: bytes) -> None:
    """However long an exponent is, it overflows; zero has none."""
    assert read("decimal", b"1" + power).startswith("overflows a decimal: ")
    assert read("decimal", b"0" + power) == read("decimal", b"0")
    assert read("decimal", b"1e" + b"0" * 6000 + b"1") == read("decimal", b"10")


def test_digits_by_the_million() -> None:
    """A long text costs its own time only."""
    assert read("decimal", b"7" * 10**6).startswith("has more than 38 digits: ")
    assert read("decimal", b"0" * 10**6 + b"7") == read("decimal", b"7")
    assert read("decimal", b"7" + b"0" * 10**6).startswith("overflows a decimal: ")


_NUMBERS = st.integers(-(10**38) + 1, 10**38 - 1) | st.integers(-200, 200)


@settings(max_examples=50, deadline=None)
@given(st.lists(_NUMBERS | st.none(), max_size=6), st.integers(-3, 38))
def test_native_decimals(numbers: list[int | None], scale: int) -> None:
    """Arrow's decimals of any scale are encoded as their texts are."""
    texts = [None if n is None else b"%de%d" % (n, -scale) for n in numbers]
    for kind in (pa.decimal128(38, scale), pa.decimal256(60, scale)):
        unscaled = pa.array([None if n is None else Decimal(n) for n in numbers], _unscaled(kind))
        column = pa.Array.from_buffers(kind, len(unscaled), unscaled.buffers())
        assert outcomes("decimal", column) == outcomes_of("decimal", texts)
        assert outcomes("decimal", column.slice(1)) == outcomes_of("decimal", texts[1:])


def _unscaled(kind: pa.DataType) -> pa.DataType:
    return pa.decimal128(38, 0) if pa.types.is_decimal128(kind) else pa.decimal256(60, 0)


def test_native_decimals_of_too_many_digits() -> None:
    """A decimal of 256 bits may have more digits than there is space for."""
    column = pa.array([Decimal("1." + "1" * 40), Decimal("1.5")], pa.decimal256(50, 40))
    assert outcomes("decimal", column) == [
        f"has more than 38 digits: '{'1' * 40}…'",
        read("decimal", b"1.5"),
    ]


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.uint64()])
def test_native_integers(kind: pa.DataType) -> None:
    """Integers of any width are decimals."""
    most = 2 ** (kind.bit_width - pa.types.is_signed_integer(kind)) - 1
    assert outcomes("decimal", pa.array([0, None, most], kind)) == outcomes_of("decimal", [b"0", None, b"%d" % most])
