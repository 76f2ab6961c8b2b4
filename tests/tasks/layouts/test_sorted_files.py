"""Sorted files: outputs are exact, whatever the source is like, and whatever the sample has missed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pytest

from tasks import sort, sort_part
from tasks.layouts.sorted_files import split_ranges
from tasks.manifests import Dumped, LostRange, OffsetRange, SortedFile, SortedPart
from tasks.outputs import prepare_outputs
from tasks.publish import publish_run
from tasks.publishers.rows import ContentError
from tasks.run import Run
from tasks.runners import ThreadRunner
from tasks.settings.budget import Budget
from tasks.settings.job import Job
from tasks.sorting.rows import RowGatherer, RowGroups
from tasks.stage import Q, R, Stage
from tasks.verify import verify_job
from tests.cluster import Cluster, Record, assert_sorted, expected, sample_values
from tests.files import flip
from tests.stages import make_job, owned, prepare, run_settled

COUNT = 600


@contextmanager
def small_parts(most_bytes: int = 8000, **over: int) -> Iterator[None]:
    """Make the layout that of sorted files, with parts of so many bytes, and little that a task holds."""
    whole = Budget.of

    def of(job: Job) -> Budget:
        return Budget(**{**vars(whole(job)), "fetched_bytes": most_bytes, "divided_bytes": 20_000, **over})

    with patch.object(Job, "keeps_sorted_files", lambda *_: True), patch.object(Budget, "of", of):
        yield


def rows_of(ids: Callable[[int], int], count: int = COUNT) -> list[bytes]:
    return [b"%d,name-%d,address,%s" % (ids(i), ids(i) % 97, b"Asia" if i % 3 else b"Europe") for i in range(count)]


SHAPES: dict[str, list[bytes | None]] = {
    "random": [*sample_values(COUNT)],
    "presorted": [*rows_of(lambda i: i)],
    "backwards": [*rows_of(lambda i: COUNT - i)],
    "one heavy key": [*rows_of(lambda i: 7 if i % 5 < 3 else i * 7919 % 1000)],
    "one key": [*rows_of(lambda _: 7)],
    "dead letters": [*sample_values(COUNT), b"no row", None, b"x,y"],
}
SORTS = ["id", "name:desc,id", "continent"]


@pytest.mark.parametrize(
    "shape", [name if name == "one heavy key" else pytest.param(name, marks=pytest.mark.slow) for name in SHAPES]
)
def test_shapes(cluster: Cluster, tmp_path: Path, shape: str) -> None:
    """Several sorts at once are exact, with several parts each, for sources of every shape."""
    source = cluster.make_topic()
    cluster.produce(source, SHAPES[shape])
    job = make_job(source, tmp_path, sorts=[f"{by}=o-{source}-{i}" for i, by in enumerate(SORTS)])
    with small_parts():
        run_settled(cluster, job, tmp_path)
    assert_sorted(cluster, job)
    assert verify_job(job, cluster.connection).lines() == []


def test_parts_are_sorted_files(cluster: Cluster, tmp_path: Path) -> None:
    """Each sort has several parts, none of a source's order; what only sorts need is gone before the publish."""
    source = cluster.make_topic()
    cluster.produce(source, SHAPES["random"])
    job = make_job(source, tmp_path)
    with small_parts(), owned(cluster, job) as owner:
        publication = prepare(owner, tmp_path)
        parts = publication.sorts[0].parts
    assert len(parts) > 3
    assert all(isinstance(part, SortedFile) for part in parts)
    assert sum(part.rows for part in parts) == COUNT
    folder = tmp_path / publication.attempt
    assert {path.name for path in folder.iterdir()} == {"sorted"}
    assert publication.disk_bytes == publication.sorts[0].file_bytes + sum(c.file_bytes for c in publication.chunks)


