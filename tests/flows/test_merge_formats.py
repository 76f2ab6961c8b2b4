"""Merges of runs of other formats: paths, schemas and record fields are read from the outputs as from the source."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tasks.kafka.ledger import NewerLedgerError
from tasks.run_record import RunRecord
from tasks.settings.job import Job
from tasks.sorting.newest import Newest
from tests.avro_values import number
from tests.cluster import Cluster, Record
from tests.command import Command
from tests.merges import fill, must_merge, read_by, records_of
from tests.stages import make_job, run_settled


def in_order(read: list[list[Record]], key: Any) -> list[Record]:
    return sorted((r for run in read for r in run), key=key)


@pytest.mark.slow
def test_json_with_types_that_were_inferred(cluster: Cluster, tmp_path: Path) -> None:
    """The ledger has the types; numbers, nulls and missing members keep their places."""
    source = cluster.make_topic(2)
    job = make_job(source, tmp_path, format="json", sorts=[f"a.n:nulls-last=o-{source}", f"name:desc=p-{source}"])
    values = [
        [
            json.dumps({"a": {} if i % 5 == 0 else {"n": i * 7 % 11}, "name": f"é{i % 3}", "run": run}).encode()
            for i in range(20)
        ]
        for run in range(3)
    ]
    read = fill(cluster, job, tmp_path, values)
    must_merge(cluster, job, tmp_path)

    def member(r: Record) -> float:
        return float(json.loads(r.value or b"")["a"].get("n", "inf"))

    assert records_of(cluster, f"o-{source}") == in_order(read, member)
    names = sorted(in_order(read, lambda _: 0), key=lambda r: json.loads(r.value or b"")["name"], reverse=True)
    assert records_of(cluster, f"p-{source}") == names
    cluster.produce(source, [b'{"a":{"n":3},"name":"z"}'], 2)
    assert run_settled(cluster, job, tmp_path).dead_letters == 0


SCHEMA = {"type": "record", "name": "R", "fields": [{"name": "id", "type": "long"}, {"name": "run", "type": "long"}]}


@pytest.mark.slow
def test_avro_by_a_schema_file(cluster: Cluster, command: Command, tmp_path: Path) -> None:
    """The schema's file is given to the merge as well, and must be the one of the runs."""
    source, schema = cluster.make_topic(1), tmp_path / "r.avsc"
    schema.write_text(json.dumps(SCHEMA))
    job = make_job(source, command.workdir, format="avro", avro_schema=str(schema), sorts=[f"id:desc=o-{source}"])
    read = fill(cluster, job, tmp_path, [[number(i * 7 % 10) + number(run) for i in range(10)] for run in range(2)])
    without = command.start_flags("merge", "--job-name", job.name).finish()
    assert (without.status, "avro" in without.err) == (2, True)
    done = command.run(job, command="merge")
    assert done.status == 0, done.err
    expected = sorted((r for run in read for r in run), key=lambda r: (r.value or b"")[0], reverse=True)
    assert records_of(cluster, f"o-{source}") == expected
    schema.write_text(json.dumps({**SCHEMA, "name": "Other"}))
    cluster.produce(source, [number(1) + number(9)], 1)
    changed = command.run(job, command="merge")
    assert (changed.status, "is not the one by which run" in changed.err) == (2, True)


@pytest.mark.slow
def test_record_fields_and_timestamps(cluster: Cluster, tmp_path: Path) -> None:
    """Headers, keys and the source's timestamps go through a merge, and are sorted by."""
    source = cluster.make_topic(2)
    sorts = [f"@header.n:int,@key:nulls-first=o-{source}", f"@timestamp:desc=p-{source}"]
    job = make_job(source, tmp_path, format="none", timestamps="keep", sorts=sorts)
    now, times = int(time.time()) * 1000, dict[bytes, int]()
    read = []
    for run in range(3):
        producer = Producer({"bootstrap.servers": cluster.bootstrap_servers})
        for i in range(20):
            value = b"%d-%d" % (run, i)
            times[value] = now + i * 13 % 7 * 1000
            key = None if i % 4 == 0 else b"k%d" % (i % 3)
            headers: list[tuple[str, str | bytes | None]] = [
                ("x", b"\0\xff"),
                ("n", b"%d" % (i % 5)),
                ("n", b"%d" % (i % 6)),
            ]
            producer.produce(source, value, key, i % 2, timestamp=times[value], headers=headers)
        assert producer.flush(30) == 0
        read.append(read_by(cluster.read(source), run_settled(cluster, job, tmp_path)))
    must_merge(cluster, job, tmp_path)

    def fields(r: Record) -> tuple[int, bytes]:
        return int(r.headers[2][1] or b""), r.key or b""

    assert records_of(cluster, f"o-{source}") == in_order(read, fields)
    assert records_of(cluster, f"p-{source}") == in_order(read, lambda r: -times[r.value or b""])
    assert times_of(cluster, f"p-{source}") == times


def times_of(cluster: Cluster, topic: str) -> dict[bytes, int]:
    """Return value → timestamp."""
    ends, starts = cluster.ends(topic), cluster.starts(topic)
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap_servers, "group.id": "times"})
    consumer.assign([TopicPartition(topic, p, start) for p, start in starts.items() if start < ends[p]])
    found: dict[bytes, int] = {}
    while len(found) < len(cluster.read(topic)):
        found |= {m.value() or b"": m.timestamp()[1] for m in consumer.consume(100, 0.2) if not m.error()}
    consumer.close()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("output_key", ["sort", "none"])
def test_record_keys_of_outputs(cluster: Cluster, tmp_path: Path, output_key: str) -> None:
    """The record keys that the outputs have stay, whatever they were in the source."""
    source = cluster.make_topic(1)
    job = make_job(source, tmp_path, sorts=[f"id,name=o-{source}"], columns="id:int,name", output_key=output_key)
    for run in range(2):
        cluster.produce_records(source, [Record(b"%d,n%d" % (i * 3 % 7, run), b"source") for i in range(7)])
        run_settled(cluster, job, tmp_path)
    must_merge(cluster, job, tmp_path, Newest())
    expected = [(i, f"n{run}") for i in range(7) for run in range(2)]
    assert [r.value for r in records_of(cluster, f"o-{source}")] == [b"%d,%b" % (i, n.encode()) for i, n in expected]
    keys = [r.key for r in records_of(cluster, f"o-{source}")]
    wanted = [json.dumps([i, n], separators=(",", ":")).encode() for i, n in expected]
    assert keys == (wanted if output_key == "sort" else [None] * 14)


@pytest.mark.slow
def test_a_record_that_says_what_it_needs(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that does not know merges must not go on from one: its record requires that they are understood."""
    source = cluster.make_topic(1)
    job: Job = make_job(source, tmp_path)
    fill(cluster, job, tmp_path, [[b"1,a,b,Asia"], [b"0,a,b,Asia"]])
    record: RunRecord = must_merge(cluster, job, tmp_path)
    assert record.requires == ("merge", "replace")
    with monkeypatch.context() as patch:
        patch.setattr("tasks.run_record.UNDERSTOOD", frozenset({"replace", "parquet"}))
        with pytest.raises(NewerLedgerError, match="requires merge"):
            run_settled_after(cluster, job, tmp_path)
    assert cluster.ledger(job).last == record
    followed = run_settled_after(cluster, job, tmp_path)
    assert (followed.requires, followed.covers) == ((), ())


def run_settled_after(cluster: Cluster, job: Job, folder: Path) -> RunRecord:
    cluster.produce(job.source_topic, [b"2,a,b,Asia"], 1)
    return run_settled(cluster, job, folder)
