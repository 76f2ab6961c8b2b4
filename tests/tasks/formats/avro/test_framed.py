"""Avro by a schema registry: ids in front and in headers, several schemas in one block, and a registry with faults."""

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from tasks.errors import SettingsError
from tasks.formats.avro.framed import AvroLanguage
from tasks.formats.framed import FramedFormat, SchemaBook
from tasks.formats.kinds import find_kinds, usual_types
from tasks.formats.registry import check_format, make_format
from tasks.formats.schema_registry import (
    RegistryRefusedError,
    RegistryUnavailableError,
    SchemaRegistry,
    UnknownSchemaError,
    open_registry,
)
from tasks.settings.column_types import INT, TEXT, ColumnType
from tasks.settings.connection import Connection, use_connection
from tasks.settings.job import Job, load_job
from tasks.settings.sorts import KeyColumn
from tests.avro_values import number
from tests.framed_records import framed, records
from tests.registry_server import Registry, serve_registry

pytest.importorskip("confluent_kafka.schema_registry")

FIRST = {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]}
SECOND = {
    "type": "record",
    "name": "Order",
    "fields": [{"name": "sku", "type": "string"}, {"name": "id", "type": "int"}],
}
KEYS = [KeyColumn("id", INT), KeyColumn("sku", TEXT, nulls=True)]
COLUMNS = {"id": INT, "sku": TEXT}


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve_registry() as served:
        yield served


def client(registry: Registry, patience: float = 0.0, **properties: str) -> SchemaRegistry:
    return SchemaRegistry(registry.address, {name.replace("_", "."): v for name, v in properties.items()}, patience)


def framed_avro(
    columns: dict[str, ColumnType], keys: list[KeyColumn], registry: SchemaRegistry, *, stops: bool
) -> FramedFormat:
    return FramedFormat(AvroLanguage(), columns, keys, SchemaBook(registry, "orders", stops=stops))


def keys_of(fmt: FramedFormat, table: pa.Table) -> tuple[list[tuple[Any, ...]], dict[int, str]]:
    parsed = fmt.parse(table)
    return list(zip(*(parsed.columns[key.name].to_pylist() for key in fmt.keys), strict=True)), parsed.rejected


@pytest.mark.parametrize("times", [1, 40])
def test_each_value_is_read_with_its_writers_schema(registry: Registry, times: int) -> None:
    """Ids in front, in headers and as GUIDs, of two schemas in one block; a field that a schema lacks is missing."""
    first, second = registry.add(FIRST), registry.add(SECOND)
    fmt = framed_avro(COLUMNS, KEYS, client(registry), stops=True)
    old, new = number(5), number(2) + b"ab" + number(6)
    values = [framed(first, old), framed(second, new), new, new, old, framed(first, old), b"", None, b"\1abcdef"]
    headers: list[list[tuple[str, bytes]] | None] = [None] * len(values)
    headers[2] = [("__value_schema_id", b"\0" + second.to_bytes(4, "big"))]
    headers[3] = [("__value_schema_id", b"\1" + registry.guid(second).bytes)]
    headers[4] = [("a", b""), ("__value_schema_id", b"\1" + registry.guid(first).bytes)]
    # The header goes first: what looks like a prefix is the payload then, and too long.
    headers[5] = [("__value_schema_id", b"\0" + first.to_bytes(4, "big"))]
    keys, rejected = keys_of(fmt, records(values * times, headers * times))
    assert keys == [(5, None), (6, b"ab"), (6, b"ab"), (6, b"ab"), (5, None)] * times
    assert {row: why for row, why in rejected.items() if row < len(values)} == {
        5: "the value has bytes behind its end at byte 1",
        6: "empty value",
        7: "null value",
        8: "begins with the byte 1, and not with the magic byte 0 of a schema registry: '\\x01abcdef'",
    }
    assert len(rejected) == 4 * times
    assert set(fmt.schemas) == {str(first), str(second), str(registry.guid(first)), str(registry.guid(second))}
    assert fmt.schemas[str(first)] == fmt.schemas[str(registry.guid(first))] != fmt.schemas[str(second)]


