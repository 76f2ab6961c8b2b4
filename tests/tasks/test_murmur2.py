"""The partition of a key, as Kafka's Java producer computes it."""

import random

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from tasks.murmur2 import partition_of
from tests.java_partitions import ask_java
from tests.placed import murmur2

# Apache Kafka, UtilsTest.testMurmur2.
VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


def partitions_of(keys: list[bytes | None], partitions: int) -> list[int]:
    return list(partition_of(pa.array(keys, pa.binary()), partitions).tolist())


@pytest.mark.parametrize("partitions", [1, 12, 1000, 2**31 - 1])
def test_kafkas_own_vectors(partitions: int) -> None:
    """The keys of Kafka's own test have its hashes, of which the sign is dropped."""
    expected = [(vector & 0x7FFFFFFF) % partitions for vector in VECTORS.values()]
    assert partitions_of(list(VECTORS), partitions) == expected


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=30) | st.binary(min_size=250, max_size=300), max_size=20), st.integers(1, 10_000))
def test_blocks_agree_with_the_definition(keys: list[bytes], partitions: int) -> None:
    """Keys of mixed lengths, hashed side by side or one by one, have the partitions of the definition."""
    assert partitions_of([*keys], partitions) == [murmur2(key) % partitions for key in keys]


def test_a_null_key_has_no_partition() -> None:
    """A null key is -1, unlike an empty one, which is a key."""
    assert partitions_of([None, b"", b"21", None], 2**31 - 1) == [-1, murmur2(b""), murmur2(b"21"), -1]


def test_a_slice_has_the_partitions_of_its_copy() -> None:
    """An Arrow slice has an offset into shared buffers, which the hash follows; blocks do not matter either."""
    keys = pa.array([b"%d" % i * (i % 9) for i in range(40_000)], pa.binary())
    part = keys.slice(7, 30_000)
    assert partition_of(part, 97).tolist() == [murmur2(key) % 97 for key in part.to_pylist()]


@pytest.mark.slow
def test_java_itself_agrees() -> None:
    """Kafka's own Java class gives thousands of random keys, of 0 to 300 bytes, the same partitions."""
    random_ = random.Random(21)
    keys = [random_.randbytes(length) for length in range(301) for _ in range(20)]
    for partitions in (1, 7, 12, 10_000):
        assert partitions_of([*keys], partitions) == ask_java(keys, partitions)
