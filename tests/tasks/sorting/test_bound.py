"""Encoded keys compare as the order does; a bound that was cut never excludes a key."""

from typing import Any

from hypothesis import example, given, strategies as st

from tasks.sorting.bound import KeyBound, encode_key
from tasks.sorting.order import Order, Term

KEYS = st.tuples(
    st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 2),
    st.binary(max_size=4) | st.sampled_from([b"\0", b"\0\xff", b""]),
)
DIRECTIONS = st.tuples(st.booleans(), st.booleans())


def reverse(data: bytes) -> tuple[int, ...]:
    """Order bytes the other way round: a prefix comes behind."""
    return (*(-byte for byte in data), 1)


def by(key: tuple[int, bytes], directions: tuple[bool, bool]) -> Any:
    number, text = key
    return (-number if directions[0] else number, reverse(text) if directions[1] else tuple(text))


@given(KEYS, KEYS, DIRECTIONS)
def test_encoded_keys_compare_as_the_order_does(
    a: tuple[int, bytes], b: tuple[int, bytes], directions: tuple[bool, bool]
) -> None:
    """For all types and directions, sorting by the bytes is sorting by the key."""
    order = Order((Term("k0", directions[0]), Term("k1", directions[1])))
    left, right = encode_key(order, a), encode_key(order, b)
    assert (left < right) == (by(a, directions) < by(b, directions))
    assert (left == right) == (a == b)


ENCODED = st.binary(max_size=6) | st.builds(lambda tail: b"x" * 62 + tail, st.binary(max_size=8))


@given(ENCODED, ENCODED)
@example(b"x" * 64, b"x" * 64 + b"a")
def test_a_bound_never_excludes_what_it_may_hold(key: bytes, other: bytes) -> None:
    """`is_before` and `is_behind` are true only where the whole keys compare so; of short keys always."""
    bound = KeyBound.parse(str(KeyBound.of(key)))
    assert not bound.is_before(other) or key < other
    assert not bound.is_behind(other) or key > other
    if len(key) <= 64:
        assert (bound.is_before(other), bound.is_behind(other)) == (key < other, key > other)


def test_a_bound_is_short() -> None:
    """The ledger gets less than 100 letters for a key of 300 kB, and a mark that it was cut."""
    bound = KeyBound.of(b"k" * 300_000)
    assert len(str(bound)) < 100
    assert bound.cut
    assert KeyBound.parse(str(bound)) == bound
