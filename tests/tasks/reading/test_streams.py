"""The consumers that the streams of a reader share."""

from typing import Any

import pytest

from tasks.reading import streams
from tasks.reading.streams import MOST_CONSUMERS, SHARED_CONSUMERS, ReaderPool
from tasks.settings.connection import Connection


class Consumer:
    """A consumer that does nothing."""

    made: list["Consumer"]

    def __init__(self, *_: Any, **__: Any) -> None:
        self.is_open = True
        Consumer.made.append(self)

    def close(self) -> None:
        self.is_open = False


class Reader:
    """A reader that stands where it is put."""

    def __init__(self, consumer: Consumer, *_: Any, **__: Any) -> None:
        self.place = (-1, -1)


@pytest.fixture(autouse=True)
def no_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    Consumer.made = []
    monkeypatch.setattr(streams, "make_consumer", Consumer)
    monkeypatch.setattr(streams, "RangeReader", Reader)


def make_pool(count: int) -> ReaderPool:
    return ReaderPool(Connection("localhost:1"), None, "group", "topic", 1.0, count, values_only=False)  # type: ignore[arg-type]


def read_round(pool: ReaderPool, count: int, turn: int) -> list[Reader]:
    """Read one block of each stream, in turn; return the readers that did it."""
    used = []
    for stream in range(count):
        with pool.take((stream, turn)) as reader:
            reader.place = (stream, turn + 1)  # type: ignore[misc]
            used.append(reader)
    return used  # type: ignore[return-value]


@pytest.mark.parametrize("count", [1, MOST_CONSUMERS])
def test_a_few_streams_have_a_consumer_each(count: int) -> None:
    """What was fetched ahead for a stream is read by that stream."""
    pool = make_pool(count)
    first = read_round(pool, count, 0)
    assert first == read_round(pool, count, 1)
    assert len(set(map(id, first))) == len(Consumer.made) == count
    pool.close()
    assert not any(consumer.is_open for consumer in Consumer.made)


def test_many_streams_share_consumers() -> None:
    """With 64 streams there are fewer consumers than with 8, and no more bytes in blocks than so many batches."""
    pool = make_pool(64)
    for turn in range(3):
        read_round(pool, 64, turn)
    assert len(Consumer.made) == SHARED_CONSUMERS
    assert pool.block_bytes * 64 <= 64_000_000


def test_readers_that_are_used_at_once_are_not_the_same() -> None:
    """Two threads have a reader each, and one that failed is not used again."""
    pool = make_pool(2)
    with pool.take((0, 0)) as one, pool.take((1, 0)) as other:
        assert one is not other
    with pytest.raises(OSError, match="lost"), pool.take((0, 0)) as failed:
        raise OSError("lost")
    with pool.take((0, 0)) as first, pool.take((1, 0)) as second:
        assert failed not in {first, second}
