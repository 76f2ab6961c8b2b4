"""Protobuf by a schema registry: ids and message indexes in front and in headers, references, several schemas."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from hypothesis import HealthCheck, given, settings, strategies as st

from tasks.errors import SettingsError
from tasks.formats.kinds import find_kinds, usual_types
from tasks.formats.protobuf.schema import compile_proto, find_message
from tasks.formats.registry import check_format, make_format
from tasks.formats.schema_registry import UnknownSchemaError, open_registry
from tasks.settings.job import Job, load_job
from tests.framed_records import Headers, framed, records
from tests.registry_server import Registry, serve_registry

pytest.importorskip("confluent_kafka.schema_registry")

OLD = 'syntax="proto3"; message A { int64 id = 1; }'
NEW = """syntax="proto3"; import "b/c.proto"; import "google/protobuf/timestamp.proto";
message Z {} message A { optional string name = 3; int64 id = 2; b.C c = 4; message I { sint32 id = 1; } }"""
C = 'syntax="proto3"; package b; message C { google.protobuf.Timestamp at = 1; D d = 2; }'
C = C.replace("package b;", 'package b; import "google/protobuf/timestamp.proto"; import "d.proto";')
D = 'syntax="proto3"; package b; message D { uint64 x = 1; }'
NEW_FILES = {"b/c.proto": C, "d.proto": D}
INNER = b"\4\2\0"


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with serve_registry() as served:
        yield served


@pytest.fixture(scope="module")
def ids(registry: Registry) -> tuple[int, int]:
    """The ids of OLD and NEW; the references of NEW have references of their own."""
    registry.versions["d", 1] = registry.add(D, "PROTOBUF")
    registry.versions["c", 2] = registry.add(C, "PROTOBUF", [("d.proto", "d", 1)])
    return registry.add(OLD, "PROTOBUF"), registry.add(NEW, "PROTOBUF", [("b/c.proto", "c", 2)])


def make_job(registry: Registry, *sorts: str, **more: Any) -> Job:
    given = {"format": "protobuf", **more}
    return Job.model_validate({"source_topic": "s", "sorts": list(sorts), "schema_registry": registry.address, **given})


def message(text: str, files: dict[str, str], *indexes: int) -> Any:
    return message_factory.GetMessageClass(find_message(compile_proto(text, files), indexes, "test"))


A_OLD, A_NEW, I_NEW = message(OLD, {}, 0), message(NEW, NEW_FILES, 1), message(NEW, NEW_FILES, 1, 0)


def outcomes(job: Job, table: Any) -> list[Any]:
    """Return the keys of each record, or the reason that it is refused for."""
    fmt = make_format(job)
    parsed = fmt.parse(table)
    found = iter(zip(*(parsed.columns[key.name].to_pylist() for key in fmt.keys), strict=True))
    return [parsed.rejected[i] if i in parsed.rejected else next(found) for i in range(len(table))]


@st.composite
def rows(draw: st.DrawFn, ids: tuple[int, int], registry: Registry) -> tuple[bytes, Headers, Any]:
    """A value, its headers and its outcome in the sort `id:int, name:nulls-last`."""
    kind, number, headed = draw(st.integers(0, 4)), draw(st.integers(-(2**31), 2**31 - 1)), draw(st.booleans())
    name = draw(st.none() | st.text(max_size=3))
    schema, indexes, made, expected = [
        (ids[0], b"\0", A_OLD(id=number), (number, None)),
        (ids[1], b"\2\2", A_NEW(id=number, name=name), (number, None if name is None else name.encode())),
        (ids[1], INNER, I_NEW(id=number), (number, None)),
        (ids[1], b"\0", A_OLD(), "column id is missing"),
        (ids[1], b"\2\6", A_OLD(id=1), f"schema id {ids[1]} has no message at the indexes [3]"),
    ][kind]
    payload = made.SerializeToString()
    if not headed:
        return framed(schema, indexes + payload), None, expected
    guid = draw(st.booleans())
    prefix = b"\1" + registry.guid(schema).bytes if guid else framed(schema, b"")
    reason = str(expected).replace(f"id {schema} ", f"id {registry.guid(schema)} ") if guid else expected
    return payload, [("__value_schema_id", prefix + indexes)], reason if isinstance(expected, str) else expected


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_each_record_is_read_with_its_own_message(
    registry: Registry, ids: tuple[int, int], data: st.DataObject
) -> None:
    """Whatever stands beside it; a field that its message lacks is missing, and indexes may lead nowhere."""
    drawn = data.draw(st.lists(rows(ids, registry), min_size=1, max_size=12))
    job = make_job(registry, "id:int,name:text:nulls-last")
    table = records([value for value, _, _ in drawn], [headers for _, headers, _ in drawn])
    skipped = data.draw(st.integers(0, len(drawn) - 1))
    assert outcomes(job, table.slice(skipped)) == [expected for _, _, expected in drawn[skipped:]]


def test_what_is_refused(registry: Registry, ids: tuple[int, int]) -> None:
    """What is no frame, no message or of no schema is a dead letter, and says why."""
    broken, avro = registry.add('syntax="proto3"; message {', "PROTOBUF"), registry.add({"type": "int"})
    values = [None, b"", framed(ids[0], b""), framed(ids[0], b"\0\xff"), framed(broken, b"\0"), framed(avro, b"\0")]
    found = outcomes(make_job(registry, "id:int"), records([*values, framed(ids[0], b"\0\x08\7")]))
    assert found[:2] == ["null value", "empty value"]
    assert found[2].startswith("has no message indexes behind its schema id: ")
    assert found[3] == "is no A of Protobuf (Wire format was corrupt): 'ff'"
    assert found[4].startswith(f"schema id {broken} is no Protobuf schema: schema schema.proto does not compile: ")
    assert found[5:] == [f"schema id {avro} is AVRO, and not PROTOBUF", (7,)]
    misfit = outcomes(make_job(registry, "id:uuid"), records([framed(ids[0], b"\0\x08\7")]))
    assert misfit[0].startswith(f"schema id {ids[0]} does not fit: column 'id' is of type int64 in the schema, which")


def test_unknown_ids_and_digests(registry: Registry, ids: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown id stops with its place, or makes dead letters and is asked for once; used schemas are noted."""
    monkeypatch.setattr(open_registry(registry.address), "_patience", 0.0)
    table = records([framed(ids[0], b"\0\x08\1"), framed(9, b"\0\x08\2")])
    with pytest.raises(UnknownSchemaError, match="source s partition 3 offset 8: schema id 9 is not in the registry"):
        make_format(make_job(registry, "id:int")).parse(table)
    fmt: Any = make_format(make_job(registry, "id:int", unknown_schema="dead-letter"))
    asked = len(registry.asked)
    assert [fmt.parse(table).rejected for _ in range(3)] == [{1: "schema id 9 is not in the registry"}] * 3
    assert len(registry.asked) == asked + 1
    assert list(fmt.schemas) == [str(ids[0])]
    found = open_registry(registry.address).get(ids[0])
    assert found is not None
    assert fmt.schemas[str(ids[0])] == found.digest
    assert fmt.facts() == {"name": "protobuf", "columns": "id:int", "rules": "2"}


