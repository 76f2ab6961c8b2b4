"""Numbers encode to bytes that compare as Python's own numbers do."""

import math
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
from hypothesis import example, given, settings

from tasks.verification.terms import Kind
from tasks.verification.types.registry import make_type
from tests.csv_values import NUMBERS
from tests.ranks import assert_same_order, encode_all, refused

DECIMALS = st.builds(
    lambda sign, digits, point, exponent: f"{sign}{digits[:point]}.{digits[point:]}{exponent}",
    st.sampled_from(["", "-"]),
    st.text("0123456789", min_size=1, max_size=20) | st.sampled_from(["0", "000", "1", "10", "9" * 38, "0" * 9 + "1"]),
    st.integers(1, 8),
    st.sampled_from(["", "e0", "E+3", "e-3", "e12", "e-0012"]),
)


@settings(deadline=None)
@given(st.lists(DECIMALS, min_size=2, max_size=8))
@example(["1.10", "1.1", "-0", "0", "0e5", ".5", "5.", "-.5"])
def test_decimals_compare_exactly(texts: list[str]) -> None:
    """Order and equality are those of exact fractions."""
    numbers = [Fraction(Decimal(text)) for text in texts]
    assert_same_order(encode_all("decimal", texts), numbers)


@given(st.lists(st.decimals(-(10**6), 10**6, places=3) | st.integers(-(2**70), 2**70), min_size=2, max_size=6))
def test_decimals_of_other_formats(numbers: list[Any]) -> None:
    """Python's decimals and integers encode like their texts."""
    keys = make_type(Kind("decimal")).encode(numbers)[0]
    assert_same_order(keys, [Fraction(number) for number in numbers])
    assert keys == encode_all("decimal", [str(number) for number in numbers])


def test_the_limits_of_decimals() -> None:
    """38 digits, of which zeros in front and behind do not count; exponents of the first digit within 9999."""
    good = ["9" * 38, "0" * 50 + "9" * 38 + "0" * 50, "0." + "0" * 60 + "9" * 38, "1e9999", "9.9e9999", "1e-9999"]
    good += ["0e99999999999999999999", "0.00e-" + "9" * 50, "10e9998", "0.1e10000", "1" + "0" * 5000]
    assert refused("decimal", good) == []
    bad = ["1" * 39, "1e10000", "1e-10000", "-10e9999", "1e" + "9" * 30, "1e-" + "9" * 5000, "0." + "1" * 39]
    assert refused("decimal", bad) == bad


BAD_NUMBERS = [
    "",
    " ",
    "+1",
    "1_0",
    "0x1f",
    ".",
    "-",
    "--1",
    "e5",
    "1e",
    "1e+",
    "1 2",
    "1,5",
    "\u0661",
    "1\n",
    "- 1",
    "x",
]


def test_what_is_no_decimal() -> None:
    """There is no plus in front, no hexadecimal, no underscore, and no digit but ASCII's."""
    assert refused("decimal", [*BAD_NUMBERS, "nan", "inf"]) == [*BAD_NUMBERS, "nan", "inf"]
    assert refused("decimal", ["\t 1 ", "01", "-0", "1.", ".1", "1e+5"]) == []


@given(st.lists(st.floats(), min_size=2, max_size=8))
def test_floats_compare_as_doubles(numbers: list[float]) -> None:
    """NaN is the greatest, and all of it equal; both zeros are one. Doubles encode like their texts."""
    keys = make_type(Kind("float")).encode(numbers)[0]
    assert_same_order(keys, [(math.isnan(number), 0.0 if math.isnan(number) else number) for number in numbers])
    assert keys == encode_all("float", [repr(number) for number in numbers])


def test_texts_of_floats() -> None:
    """Names in any case; a number that a double cannot hold is refused, and one too small is zero."""
    texts = ["-INF", "-infinity", "-1e308", "-1e-999", "0", "1e-400", ".5", "5e-1", " inf ", "Infinity", "NaN", "-nan"]
    ranks = [0, 0, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5]
    assert_same_order(encode_all("float", texts), ranks)
    bad = [*BAD_NUMBERS, "1e309", "-1e999", "+inf", "infinit", "nan()", "0x1p3"]
    assert refused("float", bad) == bad


def test_integers_are_no_floats() -> None:
    """A format's own integers are read as int or decimal."""
    assert make_type(Kind("float")).encode([1, 1.0])[1] == [0]


def test_bools() -> None:
    """Words in any case and digits; false comes first."""
    texts = ["false", "FALSE", " 0", "true", "True\t", "1"]
    assert_same_order(encode_all("bool", texts), [0, 0, 0, 1, 1, 1])
    bad = ["", "2", "01", "t", "yes", "true false", "\ntrue"]
    assert refused("bool", bad) == bad
    assert make_type(Kind("bool")).encode([True, False, 1])[1] == [2]


INTEGER = re.compile(rb"[ \t]*(-?[0-9]+|0[xX][0-9a-fA-F]{1,16})[ \t]*")


def read_integer(text: bytes) -> int | None:
    """Read an integer by Python's own conversion."""
    match = INTEGER.fullmatch(text)
    if match is None:
        return None
    digits = match[1].decode()
    if "x" in digits.lower():
        return int.from_bytes(int(digits, 16).to_bytes(8, "big"), "big", signed=True)
    number = int(Decimal(digits))
    return number if -(2**63) <= number < 2**63 else None


@settings(deadline=None)
@given(st.lists(st.sampled_from(NUMBERS) | st.integers(-(2**64), 2**64).map(lambda n: b"%d" % n), max_size=8))
@example(NUMBERS)
def test_integers(texts: list[bytes]) -> None:
    """64 bits and no more, hexadecimal by its bits."""
    keys, bad = make_type(Kind("int")).encode(texts)
    numbers = [read_integer(text) for text in texts]
    assert bad == [i for i, number in enumerate(numbers) if number is None]
    good = [(key, number) for key, number in zip(keys, numbers, strict=True) if number is not None]
    assert_same_order([key for key, _ in good], [number for _, number in good])


@given(st.lists(st.integers(-(2**64), 2**64), max_size=8))
def test_integers_of_other_formats(numbers: list[int]) -> None:
    """Python's integers encode like their texts, and are refused beyond 64 bits; a bool is none."""
    integers = make_type(Kind("int"))
    assert integers.encode(numbers) == integers.encode([b"%d" % number for number in numbers])
    assert integers.encode([7, True, 1.0, "1"])[1] == [1, 2, 3]


@given(st.lists(st.tuples(DECIMALS, st.sampled_from(["a", "", "\0"])), min_size=2, max_size=6))
def test_no_decimal_begins_with_another(pairs: list[tuple[str, str]]) -> None:
    """With another column behind it, a decimal still decides first."""
    keys = [
        key + text.encode() for key, (_, text) in zip(encode_all("decimal", [d for d, _ in pairs]), pairs, strict=True)
    ]
    assert_same_order(keys, [(Fraction(Decimal(number)), text.encode()) for number, text in pairs])
