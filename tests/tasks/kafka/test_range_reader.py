"""Bounded reads of a partition with gaps, and chunks that are found again or recreated."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from confluent_kafka import TopicPartition

from tasks import dump
from tasks.dump import DumpRequest, dump_range, refuse_lost
from tasks.errors import SourceLostError, StoppedError
from tasks.kafka import native_fetch, range_reader as ranges_module
from tasks.kafka.clients import make_consumer
from tasks.kafka.range_reader import RangeEndError, RangeReader
from tasks.manifests import Chunk, LostRange, OffsetRange
from tasks.run_context import Stop, run_context
from tasks.settings.connection import use_connection
from tests.cluster import Cluster, Record, sample_values, wait_for
from tests.stages import make_job


@pytest.fixture(params=["native", "plain"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """All promises of a read hold for both ways of fetching."""
    assert native_fetch.AVAILABLE
    monkeypatch.setattr(native_fetch, "AVAILABLE", request.param == "native")
    return str(request.param)


@pytest.fixture
def make_range_reader(cluster: Cluster) -> Iterator[Callable[[str], RangeReader]]:
    consumers = []

    def make(topic: str) -> RangeReader:
        consumer = make_consumer(cluster.connection, "test")
        consumers.append(consumer)
        return RangeReader(consumer, cluster.admin, topic, Stop(), 20)

    yield make
    for consumer in consumers:
        consumer.close()


def offsets_of(reader: RangeReader, start: int, end: int) -> list[int]:
    return [offset for block in reader.read(OffsetRange(0, start, end)) for offset in block.offsets.tolist()]


def delete_below(cluster: Cluster, topic: str, offset: int) -> None:
    """Delete as retention does: the log starts at `offset`."""
    for future in cluster.admin.delete_records([TopicPartition(topic, 0, offset)]).values():
        future.result()
    wait_for(lambda: cluster.starts(topic)[0] == offset)


def number(count: int) -> list[Record]:
    return [Record(value) for value in sample_values(count)]


def gappy_topic(cluster: Cluster) -> tuple[str, list[int]]:
    """Write records, an aborted transaction, a committed one, an aborted tail; return the offsets that count."""
    topic = cluster.make_topic(1)
    cluster.produce_records(topic, number(10))
    cluster.produce_aborted(topic, number(10))
    # The end of a transaction is answered before its markers are written.
    wait_for(lambda: cluster.ends(topic)[0] == 21)
    cluster.produce_records(topic, number(10), **{"transactional.id": topic})
    wait_for(lambda: cluster.ends(topic)[0] == 32)
    cluster.produce_aborted(topic, number(10))
    wait_for(lambda: cluster.ends(topic)[0] == 43)
    return topic, [*range(10), *range(21, 31)]


def test_two_partitions_with_one_reader(cluster: Cluster, make_range_reader: Callable[[str], RangeReader]) -> None:
    """A range that begins at the offset where one of another partition has ended is read from its own partition."""
    topic = cluster.make_topic(2)
    values = [b"%d" % i for i in range(40)]
    cluster.produce(topic, values, 2)
    reader = make_range_reader(topic)
    ranges = [OffsetRange(0, 0, 10), OffsetRange(1, 10, 15), OffsetRange(1, 15, 20), OffsetRange(0, 15, 20)]
    read = [value for r in ranges for block in reader.read(r) for value in block.values.to_pylist()]
    assert read == [value for r in ranges for value in values[r.partition :: 2][r.start : r.end]]


def test_a_range_that_is_left_early(cluster: Cluster, make_range_reader: Callable[[str], RangeReader]) -> None:
    """A caller that takes one block finds the place behind it, and goes on from there or from elsewhere."""
    topic = cluster.make_topic(1)
    cluster.produce_records(topic, number(30))
    reader = make_range_reader(topic)
    first = next(iter(reader.read(OffsetRange(0, 0, 30)))).offsets.tolist()
    partition, place = reader.place
    assert (partition, place) == (0, first[-1] + 1)
    assert offsets_of(reader, place, 30) == list(range(place, 30))
    assert offsets_of(reader, 5, 9) == list(range(5, 9))


def test_gaps_are_read_over(cluster: Cluster, make_range_reader: Callable[[str], RangeReader]) -> None:
    """Aborted records and control records, in the middle and at the tail, neither end a range nor hold it up."""
    topic, there = gappy_topic(cluster)
    assert offsets_of(make_range_reader(topic), 0, 43) == there


@pytest.mark.parametrize("size", [pytest.param(size, marks=pytest.mark.slow) for size in (1, 7, 10, 11)] + [3, 20])
def test_ranges_one_behind_the_other(
    cluster: Cluster, make_range_reader: Callable[[str], RangeReader], size: int
) -> None:
    """Wherever the borders of consecutive ranges lie among the gaps, each record is in its own range only."""
    topic, there = gappy_topic(cluster)
    reader, found = make_range_reader(topic), []
    for start in range(0, 43, size):
        part = offsets_of(reader, start, min(start + size, 43))
        assert all(start <= offset < start + size for offset in part)
        found += part
    assert found == there
    assert reader.take_lost() == ()


def test_a_range_inside_of_an_aborted_transaction(
    cluster: Cluster, make_range_reader: Callable[[str], RangeReader]
) -> None:
    """A range without a single record comes to its end."""
    topic, _ = gappy_topic(cluster)
    assert offsets_of(make_range_reader(topic), 12, 18) == []


def test_what_is_removed_before_a_range_is_lost(
    cluster: Cluster, make_range_reader: Callable[[str], RangeReader]
) -> None:
    """Retention overtakes the reader within its range: the removed offsets are named, the rest is read."""
    topic = cluster.make_topic(1)
    cluster.produce_records(topic, number(30))
    delete_below(cluster, topic, 12)
    reader = make_range_reader(topic)
    assert offsets_of(reader, 0, 30) == list(range(12, 30))
    assert reader.take_lost() == (LostRange(0, 0, 12),)


def test_what_is_removed_beyond_a_range_is_lost_in_the_next_one_too(
    cluster: Cluster, make_range_reader: Callable[[str], RangeReader]
) -> None:
    """Retention overtakes the reader by more than a chunk: the next chunk names the offsets that it lacks."""
    topic = cluster.make_topic(1)
    cluster.produce_records(topic, number(40))
    delete_below(cluster, topic, 25)
    reader = make_range_reader(topic)
    found: list[int] = []
    lost: list[LostRange] = []
    for start in (0, 10, 20, 30):
        found += offsets_of(reader, start, start + 10)
        lost += reader.take_lost()
    assert found == list(range(25, 40))
    assert lost == [LostRange(0, 0, 10), LostRange(0, 10, 20), LostRange(0, 20, 25)]


@pytest.mark.slow
def test_what_is_removed_while_it_is_read(
    cluster: Cluster, make_range_reader: Callable[[str], RangeReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records are removed between two blocks: every offset is either read or named as lost."""
    monkeypatch.setattr(ranges_module, "_BLOCK_RECORDS", 50)
    topic = cluster.make_topic(1, **{"segment.bytes": "1048576"})
    cluster.produce_records(topic, number(20_000), **{"batch.num.messages": 100})
    consumer = make_consumer(
        cluster.connection, "test", **{"queued.max.messages.kbytes": 1, "fetch.message.max.bytes": 2000}
    )
    reader = RangeReader(consumer, cluster.admin, topic, Stop(), 20)
    found: list[int] = []
    for block in reader.read(OffsetRange(0, 0, 20_000)):
        if not found:
            delete_below(cluster, topic, 15_000)
        found += block.offsets.tolist()
    consumer.close()
    (lost,) = reader.take_lost()
    assert lost.end == 15_000
    assert found == [*range(lost.start), *range(15_000, 20_000)]


