"""Sorts of Avro values through the whole command: the order, ties, dead letters and their reasons."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from tasks.formats.known_schemas import read_schemas
from tasks.settings.job import Job
from tests.avro_values import number
from tests.cluster import Cluster
from tests.command import Command, Outcome
from tests.registry_server import serve_registry

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "customer", "type": {"type": "record", "name": "C", "fields": [{"name": "name", "type": "string"}]}},
    ],
}


def order(key: int, name: bytes) -> bytes:
    return number(key) + number(len(name)) + name


def framed(schema: int, payload: bytes) -> bytes:
    return b"\0" + schema.to_bytes(4, "big") + payload


def assert_verified(command: Command, job: Job) -> None:
    """Verify, and fail unless nothing differs and the order was judged."""
    checked = command.run(job, command="verify")
    assert checked.status == 0, checked.err
    assert "no difference" in checked.out
    assert "not verifiable:" not in checked.out + checked.err


@pytest.mark.slow
@pytest.mark.raises("SchemaChangedError", "UnknownSchemaError")
def test_schemas_of_a_registry(cluster: Cluster, command: Command) -> None:
    """Runs keep the digests of the schemas they used; an unknown id and a changed text stop before a row is visible."""
    pytest.importorskip("confluent_kafka.schema_registry")
    source, id_alone = cluster.make_topic(), {**SCHEMA, "fields": SCHEMA["fields"][:1]}
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers})
    with serve_registry() as registry:
        first, second = registry.add(SCHEMA), registry.add(id_alone)
        given = {"format": "avro", "schema_registry": registry.address}
        job = command.job(source, sorts=[f"id={source}-by-id"], **given)

        def run(*values: bytes) -> Outcome:
            for value in values:
                producer.produce(source, value, partition=0)
            assert producer.flush(30) == 0
            return command.run(job)

        done = run(*(framed(first, order(n, b"a")) for n in (5, 3, 9)), framed(second, number(4)))
        assert done.status == 0, done.err
        sorted_ids = [
            framed(first, order(3, b"a")),
            framed(second, number(4)),
            *(framed(first, order(n, b"a")) for n in (5, 9)),
        ]
        assert [record.value for record in cluster.read(f"{source}-by-id")] == sorted_ids
        assert set(read_schemas(cluster.ledger(job).runs[1].format)) == {str(first), str(second)}
        assert cluster.ledger(job).runs[1].format["columns"] == "id:int"
        assert_verified(command, job)
        registry.schemas[first]["schema"] += " "
        stopped = run(framed(first, order(1, b"a")))
        assert stopped.status == 1
        assert f"schema id {first} has another text than before" in stopped.err
        registry.schemas[first]["schema"] = registry.schemas[first]["schema"].rstrip()
        stopped = run(framed(77, order(1, b"a")))
        assert stopped.status == 1
        assert f"source {source} partition 0 offset 5: schema id 77 is not in the registry" in stopped.err
        assert [record.value for record in cluster.read(f"{source}-by-id")] == sorted_ids


@pytest.mark.slow
def test_avro_is_sorted_by_paths(cluster: Cluster, command: Command, tmp_path: Path) -> None:
    """Two sorts of one topic, by the schema's types; malformed values are dead letters, and say why."""
    chance = random.Random(3)
    values = [(chance.randrange(-50, 50), b"n%d" % chance.randrange(9)) for _ in range(400)]
    source = cluster.make_topic()
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers})
    for i, value in enumerate([*map(order, *zip(*values, strict=True)), b"\x02", order(1, b"a") + b"!", None]):
        producer.produce(source, value, partition=i % 4)
    assert producer.flush(30) == 0
    schema = tmp_path / "order.avsc"
    schema.write_text(json.dumps(SCHEMA))
    sorts = [f"id:desc={source}-by-id", f"customer.name,id={source}-by-name"]
    job = command.job(source, format="avro", avro_schema=str(schema), sorts=sorts)
    done = command.run(job)
    assert done.status == 0, done.err
    by_id = [record.value or b"" for record in cluster.read(f"{source}-by-id")]
    by_name = [record.value or b"" for record in cluster.read(f"{source}-by-name")]
    assert sorted(by_id) == sorted(by_name) == sorted(order(*value) for value in values)
    ids = {order(*value): value[0] for value in values}
    assert [ids[value] for value in by_id] == sorted(ids[value] for value in by_id)[::-1]
    assert by_name == [order(*o) for o in sorted(values, key=lambda o: (o[1], o[0]))]
    assert cluster.ledger(job).runs[1].format["columns"] == "id:int,customer.name:text"
    reasons = {
        r.value: dict(r.headers or ())["__connect.errors.exception.message"] for r in cluster.read(job.dead_letters)
    }
    assert_verified(command, job)
    assert reasons == {
        b"\x02": b"the value ends too early, after 1 bytes",
        order(1, b"a") + b"!": b"the value has bytes behind its end at byte 3",
        None: b"null value",
    }