def test_row_groups_are_small(cluster: Cluster, tmp_path: Path) -> None:
    """A row group of a sorted file has few bytes more than it is to have, whatever may be gathered at once."""
    source = cluster.make_topic()
    cluster.produce(source, [b"%d,name,%s,Asia" % (i, b"a" * 1000) for i in range(COUNT)])
    with patch.object(sort, "_BATCH_BYTES", 200_000), patch.object(sort_part, "_GROUP_BYTES", 50_000):
        with small_parts(10**6), owned(cluster, make_job(source, tmp_path)) as owner:
            parts = prepare(owner, tmp_path).sorts[0].parts
        groups = [RowGroups(part.files) for part in parts]
        sizes = [of_file.size(i, ["value"]) for of_file in groups for i in range(len(of_file))]
    assert sum(sizes) > COUNT * 1000
    assert max(sizes) < 50_000 + 200_000 / 4


def keyed(count: int) -> list[Record]:
    """Records with keys, headers and null values, of which every third has the same key."""
    return [
        Record(
            None if i % 7 == 0 else b"%d,name,address,Asia" % (i % 50),
            None if i % 5 == 0 else b"key-%d" % (i % 3),
            (("n", b"%d" % i),) if i % 2 else (),
            i % 4,
        )
        for i in range(count)
    ]


JOBS: dict[str, dict[str, Any]] = {
    "hash, output key": {"partition_by": "hash", "output_key": "sort", "output_partitions": 5},
    "source": {"partition_by": "source"},
    "no keys": {"output_key": "none"},
    "split keys": {"split_heavy_keys": True, "sorts": ["continent"]},
    "timestamps": {"timestamps": "keep", "sorts": ["@timestamp:desc,id"]},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_settings(cluster: Cluster, tmp_path: Path, name: str) -> None:
    """Partitions, record keys and timestamps are those of the job, as the verification's own code sees them."""
    source = cluster.make_topic()
    cluster.produce_records(source, [Record(r.value, r.key, r.headers, r.partition) for r in keyed(COUNT) if r.value])
    sorts = [f"{by}=o-{source}-{i}" for i, by in enumerate(JOBS[name].get("sorts", SORTS))]
    job = make_job(source, tmp_path, **{**JOBS[name], "sorts": sorts})
    with small_parts():
        run_settled(cluster, job, tmp_path)
    if name != "timestamps":
        assert_sorted(cluster, job)
    assert verify_job(job, cluster.connection).lines() == []


@pytest.mark.slow
def test_record_fields(cluster: Cluster, tmp_path: Path) -> None:
    """Sorts by record fields alone keep null values, keys that are null, and headers."""
    source = cluster.make_topic()
    cluster.produce_records(source, keyed(COUNT))
    sorts = [f"@key:nulls-first=o-{source}-0", f"@header.n:desc:nulls-last,@key:nulls-last=o-{source}-1"]
    job = make_job(source, tmp_path, sorts=sorts, format="none")
    with small_parts():
        run_settled(cluster, job, tmp_path)
    assert verify_job(job, cluster.connection).lines() == []
    found = cluster.read(f"o-{source}-0")
    wanted = sorted(cluster.read(source), key=lambda r: (r.key is not None, r.key or b"", r.partition, r.offset))
    assert [(r.key, r.value, r.headers) for r in found] == [(r.key, r.value, r.headers) for r in wanted]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["append", "replace"])
def test_later_runs(cluster: Cluster, tmp_path: Path, mode: str) -> None:
    """Runs that follow one another are exact, whether they append or replace; the last one reads one partition."""
    source = cluster.make_topic()
    job = make_job(source, tmp_path, mode=mode, sorts=[f"{by}=o-{source}-{i}" for i, by in enumerate(SORTS)])
    for seed in (1, 2):
        cluster.produce(source, sample_values(COUNT, seed=seed))
        with small_parts():
            run_settled(cluster, job, tmp_path)
    cluster.produce(source, sample_values(COUNT, seed=3), partitions=1)
    with small_parts():
        run_settled(cluster, job, tmp_path)
    assert_sorted(cluster, job, 3)
    assert verify_job(job, cluster.connection).lines() == []


