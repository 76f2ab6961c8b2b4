"""Sorts of Avro values through the whole command: the order, ties, dead letters and their reasons."""

import json
import random
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tests.avro_values import number
from tests.cluster import Cluster
from tests.command import Command

SCHEMA = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "customer", "type": {"type": "record", "name": "C", "fields": [{"name": "name", "type": "string"}]}},
    ],
}


def order(key: int, name: bytes) -> bytes:
    return number(key) + number(len(name)) + name


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
    assert reasons == {
        b"\x02": b"the value ends too early, after 1 bytes",
        order(1, b"a") + b"!": b"the value has bytes behind its end at byte 3",
        None: b"null value",
    }
