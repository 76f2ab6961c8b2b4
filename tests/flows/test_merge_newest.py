"""`kafka-sort merge --latest`: each output has the newest record of each of its keys, and counts what it superseded."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tasks.run_record import CoveredRuns
from tasks.settings.job import Job
from tasks.sorting.newest import Newest
from tests.cluster import Cluster, Record
from tests.merges import fill, merge, must_merge, newest_of, read_by, records_of
from tests.placed import murmur2
from tests.stages import make_job, run_settled

Key = Callable[[Record], Any]


def column(number: int) -> Key:
    """Return what reads a column of a row."""
    return lambda r: (r.value or b"").split(b",")[number]


def rows(seed: int, count: int = 80) -> list[bytes | None]:
    """Rows of number, letter and word, of which each comes often; words differ by case alone."""
    chance = [(seed * 31 + i * 17) % 101 for i in range(count)]
    words = (b"Aa", b"aA", b"AA", b"b", b"")
    return [b"%d,%c,%b,%d-%d" % (c % 7, 97 + c % 3, words[c % 5], seed, i) for i, c in enumerate(chance)]


def in_order(records: Sequence[Record], key: Key, *, descending: bool = False) -> list[Record]:
    return sorted(records, key=key, reverse=descending)


# Each sort, its key by Python, and whether it descends.
SORTS: dict[str, tuple[Key, bool]] = {
    "a:int:desc": (lambda r: int(column(0)(r)), True),
    "b,a:int": (lambda r: (column(1)(r), int(column(0)(r))), False),
    "c:text(nocase)": (lambda r: column(2)(r).lower(), False),
}


def job_of(cluster: Cluster, folder: Path, **over: object) -> Job:
    source = cluster.make_topic(2)
    sorts = [f"{by}=o{i}-{source}" for i, by in enumerate(SORTS)]
    return make_job(source, folder, **{"sorts": sorts, "columns": "a:int,b,c:text(nocase),d", **over})


def assert_newest(cluster: Cluster, job: Job, read: Sequence[Sequence[Record]]) -> list[int]:
    """Each output has the newest record of each key alone, in order; return how many it left out."""
    left_out = []
    arrived = [r for run in read for r in run]
    for sort, (key, descending) in zip(job.sort_list, SORTS.values(), strict=True):
        kept = newest_of(arrived, key)
        assert records_of(cluster, sort.topic) == in_order(kept, key, descending=descending)
        left_out.append(len(arrived) - len(kept))
    return left_out


@pytest.mark.parametrize(
    "over",
    [
        {},
        pytest.param({"split_heavy_keys": True, "output_partitions": 3}, marks=pytest.mark.slow),
        pytest.param({"output_key": "none", "timestamps": "keep"}, marks=pytest.mark.slow),
    ],
    ids=["plain", "split", "no-keys"],
)
def test_each_output_by_its_own_key(cluster: Cluster, tmp_path: Path, over: dict[str, object]) -> None:
    """Composite and descending keys, and texts that compare as equal; again after more runs; then nothing is left."""
    job = job_of(cluster, tmp_path, **over)
    read = fill(cluster, job, tmp_path, [rows(1), rows(2)])
    record = must_merge(cluster, job, tmp_path, Newest())
    left_out = assert_newest(cluster, job, read)
    assert [sort.superseded for sort in record.sorts] == left_out
    assert [sort.expired for sort in record.sorts] == [0, 0, 0]
    assert (record.covers, record.records) == ((CoveredRuns(1, 2),), 160)
    assert merge(cluster, job, tmp_path, Newest()) is None


@pytest.mark.slow
def test_several_in_a_row(cluster: Cluster, tmp_path: Path) -> None:
    """What was superseded before counts on, also in a merge that keeps all that is there."""
    job = job_of(cluster, tmp_path)
    read = fill(cluster, job, tmp_path, [rows(1), rows(2)])
    first = must_merge(cluster, job, tmp_path, Newest())
    left_out = assert_newest(cluster, job, read)
    later = fill(cluster, job, tmp_path, [rows(3)])
    plain = must_merge(cluster, job, tmp_path)
    assert [sort.superseded for sort in plain.sorts] == left_out
    assert [s.superseded_checksum for s in plain.sorts] == [s.superseded_checksum for s in first.sorts]
    again = must_merge(cluster, job, tmp_path, Newest())
    assert assert_newest(cluster, job, [*read, *later]) == [sort.superseded for sort in again.sorts]
    for sort, written in zip(job.sort_list, again.sorts, strict=True):
        assert written.count + written.superseded == again.records == 240
        # All records of the source are those that are there and those that were left out.
        total = int(written.checksum, 16) + int(written.superseded_checksum, 16)
        assert f"{total % 2**64:016x}" == again.checksum["sum"], sort.topic


@pytest.mark.slow
@pytest.mark.parametrize("drop", [False, True], ids=["kept", "dropped"])
def test_tombstones(cluster: Cluster, tmp_path: Path, *, drop: bool) -> None:
    """A record without a value supersedes those before it, and is left out itself if wanted; null keys are one key."""
    source = cluster.make_topic(2)
    job = make_job(source, tmp_path, format="none", sorts=[f"@key:nulls-first=o-{source}"], output_partitions=2)
    keys = [None, b"", b"a", b"b", b"c"]
    read = []
    for run in range(3):
        made = [Record(None if i % 3 == run else b"%d" % i, keys[i % 5], (), i % 2) for i in range(30)]
        cluster.produce_records(source, made)
        read.append(read_by(cluster.read(source), run_settled(cluster, job, tmp_path)))
    record = must_merge(cluster, job, tmp_path, Newest(drop))
    kept = [r for r in newest_of([r for run in read for r in run], lambda r: r.key) if r.value is not None or not drop]
    assert records_of(cluster, f"o-{source}") == sorted(kept, key=lambda r: (r.key is not None, r.key or b""))
    assert any(r.value is None for r in newest_of(read[2], lambda r: r.key))
    assert record.sorts[0].superseded == 90 - len(kept)
    assert merge(cluster, job, tmp_path, Newest(drop)) is None
    # Tombstones that were kept can still be dropped; those that were dropped cannot be kept.
    assert (merge(cluster, job, tmp_path, Newest(not drop)) is None) == drop


@pytest.mark.slow
def test_nothing_but_tombstones(cluster: Cluster, tmp_path: Path) -> None:
    """An output of which nothing is kept is empty, and the job goes on."""
    source = cluster.make_topic(1)
    job = make_job(source, tmp_path, format="none", sorts=[f"@key=o-{source}"])
    for value in (b"1", None):
        cluster.produce_records(source, [Record(value, b"a"), Record(value, b"b")])
        run_settled(cluster, job, tmp_path)
    assert must_merge(cluster, job, tmp_path, Newest(drop_tombstones=True)).sorts[0].superseded == 4
    assert records_of(cluster, f"o-{source}") == []
    assert merge(cluster, job, tmp_path, Newest(drop_tombstones=True)) is None
    cluster.produce_records(source, [Record(b"2", b"a")])
    run_settled(cluster, job, tmp_path)
    assert must_merge(cluster, job, tmp_path, Newest()).sorts[0].superseded == 4
    assert [r.value for r in records_of(cluster, f"o-{source}")] == [b"2"]


@pytest.mark.slow
def test_by_hash(cluster: Cluster, tmp_path: Path) -> None:
    """Records stay in the partitions of their keys, each in order."""
    source = cluster.make_topic(2)
    over = {"columns": "a:int,b,c,d", "partition_by": "hash", "output_key": "sort", "output_partitions": 3}
    job = make_job(source, tmp_path, sorts=[f"a=o-{source}"], **over)
    read = fill(cluster, job, tmp_path, [rows(1), rows(2)])
    must_merge(cluster, job, tmp_path, Newest())
    kept = newest_of([r for run in read for r in run], column(0))

    def place(r: Record) -> tuple[int, int]:
        return murmur2(column(0)(r)) % 3, int(column(0)(r))

    found = records_of(cluster, f"o-{source}")
    assert [r.value for r in found] == [r.value for r in sorted(kept, key=place)]
    assert [(r.partition, int(r.key or b"")) for r in found] == [place(r) for r in sorted(kept, key=place)]


@pytest.mark.slow
def test_by_source(cluster: Cluster, tmp_path: Path) -> None:
    """Of equal keys in several partitions one is kept, where it is; without --latest, all are kept where they are."""
    source = cluster.make_topic(2)
    job = make_job(source, tmp_path, sorts=[f"a=o-{source}"], columns="a:int,b,c,d", partition_by="source")
    read = fill(cluster, job, tmp_path, [rows(1), rows(2), rows(3)])
    arrived = [r for run in read for r in run]

    def place(r: Record) -> tuple[int, int]:
        return r.partition, int(column(0)(r))

    must_merge(cluster, job, tmp_path)
    found = records_of(cluster, f"o-{source}")
    assert [(r.partition, r.value) for r in found] == [(r.partition, r.value) for r in sorted(arrived, key=place)]
    must_merge(cluster, job, tmp_path, Newest())
    found = records_of(cluster, f"o-{source}")
    kept = newest_of(arrived, column(0))
    assert [(r.partition, r.value) for r in found] == [(r.partition, r.value) for r in sorted(kept, key=place)]
