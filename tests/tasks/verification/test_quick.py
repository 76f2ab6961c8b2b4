"""The quick pass shows that nothing differs in a run of which this is so, and leaves all others to the thorough one."""

from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import KafkaError

from tasks.kafka import fetch
from tasks.kafka.ledger import LAST, run_key
from tasks.kafka.native_fetch import NativeFetcher
from tasks.run_record import MERGE, CoveredRuns
from tasks.verification.marks import Marker, NewestMarks, without_tombstones
from tasks.verification.run import RunCheck
from tests.world import REJECTED, MakeWorld, Row, World, change, divide, people, row, sort_rows

THOROUGH = "_check_thoroughly"


@pytest.fixture
def thorough(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Return the numbers of the outputs that each thorough pass compares."""
    passes: list[list[int]] = []
    check = RunCheck._check_thoroughly

    def note(self: RunCheck, left: list[int], *rest: object) -> bool:
        passes.append(left)
        return check(self, left, *rest)  # type: ignore[arg-type]  # as they are

    monkeypatch.setattr(RunCheck, THOROUGH, note)
    return passes


def test_a_right_run_needs_the_quick_pass_alone(make_world: MakeWorld, thorough: list[list[int]]) -> None:
    """Keys, headers, quoted rows, ties, dead letters and kept timestamps are all compared by the quick pass."""
    world = make_world(sorts=("id", "continent", "continent:desc,name"))
    quoted = [Row(b'%d,"x",Asia\n' % i, (b"%d" % i, b"x", b"Asia")) for i in range(2000, 2010)]
    rows = world.fill([*people(60), *quoted, *REJECTED])
    world.publish(rows, options={"timestamps": "keep"})
    verification = world.verify()
    assert verification.lines() == []
    assert (verification.runs[0].records, verification.runs[0].dead_letters) == (80, 10)
    assert thorough == []


def test_only_the_output_that_differs_is_compared_again(world: World, thorough: list[list[int]]) -> None:
    """The thorough pass reads what the quick one could not show, and names the record."""
    rows = world.fill(people(60))
    outputs = world.sorted(rows)
    lost = outputs[world.outputs[1]][1][7]
    world.publish(rows, change(outputs, world.outputs[1], lambda parts: parts[1].remove(lost)))
    assert world.differences()[0] == f"source-1/1 offset 7: record of source{lost.place} is missing"
    assert thorough == [[1]]


def exchange_values(outputs: list[list[Row]]) -> None:
    first, second = outputs[0][3], outputs[2][4]
    outputs[0][3], outputs[2][4] = replace(first, key=second.key), replace(second, key=first.key)


def shift_times(outputs: list[list[Row]]) -> None:
    outputs[0][3] = replace(outputs[0][3], time=outputs[0][3].time + 1)
    outputs[0][4] = replace(outputs[0][4], time=outputs[0][4].time - 1)


def exchange_ties(outputs: list[list[Row]]) -> None:
    outputs[1][2], outputs[1][3] = outputs[1][3], outputs[1][2]


def double_one_and_lose_another(outputs: list[list[Row]]) -> None:
    outputs[1][2] = outputs[1][3]


@pytest.mark.parametrize(
    "edit",
    [
        exchange_values,
        pytest.param(shift_times, marks=pytest.mark.slow),
        exchange_ties,
        pytest.param(double_one_and_lose_another, marks=pytest.mark.slow),
    ],
)
def test_counts_that_are_right_do_not_hide_a_difference(
    make_world: MakeWorld, thorough: list[list[int]], edit: Callable[[list[list[Row]]], None]
) -> None:
    """Two differences that could make up for each other do not, in an output with the right number of records."""
    world = make_world(sorts=("continent",))
    rows = world.fill([row(b"%d" % i, b"x", b"Asia", key=b"%d" % i) for i in range(60)])
    outputs = change(world.sorted(rows), world.outputs[0], edit)
    world.publish(rows, outputs, options={"timestamps": "keep"})
    assert len(world.differences()) >= 1
    assert thorough == [[0]]


def test_a_merge_is_compared_with_what_its_runs_had_read(make_world: MakeWorld, thorough: list[list[int]]) -> None:
    """Equal keys of a merge stand in the order of the runs' age, then in that of the source."""
    world = make_world(sorts=("continent",))
    rows = []
    for seed in (1, 2):
        rows.append(world.fill(people(30, seed=seed)))
        world.publish(rows[-1])
    ordered = chain(*(sort_rows(new, "continent") for new in rows))
    merged = divide(sorted(ordered, key=lambda r: r.fields[2] if r.fields else b""))
    outputs, covers = {world.outputs[0]: merged}, (CoveredRuns(1, 2),)
    record = world.publish([*rows[0], *rows[1]], outputs, [], requires=(MERGE,), covers=covers)
    verification = world.verify()
    assert [run.run for run in verification.runs] == [record.run]
    assert (verification.lines(), thorough) == ([], [])


def merge_newest(world: World, kept: list[Row], placed: int, latest: str) -> None:
    """Write a merge of all runs that kept these records of so many."""
    outputs = {world.outputs[0]: divide(sorted(kept, key=lambda r: r.fields[2] if r.fields else b""))}
    covers = (CoveredRuns(1, len(world.runs)),)
    record = world.publish(kept, outputs, [], requires=(MERGE,), covers=covers, options={"latest": latest})
    sorts = (replace(record.sorts[0], superseded=placed - len(kept)),)
    payload = replace(record, sorts=sorts, records=placed).to_json()
    world.send(world.job.ledger, [Row(payload, key=run_key(record.run)), Row(payload, key=LAST)])


@pytest.mark.parametrize("kept", ["newest", "older", pytest.param("fewer", marks=pytest.mark.slow)])
def test_a_merge_that_keeps_the_newest(make_world: MakeWorld, thorough: list[list[int]], kept: str) -> None:
    """The newest record of a key is the last one by run, partition and offset; no other one may be there."""
    world = make_world(sorts=("continent",))
    runs = []
    for seed in (1, 2):
        runs.append(sorted(world.fill(people(30, seed=seed)), key=lambda r: (r.partition, r.offset)))
        world.publish(runs[-1])
    found = {r.fields[2]: r for r in chain(*runs) if r.fields}
    if kept == "older":
        found[b"Asia"] = next(r for r in runs[0] if r.fields and r.fields[2] == b"Asia")
    if kept == "fewer":
        del found[b"Asia"]
    merge_newest(world, list(found.values()), 60, "with tombstones")
    verification = world.verify()
    if kept == "newest":
        assert (verification.lines(), thorough, verification.runs[-1].unverifiable) == ([], [], ())
    else:
        assert "its records are not the newest of each key of the source" in world.differences()[0]


def test_tombstones_that_a_merge_drops(tmp_path: Path) -> None:
    """The newest record of a key is left out if it has no value; an older one of its key does not come back."""
    marker, values = Marker(), [b"a", None, b"b", None, b"c"]
    keys = pa.array([b"1", b"1", b"2", b"3", b"3"], pa.binary())
    marks = np.arange(1, 6, dtype=np.uint64)
    with NewestMarks(tmp_path, marker, 5) as newest:
        newest.add(keys, None, without_tombstones(marks, values))
        assert newest.sum() == marker.sum(marks[[2, 4]])
    with NewestMarks(tmp_path, marker, 5) as newest:
        newest.add(keys.slice(0, 2), None, marks[:2])
        newest.add(keys.slice(2), None, marks[2:])
        assert newest.sum() == marker.sum(marks[[1, 2, 4]])


def test_records_without_a_timestamp_are_compared_thoroughly(world: World, thorough: list[list[int]]) -> None:
    """A record without a timestamp may have any in the output."""
    rows = world.fill([replace(r, time=-1) for r in people(6)])
    world.publish(rows, options={"timestamps": "keep"})
    assert world.verify().lines() == []
    assert thorough == [[0, 1]]


def test_blocks_that_are_read_otherwise(
    world: World, thorough: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the reader of the sorter misreads source and outputs alike, the quick pass shows nothing."""
    world.publish(world.fill(people(60)))
    whole = NativeFetcher.fetch

    def misread(self: NativeFetcher, most: int, seconds: float) -> tuple[fetch.Block, KafkaError | None]:
        block, error = whole(self, most, seconds)
        return replace(block, headers=pa.nulls(len(block), block.headers.type)), error

    monkeypatch.setattr(NativeFetcher, "fetch", misread)
    assert world.verify().lines() == []
    assert thorough == [[0, 1]]
