"""Sorts of Protobuf and keys by a schema registry through the whole command, and their verification."""

import base64

import pytest
from google.protobuf import descriptor_pb2

from tasks.formats.known_schemas import read_schemas
from tasks.formats.protobuf.schema import compile_proto
from tests.avro_values import number
from tests.cluster import Cluster, Record
from tests.command import Command
from tests.flows.test_avro import assert_verified
from tests.framed_records import framed
from tests.registry_server import serve_registry

ID = 'syntax="proto3"; package shop; message Id { int64 n = 1; }'
ORDER = 'syntax="proto3"; import "id.proto"; message Other {} message Order { shop.Id id = 1; }'
KEY = 'syntax="proto3"; message K { optional sint64 n = 1; }'


@pytest.mark.slow
@pytest.mark.parametrize("key_format", ["avro", "protobuf"])
def test_protobuf_and_keys_of_a_registry(cluster: Cluster, command: Command, key_format: str) -> None:
    """A text that imports a descriptor, and one without the field; keys beside them; dead letters of both parts."""
    pytest.importorskip("confluent_kafka.schema_registry")
    (of_id, _) = descriptor_pb2.FileDescriptorSet.FromString(compile_proto(ORDER, {"id.proto": ID})).file
    source = cluster.make_topic()
    with serve_registry() as registry:
        registry.versions["id", 1] = registry.add(base64.b64encode(of_id.SerializeToString()).decode(), "PROTOBUF")
        order, other = registry.add(ORDER, "PROTOBUF", [("id.proto", "id", 1)]), registry.add(KEY, "PROTOBUF")
        key = registry.add('"long"') if key_format == "avro" else other

        def make_key(n: int) -> bytes:
            return framed(key, number(n) if key_format == "avro" else b"\0\x08" + number(n))

        def make(n: int) -> Record:
            value = framed(order, b"\2\2\x0a\2\x08%c" % (n * 37 % 100)) if n % 10 else framed(other, b"\0\x08\2")
            return Record(value, make_key(n * 53 % 100), (("turn", b"%d" % (n % 7)),), n % 4)

        bad = [Record(framed(order, b"\2\2\xff"), make_key(1)), Record(framed(order, b"\2\2"), b"\1"), Record(None)]
        cluster.produce_records(source, [*map(make, range(100)), *bad])
        by_key = "@key:desc" if key_format == "avro" else "@key.n:desc"
        # Another field of the record is read by another format: each column is still the one that the sort names.
        by_key = f"{by_key}:nulls-last,@header.turn:nulls-last"
        job = command.job(
            source,
            format="protobuf",
            key_format=key_format,
            schema_registry=registry.address,
            sorts=[f"id.n:int:nulls-first={source}-by-id", f"{by_key}={source}-by-key"],
        )
        done = command.run(job)
        assert done.status == 0, done.err
        ids = [
            (r.value or b"")[-1] if r.value != framed(other, b"\0\x08\2") else -1
            for r in cluster.read(f"{source}-by-id")
        ]
        assert ids == sorted(-1 if n % 10 == 0 else n * 37 % 100 for n in range(100))
        assert [r.key for r in cluster.read(f"{source}-by-key")] == [make_key(n) for n in reversed(range(100))]
        assert sorted(r.value or b"" for r in cluster.read(job.dead_letters)) == sorted(r.value or b"" for r in bad)
        assert set(read_schemas(cluster.ledger(job).runs[1].format)) == {str(n) for n in (order, other, key)}
        assert_verified(command, job)
