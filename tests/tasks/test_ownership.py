"""Lease, fence, ledger: the owner of a job, and the content of its ledger."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tasks.errors import SettingsError
from tasks.kafka.lease import Lease, LeaseTakenError
from tasks.kafka.ledger import LAST, LedgerError, ensure_ledger, run_key
from tasks.kafka.topics import describe_topic
from tasks.ownership import Owner, own_job
from tasks.preflight import check_before_lease
from tasks.publish import publish_run
from tasks.settings.job import Job
from tests.cluster import Cluster, assert_sorted, sample_values, wait_for
from tests.stages import make_job, owned, prepare, run_once


@pytest.fixture
def job(cluster: Cluster, tmp_path: Path) -> Job:
    """A job over 200 records in 4 partitions."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(200))
    return make_job(source, tmp_path)


def test_the_checks_change_nothing(cluster: Cluster, job: Job, tmp_path: Path) -> None:
    """Neither a topic nor a folder is made before the job is owned; then the ledger is there."""
    job = job.model_copy(update={"workdir": tmp_path / "above" / "work"})
    # Kafka makes a topic of its own when it is first asked for a group.
    topics = cluster.admin.list_topics(timeout=10).topics.keys() | {"__consumer_offsets"}
    check_before_lease(job, cluster.connection, cluster.admin)
    assert cluster.admin.list_topics(timeout=10).topics.keys() <= topics
    assert not list(tmp_path.iterdir())
    with own_job(job, cluster.connection):
        assert describe_topic(cluster.admin, job.ledger)


@pytest.mark.slow
def test_the_holder_keeps_the_lease_while_others_join(cluster: Cluster, job: Job, tmp_path: Path) -> None:
    """A later run waits in vain and gets the name of the living one; the holder is neither disturbed nor fenced."""
    with owned(cluster, job) as owner:
        publication = prepare(owner, tmp_path)
        with pytest.raises(LeaseTakenError, match=f"kafka-sort pid {os.getpid()} on ") as taken, owned(cluster, job):
            pass
        assert taken.value.exit_code == 1
        assert publish_run(owner, publication).run == 1
    assert_sorted(cluster, job)
    # Nobody fenced the holder: its first attempt was the only one.
    assert cluster.count(job, committed=False) == 200


def test_a_lease_given_back_passes_on_at_once(cluster: Cluster, job: Job) -> None:
    """The next run need not wait for the session timeout of one that ended."""
    job = job.model_copy(update={"session_timeout": 20.0})
    with owned(cluster, job):
        pass
    began = time.monotonic()
    with own_job(job, cluster.connection):
        assert time.monotonic() - began < 10


# A run that is stopped once it holds the job, and checks its lease when it wakes up.
HOLDER = """
import os, pathlib, signal, sys, time
from tasks.errors import KafkaSortError
from tasks.ownership import own_job
from tasks.settings.connection import Connection
from tasks.settings.job import Job

job = Job.model_validate_json(sys.argv[2])
with own_job(job, Connection(sys.argv[1])) as owner:
    print("held", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    while owner._lease.held:
        time.sleep(0.05)
    try:
        owner.fence()
        print("fenced", flush=True)
    except KafkaSortError as error:
        print(type(error).__name__, flush=True)
"""


@pytest.mark.slow
def test_who_lost_the_lease_does_not_fence_the_successor(cluster: Cluster, job: Job, tmp_path: Path) -> None:
    """A run that was away for longer than the session timeout learns that its lease is lost, and fences nobody."""
    assert ensure_ledger(cluster.admin, job.ledger, None)
    command = [sys.executable, "-c", HOLDER, cluster.bootstrap_servers, job.model_dump_json()]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with owned(cluster, job) as owner:
            publication = prepare(owner, tmp_path)
            holder.send_signal(signal.SIGCONT)
            assert holder.stdout.readline() == "LeaseTakenError\n"
            publish_run(owner, publication)
    finally:
        holder.kill()
        holder.wait()
    assert_sorted(cluster, job)
    assert cluster.count(job, committed=False) == 200


def test_a_lease_that_kafka_refuses_is_not_called_another_run(cluster: Cluster, job: Job) -> None:
    """If the broker does not let a member join, the error says so."""
    ensure_ledger(cluster.admin, job.ledger, None)
    # The value is below the broker's group.min.session.timeout.ms.
    lease = Lease(cluster.connection, job.owner_group, job.ledger, 0.5)
    with pytest.raises(Exception, match="INVALID_SESSION_TIMEOUT"):
        lease.acquire(cluster.admin, job.name)
    lease.close()


def test_closing_is_harmless(cluster: Cluster, job: Job) -> None:
    """Closing an owner twice, or one that holds nothing, does no harm."""
    owner = Owner(job, cluster.connection)
    owner.close()
    owner.close()
    assert describe_topic(cluster.admin, job.ledger) is None


def write(cluster: Cluster, topic: str, key: bytes, value: bytes | None) -> None:
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers})
    producer.produce(topic, value, key, 0)
    assert producer.flush(30) == 0


