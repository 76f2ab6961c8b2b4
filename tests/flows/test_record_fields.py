"""Sorts by the record's own fields, through the whole command: the outputs, and the answer of verify."""

import random
import struct
from datetime import UTC, datetime

import pytest
from confluent_kafka import Producer

from tests.cluster import Cluster, Record
from tests.command import Command

NOW = int(datetime.now(UTC).timestamp() * 1000)


def produce(cluster: Cluster, topic: str, records: list[tuple[bytes | None, bytes | None, int]]) -> None:
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers})
    for i, (key, value, time) in enumerate(records):
        producer.produce(topic, value, key, i % 4, timestamp=time)
    assert producer.flush(30) == 0


def make_records(count: int) -> list[tuple[bytes | None, bytes | None, int]]:
    """Make keys with ties, empty and null ones; values that are no rows, tombstones; times in no order."""
    chance = random.Random(7)
    keys = [None, b"", b"\xff", *(b"k%d" % i for i in range(9))]
    values = [None, b"", b"no row", b"\x00\x01"]
    return [(chance.choice(keys), chance.choice(values), NOW - chance.randrange(1000)) for _ in range(count)]


def read(cluster: Cluster, topic: str) -> list[Record]:
    return cluster.read(topic)


@pytest.mark.parametrize("term", ["@key:nulls-first", pytest.param("@key:desc:nulls-last", marks=pytest.mark.slow)])
def test_by_key(cluster: Cluster, command: Command, term: str) -> None:
    """Null keys are at the place that was set, ties in order of arrival, tombstones among them; verify agrees."""
    source = cluster.make_topic()
    produce(cluster, source, make_records(400))
    job = command.job(source, format="none", sorts=[f"{term}={source}-sorted"])
    done = command.run(job)
    assert done.status == 0, done.err
    arrived = sorted(cluster.read(source), key=lambda r: (r.partition, r.offset))
    present = sorted((r for r in arrived if r.key is not None), key=lambda r: r.key or b"")
    if "desc" in term:
        # `sorted` is stable, so that ties keep their order.
        present = sorted(present, key=lambda r: [-byte for byte in r.key or b""] + [1], reverse=False)
    absent = [r for r in arrived if r.key is None]
    expected = absent + present if "first" in term else present + absent
    found = cluster.read(f"{source}-sorted")
    assert [(r.key, r.value) for r in found] == [(r.key, r.value) for r in expected]
    (written,) = cluster.ledger(job).runs[1].sorts
    assert None in {part for w in written.partitions for key in (w.first_key, w.last_key) for part in key or ()}
    checked = command.run(job, command="verify")
    assert checked.status == 0, checked.err
    assert "no difference" in checked.out


@pytest.mark.slow
def test_by_timestamp_and_key(cluster: Cluster, command: Command) -> None:
    """Timestamps are kept, newest first; a record without a key is a dead letter, with the reason."""
    source = cluster.make_topic()
    produce(cluster, source, make_records(200))
    job = command.job(source, timestamps="keep", sorts=[f"@timestamp:desc,@key={source}-sorted"], format="none")
    done = command.run(job)
    assert done.status == 0, done.err
    kept = [r for r in cluster.read(source) if r.key is not None]
    assert len(cluster.read(f"{source}-sorted")) == len(kept)
    letters = cluster.read(job.dead_letters)
    assert len(letters) == 200 - len(kept)
    assert {dict(r.headers)["__connect.errors.exception.message"] for r in letters} == {b"@key is null"}
    checked = command.run(job, command="verify")
    assert checked.status == 0, checked.err
    assert "no difference" in checked.out


