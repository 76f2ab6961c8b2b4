"""Sorted topics of Avro and Protobuf by a schema registry, read back by keys that are fields of the values."""

import base64
import json
from collections.abc import Iterator

import pytest

from kafka_sort import SortedTopic
from tasks.formats.schema_registry import RegistryUnavailableError
from tasks.settings.job import Job
from tests.avro_values import number
from tests.cluster import Cluster, Record
from tests.command import Command, Outcome
from tests.framed_records import framed
from tests.registry_server import Registry, serve_registry

pytestmark = pytest.mark.slow

ORDER = {
    "type": "record",
    "name": "Order",
    "fields": [{"name": "id", "type": "long"}, {"name": "name", "type": "string"}],
}
# Later records have one field more, and the same fields at other places.
LATER = {**ORDER, "fields": [{"name": "note", "type": "string", "default": ""}, *ORDER["fields"]]}
MESSAGE = 'syntax="proto3"; message Order { int64 id = 1; string name = 2; }'
COUNT = 60


@pytest.fixture
def registry() -> Iterator[Registry]:
    pytest.importorskip("confluent_kafka.schema_registry")
    with serve_registry() as served:
        yield served


def avro(first: int, later: int, key: int) -> bytes:
    name = b"n%d" % (key % 4)
    text = number(len(name)) + name
    return framed(later, number(1) + b"x" + number(key) + text) if key % 3 else framed(first, number(key) + text)


def protobuf(schema: int, key: int) -> bytes:
    name = b"n%d" % (key % 4)
    return framed(schema, b"\0\x08%c\x12%c" % (key, len(name)) + name)


def make(cluster: Cluster, command: Command, registry: Registry, kind: str) -> tuple[Job, dict[int, bytes]]:
    """Make two runs of values in the format; return the job, and the values by their ids."""
    if kind == "avro":
        first, later = registry.add(ORDER), registry.add(LATER)
        values = {key: avro(first, later, key) for key in range(COUNT)}
    else:
        schema = registry.add(MESSAGE, "PROTOBUF")
        values = {key: protobuf(schema, key) for key in range(COUNT)}
    source = cluster.make_topic()
    sorts = [f"id:int=i-{source}", f"name:desc,id:int=n-{source}"]
    job = command.job(source, format=kind, schema_registry=registry.address, sorts=sorts)
    for keys in (range(0, COUNT, 2), range(1, COUNT, 2)):
        shuffled = [key * 7 % COUNT for key in keys]
        cluster.produce_records(source, [Record(values[key], partition=key % 4) for key in shuffled])
        done = command.run(job)
        assert done.status == 0, done.err
    return job, values


def opened(cluster: Cluster, job: Job, output: str) -> SortedTopic:
    servers, registry = cluster.bootstrap_servers, job.schema_registry
    return SortedTopic(job.name, output, bootstrap_servers=servers, schema_registry=registry)


def show(command: Command, job: Job, name: str, *flags: str) -> Outcome:
    given = ("--job-name", job.name, "--schema-registry", job.schema_registry or "")
    return command.start_flags(name, *given, *flags).finish()


def values_of(outcome: Outcome) -> list[bytes]:
    assert outcome.status == 0, outcome.err
    members = [json.loads(line)["value"] for line in outcome.out.splitlines()]
    return [m.encode() if isinstance(m, str) else base64.b64decode(m["base64"]) for m in members]


@pytest.mark.parametrize("kind", ["avro", "protobuf"])
def test_keys_in_values_of_a_registry(cluster: Cluster, command: Command, registry: Registry, kind: str) -> None:
    """Each value is read by its own schema: a key, a prefix and a range are found, and two runs merged by the field."""
    if kind == "protobuf":
        pytest.importorskip("ptars")
    job, values = make(cluster, command, registry, kind)
    by_id, by_name = (sort.topic for sort in job.sort_list)
    with opened(cluster, job, by_id) as topic:
        assert [record.value for record in topic] == [values[key] for key in range(COUNT)]
        assert [record.run for record in topic] == [1, 2] * (COUNT // 2)
        assert [record.value for record in topic.get(17)] == [values[17]]
        assert [record.value for record in topic.range(10, 20)] == [values[key] for key in range(10, 21)]
    with opened(cluster, job, by_name) as topic:
        assert [record.value for record in topic.get("n2")] == [values[key] for key in range(2, COUNT, 4)]
        assert [record.value for record in topic.get("n2", 6)] == [values[6]]
    part = show(command, job, "read", "--sort", by_id, "--from", "10", "--to", "20")
    assert values_of(part) == [values[key] for key in range(10, 21)]
    assert values_of(show(command, job, "get", "--sort", by_id, "17", "99", "3")) == [values[17], values[3]]
    # Nothing depends on keys, so no schema is needed.
    with serve_registry() as empty:
        one = ("--sort", by_id, "--run", "1", "--schema-registry", empty.address)
        assert values_of(show(command, job, "read", *one)) == [values[key] for key in range(0, COUNT, 2)]
        assert empty.asked == []


@pytest.mark.raises("RegistryUnavailableError")
def test_a_registry_that_is_away(cluster: Cluster, command: Command, registry: Registry) -> None:
    """Without its registry a reader says in one line that the registry does not answer; once it does, all is found."""
    job, values = make(cluster, command, registry, "avro")
    by_id = job.sort_list[0].topic
    with opened(cluster, job, by_id) as topic:
        registry.faults += [503] * 1000
        with pytest.raises(RegistryUnavailableError, match="registry"):
            topic.get(17)
        registry.faults.clear()
        assert [record.value for record in topic.get(17)] == [values[17]]
    unnamed = command.start_flags("get", "--job-name", job.name, "--sort", by_id, "17").finish()
    assert (unnamed.status, unnamed.out) == (2, "")
    assert "--schema-registry" in unnamed.err
    with serve_registry() as closed:
        pass
    for name, *rest in (("get", "17"), ("read", "--from", "10")):
        told = show(command, job, name, "--sort", by_id, "--schema-registry", closed.address, *rest)
        assert (told.status, told.out, len(told.err.splitlines())) == (1, "", 1), told.err
        assert closed.address in told.err
