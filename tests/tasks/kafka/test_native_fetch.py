"""Both ways of fetching give the same records: librdkafka's own batch call, and an object a record."""

import random
import resource
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import KafkaError, Producer, TopicPartition

from tasks.arrow import HEADERS
from tasks.kafka import native_fetch
from tasks.kafka.clients import make_consumer
from tasks.kafka.fetch import Block, Fetcher, PlainFetcher
from tasks.kafka.native_fetch import Addresses, NativeFetcher, gather
from tests.cluster import Cluster, Record, sample_values, wait_for

_WAYS: tuple[Callable[..., Fetcher], ...] = (NativeFetcher, PlainFetcher)


def fetch_all(cluster: Cluster, topic: str, way: Callable[..., Fetcher], most: int = 5000, **over: Any) -> pa.Table:
    """Return the content of one partition as a table."""
    consumer = make_consumer(cluster.connection, "test", **over)
    fetcher, position, end, blocks = way(consumer, topic), 0, cluster.ends(topic)[0], []
    fetcher.assign(0, 0)
    while position < end:
        block, error = fetcher.fetch(most, 0.2)
        assert error is None
        blocks.append(block)
        position = consumer.position([TopicPartition(topic, 0)])[0].offset
    fetcher.release()
    consumer.close()
    return pa.concat_tables(map(to_table, blocks)).combine_chunks()


def to_table(block: Block) -> pa.Table:
    block.values.validate(full=True)
    block.keys.validate(full=True)
    return pa.table(
        {
            "value": block.values,
            "key": block.keys,
            "headers": block.headers,
            "timestamp": block.timestamps,
            "offset": block.offsets,
        }
    )


def assert_same(cluster: Cluster, topic: str, **over: Any) -> pa.Table:
    """Return the table that both ways give."""
    native, plain = (fetch_all(cluster, topic, way, **over) for way in _WAYS)
    assert native.equals(plain)
    return native


def mix(count: int, seed: int = 1) -> list[Record]:
    """Mix null, empty, short and long values and keys; none, some and many headers; in runs and one by one."""
    chance = random.Random(seed)

    def some(null: float, longest: int) -> bytes | None:
        return None if chance.random() < null else chance.randbytes(chance.choice((0, 1, 11, 12, 13, 40, longest)))

    def headers() -> tuple[tuple[str, bytes | None], ...]:
        names = ("a", "trace", "ä", "")
        few = chance.choice((0, 0, 0, 0, 1, 2, 130))
        return tuple((chance.choice(names), some(0.3, 300)) for _ in range(few))

    return [Record(some(0.2, 5000), some(0.5, 200), headers()) for _ in range(count)]


@pytest.mark.parametrize(
    "codec", ["lz4", *(pytest.param(name, marks=pytest.mark.slow) for name in ("none", "gzip", "snappy", "zstd"))]
)
def test_records_of_all_kinds(cluster: Cluster, codec: str) -> None:
    """Values, keys, headers, timestamps and offsets are the same, and those that were written."""
    topic, rows = cluster.make_topic(1), mix(3000)
    cluster.produce_records(topic, rows, **{"compression.type": codec, "batch.num.messages": 700})
    table = assert_same(cluster, topic)
    assert table["value"].to_pylist() == [row.value for row in rows]
    assert table["key"].to_pylist() == [row.key for row in rows]
    found = [tuple((h["name"], h["value"]) for h in headers or ()) for headers in table["headers"].to_pylist()]
    assert found == [row.headers for row in rows]
    assert table["offset"].to_pylist() == list(range(3000))
    assert_same(cluster, topic, most=7)


