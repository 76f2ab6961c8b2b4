"""The order-free checksum."""

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
from hypothesis import given, settings

from tasks.checksum import _SIDE_BY_SIDE_BYTES, _factors, hash_binary, hash_records, sum_hashes

MASK = 2**64 - 1


def reference(value: bytes) -> int:
    """Compute the hash of the module's docstring, a word at a time in Python integers."""
    factors = [int(f) for f in _factors(len(value) // 8 + 1)]
    z = (2**63 + 1) * 0x9E3779B97F4A7C15 & MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    total = (len(value) + 1) * ((z ^ z >> 31) | 1)
    for i in range(0, len(value), 8):
        total += int.from_bytes(value[i : i + 8], "little") * factors[i // 8]
    h = total & MASK
    for multiplier in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        h = (h ^ h >> 33) * multiplier & MASK
    return h ^ h >> 33


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=70), max_size=20))
def test_blocks_agree_with_the_definition(values: list[bytes]) -> None:
    """Hashing side by side gives what the definition gives record by record."""
    assert hash_binary(pa.array(values, pa.binary())).tolist() == [reference(v) for v in values]


def test_long_records_agree_with_the_definition() -> None:
    """A block with a long record is hashed by the other way, and to the same hashes."""
    values = [b"", b"short", b"x" * (_SIDE_BY_SIDE_BYTES + 13), bytes(range(256)) * 40]
    assert hash_binary(pa.array(values, pa.binary())).tolist() == [reference(v) for v in values]


def test_a_slice_hashes_as_its_copy() -> None:
    """An Arrow slice has an offset into shared buffers, which the hash follows."""
    values = [b"a" * n for n in range(50)]
    array = pa.array(values, pa.binary())
    assert np.array_equal(hash_binary(array.slice(7, 20)), hash_binary(pa.array(values[7:27], pa.binary())))


def test_exchanged_fields_change_the_sum() -> None:
    """Two records that exchange a field at the same place are noticed: a linear hash would not."""
    before = hash_records(pa.array([b"aaaaaaaa11111111", b"bbbbbbbb22222222"], pa.binary()))
    after = hash_records(pa.array([b"aaaaaaaa22222222", b"bbbbbbbb11111111"], pa.binary()))
    assert sum_hashes(before) != sum_hashes(after)


def test_exchanged_keys_change_the_sum() -> None:
    """A key that moved to another record is noticed, and an absent column equals a column of nulls."""
    values = pa.array([b"1", b"2"], pa.binary())
    one = hash_records(values, pa.array([b"a", b"b"], pa.binary()))
    other = hash_records(values, pa.array([b"b", b"a"], pa.binary()))
    assert sum_hashes(one) != sum_hashes(other)
    nulls = hash_records(values, pa.array([None, None], pa.binary()))
    assert np.array_equal(nulls, hash_records(values))
    empty = hash_records(values, pa.array([b"", b""], pa.binary()))
    assert not np.array_equal(nulls, empty)


def test_order_does_not_matter() -> None:
    """The sum is of the multiset."""
    values = [b"%d" % i for i in range(100)]
    assert sum_hashes(hash_binary(pa.array(values, pa.binary()))) == sum_hashes(
        hash_binary(pa.array(values[::-1], pa.binary()))
    )
