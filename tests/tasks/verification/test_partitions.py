"""Verification finds records in other partitions, and with other record keys, than the run's record tells."""

import json
from collections.abc import Callable
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tasks.verification.partitions import hash_partitions
from tests.placed import murmur2
from tests.world import OUTPUT_PARTITIONS, Outputs, Row, World, change, people, sort_rows

Place = Callable[[Row], int]


def sort_key(world: World, row: Row, columns: str) -> bytes:
    """Return the record key that --output-key sort gives, for the sorts of a world."""
    assert row.fields is not None
    number, _, continent = row.fields
    if columns == "id":
        return number
    return json.dumps([continent.decode(), int(number)], separators=(",", ":")).encode()


def by_hash(row: Row) -> int:
    return row.partition % OUTPUT_PARTITIONS if row.key is None else murmur2(row.key) % OUTPUT_PARTITIONS


def placed(world: World, rows: list[Row], place: Place, output_key: str = "keep") -> Outputs:
    """Return what the outputs must have, if each record goes to its own partition, sorted there."""
    outputs: Outputs = {}
    for topic, columns in zip(world.outputs, world.sorts, strict=True):
        parts: list[list[Row]] = [[] for _ in range(OUTPUT_PARTITIONS)]
        for row in sort_rows(rows, columns):
            keys = {"keep": row.key, "none": None, "sort": sort_key(world, row, columns)}
            copy = replace(row, key=keys[output_key])
            parts[place(copy)].append(copy)
        outputs[topic] = parts
    return outputs


def options(partition_by: str, output_key: str = "keep") -> dict[str, str]:
    return {"partition_by": partition_by, "output_key": output_key}


@pytest.mark.parametrize(
    ("partition_by", "output_key"),
    [("hash", "keep"), ("hash", "sort"), ("source", "keep"), ("source", "none"), ("source", "sort")],
)
def test_records_in_their_partitions(world: World, partition_by: str, output_key: str) -> None:
    """With each record in its partition, with its key, and each partition sorted, there is no difference."""
    rows = world.fill(people(60))
    outputs = placed(world, rows, by_hash if partition_by == "hash" else lambda row: row.partition, output_key)
    world.publish(rows, outputs, options=options(partition_by, output_key))
    verification = world.verify()
    assert verification.lines() == []
    assert verification.runs[0].records == 60


def test_records_that_changed_partitions_are_found(world: World) -> None:
    """Two records that changed their places are each named, with the partition of its key."""
    rows = world.fill(people(60))
    outputs = placed(world, rows, by_hash)
    a, b = (next(r for r in part if r.key is not None) for part in outputs[world.outputs[0]][:2])

    def edit(parts: list[list[Row]]) -> None:
        parts[0], parts[1] = [r for r in parts[0] if r is not a] + [b], [r for r in parts[1] if r is not b] + [a]
        for i in (0, 1):
            parts[i] = sort_rows(parts[i], "id")

    world.publish(rows, change(outputs, world.outputs[0], edit), options=options("hash"))
    found = world.differences()
    assert sum("the record belongs to partition 0 by its key" in line for line in found) == 1
    assert sum("the record belongs to partition 1 by its key" in line for line in found) == 1
    for row in (a, b):
        assert sum(f"record of source{row.place} is missing" in line for line in found) == 1
    assert not any("out of order" in line for line in found)


@pytest.mark.parametrize("partition_by", ["hash", "source"])
def test_a_record_without_a_key_in_another_partition_is_found(world: World, partition_by: str) -> None:
    """Nothing but the source tells its partition: it is missing there, and foreign where it is."""
    rows = world.fill(people(60))
    outputs = placed(world, rows, by_hash if partition_by == "hash" else lambda row: row.partition)
    moved = next(r for r in outputs[world.outputs[0]][0] if r.key is None)

    def edit(parts: list[list[Row]]) -> None:
        parts[0].remove(moved)
        parts[2] = sort_rows([*parts[2], moved], "id")

    world.publish(rows, change(outputs, world.outputs[0], edit), options=options(partition_by))
    found = world.differences()
    assert len(found) == 2
    assert any(f"record of source{moved.place} is missing" in line and line.startswith("source-0/0") for line in found)
    assert any("the record is not in the source range" in line and line.startswith("source-0/2") for line in found)


@pytest.mark.parametrize("partition_by", ["hash", "source"])
def test_order_within_a_partition_is_verified(world: World, partition_by: str) -> None:
    """Neighbours in the wrong order are found, though the order across partitions does not matter."""
    rows = world.fill(people(60))
    outputs = placed(world, rows, by_hash if partition_by == "hash" else lambda row: row.partition)

    def edit(parts: list[list[Row]]) -> None:
        parts[1][5], parts[1][6] = parts[1][6], parts[1][5]

    world.publish(rows, change(outputs, world.outputs[0], edit), options=options(partition_by))
    (found,) = world.differences()
    assert "source-0/1 offset 6: the record is out of order: its key belongs before that of source-0/1" in found


@pytest.mark.parametrize("output_key", ["keep", "none", "sort"])
def test_an_altered_record_key_is_found(world: World, output_key: str) -> None:
    """A key that is not the one that the job asks for is an altered record."""
    rows = world.fill(people(60))
    outputs = placed(world, rows, lambda row: row.partition, output_key)
    altered = outputs[world.outputs[1]][2][3]

    def edit(parts: list[list[Row]]) -> None:
        parts[2][3] = replace(altered, key=b"another")

    world.publish(rows, change(outputs, world.outputs[1], edit), options=options("source", output_key))
    assert world.differences() == [f"source-1/2 offset 3: record of source{altered.place} is altered"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.none() | st.binary(max_size=12) | st.binary(min_size=510, max_size=520), max_size=9))
def test_partitions_by_own_code(keys: list[bytes | None]) -> None:
    """Short keys by tables, and long ones one by one, have Java's partitions."""
    expected = [-1 if key is None else murmur2(key) % 97 for key in keys]
    assert hash_partitions(keys, 97).tolist() == expected