def test_a_schema_is_asked_for_once(registry: Registry) -> None:
    """A process asks for each schema once, however many blocks and formats read values of it."""
    first, opened = registry.add(FIRST), client(registry)
    for _ in range(3):
        fmt = framed_avro(COLUMNS, KEYS, opened, stops=True)
        assert keys_of(fmt, records([framed(first, number(n)) for n in range(50)]))[0][49] == (49, None)
    assert [path for path in registry.asked if f"/{first}" in path] == [f"/schemas/ids/{first}"]


def test_references_are_read(registry: Registry) -> None:
    """A schema may use names of other subjects, which may use others in turn."""
    inner = {"type": "record", "name": "Id", "namespace": "x", "fields": [{"name": "id", "type": "long"}]}
    middle = {"type": "record", "name": "Middle", "namespace": "x", "fields": [{"name": "id", "type": "x.Id"}]}
    outer = {
        "type": "record",
        "name": "Outer",
        "fields": [{"name": "middle", "type": "x.Middle"}, {"name": "other", "type": "x.Id"}],
    }
    registry.versions["id", 1] = registry.add(inner)
    registry.versions["middle", 2] = registry.add(middle, references=[("x.Id", "id", 1)])
    schema = registry.add(outer, references=[("x.Middle", "middle", 2), ("x.Id", "id", 1)])
    fmt = framed_avro({}, [KeyColumn("middle.id.id", INT)], client(registry), stops=True)
    assert keys_of(fmt, records([framed(schema, number(3) + number(4))])) == ([(3,)], {})


def test_an_unknown_id_stops_the_run_or_makes_dead_letters(registry: Registry) -> None:
    """An id that stays unknown stops with id, topic and offset; or its records alone are dead letters."""
    first = registry.add(FIRST)
    table = records([framed(first, number(1)), framed(9, number(1)), framed(first, number(2))])
    where = "source orders partition 3 offset 8"
    with pytest.raises(UnknownSchemaError, match=rf"{where}: schema id 9 is not in the registry"):
        framed_avro(COLUMNS, KEYS, client(registry), stops=True).parse(table)
    keys, rejected = keys_of(framed_avro(COLUMNS, KEYS, client(registry), stops=False), table)
    assert keys == [(1, None), (2, None)]
    assert rejected == {1: "schema id 9 is not in the registry"}


def test_an_unknown_id_is_asked_for_again(registry: Registry) -> None:
    """An id that the registry has a moment later is read."""
    first = registry.add(FIRST)
    registry.faults = [404, 404]
    assert client(registry, patience=30.0).get(first) is not None
    assert len(registry.asked) == 3


def test_schemas_that_are_no_avro(registry: Registry) -> None:
    """A schema of another kind, or one that cannot be read, makes dead letters of its records alone."""
    proto, broken, first = registry.add("syntax", "PROTOBUF"), registry.add({"type": "new"}), registry.add(FIRST)
    fmt = framed_avro(COLUMNS, KEYS, client(registry), stops=True)
    values = [framed(proto, b""), framed(broken, b""), framed(first, number(1))]
    keys, rejected = keys_of(fmt, records([*values]))
    assert keys == [(1, None)]
    assert rejected == {
        0: f"schema id {proto} is PROTOBUF, and not AVRO",
        1: f'schema id {broken} is no Avro schema: it has no type "new"',
    }


@pytest.mark.parametrize("status", [401, 403])
def test_a_registry_that_refuses_is_an_error_of_settings(registry: Registry, status: int) -> None:
    """Credentials that are refused end with exit status 2, and no secret is in the message."""
    registry.faults = [status]
    with pytest.raises(RegistryRefusedError, match="refuses the credentials") as caught:
        client(registry, basic_auth_user_info="me:hunter2").check()
    assert caught.value.exit_code == 2
    assert "hunter2" not in str(caught.value)


