"""The flow `stream-topic` as a process: signals, kills, standbys, rotation, a broker that restarts. All exact."""

import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling

from flows import stream_topic
from tasks.broker.embedded import EmbeddedBroker
from tasks.failpoints import RUN_NAMES
from tasks.kafka.lease import describe_owner
from tasks.kafka.ledger import read_ledger
from tasks.kafka.topics import describe_topic
from tasks.settings.connection import use_connection
from tasks.settings.job import Job
from tasks.settings.streaming import Streaming
from tests.cluster import Cluster, assert_every_run, sample_values, wait_for
from tests.command import KILLED, Command, Running
from tests.conftest import BROKER_PROPERTIES
from tests.deployed import Deployments
from tests.faults.oracle import Follower, assert_exact
from tests.history import History

QUICK = ("--max-latency", "0.2")


def runs(cluster: Cluster, job: Job) -> int:
    """Count the committed runs; none while there is no ledger."""
    if describe_topic(cluster.admin, job.ledger) is None:
        return 0
    # A killed stream may have left its transaction open.
    return len(read_ledger(cluster.connection, cluster.admin, job.ledger, job.name, 30, fenced=False).runs)


def sorted_all(cluster: Cluster, job: Job) -> bool:
    """Whether the runs have read all of the source."""
    last = cluster.ledger(job).last if describe_topic(cluster.admin, job.ledger) else None
    return last is not None and last.ends == cluster.ends(job.source_topic)


def finish_source(cluster: Cluster, job: Job, running: Running) -> None:
    """Wait until this stream owns the job and all is sorted, then stop it."""
    owner = f"kafka-sort pid {running.process.pid} on"

    def is_done() -> bool:
        return (describe_owner(cluster.admin, job.owner_group) or "").startswith(owner) and sorted_all(cluster, job)

    wait_for(lambda: running.process.exitcode is not None or is_done(), 90)
    running.send(signal.SIGTERM)
    outcome = running.finish(60)
    assert outcome.status == 0, outcome.err


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_stream_and_its_end(cluster: Cluster, command: Command, number: signal.Signals) -> None:
    """Present records are sorted, then new ones; a signal ends it with status 0, a summary, and nothing left open."""
    source = cluster.make_topic()
    job = command.job(source)
    cluster.produce(source, [*sample_values(3000), b"no row"])
    running = command.start(job, *QUICK, "--batch-size", "1000", command="stream")
    wait_for(lambda: running.process.exitcode is not None or sorted_all(cluster, job), 60)
    cluster.produce(source, sample_values(500, seed=2))
    wait_for(lambda: running.process.exitcode is not None or sorted_all(cluster, job), 60)
    running.send(number)
    outcome = running.finish(60)
    assert outcome.status == 0, outcome.err
    count = assert_every_run(cluster, job)
    assert count >= 3
    assert f"{source}: 3,501 records in {count} batches" in outcome.out
    # The log has less than a line a batch, let alone a record.
    assert outcome.err.count("streaming") <= 2, outcome.err
    verified = command.run(job, command="verify")
    assert verified.status == 0, verified.out + verified.err


@pytest.mark.slow
def test_killed_and_taken_over_by_a_standby(cluster: Cluster, command: Command) -> None:
    """The first stream dies with work to do; the standby goes on by itself, and neither loses nor doubles a record."""
    source = cluster.make_topic()
    job = command.job(source)
    cluster.produce(source, sample_values(500))
    with Follower(cluster, job) as follower:
        first = command.start(job, *QUICK, command="stream")
        wait_for(lambda: first.process.exitcode is not None or runs(cluster, job) >= 1, 60)
        standby = command.start(job, *QUICK, "--standby", command="stream")
        wait_for(lambda: standby.process.exitcode is not None or members(cluster, job) == 2, 60)
        cluster.produce(source, sample_values(2000, seed=2))
        first.send(signal.SIGKILL)
        assert first.finish().status == KILLED
        finish_source(cluster, job, standby)
        assert_exact(cluster, job, runs(cluster, job), follower)


def members(cluster: Cluster, job: Job) -> int:
    """Count the members that hold the lease, or wait for it."""
    found = cluster.admin.describe_consumer_groups([job.owner_group])[job.owner_group].result()
    return len(found.members)


@pytest.mark.slow
@pytest.mark.parametrize("point", RUN_NAMES)
def test_killed_at_every_step(cluster: Cluster, command: Command, point: str) -> None:
    """At whatever instant it was killed, a restarted stream neither loses nor doubles a record."""
    source = cluster.make_topic()
    job = command.job(source)
    cluster.produce(source, sample_values(2000))
    with Follower(cluster, job) as follower:
        killed = command.run(job, *QUICK, "--batch-size", "500", failpoint=f"{point}=kill", command="stream")
        assert killed.status == KILLED, killed.err
        finish_source(cluster, job, command.start(job, *QUICK, "--batch-size", "500", command="stream"))
        assert_exact(cluster, job, runs(cluster, job), follower)


