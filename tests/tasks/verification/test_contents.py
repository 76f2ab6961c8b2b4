"""Verification finds records that were lost, doubled or altered, and where."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.world import MakeWorld, Row, World, change, people, row


def test_a_lost_record_is_found(world: World) -> None:
    """A record that an output does not hold is named by its source offset, at the place where it belongs."""
    rows = world.fill(people(60))
    outputs = world.sorted(rows)
    lost = outputs[world.outputs[0]][1][7]
    world.publish(rows, change(outputs, world.outputs[0], lambda parts: parts[1].remove(lost)))
    assert world.differences() == [
        f"source-0/1 offset 7: record of source{lost.place} is missing",
        "source-0: the ledger says 59 records in all partitions, of 60 that were sorted",
    ]


def test_a_record_lost_against_the_ledger_is_found(world: World) -> None:
    """A partition that holds fewer records than the ledger says is a difference at that partition."""
    rows = world.fill(people(60))
    outputs = world.sorted(rows)
    lost = outputs[world.outputs[0]][1][7]
    short = change(outputs, world.outputs[0], lambda parts: parts[1].remove(lost))
    world.publish(rows, short, claimed={0: 20, 1: 20, 2: 20})
    assert world.differences() == [
        f"source-0/1 offset 7: record of source{lost.place} is missing",
        "source-0/1: the partition has 19 records of the run, the ledger says 20",
    ]


def test_a_doubled_record_is_found(world: World) -> None:
    """A record that is in an output twice is named, at its second place."""
    rows = world.fill(people(60))
    outputs = world.sorted(rows)
    twice = outputs[world.outputs[1]][2][3]
    world.publish(rows, change(outputs, world.outputs[1], lambda parts: parts[2].insert(4, twice)))
    assert world.differences()[0] == f"source-1/2 offset 4: record of source{twice.place} is there again"


@pytest.mark.parametrize(
    "alter",
    [
        lambda r: replace(r, value=(r.value or b"").replace(b"name", b"nine")),
        lambda r: replace(r, key=b"another"),
        lambda r: replace(r, key=None if r.key is not None else b""),
        lambda r: replace(r, headers=(*r.headers, ("more", b""))),
        lambda r: replace(r, headers=(("trace", b"0"), ("empty", b""))),
    ],
    ids=["value", "key", "null key", "header added", "header value"],
)
def test_an_altered_record_is_found(world: World, alter: Callable[[Row], Row]) -> None:
    """A byte of the value, the key or a header that differs is found, and so is null in place of empty."""
    rows = world.fill(people(60))
    outputs = world.sorted(rows)
    parts = outputs[world.outputs[0]]
    partition, offset, record = next((p, i, r) for p, part in enumerate(parts) for i, r in enumerate(part) if r.headers)

    def edit(parts: list[list[Row]]) -> None:
        parts[partition][offset] = alter(record)

    world.publish(rows, change(outputs, world.outputs[0], edit))
    assert world.differences() == [f"source-0/{partition} offset {offset}: record of source{record.place} is altered"]


@pytest.mark.parametrize(("timestamps", "found"), [("keep", True), ("new", False)])
def test_another_timestamp_is_found(world: World, timestamps: str, *, found: bool) -> None:
    """If a run keeps timestamps, one that differs by a millisecond is found; otherwise they are no promise."""
    rows = world.fill(people(60))
    outputs = world.sorted(rows)
    record = outputs[world.outputs[1]][2][5]

    def edit(parts: list[list[Row]]) -> None:
        parts[2][5] = replace(record, time=record.time + 1)

    world.publish(rows, change(outputs, world.outputs[1], edit), options={"timestamps": timestamps})
    if found:
        what = f"record of source{record.place} has the timestamp {record.time + 1} in place of {record.time}"
        assert world.differences() == [f"source-1/2 offset 5: {what}"]
    else:
        assert world.verify().ok


@pytest.mark.parametrize("swapped", [False, True])
def test_timestamps_of_equal_records(make_world: MakeWorld, *, swapped: bool) -> None:
    """Equal records that came at different times keep their order by these; a record without a time may get any."""
    world = make_world(sorts=("continent",))
    same = [row(b"1", b"x", b"Asia") for _ in range(6)]
    rows = world.fill([*same[:5], replace(same[5], time=-1)])

    def edit(parts: list[list[Row]]) -> None:
        assert parts[2][1].time == -1
        parts[2][1] = replace(parts[2][1], time=rows[0].time)
        if swapped:
            parts[1].reverse()

    world.publish(rows, change(world.sorted(rows), world.outputs[0], edit), options={"timestamps": "keep"})
    if swapped:
        what = f"record of source/1 offset 0 has the timestamp {rows[4].time} in place of {rows[1].time}"
        assert world.differences() == [f"source-0/1 offset 0: {what}"]
    else:
        assert world.verify().lines() == []


def test_an_altered_sort_key_is_found(world: World) -> None:
    """A record whose sort key was altered is one that is missing and one that is not of the source."""
    rows = world.fill(people(60))
    outputs = world.sorted(rows)
    record = outputs[world.outputs[0]][2][-1]

    def edit(parts: list[list[Row]]) -> None:
        parts[2][-1] = replace(record, value=b"2" + (record.value or b""))

    world.publish(rows, change(outputs, world.outputs[0], edit))
    assert world.differences() == [
        f"source-0/2 offset 19: record of source{record.place} is missing",
        "source-0/2 offset 19: the record is not in the source range",
    ]