@pytest.mark.slow
def test_files_of_parquet(cluster: Cluster, tmp_path: Path) -> None:
    """Outputs that are Parquet files have what they have with row numbers, byte for byte; also numbers that are NaN."""
    source, folders = cluster.make_topic(), [tmp_path / "numbers", tmp_path / "files"]
    values = [b"%s,Name%d" % (b"nan" if i % 9 == 0 else b"%d.5" % (i * 31 % 100), i % 10) for i in range(COUNT)]
    cluster.produce(source, values)
    for number, folder in enumerate(folders):
        sorts = [
            f"x:float=parquet:{folder}/x",
            f"n:text(nocase):desc=parquet:{folder}/n",
            f"x:float=o-{source}-{number}",
        ]
        job = make_job(source, tmp_path / "work", columns="x,n", sorts=sorts, job_name=f"{source}-{number}")
        with small_parts() if number else nullcontext():
            run_settled(cluster, job, tmp_path)
    for name in ("x", "n"):
        first, second = (sorted((folder / name / "run-000001").iterdir()) for folder in folders)
        assert [path.name for path in first] == [path.name for path in second]
        for one, other in zip(first, second, strict=True):
            assert one.read_bytes() == other.read_bytes()


def test_nothing_to_sort(cluster: Cluster, tmp_path: Path) -> None:
    """A run of dead letters alone leaves empty outputs."""
    source = cluster.make_topic()
    cluster.produce(source, [b"no row"] * 3)
    job = make_job(source, tmp_path, allow_dead_letters=True)
    with small_parts():
        record = run_settled(cluster, job, tmp_path)
    assert (record.records, record.dead_letters, record.sorts[0].partitions) == (3, 3, ())
    assert len(cluster.read(job.dead_letters)) == 3


@pytest.mark.slow
def test_a_sample_that_saw_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """Without a sample there is one part, which is divided where it is sorted."""
    source = cluster.make_topic()
    cluster.produce(source, SHAPES["random"])
    job = make_job(source, tmp_path)
    with small_parts(), patch("tasks.layouts.sorted_files._SAMPLE_SECONDS", -1.0), owned(cluster, job) as owner:
        publication = prepare(owner, tmp_path)
        assert [part.rows for part in publication.sorts[0].parts] == [COUNT]
        publish_run(owner, publication)
    assert_sorted(cluster, job)


@pytest.mark.slow
def test_records_that_expire_meanwhile(cluster: Cluster, tmp_path: Path) -> None:
    """Records that are removed between the snapshot and the sample are lost as in any run, and told."""
    source = cluster.make_topic()
    cluster.produce(source, SHAPES["random"])
    job = make_job(source, tmp_path, skip_lost=True)
    folder = tmp_path / "lost"
    folder.mkdir()
    with small_parts(), owned(cluster, job) as owner:
        run = Run(owner, ThreadRunner(), lambda _: prepare_outputs(owner), "lost")
        snapshot = run.take_snapshot()
        cluster.delete_below(source, {0: 50})
        record = publish_run(owner, run.prepare(snapshot, folder))
    assert record.lost == (LostRange(0, 0, 50),)
    assert [r.value for r in cluster.read(job.sort_list[0].topic)] == [
        r.value for r in expected(job.sort_list[0], cluster.read(source))
    ]


def facts_of(done: Any) -> Any:
    return done.chunks if isinstance(done, Dumped) else done


