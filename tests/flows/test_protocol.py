"""Runs against runs, as processes: two at once, one that was away and comes back, signals, and retries by Prefect."""

import re
import signal

import pytest

from tasks.ownership import own_job
from tests.cluster import Cluster, sample_values
from tests.command import Command
from tests.faults.oracle import Follower, assert_exact

# Instants at which a run is stopped, and what it says when it comes back after a successor is done.
AWAY = [
    pytest.param("after-lease", marks=pytest.mark.raises("LeaseLostError")),
    pytest.param("before-init", marks=pytest.mark.slow),
    pytest.param("after-init", marks=pytest.mark.slow),
    pytest.param("after-ledger-read", marks=pytest.mark.slow),
    pytest.param("before-dump-chunk", marks=pytest.mark.slow),
    pytest.param("after-sort", marks=pytest.mark.slow),
    pytest.param("before-begin", marks=pytest.mark.slow),
    pytest.param("after-begin", marks=pytest.mark.slow),
    pytest.param("after-flush", marks=pytest.mark.slow),
    pytest.param("before-commit", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("point", AWAY)
def test_a_run_that_was_away(cluster: Cluster, command: Command, point: str) -> None:
    """A run is stopped, another one succeeds it, and it wakes: it fails, changes nothing, and says why in one line."""
    source = cluster.make_topic()
    job = command.job(source)
    cluster.produce(source, sample_values(1000))
    with Follower(cluster, job) as follower:
        command.succeed_while_away(job, point)
        assert_exact(cluster, job, follower=follower)


@pytest.mark.slow
def test_a_run_that_wakes_up_beside_its_successor(cluster: Cluster, command: Command) -> None:
    """A run that wakes while its successor works: the successor goes on, with its files, and publishes once."""
    source = cluster.make_topic()
    job = command.job(source)
    cluster.produce(source, sample_values(1000))
    with Follower(cluster, job) as follower:
        old = command.start(job, failpoint="after-lease=stop")
        old.wait_until_stopped()
        successor = command.start(job, failpoint="after-sort=stop")
        successor.wait_until_stopped()
        # Both go on, the older one a little ahead.
        old.send(signal.SIGCONT)
        late, done = old.finish(), successor.finish_awake()
        assert done.status == 0, done.err
        assert late.status == 1, late.out + late.err
        assert_exact(cluster, job, follower=follower)


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_starts_at_once(cluster: Cluster, command: Command, count: int) -> None:
    """However many start at once, one run is made; later starts find it done, or find another run alive."""
    source = cluster.make_topic()
    job = command.job(source)
    cluster.produce(source, sample_values(2000))
    with Follower(cluster, job) as follower:
        outcomes = [running.finish() for running in [command.start(job) for _ in range(count)]]
        assert sum("run 1: 2,000 records" in o.out for o in outcomes) == 1, outcomes
        for outcome in outcomes:
            done = outcome.status == 0 and ("nothing new" in outcome.out or "run 1" in outcome.out)
            assert done or (outcome.status == 1 and "is alive" in outcome.err), outcome
        assert_exact(cluster, job, follower=follower)


@pytest.mark.slow
def test_another_run_is_alive(cluster: Cluster, command: Command) -> None:
    """While another process holds the job, a start exits 1, names process and host, and changes nothing."""
    source = cluster.make_topic()
    job = command.job(source)
    cluster.produce(source, sample_values(100))
    assert command.run(job).status == 0
    cluster.produce(source, sample_values(100, seed=2))
    with own_job(job, cluster.connection):
        outcome = command.run(job)
    assert outcome.status == 1, outcome.err
    last = outcome.err.splitlines()[-1]
    assert re.search(rf"another run of job {source} is alive \(kafka-sort pid \d+ on \S+ from \S+\)", last), outcome.err
    assert list(cluster.ledger(job).runs) == [1]
    assert command.run(job).status == 0
    assert_exact(cluster, job, runs=2)


# The step that fails once, and whether the run is visible by then.
FAILING = [
    pytest.param("before-snapshot", marks=pytest.mark.slow),
    pytest.param("before-dump-chunk", marks=pytest.mark.slow),
    pytest.param("before-sort", marks=pytest.mark.slow),
    pytest.param("before-begin", marks=pytest.mark.slow),
    pytest.param("after-begin", marks=pytest.mark.slow),
    "after-publish-batch",
    pytest.param("after-flush", marks=pytest.mark.slow),
    pytest.param("before-commit", marks=pytest.mark.slow),
    "after-commit",
]


@pytest.mark.parametrize("point", FAILING)
def test_a_step_that_fails_once_is_tried_again(cluster: Cluster, command: Command, point: str) -> None:
    """A transient error in a task ends in a run that is done, once: the task is retried, by the rules."""
    source = cluster.make_topic()
    job = command.job(source, retry_delay=0.1)
    cluster.produce(source, sample_values(1000))
    with Follower(cluster, job) as follower:
        outcome = command.run(job, failpoint=f"{point}=raise")
        assert outcome.status == 0, outcome.err
        assert_exact(cluster, job, follower=follower)
    seen = cluster.count(job, committed=False)
    assert seen >= (6000 if point in {"after-flush", "before-commit"} else 3000)
    assert point != "after-commit" or seen == 3000


@pytest.mark.slow
def test_retries_come_to_an_end(cluster: Cluster, command: Command) -> None:
    """Without retries a transient error ends the run with one line and status 1; the next start does what is left."""
    source = cluster.make_topic()
    job = command.job(source)
    cluster.produce(source, sample_values(100))
    outcome = command.run(job, "--retries", "0", failpoint="after-publish-batch=raise")
    assert outcome.status == 1
    assert outcome.err.splitlines()[-1] == "kafka-sort: failpoint after-publish-batch"
    assert cluster.count(job) == 0
    assert command.run(job).status == 0
    assert_exact(cluster, job)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals(cluster: Cluster, command: Command, number: signal.Signals) -> None:
    """A run under way stops within seconds, with its exit status and a line that says what the next start does."""
    source = cluster.make_topic()
    job = command.job(source)
    cluster.produce(source, sample_values(30_000))
    with Follower(cluster, job) as follower:
        # The run is stopped midway, so that the signal finds it there on any machine.
        running = command.start(job, failpoint="after-begin=stop")
        running.wait_until_stopped()
        running.send(number)
        running.send(signal.SIGCONT)
        outcome = running.finish(20)
        assert outcome.status == 128 + number, outcome.err
        assert "stopped before it was done" in outcome.err.splitlines()[-1]
        assert "the next start goes on" in outcome.err.splitlines()[-1]
        assert cluster.count(job) == 0
        assert command.run(job).status == 0
        assert_exact(cluster, job, follower=follower)


@pytest.mark.slow
def test_a_signal_while_others_are_alive(cluster: Cluster, command: Command) -> None:
    """A run sees the signal while it waits for the lease, too."""
    source = cluster.make_topic()
    job = command.job(source, session_timeout=20.0)
    cluster.produce(source, sample_values(100))
    assert command.run(job).status == 0
    with own_job(job, cluster.connection):
        running = command.start(job, failpoint="before-lease=stop")
        running.wait_until_stopped()
        running.send(signal.SIGTERM)
        running.send(signal.SIGCONT)
        outcome = running.finish(15)
    assert outcome.status == 128 + signal.SIGTERM, outcome.err
