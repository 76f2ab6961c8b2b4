"""Brokers that are killed, roll, or have no space: the run finishes by its retries, or the next one does."""

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import NewTopic

from tasks.broker.embedded import EmbeddedBroker
from tasks.kafka.clients import make_admin
from tasks.kafka.topics import LATEST, list_offsets
from tests.cluster import Cluster, Record, sample_values, wait_for
from tests.command import Command
from tests.conftest import BROKER_PROPERTIES
from tests.faults.oracle import Follower, assert_exact
from tests.faults.proxy import ProxiedBroker
from tests.faults.three_brokers import ThreeBrokers

POINTS = ["before-dump-chunk", "after-publish-batch", "after-flush", "before-offsets", "before-commit"]


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_a_broker_that_is_killed(mortal: ProxiedBroker, cluster: Cluster, command: Command, point: str) -> None:
    """The only broker is killed while the run dumps, publishes or commits: the run waits for it, and finishes."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(20_000))
    job = command.job(source)
    with Follower(cluster, job) as follower:
        running = command.start(job, failpoint=f"{point}=stop").wait_until_stopped()
        before = mortal.pid
        mortal.kill()
        running.send(signal.SIGCONT)
        # The run works on without a broker for longer than its lease lasts.
        time.sleep(3)
        assert running.process.exitcode is None, running.err
        mortal.start()
        outcome = running.finish_awake()
        assert mortal.pid != before
        assert outcome.status == 0, outcome.err
        assert_exact(cluster, job, follower=follower)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["before-dump-chunk", "after-flush", "before-commit"])
def test_a_broker_that_hangs(mortal: ProxiedBroker, cluster: Cluster, command: Command, point: str) -> None:
    """The broker is stopped for longer than the lease lasts: all is late, and nothing else."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(20_000))
    job = command.job(source)
    with Follower(cluster, job) as follower:
        running = command.start(job, failpoint=f"{point}=stop").wait_until_stopped()
        subprocess.run(["kill", "-STOP", str(mortal.pid)], check=True)
        running.send(signal.SIGCONT)
        time.sleep(5)
        assert running.process.exitcode is None, running.err
        subprocess.run(["kill", "-CONT", str(mortal.pid)], check=True)
        outcome = running.finish_awake()
        assert outcome.status == 0, outcome.err
        assert_exact(cluster, job, follower=follower)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(disk)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.slow
def test_a_broker_whose_disk_is_full(small_disk: Path, prefect_server: str, tmp_path: Path) -> None:
    """The broker ends while it takes the rows: the run fails clean; once it has space again, the next one does it."""
    with EmbeddedBroker(data=small_disk / "kafka-data", properties=BROKER_PROPERTIES) as broker:
        cluster = Cluster(broker.bootstrap_servers)
        command = Command(cluster, tmp_path)
        source = cluster.make_topic()
        cluster.produce(source, sample_values(20_000))
        job = command.job(source, retries=1, retry_delay=0.1, request_timeout=3.0, start_timeout=60.0)
        with Follower(cluster, job) as follower:
            running = command.start(job, failpoint="after-begin=stop").wait_until_stopped()
            ballast = small_disk / "ballast"
            fill(ballast)
            running.send(signal.SIGCONT)
            wait_for(lambda: broker._running().poll() is not None, 90)
            outcome = running.finish_awake()
            assert outcome.status == 1, outcome.err
            assert outcome.err.splitlines()[-1].startswith("kafka-sort: ")
            assert "No space left" in broker.log_path.read_text(errors="replace")
            ballast.unlink()
            broker.kill()
            broker.start()
            assert cluster.count(job) == 0
            again = command.run(job)
            assert again.status == 0, again.err
            assert_exact(cluster, job, follower=follower)


def fill(ballast: Path) -> None:
    """Take all the space of a disk."""
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 65_536)
        except OSError:
            return


@pytest.fixture
def three(three_brokers: ThreeBrokers) -> Iterator[ThreeBrokers]:
    """Three brokers, all alive again for the next test."""
    yield three_brokers
    dead = [node for node, broker in three_brokers.brokers.items() if broker._process is None]
    three_brokers.start(*dead)