def test_types_are_those_of_the_messages(registry: Registry, ids: tuple[int, int]) -> None:
    """What an untyped column holds is told by each record's message, also behind references of references."""
    job = make_job(registry, "id,c.at,c.d.x")
    assert job.untyped == ("id", "c.at", "c.d.x")
    kinds = find_kinds(job, records([framed(ids[0], b"\0"), framed(ids[1], b"\2\2"), framed(ids[1], b"\0"), b"x"]))
    missing = dict.fromkeys(job.untyped, "missing")
    known = {"id": "int by a schema", "c.at": "time by a schema", "c.d.x": "decimal by a schema"}
    assert kinds == [{**missing, "id": "int by a schema"}, known, missing, {}]
    assert usual_types(job, kinds) == {"id": "int", "c.at": "time", "c.d.x": "decimal"}


def test_names_of_references(registry: Registry) -> None:
    """A file that is imported may have the name that its importer has for the compiler."""
    registry.versions["own", 1] = registry.add('syntax="proto3"; message O { int64 id = 1; }', "PROTOBUF")
    text = 'syntax="proto3"; import "schema.proto"; message M { O o = 1; }'
    schema = registry.add(text, "PROTOBUF", [("schema.proto", "own", 1)])
    assert outcomes(make_job(registry, "o.id:int"), records([framed(schema, b"\0\x0a\2\x08\5")])) == [(5,)]


@pytest.mark.parametrize("encoded", [{"m"}, {"m", "c"}, {"m", "c", "d"}, {"c"}, {"d"}, {"m", "d"}])
def test_descriptors_in_base64(registry: Registry, encoded: set[str]) -> None:
    """Schemas that a client registered as descriptors are read, with imports that are descriptors or texts."""
    files = {file.name: file for file in FileDescriptorSet.FromString(compile_proto(NEW, NEW_FILES)).file}

    def text(name: str, path: str, plain: str) -> str:
        return base64.b64encode(files[path].SerializeToString()).decode() if name in encoded else plain

    key = "".join(sorted(encoded))
    registry.versions[f"d-{key}", 1] = registry.add(text("d", "d.proto", D), "PROTOBUF")
    c = registry.add(text("c", "b/c.proto", C), "PROTOBUF", [("d.proto", f"d-{key}", 1)])
    registry.versions[f"c-{key}", 1] = c
    schema = registry.add(text("m", "schema.proto", NEW), "PROTOBUF", [("b/c.proto", f"c-{key}", 1)])
    value = A_NEW(id=4, c={"at": {"seconds": 1}, "d": {"x": 6}}).SerializeToString()
    job = make_job(registry, "id:int,c.at:time,c.d.x:int")
    assert outcomes(job, records([framed(schema, b"\2\2" + value)])) == [(4, 10**9, 6)]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "neither": ({}, "protobuf_descriptor.* is missing: --format protobuf needs --schema-registry ADDRESS, or"),
    "both": (
        {"schema_registry": "http://here", "protobuf_descriptor": "/x", "protobuf_message": "M"},
        "schema_registry.* is for --format avro or protobuf without a schema's file",
    ),
    "the name alone": ({"schema_registry": "http://here", "protobuf_message": "M"}, "leave one of them out"),
    "for csv": ({"format": "csv", "columns": "id", "schema_registry": "http://here"}, "schema_registry"),
    "keys without": ({"format": "none", "key_format": "avro", "sorts": ["@key"]}, "avro needs --schema-registry"),
    "whole key": (
        {"format": "none", "key_format": "protobuf", "sorts": ["@key"], "schema_registry": "http://here"},
        "is a message: sort by a field, @key.NAME",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_do_not_fit(case: str) -> None:
    """Protobuf wants a registry or a descriptor, not both; one line says so, with exit status 2."""
    flags, message = REFUSED[case]
    with pytest.raises(SettingsError, match=message) as caught:
        load_job({"source_topic": "s", "sorts": ["id"], "format": "protobuf", **flags}, {})
    assert caught.value.exit_code == 2


def test_the_check_before_work(registry: Registry) -> None:
    """It asks the registry for values and for keys."""
    for job in (make_job(registry, "id:int"), make_job(registry, "@key.id:int", format="csv", key_format="protobuf")):
        asked = len(registry.asked)
        check_format(job)
        assert len(registry.asked) == asked + 1