@pytest.mark.slow
def test_by_header_and_place(cluster: Cluster, command: Command) -> None:
    """The last header of the name counts, and the records of each tenant are in the order of their places."""
    source = cluster.make_topic()
    chance = random.Random(3)
    tenants = [[("tenant", b"old"), ("tenant", b"t%d" % chance.randrange(5))] for _ in range(300)]
    odd: list[list[tuple[str, bytes | None]]] = [[], [("tenant", None)], [("Tenant", b"t1")]]
    headers = [*map(tuple, tenants), *map(tuple, odd)]
    records = [Record(b"v%d" % i, headers=pairs, partition=i % 4) for i, pairs in enumerate(headers)]
    cluster.produce_records(source, [*records, Record(None, headers=(("tenant", b"t3"),), partition=1)])
    job = command.job(source, format="none", sorts=[f"@header.tenant,@partition,@offset={source}-sorted"])
    done = command.run(job)
    assert done.status == 0, done.err
    arrived = cluster.read(source)
    placed = [r for r in arrived if dict(r.headers).get("tenant")]
    expected = sorted(placed, key=lambda r: (dict(r.headers)["tenant"] or b"", r.partition, r.offset))
    assert len(expected) == 301
    assert cluster.read(f"{source}-sorted") == expected
    letters = cluster.read(job.dead_letters)
    assert sorted(r.value or b"" for r in letters) == [b"v300", b"v301", b"v302"]
    reasons = {dict(r.headers)["__connect.errors.exception.message"] for r in letters}
    assert reasons == {b"@header.tenant is null"}
    checked = command.run(job, command="verify")
    assert checked.status == 0, checked.err
    assert "no difference" in checked.out
    assert "its order by @partition, @offset, which its records do not have" in checked.out


@pytest.mark.slow
def test_by_keys_of_integers(cluster: Cluster, command: Command) -> None:
    """Keys as Kafka's serializers write them are in the order of their numbers; another length is a dead letter."""
    source = cluster.make_topic()
    chance = random.Random(5)
    numbers = [chance.randrange(-(2**63), 2**63) if i % 2 else chance.randrange(-9, 9) for i in range(300)]
    records = [Record(b"no row", struct.pack(">q", n), partition=i % 4) for i, n in enumerate(numbers)]
    bad = [Record(b"a", b"\0\0\0"), Record(b"b", None), Record(b"c", b"")]
    cluster.produce_records(source, [*records, *bad])
    job = command.job(source, format="none", key_format="int64", sorts=[f"@key:desc={source}-sorted"])
    done = command.run(job)
    assert done.status == 0, done.err
    keys = [struct.unpack(">q", r.key or b"")[0] for r in cluster.read(f"{source}-sorted")]
    assert keys == sorted(numbers, reverse=True)
    letters = cluster.read(job.dead_letters)
    assert {r.value: dict(r.headers)["__connect.errors.exception.message"] for r in letters} == {
        b"a": b"@key is no int64: 3 bytes",
        b"b": b"@key is null",
        b"c": b"@key is no int64: 0 bytes",
    }
    checked = command.run(job, command="verify")
    assert checked.status == 0, checked.err
    assert "not verifiable:" not in checked.out
    refused = command.run(job.model_copy(update={"key_format": "int32"}))
    assert refused.status == 2
    assert "has key_format 'int64' by its ledger, and was started with 'int32'" in refused.err


@pytest.mark.slow
def test_by_the_names_of_a_header_line(cluster: Cluster, command: Command) -> None:
    """Fields of values with header lines of their own are found by name, beside a field of the record."""
    source = cluster.make_topic()
    values = [b"id,name\n%d,a" % (i * 37 % 100) if i % 3 else b"name,id\r\nb,%d" % (i * 37 % 100) for i in range(100)]
    cluster.produce(source, [*values, b"7,c"])
    job = command.job(source, columns=None, csv_header=True, sorts=[f"id:int:desc,@offset={source}-sorted"])
    done = command.run(job)
    assert done.status == 0, done.err

    def id_of(value: bytes | None) -> int:
        header, row = (value or b"").splitlines()
        return int(dict(zip(header.split(b","), row.split(b","), strict=True))[b"id"])

    assert [id_of(r.value) for r in cluster.read(f"{source}-sorted")] == list(reversed(range(100)))
    assert [r.value for r in cluster.read(job.dead_letters)] == [b"7,c"]
    checked = command.run(job, command="verify")
    assert checked.status == 0, checked.err
    assert "its order by @offset, which its records do not have" in checked.out


@pytest.mark.slow
def test_what_the_first_run_fixed(cluster: Cluster, command: Command) -> None:
    """The format is a job's own, as its columns are."""
    source = cluster.make_topic()
    produce(cluster, source, [(b"k", b"1,a,b,Asia", NOW)] * 8)
    job = command.job(source, format="none", sorts=[f"@key={source}-sorted"])
    assert command.run(job).status == 0
    refused = command.run(job.model_copy(update={"format": "csv"}))
    assert refused.status == 2
    assert "has format 'none' by its ledger, and was started with 'csv'" in refused.err