@pytest.fixture
def cluster_of_three(three: ThreeBrokers) -> Cluster:
    return Cluster(three.bootstrap_servers)


@pytest.fixture
def command_on_three(cluster_of_three: Cluster, prefect_server: str, tmp_path: Path) -> Command:
    return Command(cluster_of_three, tmp_path)


def make_replicated(cluster: Cluster, partitions: int = 4) -> str:
    """A topic with a replica on every broker."""
    name = f"t-{time.monotonic_ns()}"
    cluster.admin.create_topics([NewTopic(name, partitions, 3)])[name].result()
    wait_for(lambda: len(cluster.ends(name)) == partitions)
    return name


def node_of(three: ThreeBrokers, role: str, source: str, output: str) -> int:
    """The broker that plays this part for the job."""
    group = f"kafka-sort.{source}"
    return {
        "leader of a source partition": lambda: three.leader(source, 0),
        "leader of an output partition": lambda: three.leader(output, 0),
        "leader of the ledger": lambda: three.leader(f"{group}.ledger", 0),
        "transaction coordinator": lambda: three.coordinator("__transaction_state", group),
        "coordinator of the offsets": lambda: three.coordinator("__consumer_offsets", group),
        "coordinator of the lease": lambda: three.coordinator("__consumer_offsets", f"{group}.owner"),
    }[role]()