def test_a_partition_that_ends_before_the_range(
    cluster: Cluster, make_range_reader: Callable[[str], RangeReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that was cut below its promised end is an error, not an endless wait."""
    monkeypatch.setattr(ranges_module, "_STALL_SECONDS", 0.5)
    topic = cluster.make_topic(1)
    cluster.produce_records(topic, number(10))
    with pytest.raises(RangeEndError, match="ends at offset 10, before 20"):
        offsets_of(make_range_reader(topic), 0, 20)


def request_for(cluster: Cluster, topic: str, folder: Path, end: int, **over: object) -> DumpRequest:
    return DumpRequest(make_job(topic, folder, **over), 1, "some-id", OffsetRange(0, 0, end), folder)


def dump_topic(cluster: Cluster, request: DumpRequest) -> list[Chunk]:
    with use_connection(cluster.connection):
        return list(dump_range(request).chunks)


def values_of(chunks: list[Chunk]) -> list[bytes]:
    return [v for chunk in chunks if chunk.path for v in pq.read_table(chunk.path)["value"].to_pylist()]


@pytest.fixture
def dumped(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[DumpRequest, list[Chunk]]:
    """Dump 100 records, three of them dead letters, in chunks of 40."""
    monkeypatch.setattr(dump, "CHUNK_OFFSETS", 40)
    topic = cluster.make_topic(1)
    cluster.produce_records(topic, [*number(50), Record(b"no row"), Record(None), Record(b""), *number(47)])
    request = request_for(cluster, topic, tmp_path, 100)
    return request, dump_topic(cluster, request)


def truncate(chunk: Chunk) -> None:
    assert chunk.path is not None
    chunk.path.write_bytes(chunk.path.read_bytes()[:-1])


def flip_bit(chunk: Chunk) -> None:
    assert chunk.path is not None
    data = bytearray(chunk.path.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.path.write_bytes(data)


def remove(chunk: Chunk) -> None:
    assert chunk.path is not None
    chunk.path.unlink()


def remove_dead_letters(chunk: Chunk) -> None:
    assert isinstance(chunk.dead_letter_path, Path)
    chunk.dead_letter_path.unlink()


def remove_manifest(chunk: Chunk) -> None:
    assert chunk.path is not None
    chunk.path.with_suffix(".json").unlink()


def cut_manifest(chunk: Chunk) -> None:
    assert chunk.path is not None
    manifest = chunk.path.with_suffix(".json")
    manifest.write_text(manifest.read_text()[:-5])


def replace_manifest(chunk: Chunk) -> None:
    assert chunk.path is not None
    chunk.path.with_suffix(".json").write_text(json.dumps([1]))


def test_whole_chunks_are_found_again(cluster: Cluster, dumped: tuple[DumpRequest, list[Chunk]]) -> None:
    """A retry takes the chunks a former attempt finished, and no chunk of another run, topic or range."""
    request, chunks = dumped
    assert [c.range for c in chunks] == [OffsetRange(0, 0, 40), OffsetRange(0, 40, 80), OffsetRange(0, 80, 100)]
    assert [c.records for c in chunks] == [40, 37, 20]
    assert [c.dead_letters for c in chunks] == [0, 3, 0]
    assert [request.chunks.find(c.range) for c in chunks] == chunks
    times = [c.path.stat().st_mtime_ns for c in chunks if c.path]
    assert dump_topic(cluster, request) == chunks
    assert [c.path.stat().st_mtime_ns for c in chunks if c.path] == times
    assert replace(request, run=2).chunks.find(chunks[0].range) is None
    assert replace(request, topic_id="other").chunks.find(chunks[0].range) is None
    assert request.chunks.find(OffsetRange(0, 0, 39)) is None


@pytest.mark.parametrize(
    "damage", [truncate, flip_bit, remove, remove_dead_letters, remove_manifest, cut_manifest, replace_manifest]
)
def test_a_damaged_chunk_is_made_again(
    cluster: Cluster, dumped: tuple[DumpRequest, list[Chunk]], damage: Callable[[Chunk], None]
) -> None:
    """A chunk whose bytes or manifest do not fit is not taken; the dump gives the same rows as before."""
    request, chunks = dumped
    before = values_of(chunks)
    damage(chunks[1])
    assert request.chunks.find(chunks[1].range) is None
    again = dump_topic(cluster, request)
    assert again == chunks
    assert values_of(again) == before
    assert request.chunks.find(chunks[1].range) == chunks[1]


def test_a_dump_names_what_was_removed(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost ranges and records of all chunks together are the whole range; the run stops unless told otherwise."""
    monkeypatch.setattr(dump, "CHUNK_OFFSETS", 10)
    topic = cluster.make_topic(1)
    cluster.produce_records(topic, number(40))
    delete_below(cluster, topic, 25)
    request = request_for(cluster, topic, tmp_path, 40)
    chunks = dump_topic(cluster, request)
    assert sum(c.records for c in chunks) == 15
    assert sum(lost.end - lost.start for c in chunks for lost in c.lost) == 25
    with pytest.raises(SourceLostError, match="partition 0 offsets 0 to 9; partition 0 offsets 10 to 19"):
        refuse_lost(request.job, chunks)
    refuse_lost(request.job.model_copy(update={"skip_lost": True}), chunks)


@pytest.mark.parametrize("where", ["key", "headers"])
def test_large_keys_and_headers_count(cluster: Cluster, tmp_path: Path, where: str) -> None:
    """The amount in memory is bounded by whole records, not by their values."""
    topic = cluster.make_topic(1, max_message_bytes="2000000")
    large = b"x" * 400_000
    extra: dict[str, Any] = {"key": large} if where == "key" else {"headers": (("h", large),)}
    rows = [Record(v, **extra) for v in sample_values(120)]
    cluster.produce_records(topic, rows, **{"message.max.bytes": 2_000_000})
    (chunk,) = dump_topic(cluster, request_for(cluster, topic, tmp_path, 120))
    assert chunk.records == 120
    assert chunk.path is not None
    assert pq.ParquetFile(chunk.path).num_row_groups > 1


def test_a_dump_stops_between_blocks(cluster: Cluster, tmp_path: Path) -> None:
    """A stop ends the dump, and no chunk appears that is not whole."""
    topic = cluster.make_topic(1)
    cluster.produce_records(topic, number(10))
    request = request_for(cluster, topic, tmp_path, 10)
    with run_context() as context:
        context.stop.set()
        with pytest.raises(StoppedError):
            dump_topic(cluster, request)
    assert request.chunks.find(request.range) is None
    assert not list(tmp_path.glob("*.parquet"))
