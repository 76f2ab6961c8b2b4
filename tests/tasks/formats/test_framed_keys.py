"""Record keys by a schema registry: `@key` and `@key.PATH` of Avro, `@key.PATH` of Protobuf, beside any values."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tasks.formats.base import used_schemas
from tasks.formats.kinds import find_kinds, usual_types
from tasks.formats.registry import describe_format, make_format
from tasks.formats.schema_registry import UnknownSchemaError, open_registry
from tasks.settings.job import Job
from tests.avro_values import number
from tests.framed_records import framed, records
from tests.registry_server import Registry, serve_registry

pytest.importorskip("confluent_kafka.schema_registry")

RECORD = {"type": "record", "name": "K", "fields": [{"name": "id", "type": "long"}]}


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with serve_registry() as served:
        yield served


@pytest.fixture(scope="module")
def ids(registry: Registry) -> dict[str, int]:
    kinds = {kind: registry.add({"type": kind} if kind != "record" else RECORD) for kind in ("long", "int", "record")}
    proto = registry.add('syntax="proto3"; message M { optional int64 id = 1; }', "PROTOBUF")
    return {**kinds, "string": registry.add('"string"'), "proto": proto}


def make_job(registry: Registry, *sorts: str, **more: Any) -> Job:
    settings = {"format": "none", "key_format": "avro", "schema_registry": registry.address, **more}
    return Job.model_validate({"source_topic": "s", "sorts": list(sorts), **settings})


def outcomes(job: Job, table: Any) -> list[Any]:
    fmt = make_format(job)
    parsed = fmt.parse(table)
    found = iter(zip(*(parsed.columns[key.name].to_pylist() for key in job.key_columns), strict=True))
    return [parsed.rejected[i] if i in parsed.rejected else next(found) for i in range(len(table))]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), nulls=st.booleans())
def test_primitive_keys(registry: Registry, ids: dict[str, int], data: st.DataObject, *, nulls: bool) -> None:
    """`@key` is the number of its own schema, in front or in the header of keys; others are refused, each alone."""
    numbers = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from(["long", "int", "string", "header", "null", "empty"]), st.integers(-(2**31), 2**31 - 1)
            ),
            min_size=1,
            max_size=12,
        )
    )
    keys, headers, expected = [], [], []
    for kind, n in numbers:
        schema = ids.get(kind, ids["long"])
        payload = number(1) + b"7" if kind == "string" else number(n)
        key = {"header": payload, "null": None, "empty": b""}.get(kind, framed(schema, payload))
        # What a header says of values is nothing to keys.
        of_values = ("__value_schema_id", framed(ids["string"], b""))
        keys.append(key)
        headers.append([of_values, ("__key_schema_id", framed(schema, b""))] if kind == "header" else [of_values])
        null = (None,) if nulls else "@key is null"
        wrong = {"string": "@key is no int: it is string in its schema", "null": null, "empty": "@key is empty"}
        expected.append(wrong.get(kind, (n,)))
    job = make_job(registry, f"@key:int{':nulls-last' * nulls}")
    assert outcomes(job, records([None] * len(keys), headers, keys)) == expected


def test_paths_and_reasons(registry: Registry, ids: dict[str, int]) -> None:
    """A path leads into a key that is a record; a key that is malformed says so."""
    keys = [framed(ids["record"], number(5)), framed(ids["record"], b"\2\2"), framed(ids["long"], number(1)), b"7"]
    assert outcomes(make_job(registry, "@key.id:int"), records([b"x"] * 4, keys=[*keys])) == [
        (5,),
        "@key has bytes behind its end at byte 1",
        "@key.id is missing",
        "@key begins with the byte 55, and not with the magic byte 0 of a schema registry: '7'",
    ]


def test_keys_of_protobuf(registry: Registry, ids: dict[str, int]) -> None:
    """Message indexes stand behind the id, in front of the key or in the header of keys."""
    schema = ids["proto"]
    keys = [framed(schema, b"\0\x08\5"), b"\x08\6", framed(schema, b"\0"), framed(schema, b"\0\xff"), None]
    headers = [None, [("__key_schema_id", framed(schema, b"\0"))], None, None, None]
    job = make_job(registry, "@key.id:int", key_format="protobuf")
    assert outcomes(job, records([None] * 5, headers, keys)) == [
        (5,),
        (6,),
        "@key.id is missing",
        "@key is no M of Protobuf (Wire format was corrupt): 'ff'",
        "@key.id is null",
    ]


def test_beside_values_and_other_record_fields(registry: Registry, ids: dict[str, int]) -> None:
    """Keys, values and record fields are joined, of CSV or of the same registry; both parts' schemas are noted."""
    table = records([b"b", b"a", b"c"], keys=[framed(ids["long"], number(n)) for n in (4, 5, 6)])
    job = make_job(registry, "@key:int,name,@offset", format="csv", columns="name")
    assert outcomes(job, table) == [(4, 7, b"b"), (5, 8, b"a"), (6, 9, b"c")]
    assert describe_format(job)["key_format"] == "avro"
    values = [framed(ids["record"], number(n)) for n in (1, 2, 3)]
    both = make_job(registry, "id:int,@key:int", format="avro")
    joined = make_format(both)
    joined.parse(records([*values], keys=table.column("key").to_pylist()))
    assert dict(used_schemas(joined)).keys() == {str(ids["record"]), str(ids["long"])}


def test_types_are_those_of_the_schemas(registry: Registry, ids: dict[str, int]) -> None:
    """Keys that are given no type have that of their schemas, beside values that have none."""
    job = make_job(registry, "@key")
    assert job.untyped == ("@key",)
    kinds = find_kinds(job, records([None] * 3, keys=[framed(ids["long"], b""), framed(ids["string"], b""), None]))
    assert kinds == [{"@key": "int by a schema"}, {"@key": "text by a schema"}, {}]
    assert usual_types(job, kinds[:1]) == {"@key": "int"}
    mixed = make_job(registry, "@key.id,a", format="json")
    found = find_kinds(mixed, records([b'{"a":1}'], keys=[framed(ids["record"], b"")]))
    assert found == [{"a": "number", "@key.id": "int by a schema"}]


def test_an_unknown_id_of_a_key(registry: Registry, ids: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops the run as one of a value does, or makes the record a dead letter."""
    monkeypatch.setattr(open_registry(registry.address), "_patience", 0.0)
    table = records([None] * 2, keys=[framed(ids["long"], number(1)), framed(9, number(1))])
    with pytest.raises(UnknownSchemaError, match="partition 3 offset 8: schema id 9"):
        make_format(make_job(registry, "@key:int")).parse(table)
    lenient = make_job(registry, "@key:int", unknown_schema="dead-letter")
    assert outcomes(lenient, table) == [(1,), "schema id 9 is not in the registry"]