@pytest.mark.slow
def test_killed_at_random_instants(cluster: Cluster, command: Command) -> None:
    """After ten kills while records keep coming, every run is whole, they follow each other, nothing is missing."""
    source = cluster.make_topic()
    job = command.job(source)
    chance = random.Random(7)
    committed = 0
    with Follower(cluster, job) as follower:
        for kill in range(10):
            cluster.produce(source, sample_values(3000, seed=kill))
            running = command.start(job, *QUICK, "--batch-size", "200", command="stream")
            before = committed
            wait_for(lambda: running.process.exitcode is not None or runs(cluster, job) > before, 90)  # noqa: B023
            time.sleep(chance.random() * 0.5)
            running.send(signal.SIGKILL)
            assert running.finish().status == KILLED
            committed = runs(cluster, job)
        finish_source(cluster, job, command.start(job, *QUICK, command="stream"))
        count = runs(cluster, job)
        assert count > 10
        assert_exact(cluster, job, count, follower)


@pytest.mark.slow
def test_a_batch_takes_too_long(cluster: Cluster, command: Command) -> None:
    """A batch is a run with a run's timeout: the stream reports it and ends, and the next start sorts it all."""
    source = cluster.make_topic()
    job = command.job(source)
    cluster.produce(source, sample_values(20_000))
    late = command.run(job, *QUICK, "--run-timeout", "0.01", command="stream")
    assert late.status == 1
    assert "longer than the run timeout of 0.01 s" in late.err.splitlines()[-1]
    assert runs(cluster, job) == 0
    finish_source(cluster, job, command.start(job, *QUICK, command="stream"))
    assert_every_run(cluster, job)


@pytest.mark.slow
def test_a_second_signal_ends_at_once(cluster: Cluster, command: Command) -> None:
    """A second signal ends a draining stream at once; the next start settles what it leaves."""
    source = cluster.make_topic()
    job = command.job(source)
    cluster.produce(source, sample_values(1000))
    running = command.start(job, *QUICK, failpoint="before-commit=stop", command="stream")
    wait_for(lambda: (Path(f"/proc/{running.process.pid}/stat").read_text().rpartition(")")[2].split()[0]) in "tT", 60)
    running.send(signal.SIGTERM)
    running.send(signal.SIGCONT)
    wait_for(lambda: running.process.exitcode is not None or "stopping" in running.err, 30)
    running.send(signal.SIGTERM)
    assert running.finish(20).status in {0, 128 + signal.SIGTERM}
    finish_source(cluster, job, command.start(job, *QUICK, command="stream"))
    assert_every_run(cluster, job)


@pytest.mark.slow
def test_a_stream_survives_its_broker(prefect_server: str, tmp_path: Path) -> None:
    """The broker is killed and started again while records come: the stream goes on by itself, exactly once."""
    assert prefect_server
    data = tmp_path / "kafka"
    broker = EmbeddedBroker(data=data, properties=BROKER_PROPERTIES)
    broker.start()
    try:
        cluster = Cluster(broker.bootstrap_servers)
        (tmp_path / "work").mkdir()
        command = Command(cluster, tmp_path / "work")
        source = cluster.make_topic()
        job = command.job(source, session_timeout=6.0)
        cluster.produce(source, sample_values(2000))
        with Follower(cluster, job) as follower:
            running = command.start(job, *QUICK, "--batch-size", "500", command="stream")
            wait_for(lambda: running.process.exitcode is not None or runs(cluster, job) >= 1, 60)
            broker.kill()
            broker.start()
            cluster.produce(source, sample_values(2000, seed=2))
            finish_source(cluster, job, running)
            assert_exact(cluster, job, runs(cluster, job), follower)
    finally:
        broker.stop()


@pytest.mark.slow
def test_a_partition_whose_disk_is_gone(prefect_server: str, tmp_path: Path) -> None:
    """The broker loses the disk of one source partition, and with it its leader: the others go on.

    The stream that leaves it out says so and ends with status 1. With the disk back, nothing is missing or doubled.
    """
    assert prefect_server
    data, disk = tmp_path / "kafka", tmp_path / "disk"
    first = EmbeddedBroker(data=data, properties=BROKER_PROPERTIES)
    first.start()
    cluster = Cluster(first.bootstrap_servers)
    (tmp_path / "work").mkdir()
    command = Command(cluster, tmp_path / "work")
    source = cluster.make_topic(3)
    job = command.job(source, session_timeout=3.0, on_partition_failure="skip")
    cluster.produce(source, sample_values(300), partitions=3)
    # All topics are made, on the first disk; then one partition moves to a disk of its own.
    assert command.run(job, *QUICK, "--max-batches", "1", command="stream").status == 0
    first.stop()
    disk.mkdir()
    shutil.move(data / "kafka" / f"{source}-2", disk / f"{source}-2")
    identity = (data / "kafka" / "meta.properties").read_text().splitlines()
    (disk / "meta.properties").write_text("\n".join(line for line in identity if "directory.id" not in line) + "\n")
    disks = {"log.dirs": f"{data / 'kafka'},{disk}", "replica.high.watermark.checkpoint.interval.ms": "500"}
    broker = EmbeddedBroker(port=first.port, data=data, properties=BROKER_PROPERTIES | disks)
    broker.start()
    try:
        cluster.produce(source, sample_values(300, seed=2), partitions=3)
        disk.rename(tmp_path / "away")
        wait_for(lambda: leaderless(cluster, source) == (2,), 60)
        cluster.produce(source, sample_values(200, seed=3), partitions=2)
        running = command.start(job, *QUICK, command="stream")
        wait_for(lambda: running.process.exitcode is not None or runs(cluster, job) >= 2, 60)
        running.send(signal.SIGTERM)
        outcome = running.finish(60)
        assert outcome.status == 1, outcome.err
        assert "no leader for partition 2: skipped" in outcome.err.splitlines()[-1]
        last = cluster.ledger(job).last
        assert last is not None
        assert last.ends == {0: 300, 1: 300, 2: 100}
        broker.kill()
        (tmp_path / "away").rename(disk)
        broker.start()
        wait_for(lambda: leaderless(cluster, source) == (), 60)
        finish_source(cluster, job, command.start(job, *QUICK, command="stream"))
        assert_every_run(cluster, job)
    finally:
        broker.stop()


