"""Verification of outputs whose values have a schema: it judges the order with the schema, and says so without."""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from tasks.people.make import SCHEMAS, WRITERS, make_people
from tasks.verification.terms import RULES
from tests.avro_values import number
from tests.framed_records import framed
from tests.registry_server import Registry, serve_registry
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


def publish_registered(world: World, registry: Registry, changed: tuple[int, int] | None = None) -> None:
    """Publish messages of two schemas with keys of Avro, in order of `id:desc,@key`; then two change places."""
    first = registry.add('syntax="proto3"; message A { int64 id = 1; }', "PROTOBUF")
    second = registry.add('syntax="proto3"; message Z {} message A { sint64 id = 7; }', "PROTOBUF")
    of_key = registry.add('"long"')

    def make(i: int) -> Row:
        of_id, of_row = i % 7, i * 37 % 90
        value = framed(first, b"\0\x08%c" % of_id) if i % 2 else framed(second, b"\2\2\x38" + number(of_id))
        return Row(value, (b"%d" % -of_id, b"%02d" % of_row), framed(of_key, number(of_row)))

    bad = [Row(framed(second, b"\0"), None, framed(of_key, number(1))), Row(framed(first, b"\0"), None, b"x"), Row(b"")]
    rows = world.fill([*map(make, range(90)), *bad])

    def edit(parts: list[list[Row]]) -> None:
        for i, j in [changed] if changed else []:
            parts[0][i], parts[0][j] = parts[0][j], parts[0][i]

    def order(r: Row) -> tuple[int, bytes]:
        of_id, of_row = r.fields or (b"", b"")
        return int(of_id), of_row

    known = sorted((r for r in rows if r.fields), key=order)
    outputs = {world.outputs[0]: divide(known)}
    texts = {str(n): registry.schemas[n]["schema"] for n in (first, second, of_key)}
    facts = {"name": "protobuf", "rules": RULES, "columns": "id:int", "fields": "@key:int", "key_format": "avro"}
    facts["schemas"] = ",".join(f"{n}={hashlib.sha256(text.encode()).hexdigest()}" for n, text in texts.items())
    world.publish(rows, change(outputs, world.outputs[0], edit), format=facts)


def test_values_and_keys_of_a_registry(make_world: MakeWorld) -> None:
    """Nothing differs and nothing is left unjudged; without the registry one line says so."""
    pytest.importorskip("confluent_kafka.schema_registry")
    world = make_world(sorts=("id:desc,@key",))
    with serve_registry() as registry:
        publish_registered(world, registry)
        given: dict[str, Any] = {"format": "protobuf", "schema_registry": registry.address}
        assert world.verify(**given).lines() == []
        verification = world.verify()
        assert verification.ok
        (reason,) = verification.runs[0].unverifiable
        assert "are in a registry" in reason


def test_neighbours_of_a_registry_that_changed_places(make_world: MakeWorld) -> None:
    """They are found, where only the key that a schema reads tells them apart."""
    pytest.importorskip("confluent_kafka.schema_registry")
    world = make_world(sorts=("id:desc,@key",))
    with serve_registry() as registry:
        publish_registered(world, registry, (4, 5))
        (found,) = world.verify(format="protobuf", schema_registry=registry.address).lines()
        assert f"{world.outputs[0]}/0 offset 5: the record is out of order" in found