@pytest.mark.parametrize("kind", ["CreateTime", "LogAppendTime"])
def test_timestamps(cluster: Cluster, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The timestamp is the producer's or the broker's; librdkafka is asked if a message has another layout."""
    topic = cluster.make_topic(1, message_timestamp_type=kind, retention_ms="-1")
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers})
    given = [1_600_000_000_000 + i * 37 for i in range(500)]
    for timestamp in given:
        producer.produce(topic, b"v", timestamp=timestamp)
    producer.flush()
    table = assert_same(cluster, topic)
    assert (table["timestamp"].to_pylist() == given) == (kind == "CreateTime")
    monkeypatch.setattr(native_fetch, "_TIMESTAMP_WORD", 11)
    assert fetch_all(cluster, topic, NativeFetcher).equals(table)


def test_aborted_and_control_records(cluster: Cluster) -> None:
    """Neither way gives aborted or control records."""
    topic = cluster.make_topic(1)
    for _ in range(3):
        cluster.produce_aborted(topic, mix(50))
        cluster.produce_records(topic, mix(50), **{"transactional.id": topic})
    wait_for(lambda: cluster.ends(topic)[0] == 306)
    assert assert_same(cluster, topic).num_rows == 150


@pytest.mark.slow
def test_compacted_records(cluster: Cluster) -> None:
    """Both ways read the rest of a compacted log, in batches with gaps. The cleaner checks every 15 seconds."""
    config = {"segment_ms": "100", "min_cleanable_dirty_ratio": "0.01", "max_compaction_lag_ms": "100"}
    topic = cluster.make_topic(1, cleanup_policy="compact", **config)
    for part in range(6):
        keyed = [Record(b"%d" % part, b"%d" % (i * (part + 1) % 40)) for i in range(200)]
        cluster.produce_records(topic, keyed)
        time.sleep(0.3)
    wait_for(lambda: fetch_all(cluster, topic, NativeFetcher).num_rows < 1000, 90)
    assert assert_same(cluster, topic)["offset"].to_pylist() != list(range(1200))


def test_many_empty_records(cluster: Cluster) -> None:
    """Both ways read values that point nowhere, and null ones."""
    topic = cluster.make_topic(1)
    cluster.produce(topic, [b"", None] * 50_000, 1)
    table = assert_same(cluster, topic)
    assert table["value"].to_pylist() == [b"", None] * 50_000


def test_large_records(cluster: Cluster) -> None:
    """Both ways read large records, with tiny ones among them."""
    topic = cluster.make_topic(1, max_message_bytes="12000000")
    rows = [Record(bytes([i]) * (10_000_000 if i % 2 else 3), b"key") for i in range(6)]
    cluster.produce_records(topic, rows, **{"message.max.bytes": 12_000_000})
    assert assert_same(cluster, topic, most=3)["value"].to_pylist() == [row.value for row in rows]


def test_pages(cluster: Cluster) -> None:
    """Headers are found wherever in memory a record ends."""
    topic = cluster.make_topic(1)
    rows = [Record(bytes(size % 1024), None, (("h", b"x"),) if size % 3 else ()) for size in range(6000)]
    cluster.produce_records(topic, rows, **{"compression.type": "lz4"})
    headers = assert_same(cluster, topic)["headers"]
    assert [h is not None for h in headers.to_pylist()] == [bool(row.headers) for row in rows]


@pytest.mark.parametrize("way", _WAYS)
def test_an_error_comes_behind_the_records(cluster: Cluster, way: Callable[..., Fetcher]) -> None:
    """The end of a partition is no error; an offset that is not there is one, by its code and with its text."""
    topic = cluster.make_topic(1)
    cluster.produce(topic, sample_values(10), 1)
    consumer = make_consumer(cluster.connection, "test", **{"enable.partition.eof": True})
    fetcher = way(consumer, topic)
    fetcher.assign(0, 4)
    block, error = fetcher.fetch(100, 1.0)
    assert (block.offsets.tolist(), error) == ([*range(4, 10)], None)
    fetcher.assign(0, 12)
    block, error = fetcher.fetch(1, 10.0)
    assert error is not None
    assert (len(block), error.code()) == (0, KafkaError._AUTO_OFFSET_RESET)
    assert "out of range" in error.str().lower()
    fetcher.release()
    consumer.close()


@pytest.mark.parametrize("way", _WAYS)
def test_what_was_fetched_ahead_is_not_met_again(cluster: Cluster, way: Callable[..., Fetcher]) -> None:
    """A reader that is assigned again begins at the new offset, even after a release; and it closes in the middle."""
    topic = cluster.make_topic(2)
    cluster.produce(topic, sample_values(40_000), 2)
    consumer = make_consumer(cluster.connection, "test")
    fetcher = way(consumer, topic)
    for partition, start in ((0, 0), (0, 7000), (1, 3000), (0, 10), (0, 11)):
        fetcher.assign(partition, start)
        block, _ = fetcher.fetch(100, 10.0)
        assert block.offsets.tolist() == list(range(start, start + 100))
        if start % 2:
            fetcher.release()
            assert len(fetcher.fetch(100, 0.1)[0]) == 0
    consumer.close()
    with pytest.raises(RuntimeError, match="closed"):
        fetcher.fetch(1, 0.1)


@pytest.mark.slow
def test_every_message_is_given_back(cluster: Cluster) -> None:
    """Messages of a block that could not be read are given back, too: ten reads take no more memory than one."""
    topic = cluster.make_topic(1)
    cluster.produce(topic, sample_values(200_000), 1)
    consumer = make_consumer(cluster.connection, "test", **{"queued.max.messages.kbytes": 4000})
    fetcher = NativeFetcher(consumer, topic)

    def read_over(times: int) -> int:
        for _ in range(times):
            fetcher.assign(0, 0)
            left = 200_000
            while left:
                left -= len(fetcher.fetch(min(5000, left), 10.0)[0])
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    before = read_over(2)
    # There are two million messages of more than 300 bytes each.
    assert read_over(10) - before < 50_000_000
    consumer.close()


def foreign(parts: Iterable[bytes | None]) -> tuple[list[pa.Buffer], Addresses, Addresses]:
    buffers = [pa.py_buffer(part) for part in parts if part is not None]
    left = iter(buffers)
    addresses = [0 if part is None else next(left).address for part in parts]
    return buffers, np.array(addresses, np.uint64), np.array([len(part or b"") for part in parts], np.uint64)


def test_values_alone(cluster: Cluster) -> None:
    """Who wants values alone gets these, with their places; keys and headers are null."""
    topic = cluster.make_topic(1)
    cluster.produce_records(topic, mix(300))
    whole = fetch_all(cluster, topic, NativeFetcher)
    values = fetch_all(cluster, topic, partial(NativeFetcher, values_only=True))
    assert values.drop_columns(["key", "headers"]).equals(whole.drop_columns(["key", "headers"]))
    assert [values.column(name).null_count for name in ("key", "headers")] == [300, 300]


@pytest.mark.parametrize("way", _WAYS)
def test_what_is_there_need_not_be_all(cluster: Cluster, way: Callable[..., Fetcher]) -> None:
    """A fetch of at least one record ends with what there is: it does not wait for more than the topic has."""
    topic = cluster.make_topic(1)
    cluster.produce_records(topic, mix(20))
    consumer = make_consumer(cluster.connection, "test")
    fetcher = way(consumer, topic)
    fetcher.assign(0, 0)
    # Without `least` it would wait for a day.
    blocks = [fetcher.fetch(5000, 86_400, least=1)[0]]
    while sum(map(len, blocks)) < 20:
        blocks.append(fetcher.fetch(5000, 86_400, least=1)[0])
    assert np.concatenate([block.offsets for block in blocks]).tolist() == list(range(20))
    consumer.close()


def test_gather_from_far_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values may lie in more than one window of addresses, and across the edge of one."""
    monkeypatch.setattr(native_fetch, "_WINDOW_BITS", 12)
    whole = random.Random(1).randbytes(100_000)
    buffer = pa.py_buffer(whole)
    starts = np.arange(0, 90_000, 37, dtype=np.uint64)
    lengths = (np.arange(len(starts)) % 60).astype(np.uint64)
    shuffled = np.random.default_rng(1).permutation(len(starts))
    starts, lengths = starts[shuffled], lengths[shuffled]
    found = gather(starts + np.uint64(buffer.address), lengths)
    found.validate(full=True)
    cut = zip(starts.tolist(), lengths.tolist(), strict=True)
    assert found.to_pylist() == [whole[start : start + length] for start, length in cut]


def test_gather_nulls() -> None:
    """Null is not empty."""
    parts = [None, b"", b"x" * 12, b"y" * 13, None, b"z"]
    buffers, addresses, lengths = foreign(parts)
    assert gather(addresses, lengths).to_pylist() == parts
    assert gather(addresses[:1], lengths[:1]).to_pylist() == [None]
    assert gather(addresses[:0], lengths[:0]).to_pylist() == []
    assert len(buffers) == 4


def test_blocks_are_divided_by_offset() -> None:
    """Blocks with gaps are divided by offset, too."""
    offsets = np.array([3, 4, 9], np.int64)
    column = pa.array([b"a", b"b", b"c"], pa.binary())
    block = Block(column, column, pa.nulls(3, HEADERS), offsets, offsets)
    for offset, below in ((0, 0), (4, 1), (5, 2), (9, 2), (10, 3)):
        parts = block.divide(offset)
        assert [len(part) for part in parts] == [below, 3 - below]
        assert parts[0].values.to_pylist() + parts[1].values.to_pylist() == [b"a", b"b", b"c"]
