"""The sample data in each format, read by other code: the same people."""

import io
import json
from typing import Any

import fastavro
import pyarrow.compute as pc
from google.protobuf import descriptor_pb2, message_factory

from tasks.people.make import SCHEMAS, make_people, write_avro, write_csv, write_json, write_protobuf

PEOPLE = make_people(3, 0, 5000)
ROWS = [row.decode().split(",") for row in write_csv(PEOPLE).to_pylist()]


def test_json() -> None:
    """The same people as in CSV, with a number as id."""
    read = [json.loads(value) for value in write_json(PEOPLE).to_pylist()]
    assert [[str(person["id"]), person["name"], person["address"], person["continent"]] for person in read] == ROWS
    assert all(list(person) == ["id", "name", "address", "continent"] for person in read)


def test_avro() -> None:
    """The same people as in CSV, by fastavro and the schema's file; each value ends where its last field does."""
    schema = fastavro.parse_schema(json.loads(SCHEMAS["avro"].read_text()))
    files = [io.BytesIO(value) for value in write_avro(PEOPLE).to_pylist()]
    read: list[Any] = [fastavro.schemaless_reader(file, schema, None) for file in files]
    assert [[str(item) for item in person.values()] for person in read] == ROWS
    assert all(list(person) == ["id", "name", "address", "continent"] for person in read)
    assert not any(file.read() for file in files)


def test_protobuf() -> None:
    """The same people as in CSV, by google.protobuf and the descriptor; written as it writes them, an id of 0 too."""
    files = descriptor_pb2.FileDescriptorSet.FromString(SCHEMAS["protobuf"].read_bytes())
    person = message_factory.GetMessages(files.file)["kafka_sort.Person"]
    people = {**PEOPLE, "id": pc.if_else(pc.equal(PEOPLE["id"], PEOPLE["id"][7]), 0, PEOPLE["id"])}
    values = write_protobuf(people).to_pylist()
    read: list[Any] = [person.FromString(value) for value in values]
    expected = [[str(0) if i == 7 else row[0], *row[1:]] for i, row in enumerate(ROWS)]
    assert [[str(p.id), p.name, p.address, p.continent] for p in read] == expected
    assert [p.SerializeToString(deterministic=True) for p in read] == values