def garbage(cluster: Cluster, job: Job) -> tuple[bytes, bytes]:
    return LAST, b'{"job": 1'


def no_record(cluster: Cluster, job: Job) -> tuple[bytes, bytes]:
    return LAST, b"[1, 2]"


def foreign_key(cluster: Cluster, job: Job) -> tuple[bytes, bytes]:
    last = cluster.ledger(job).last
    assert last is not None
    return b"\xff?", last.to_json()


def wrong_number(cluster: Cluster, job: Job) -> tuple[bytes, bytes]:
    last = cluster.ledger(job).last
    assert last is not None
    return run_key(7), last.to_json()


@pytest.mark.parametrize("make", [garbage, no_record, foreign_key, wrong_number])
def test_a_ledger_that_holds_what_no_run_wrote(
    cluster: Cluster, job: Job, tmp_path: Path, make: Callable[[Cluster, Job], tuple[bytes, bytes]]
) -> None:
    """The run stops, names the key and the way out; that way works."""
    run_once(cluster, job, tmp_path)
    key, value = make(cluster, job)
    write(cluster, job.ledger, key, value)
    with pytest.raises(LedgerError, match="tombstone for that key") as refused, owned(cluster, job):
        pass
    assert refused.value.exit_code == 1
    assert "\n" not in str(refused.value)
    if key != LAST:
        write(cluster, job.ledger, key, None)
        with owned(cluster, job) as owner:
            assert owner.ledger.last is not None


def test_another_jobs_record_in_the_ledger(cluster: Cluster, job: Job, tmp_path: Path) -> None:
    """A record of another job is no memory of this one's."""
    other = make_job(job.source_topic, tmp_path, job_name=f"{job.name}-other")
    record = run_once(cluster, other, tmp_path)
    ensure_ledger(cluster.admin, job.ledger, None)
    write(cluster, job.ledger, LAST, record.to_json())
    with pytest.raises(LedgerError, match=f"of another job .{other.name}."), owned(cluster, job):
        pass
    assert cluster.count(job) == 0


@pytest.mark.parametrize(
    ("partitions", "settings", "message"),
    [
        (1, {"cleanup.policy": "delete"}, "cleanup.policy=delete .must be compact."),
        (1, {"cleanup.policy": "compact,delete"}, "cleanup.policy=compact,delete"),
        (1, {"cleanup.policy": "compact", "unclean.leader.election.enable": "true"}, "unclean.leader.election.enable"),
        (2, {"cleanup.policy": "compact"}, "2 partitions .must be 1."),
    ],
)
def test_a_ledger_with_other_settings(
    cluster: Cluster, job: Job, partitions: int, settings: dict[str, str], message: str
) -> None:
    """A ledger that could forget or reorder runs is refused before any work."""
    cluster.make_topic(partitions, job.ledger, **settings)
    with pytest.raises(SettingsError, match=message), owned(cluster, job):
        pass
    assert describe_topic(cluster.admin, job.sort_list[0].topic) is None


def test_a_ledger_that_is_lost(cluster: Cluster, job: Job, tmp_path: Path) -> None:
    """Without its ledger a job does not publish a second time what its outputs hold, unless it is told to go on."""
    run_once(cluster, job, tmp_path)
    cluster.delete_topic(job.ledger)
    with pytest.raises(SettingsError, match="--start group --append"), owned(cluster, job):
        pass
    assert cluster.count(job) == 200
    # The run is refused without the group's offsets, too: the outputs hold records.
    cluster.admin.delete_consumer_groups([job.group])[job.group].result()
    with pytest.raises(SettingsError, match=f"output {job.sort_list[0].topic} holds records"), owned(cluster, job):
        pass
    assert cluster.count(job) == 200


def test_a_job_goes_on_behind_its_group_after_its_ledger_is_lost(cluster: Cluster, job: Job, tmp_path: Path) -> None:
    """With `--start group --append`, as the message says, sorted records are not sorted again."""
    run_once(cluster, job, tmp_path)
    cluster.delete_topic(job.ledger)
    cluster.produce(job.source_topic, sample_values(40, seed=2))
    record = run_once(cluster, job.model_copy(update={"append": True, "start": "group"}), tmp_path)
    assert (record.run, record.records) == (1, 40)
    assert cluster.count(job) == 240


def test_group_offsets_are_a_courtesy(cluster: Cluster, job: Job, tmp_path: Path) -> None:
    """Kafka's tools see where the run ended; reset by hand, they change nothing: the ledger decides."""
    record = run_once(cluster, job, tmp_path)
    assert cluster.group_offsets(job) == record.ends
    cluster.admin.delete_consumer_groups([job.group])[job.group].result()
    cluster.produce(job.source_topic, sample_values(8, seed=2))
    again = run_once(cluster, job, tmp_path)
    assert (again.run, again.records) == (2, 8)
    wait_for(lambda: cluster.group_offsets(job) == again.ends)