def test_a_task_that_is_run_twice(cluster: Cluster, tmp_path: Path) -> None:
    """A stage that is done again takes what was finished, and reads and sorts nothing."""
    source = cluster.make_topic()
    cluster.produce(source, [*SHAPES["random"], b"no row"])
    job = make_job(source, tmp_path)

    class Twice(ThreadRunner):
        def run(self, stage: Stage[Q, R], requests: Sequence[Q]) -> list[R]:
            first = super().run(stage, requests)
            with patch("tasks.dump._dump_chunk", side_effect=AssertionError), patch("tasks.sort_part._sort", None):
                again = super().run(stage, requests)
            # The time that a dump took is its own.
            assert list(map(facts_of, again)) == list(map(facts_of, first))
            return first

    with small_parts(), owned(cluster, job) as owner:
        run = Run(owner, Twice(), lambda _: prepare_outputs(owner), "twice")
        folder = tmp_path / "twice"
        folder.mkdir()
        publish_run(owner, run.prepare(run.take_snapshot(), folder))
    assert_sorted(cluster, job)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("divided", "its sorted rows are not those that were read"),
        ("sorted", "the 600 rows to publish are not the 600"),
    ],
)
def test_files_that_were_altered(cluster: Cluster, tmp_path: Path, stage: str, said: str) -> None:
    """A bit that flips in a file of a stage is found before the commit."""
    source = cluster.make_topic()
    cluster.produce(source, SHAPES["random"])
    job = make_job(source, tmp_path)
    value = next(r.value for r in cluster.read(source) if r.value)

    class Flipping(ThreadRunner):
        def run(self, made: Stage[Q, R], requests: Sequence[Q]) -> list[R]:
            done = super().run(made, requests)
            if (made.name == "dump") == (stage == "divided"):
                flip((tmp_path / "flip" / stage).rglob("*.parquet"), value)
            return done

    with small_parts(), owned(cluster, job) as owner:
        run = Run(owner, Flipping(), lambda _: prepare_outputs(owner), "flip")
        (tmp_path / "flip").mkdir()
        with pytest.raises(ContentError, match=said):
            publish_run(owner, run.prepare(run.take_snapshot(), tmp_path / "flip"))
    assert cluster.count(job) == 0


@pytest.mark.parametrize(
    ("spans", "workers", "sizes"),
    [
        ([10_000_000], 4, [2_000_000] * 5),
        ([600, 600], 1, [600, 600]),
        ([4_000_000_000], 1000, [4_000_000] * 1000),
        ([9_000_000, 1_000, 0], 2, [2_250_000] * 4 + [1000]),
    ],
    ids=["one partition", "few records", "very many", "one of many"],
)
def test_ranges_are_split(spans: list[int], workers: int, sizes: list[int]) -> None:
    """All workers have something to read, in pieces no smaller than they need be, and not in too many."""
    ranges = [OffsetRange(partition, 7, 7 + span) for partition, span in enumerate(spans)]
    pieces = list(split_ranges(ranges, workers))
    assert [piece.span for piece in pieces] == sizes
    first = [piece for piece in pieces if piece.partition == 0]
    assert [piece.start for piece in first] == [7, *(piece.end for piece in first[:-1])]


@pytest.mark.slow
@pytest.mark.parametrize(
    "over",
    [{}, {"partition_by": "hash"}, {"split_heavy_keys": True, "output_partitions": 3}],
    ids=["ranges", "hash", "split"],
)
def test_both_layouts_are_alike(cluster: Cluster, tmp_path: Path, over: dict[str, Any]) -> None:
    """Ranges, sparse index and records are those of row numbers, of parts that are smaller than an index needs."""
    source = cluster.make_topic()
    rows = [*rows_of(lambda i: 7 if i % 5 < 3 else i * 7919 % 10_000, 6000), *sample_values(6000)]
    cluster.produce_records(source, [Record(row, row[-9:], (), i % 4) for i, row in enumerate(rows)])
    found = []
    for layout in (nullcontext(), small_parts(100_000)):
        job = make_job(source, tmp_path, sorts=[f"{by}=o-{source}-{i}" for i, by in enumerate(SORTS)], **over)
        with layout, owned(cluster, job) as owner:
            publication = prepare(owner, tmp_path)
            records = [pa.Table.from_batches(RowGatherer().batches(rows)) for rows in publication.sorts]
        found.append(([rows.ranges for rows in publication.sorts], records))
        kinds = {type(part) for rows in publication.sorts for part in rows.parts}
        assert kinds == {SortedFile if len(found) == 2 else SortedPart}
    (ranges, records), (other_ranges, other_records) = found
    assert any(r.index.count(b"\n") > 1 for of_sort in ranges for r in of_sort)
    assert ranges == other_ranges
    for table, other in zip(records, other_records, strict=True):
        assert table.select(other.column_names).combine_chunks() == other.combine_chunks()
