"""What a run is expected to take. tests/flows/test_dry_run.py compares it with real runs."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from tasks.estimates import Estimates, estimate_run, find_alike
from tasks.manifests import OffsetRange, Snapshot
from tasks.placement import Placement, Placements
from tasks.run_record import RunRecord
from tasks.settings.job import Job
from tasks.survey import Survey

# A tenth of 2000 offsets holds no record, and a tenth of the records is dead; a row takes 95 bytes in a chunk.
NOTHING = dict.fromkeys(("value", "key", "headers", "timestamp", "k0", "k1", "k2"), 0)
SIZES = NOTHING | {"value": 1620 * 57, "k0": 1620 * 8, "k1": 1620 * 30}
PLACED = Placements((Placement(), Placement(), Placement()))
SURVEY = Survey(2000, 1800, 1800 * 52, pa.table({"k0": range(1620)}), SIZES, PLACED)


def record(number: int, placed: int, **seconds: float) -> RunRecord:
    stages = {"dump": 1.0, "sort": 1.0, "publish": 1.0} | seconds
    nothing: dict[str, object] = dict.fromkeys(("format", "read", "lost", "sorts", "checksum"), ())
    texts = dict.fromkeys(
        ("job", "attempt", "source_topic", "source_topic_id", "dead_letter_topic", "started", "published"), ""
    )
    return RunRecord(**nothing, **texts, run=number, records=placed, dead_letters=0, seconds=stages)  # type: ignore[arg-type]


def estimate(offsets: int, *former: RunRecord, survey: Survey = SURVEY, **settings: object) -> Estimates:
    job = Job.model_validate({"sorts": ["id=a", "name=b"], "workdir": Path("/tmp"), **settings})
    placed = replace(survey, placements=Placements((Placement(),) * len(job.sort_list)))
    return estimate_run(job, Snapshot(1, "t", (OffsetRange(0, 0, offsets),)), placed, former)


def test_records() -> None:
    """Offsets without a record are not counted, and dead letters are told apart."""
    found = estimate(1_000_000)
    assert (found.records, found.dead_letters, found.record_bytes) == (900_000, 90_000, 900_000 * 52)


def test_disk() -> None:
    """Chunks and orders; and the parts of each sort, with its own keys, once the records do not fit the memory."""
    rows, dead = 810_000, 90_000 * 52
    assert estimate(1_000_000).disk_bytes == rows * (95 + 2 * 4) + dead
    more = 100 * (rows * (95 + 2 * 4) + dead)
    assert estimate(100_000_000).disk_bytes == more + 100 * rows * (57 + 8 + 57 + 30)
    assert estimate(1_000_000, sorts=["id=a"]).disk_bytes == rows * (95 + 4) + dead


def test_memory_is_never_above_its_limit() -> None:
    """It grows with the records, up to what a part of them takes."""
    sizes = [estimate(offsets).memory_bytes for offsets in (1000, 1_000_000, 10_000_000, 10**9, 10**10)]
    assert sizes == sorted(sizes)
    assert sizes[-2] == sizes[-1] < 2_000_000_000
    assert estimate(10**9, memory_limit="768MB").memory_bytes <= 768_000_000


def test_seconds() -> None:
    """Without a former run they are rough; a stage takes the next run of that size the time that it took the last."""
    first = estimate(1_000_000)
    assert first.is_rough
    again = estimate(1_000_000, record(1, 810_000))
    assert not again.is_rough
    assert again.seconds == pytest.approx(3.0)
    assert estimate(1_000_000, record(1, 810_000, dump=5.0)).seconds == pytest.approx(7.0)
    assert 5.0 < estimate(10_000_000, record(1, 810_000)).seconds < 30.0
    # Small runs take a second to begin, whatever they hold.
    assert estimate(1000, record(1, 810_000)).seconds > 0.3


def test_runs_of_a_like_size_tell_the_speed() -> None:
    """Of many runs those count that are nearest in size, and of these the newest, by their median."""
    runs = [record(n, 10**6) for n in range(1, 6)] + [record(6, 10**7), record(7, 0), record(8, 1000)]
    assert [run.run for run in find_alike(runs, 1_200_000)] == [3, 4, 5]
    assert [run.run for run in find_alike(runs, 10**9)] == [6]
    assert [run.run for run in find_alike(runs, 10)] == [8]
    assert find_alike([], 10) == []
    noisy = [record(1, 810_000, dump=1.0), record(2, 810_000, dump=9.0), record(3, 810_000, dump=1.2)]
    assert estimate(1_000_000, *noisy).seconds == pytest.approx(3.2)


def test_a_run_without_times_tells_nothing() -> None:
    """Records of former versions may lack the times of stages."""
    assert estimate(1_000_000, replace(record(1, 810_000), seconds={"dump": 1.0})).is_rough


def test_nothing_was_looked_at() -> None:
    """If no record could be read in time, each offset counts as one, and the snapshot's own bounds take their place."""
    empty = Survey(0, 0, 0, pa.table({"k0": pa.array([], pa.int64())}), NOTHING, PLACED)
    snapshot = Snapshot(1, "t", (OffsetRange(0, 0, 1000),), mean_record_bytes=50.0, disk_bytes=123_456)
    found = estimate_run(Job(), snapshot, empty, ())
    assert (found.records, found.record_bytes, found.disk_bytes) == (1000, 50_000, 123_456)
    assert found.memory_bytes > 0