# The part of the killed broker, and the time of its death.
KILLED_IN_PART = [
    ("leader of a source partition", "before-dump-chunk"),
    ("leader of an output partition", "after-publish-batch"),
    ("leader of an output partition", "before-commit"),
    ("leader of the ledger", "before-ledger-record"),
    ("leader of the ledger", "before-commit"),
    ("transaction coordinator", "after-begin"),
    ("transaction coordinator", "before-commit"),
    ("coordinator of the offsets", "before-offsets"),
    ("coordinator of the offsets", "before-commit"),
    ("coordinator of the lease", "before-dump-chunk"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("role", "point"), KILLED_IN_PART)
def test_one_of_three_brokers_is_killed(
    three: ThreeBrokers, cluster_of_three: Cluster, command_on_three: Command, role: str, point: str
) -> None:
    """Whatever the broker was to the run: another takes its part, and the run finishes."""
    cluster, command = cluster_of_three, command_on_three
    source = make_replicated(cluster)
    cluster.produce(source, sample_values(5000))
    job = command.job(source)
    with Follower(cluster, job) as follower:
        running = command.start(job, failpoint=f"{point}=stop").wait_until_stopped()
        node = node_of(three, role, source, job.sort_list[0].topic)
        three.brokers[node].kill()
        outcome = running.finish_awake()
        assert outcome.status == 0, outcome.err
        assert three.brokers[node]._process is None
        three.start(node)
        assert_exact(cluster, job, follower=follower)


@pytest.mark.slow
def test_offsets_whose_leader_is_killed(three: ThreeBrokers, cluster_of_three: Cluster) -> None:
    """A question for offsets after the leader died is answered by the next leader, with real offsets only."""
    source = make_replicated(cluster_of_three, 1)
    cluster_of_three.produce(source, sample_values(100), 1)
    admin = make_admin(cluster_of_three.connection)
    assert list_offsets(admin, source, [0], LATEST) == {0: 100}
    node = three.leader(source, 0)
    three.brokers[node].kill()
    assert list_offsets(admin, source, [0], LATEST) == {0: 100}
    assert three.leader(source, 0) != node


@pytest.mark.slow
def test_three_brokers_roll(three: ThreeBrokers, cluster_of_three: Cluster, command_on_three: Command) -> None:
    """Brokers are stopped in order and started again, one after the other, while runs work: all runs finish."""
    cluster, command = cluster_of_three, command_on_three
    source = make_replicated(cluster)
    job = command.job(source)
    ended, rolled = threading.Event(), []

    def roll() -> None:
        while not ended.is_set():
            for node, broker in three.brokers.items():
                broker.stop()
                three.start(node)
                rolled.append(node)

    with Follower(cluster, job) as follower:
        cluster.produce(source, sample_values(20_000))
        # Topics are made with all brokers there: two cannot hold three replicas.
        assert command.run(job).status == 0
        rolling = threading.Thread(target=roll)
        rolling.start()
        runs = 1
        try:
            while len(rolled) < 3:
                cluster.produce(source, sample_values(20_000, seed=runs))
                runs += 1
                outcome = command.run(job)
                assert outcome.status == 0, outcome.err
        finally:
            ended.set()
            rolling.join()
        cluster.produce(source, sample_values(100, seed=runs))
        assert command.run(job).status == 0
        assert_exact(cluster, job, runs=runs + 1, follower=follower)


@pytest.mark.slow
@pytest.mark.raises("PartitionsSkippedError")
def test_a_source_partition_without_leader(
    three: ThreeBrokers, cluster_of_three: Cluster, command_on_three: Command
) -> None:
    """The partition fails the run; with `on_partition_failure=skip` the next run takes it, and this one the others."""
    cluster, command = cluster_of_three, command_on_three
    source = f"t-{time.monotonic_ns()}"
    placed = NewTopic(source, 3, replica_assignment=[[1], [2], [3]])
    cluster.admin.create_topics([placed])[source].result()
    wait_for(lambda: len(cluster.ends(source)) == 3)
    job = command.job(source, retries=1, retry_delay=0.1, request_timeout=10.0)
    cluster.produce(source, sample_values(300), 3)
    assert command.run(job).status == 0
    cluster.produce(source, sample_values(300, seed=2), 3)
    away = cluster.ends(source)[2]
    three.brokers[3].kill()
    wait_for(lambda: three.leader(source, 2) < 0)
    failed = command.run(job)
    assert failed.status == 1, failed.err
    assert "no leader for partition 2" in failed.err.splitlines()[-1]
    assert list(cluster.ledger(job).runs) == [1]
    skipped = command.run(job, "--on-partition-failure", "skip")
    assert skipped.status == 1, skipped.err
    assert "no leader for partition 2: skipped" in skipped.err.splitlines()[-1]
    last = cluster.ledger(job).last
    assert last is not None
    assert (last.run, last.records, last.skipped, last.ends[2]) == (2, 200, (2,), 100)
    three.start(3)
    wait_for(lambda: three.leader(source, 2) == 3)
    assert command.run(job, "--on-partition-failure", "skip").status == 0
    last = cluster.ledger(job).last
    assert last is not None
    assert (last.run, last.records, last.skipped, last.ends[2]) == (3, 100, (), away)
    assert_exact(cluster, job, runs=3)


@pytest.mark.slow
def test_a_new_job_skips_a_partition_without_leader(
    three: ThreeBrokers, cluster_of_three: Cluster, command_on_three: Command
) -> None:
    """A job's first run may skip a partition too; the next run then reads it from its beginning."""
    cluster, command = cluster_of_three, command_on_three
    source = f"t-{time.monotonic_ns()}"
    placed = NewTopic(source, 2, replica_assignment=[[1], [2]])
    cluster.admin.create_topics([placed])[source].result()
    wait_for(lambda: len(cluster.ends(source)) == 2)
    cluster.produce_records(source, [Record(v, partition=i % 2) for i, v in enumerate(sample_values(100))])
    three.brokers[2].kill()
    wait_for(lambda: three.leader(source, 1) < 0)
    job = command.job(source, on_partition_failure="skip")
    outcome = command.run(job)
    assert outcome.status == 1, outcome.err
    assert "no leader for partition 1: skipped" in outcome.err.splitlines()[-1]
    refused = command.run(command.job(source, on_partition_failure="skip", start="latest", job_name=f"{source}-late"))
    assert refused.status == 1, refused.err
    assert "--on-partition-failure" not in refused.err.splitlines()[-1]
    three.start(2)
    wait_for(lambda: three.leader(source, 1) == 2)
    assert command.run(job).status == 0
    assert_exact(cluster, job, runs=2)
