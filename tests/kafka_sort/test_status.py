"""`kafka-sort status` on the real broker; the ledgers are written here, as runs would write them."""

import json
import subprocess
import sys
from dataclasses import replace
from uuid import uuid4

import pytest

from kafka_sort.status import JobStatus, print_status, read_status
from tasks.errors import BrokerUnavailableError
from tasks.kafka.lease import Lease
from tasks.kafka.ledger import LAST, ensure_ledger, run_key
from tasks.kafka.topics import describe_topic
from tasks.run_record import ReadRange, RunRecord, WrittenSort
from tasks.settings.connection import Connection
from tasks.settings.job import Job
from tests.cluster import Cluster, Record, sample_values, wait_for
from tests.documents import assert_documented

READ = RunRecord(
    job="",
    run=1,
    attempt="a",
    source_topic="",
    source_topic_id="",
    format={},
    read=(),
    lost=(),
    records=90,
    dead_letters=2,
    dead_letter_topic="d",
    checksum={},
    sorts=(WrittenSort("by-id", "i", "id", ()), WrittenSort("parquet:/sorted", "f", "id", ())),
    started="2026-01-31T11:00:00.000+00:00",
    published="2026-01-31T12:00:00.000+00:00",
)


def make_job(cluster: Cluster, source: str | None = None) -> Job:
    """A job with an empty ledger."""
    job = Job(source_topic=source or cluster.make_topic(), job_name=f"j-{uuid4().hex[:8]}")
    ensure_ledger(cluster.admin, job.ledger, 1)
    return job


def write_run(cluster: Cluster, job: Job, number: int, read: dict[int, int], published: str = READ.published) -> None:
    topic = describe_topic(cluster.admin, job.source_topic)
    assert topic is not None
    ranges = tuple(ReadRange(partition, 0, end) for partition, end in read.items())
    made = replace(READ, job=job.name, run=number, source_topic=topic.name, source_topic_id=topic.id, read=ranges)
    record = replace(made, published=published).to_json()
    records = [Record(record, run_key(number)), Record(record, LAST)]
    cluster.produce_records(job.ledger, records, **{"transactional.id": job.group})


def status_of(cluster: Cluster, job: Job) -> JobStatus:
    return next(status for status in read_status(cluster.connection) if status.job == job.name)


def test_lag_is_what_no_run_has_read(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """An idle job shows its newest run and the offsets behind it; an unknown partition counts from its start."""
    job = make_job(cluster)
    cluster.produce(job.source_topic, sample_values(40))
    write_run(cluster, job, 1, {0: 1, 1: 1, 2: 1})
    write_run(cluster, job, 2, {0: 10, 1: 9, 2: 7})
    status = status_of(cluster, job)
    assert (status.state, status.lag, status.problem) == ("idle", 0 + 1 + 3 + 10, "")
    assert status.row() == (
        job.name,
        "idle",
        "by-id, parquet:/sorted",
        "2",
        "90",
        "2",
        "2026-01-31 12:00:00 UTC",
        "14",
        "",
    )
    print_status(cluster.connection)
    assert job.name in capsys.readouterr().out


def test_one_object(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """For a script it is one line of JSON, whose members the page has; what is not known is null."""
    job, broken = make_job(cluster), make_job(cluster)
    cluster.produce_records(broken.ledger, [Record(b"no JSON", LAST)])
    write_run(cluster, job, 1, {0: 0, 1: 0, 2: 0, 3: 0})
    print_status(cluster.connection, "json")
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert_documented("status", found)
    assert found["bootstrap_servers"] == cluster.connection.bootstrap_servers
    jobs = {facts["job"]: facts for facts in found["jobs"]}
    assert jobs[job.name] == {
        "job": job.name,
        "state": "idle",
        "run": 1,
        "source": job.source_topic,
        "records": 90,
        "dead_letters": 2,
        "outputs": ["by-id", "parquet:/sorted"],
        "published": READ.published,
        "lag": 0,
        "owner": None,
        "problem": None,
    }
    assert (jobs[broken.name]["state"], jobs[broken.name]["run"], jobs[broken.name]["lag"]) == ("broken", None, None)
    assert "not a run record" in jobs[broken.name]["problem"]


def test_never_ran(cluster: Cluster) -> None:
    """A ledger without a record is a job that was started, and committed nothing yet."""
    status = status_of(cluster, make_job(cluster))
    assert (status.state, status.last, status.lag) == ("never ran", None, None)


def test_owner_is_named(cluster: Cluster) -> None:
    """A job with a lease holder runs, and the holder is named; when it gave the lease back, the job is idle."""
    job = make_job(cluster)
    lease = Lease(cluster.connection, job.owner_group, job.ledger, 1.5)
    lease.acquire(cluster.admin, job.name)
    try:
        status = status_of(cluster, job)
        assert status.state == "running"
        assert "kafka-sort pid" in str(status.owner)
    finally:
        lease.close()
    wait_for(lambda: status_of(cluster, job).state == "never ran")


@pytest.mark.raises("SourceGoneError")
def test_broken_ledger_is_a_line(cluster: Cluster) -> None:
    """One job's broken ledger, or a source that is gone, hides no other job."""
    sound, broken, orphan, recreated = (make_job(cluster) for _ in range(4))
    write_run(cluster, sound, 1, {})
    cluster.produce_records(broken.ledger, [Record(b"no JSON", LAST)])
    for job in (orphan, recreated):
        write_run(cluster, job, 3, {0: 0})
        cluster.delete_topic(job.source_topic)
    cluster.make_topic(name=recreated.source_topic)
    statuses = {status.job: status for status in read_status(cluster.connection)}
    assert statuses[sound.name].state == "idle"
    assert statuses[broken.name].state == "broken"
    assert "not a run record" in statuses[broken.name].problem
    assert statuses[orphan.name].problem == f"its source {orphan.source_topic} was deleted"
    assert statuses[recreated.name].row()[3:] == (
        "3",
        "90",
        "2",
        "2026-01-31 12:00:00 UTC",
        "",
        f"its source {recreated.source_topic} was deleted and recreated",
    )


def test_a_time_that_is_none(cluster: Cluster) -> None:
    """One job's record with a time that nobody can read hides no other job: it is shown as it stands."""
    job = make_job(cluster)
    write_run(cluster, job, 1, {}, published="soon")
    assert status_of(cluster, job).row()[6] == "soon"


def test_no_broker() -> None:
    """Without a broker the exit status is 2."""
    with pytest.raises(BrokerUnavailableError) as raised:
        read_status(Connection("127.0.0.1:1"), start_timeout=1)
    assert raised.value.exit_code == 2


def test_starts_without_prefect() -> None:
    """The command does not wait for Prefect's import."""
    code = "import kafka_sort.main, kafka_sort.status, sys; sys.exit('prefect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