def test_a_registry_that_is_away_is_transient(registry: Registry) -> None:
    """No answer, and errors of the registry's own, are retried; the address is named."""
    registry.faults = [500, 500]
    with pytest.raises(RegistryUnavailableError, match=registry.address):
        client(registry).check()
    with pytest.raises(RegistryUnavailableError, match=r"http://127\.0\.0\.1:1"):
        SchemaRegistry("http://127.0.0.1:1", {}).check()


def test_credentials_are_sent(registry: Registry) -> None:
    """User and password, or a token, are what the registry wants; without them it refuses."""
    registry.want_basic("me", "hunter2")
    client(registry, basic_auth_user_info="me:hunter2").check()
    with pytest.raises(RegistryRefusedError):
        client(registry).check()
    registry.authorization = "Bearer token"
    client(registry, bearer_auth_token="token").check()


def test_a_job_checks_its_registry_before_work(registry: Registry) -> None:
    """The preflight of a job asks the registry with the connection's credentials; a dump makes its format of it."""
    registry.want_basic("me", "hunter2")
    made = Job(source_topic="s", format="avro", schema_registry=registry.address, sorts=["id:int"])
    with pytest.raises(RegistryRefusedError):
        check_format(made)
    with use_connection(Connection(registry={"basic.auth.user.info": "me:hunter2"})):
        check_format(made)
        fmt = make_format(made)
        assert fmt.facts() == {"name": "avro", "columns": "id:int", "rules": "2"}
        first = registry.add(FIRST)
        assert fmt.parse(records([framed(first, number(4))])).columns["id"].to_pylist() == [4]


def test_types_are_those_of_the_schemas(registry: Registry) -> None:
    """What an untyped column holds is told by each record's schema: a type, nothing, or several."""
    either = {"type": "record", "name": "Order", "fields": [{"name": "id", "type": ["int", "string"]}]}
    schemas = [registry.add(schema) for schema in (FIRST, SECOND, either)]
    made = Job(source_topic="s", format="avro", schema_registry=registry.address, sorts=["id,sku"])
    assert made.untyped == ("id", "sku")
    kinds = find_kinds(made, records([*(framed(schema, b"") for schema in schemas), None, b"\1"]))
    assert kinds == [
        {"id": "int by a schema", "sku": "missing"},
        {"id": "int by a schema", "sku": "text by a schema"},
        {"id": "int or text by a schema", "sku": "missing"},
        {},
        {},
    ]
    assert usual_types(made, kinds) == {"id": "int", "sku": "text"}
    assert make_format(made.with_types({"id": "int", "sku": "text"})).facts()["columns"] == "id:int,sku:text"


def test_credentials_cross_no_network_in_the_clear() -> None:
    """Credentials go to another machine by TLS alone, unless that is permitted."""
    with (
        use_connection(Connection(registry={"bearer.auth.token": "t"})),
        pytest.raises(SettingsError, match="in the clear"),
    ):
        open_registry("http://registry.example:8081")
    with use_connection(Connection(registry={"bearer.auth.token": "t"}, allow_plaintext=True)):
        open_registry("http://registry.example:8081")


ADDRESSES = {
    "http://me:secret@here:8081": "holds credentials",
    "here:8081": "is no address",
    "ftp://here": "is no address",
    "http://": "is no address",
    "http://here:x": "is no address",
    "http://here?a=b": "is no address",
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses(address: str) -> None:
    """An address that cannot be used is refused, and a secret in it is not repeated."""
    flags = {"source_topic": "s", "format": "avro", "schema_registry": address, "sorts": ["id"]}
    with pytest.raises(SettingsError, match=ADDRESSES[address]) as caught:
        load_job(flags, {})
    assert "secret" not in str(caught.value)
    assert json.dumps(str(caught.value)).count("\\n") == 0
