"""Verification of outputs whose values have a schema: it judges the order with the schema, and says so without."""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from tasks.people.make import SCHEMAS, WRITERS, make_people
from tasks.verification.terms import RULES
from tests.world import MakeWorld, Row, World, change, divide

SORT = "continent,name:desc,id"
COLUMNS = "continent:text,name:text,id:int"
SETTINGS: dict[str, dict[str, Any]] = {
    "avro": {"format": "avro", "avro_schema": SCHEMAS["avro"]},
    "protobuf": {
        "format": "protobuf",
        "protobuf_descriptor": SCHEMAS["protobuf"],
        "protobuf_message": "kafka_sort.Person",
    },
}


def publish(world: World, name: str, changed: tuple[int, int] | None = None) -> None:
    """Publish people and a value that is none, in order; then two neighbours of the first partition change places."""
    people = dict(make_people(5, 0, 90))
    people["name"] = pc.binary_slice(people["name"], 0, 1)
    columns = [people[column].to_pylist() for column in ("continent", "name", "id")]
    keys = dict(zip(WRITERS[name](people).to_pylist(), zip(*columns, strict=True), strict=True))
    rows = world.fill([*(Row(value, (value,)) for value in keys), Row(b"\xff"), Row(None)])

    def order(r: Row) -> tuple[bytes, int, int]:
        continent, letter, number = keys[r.value or b""]
        return continent, -letter[0], number

    def edit(parts: list[list[Row]]) -> None:
        for i, j in [changed] if changed else []:
            parts[0][i], parts[0][j] = parts[0][j], parts[0][i]

    outputs = {world.outputs[0]: divide(sorted((r for r in rows if r.fields), key=order))}
    facts = {"name": name, "rules": RULES, "columns": COLUMNS, "schema": digest(SCHEMAS[name])}
    facts |= {"message": "kafka_sort.Person"} if name == "protobuf" else {}
    world.publish(rows, change(outputs, world.outputs[0], edit), format=facts)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", SETTINGS)
def test_the_order_is_judged_by_the_schema(make_world: MakeWorld, name: str) -> None:
    """Three columns in two directions, and dead letters: nothing differs, and nothing is left unjudged."""
    world = make_world(sorts=(SORT,))
    publish(world, name)
    assert world.verify(**SETTINGS[name]).lines() == []


@pytest.mark.parametrize("name", SETTINGS)
def test_neighbours_that_changed_places_are_found(make_world: MakeWorld, name: str) -> None:
    """Two records in the wrong order are found at the second, where the order breaks."""
    world = make_world(sorts=(SORT,))
    publish(world, name, (4, 5))
    (found,) = world.verify(**SETTINGS[name]).lines()
    assert f"{world.outputs[0]}/0 offset 5: the record is out of order" in found


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_verified_without_the_schema(make_world: MakeWorld, name: str, tmp_path: Path) -> None:
    """Counts and contents are, and one line says why the order is not: no schema is given, or another one."""
    world, other = make_world(sorts=(SORT,)), tmp_path / "other"
    publish(world, name, (4, 5))
    other.write_bytes(SCHEMAS[name].read_bytes() + b"\n")
    schema = "avro_schema" if name == "avro" else "protobuf_descriptor"
    for settings, why in [({}, "is not given"), ({**SETTINGS[name], schema: other}, "had another schema")]:
        verification = world.verify(**settings)
        assert verification.ok
        (reason,) = verification.runs[0].unverifiable
        assert why in reason
        assert f"--{schema.replace('_', '-')}" in reason
        assert "the order of the outputs was not" in reason