def leaderless(cluster: Cluster, topic: str) -> tuple[int, ...]:
    found = describe_topic(cluster.admin, topic)
    return found.leaderless if found else ()


@pytest.mark.slow
@pytest.mark.raises("StreamCancelledError")
def test_cancelled_in_prefect(cluster: Cluster, command: Command, prefect_server: str) -> None:
    """A stream without a worker sees the cancel, ends in order, and its run is Cancelled, with its work done."""
    source = cluster.make_topic()
    job = command.job(source)
    cluster.produce(source, sample_values(300))
    running = command.start(job, *QUICK, command="stream")
    wait_for(lambda: running.process.exitcode is not None or runs(cluster, job) >= 1, 60)
    with temporary_settings({PREFECT_API_URL: prefect_server}), get_client(sync_client=True) as client:
        flow_run = next(run for run in client.read_flow_runs() if run.name == f"{job.title} · stream")
        client.set_flow_run_state(flow_run.id, Cancelling())
        outcome = running.finish(60)
        state = client.read_flow_run(flow_run.id).state
    assert outcome.status == 0, outcome.err
    assert "300 records" in outcome.err.splitlines()[-1]
    assert state is not None
    assert state.is_cancelled()
    assert_every_run(cluster, job)


@pytest.mark.slow
def test_deployed_and_cancelled_by_button(
    prefect: Deployments, cluster: Cluster, command: Command, history: History
) -> None:
    """A stream on a worker sorts what comes, and the button of Prefect's page ends it in order, with its work done."""
    source = cluster.make_topic()
    job = command.job(source)
    cluster.produce(source, sample_values(300))
    parameters = {"job": job.model_dump(mode="json", exclude_unset=True), "streaming": {"max_latency": 0.2}}
    run_id = history.create("stream-topic/on-demand", parameters)
    wait_for(lambda: runs(cluster, job) >= 1, 120)
    cluster.produce(source, sample_values(200, seed=2))
    wait_for(lambda: sorted_all(cluster, job), 60)
    history.cancel(run_id)
    assert history.wait(run_id)["state_type"] == "CANCELLED"
    # The worker sets the state; the line is in the log.
    said = f'event="cancelled in Prefect: {job.name}: 500 records in '
    wait_for(lambda: any(line.startswith(said) for line in history.logs(run_id)))
    assert_every_run(cluster, job)


@pytest.mark.slow
def test_rotation(cluster: Cluster, command: Command, prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Child flow runs follow each other, with a task run a batch that says what it was; Kafka notices nothing."""
    source = cluster.make_topic()
    job = command.job(source)
    cluster.produce(source, sample_values(500))
    monkeypatch.setattr(stream_topic, "SEGMENT_BATCHES", 2)
    streaming = Streaming(batch_size=10, max_latency=0.2, max_batches=6)
    with temporary_settings({PREFECT_API_URL: prefect_server}), use_connection(cluster.connection):
        status = stream_topic.stream_topic(job, streaming)
        with get_client(sync_client=True) as client:
            flow_runs = client.read_flow_runs()
            children = sorted(run.name for run in flow_runs if run.name.startswith(f"{job.title} · from"))
            task_runs = client.read_task_runs(
                flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=children)),
            )
            artifacts = client.read_artifacts()
    assert status.batches == 6
    assert children == [f"{job.title} · from run {number}" for number in (1, 3, 5)]
    assert sorted(run.name for run in task_runs) == [f"run {number}" for number in range(1, 7)]
    assert all("10 records" in (run.state.message or "") for run in task_runs if run.state and run.name == "run 1")
    shown = [artifact for artifact in artifacts if artifact.key == f"stream-{source}"]
    assert len(shown) == 1
    assert "| latency p99 |" in str(shown[0].data)
    # There was one owner from the first batch to the last: no record was sent twice.
    last = cluster.ledger(job).last
    assert last is not None
    assert cluster.count(job, committed=False) == 3 * sum(last.ends.values())
