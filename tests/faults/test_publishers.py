"""Several publishers in one transaction, whatever is killed, frozen or late: exact, or nothing visible."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from confluent_kafka import KafkaError

from tasks.failpoints import DRIVER_NAMES, PUBLISHER_NAMES, VARIABLE
from tasks.kafka.clients import KafkaTransientError
from tasks.ownership import Owner
from tasks.publication import Publication
from tasks.publish import publish_run
from tasks.publishers import crew
from tasks.publishers.crew import SeveralPublishers
from tasks.publishers.processes import LocalProcesses
from tasks.publishers.rendezvous import Door, Message, PublisherLostError, PublisherOrder
from tasks.run_record import RunRecord
from tasks.settings.job import Job
from tests.cluster import Cluster, sample_values, wait_for
from tests.command import KILLED, Command, Running
from tests.faults.oracle import Follower, assert_exact
from tests.faults.proxy import ProxiedBroker
from tests.features import BOTH_TRANSACTION_VERSIONS
from tests.publishers import find_publishers, is_publisher, local, wait_until_stopped
from tests.stages import make_job, owned, prepare

pytestmark = [pytest.mark.slow, BOTH_TRANSACTION_VERSIONS]

RECORDS = 2000
# The steps of the process of the run that come after its publishers are there, besides those that only several have.
LATER_STEPS = (
    "before-begin",
    "after-begin",
    "after-publish",
    "after-flush",
    "before-ledger-record",
    "after-offsets",
    "before-commit",
    "after-commit",
)
# Those at which all rows are there, and not committed.
ALL_SENT = {
    "after-reports",
    "after-publish",
    "after-flush",
    "before-ledger-record",
    "after-offsets",
    "before-commit",
}


@pytest.fixture
def source(cluster: Cluster) -> str:
    name = cluster.make_topic()
    cluster.produce(name, [*sample_values(RECORDS), b"no row", None])
    return name


@pytest.fixture
def job(source: str, tmp_path: Path) -> Job:
    """A job of one sort, for publishes within this process."""
    return make_job(source, tmp_path)


@pytest.mark.parametrize("point", [*DRIVER_NAMES, *LATER_STEPS])
def test_the_driver_is_killed(cluster: Cluster, command: Command, source: str, point: str) -> None:
    """SIGKILL of the driver at each step: nothing or all is visible; the next start is exact."""
    job = command.job(source, publishers="2")
    with Follower(cluster, job) as follower:
        killed = command.run(job, failpoint=f"{point}=kill")
        assert killed.status == KILLED, killed.err
        if point == "after-commit":
            wait_for(lambda: cluster.count(job) == 3 * RECORDS)
        else:
            assert cluster.count(job) == 0
        if point in ALL_SENT:
            assert cluster.count(job, committed=False) == 3 * RECORDS
        again = command.run(job)
        assert again.status == 0, again.err
        assert ("nothing new" in again.out) == (point == "after-commit")
        assert_exact(cluster, job, follower=follower)


@pytest.mark.parametrize("point", [*PUBLISHER_NAMES, "before-publish-batch", "after-publish-batch"])
def test_all_publishers_are_killed(cluster: Cluster, command: Command, source: str, point: str) -> None:
    """SIGKILL of each publisher at each step, in each attempt: the run ends in one line, and the next one is exact.

    A publisher that has reported is not needed any more.
    """
    job = command.job(source, publishers="2", retries=1, retry_delay=0.1)
    with Follower(cluster, job) as follower:
        outcome = command.run(job, failpoint=f"{point}=kill")
        if point == "after-report":
            assert outcome.status == 0, outcome.err
        else:
            assert outcome.status == 1, outcome.err
            assert "ended with status -9 before it had sent its rows" in outcome.err.splitlines()[-1]
            assert cluster.count(job) == 0
            settled(cluster, job)
            again = command.run(job)
            assert again.status == 0, again.err
        assert_exact(cluster, job, follower=follower)


def settled(cluster: Cluster, job: Job) -> None:
    """Nothing is open: the driver has ended the attempt, for the readers behind it."""
    for sort in job.topic_sorts:
        wait_for(lambda topic=sort.topic: cluster.ends(topic) == cluster.ends(topic, committed=False), 5)  # type: ignore[misc]


@dataclass
class Attempt:
    """A publish under way, in a thread of this process; its publishers stop at a failpoint."""

    future: "Future[RunRecord]"
    publishers: list[psutil.Process]


@contextmanager
def stopped_at(point: str, owner: Owner, publication: Publication, engine: LocalProcesses) -> Iterator[Attempt]:
    """Begin an attempt of two publishers, and wait until both have stopped; others do not stop there."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv(VARIABLE, f"{point}=stop")
        pool = stack.enter_context(ThreadPoolExecutor(1))
        publishers = SeveralPublishers(engine, 2)
        future = pool.submit(copy_context().run, lambda: publish_run(owner, publication, publishers))
        stopped = wait_until_stopped()
        patch.delenv(VARIABLE)
        yield Attempt(future, stopped)


def test_one_of_two_is_killed(cluster: Cluster, job: Job, tmp_path: Path) -> None:
    """SIGKILL of one publisher half way: the driver does not wait for the other one, and the next attempt is exact."""
    with Follower(cluster, job) as follower:
        with owned(cluster, job) as owner:
            publication = prepare(owner, tmp_path)
            engine = LocalProcesses(cluster.connection)
            with stopped_at("after-publish-batch", owner, publication, engine) as attempt:
                attempt.publishers[0].kill()
                # The other one is still stopped.
                with pytest.raises(PublisherLostError, match="ended with status -9"):
                    attempt.future.result(30)
            assert find_publishers() == []
            settled(cluster, job)
            publish_run(owner, publication, local(cluster.connection))
        assert_exact(cluster, job, follower=follower)


@dataclass(frozen=True)
class Lasting(LocalProcesses):
    """Leaves its publishers as they are behind the attempt, as an engine that lost them does."""

    doors: list[Door] = field(default_factory=list)
    left: ExitStack = field(default_factory=ExitStack)

    @contextmanager
    def open_door(self, orders: "list[PublisherOrder]") -> Iterator[Door]:  # type: ignore[override]
        self.doors.append(self.left.enter_context(super().open_door(orders)))
        yield self.doors[-1]

    def wake(self, publishers: list[psutil.Process]) -> list[Message]:
        """Wake publishers, as often as they stop at their failpoint; return all that they say until they have ended."""
        said: list[Message] = []
        while any(is_publisher(process) for process in publishers):
            for process in publishers:
                with suppress(psutil.NoSuchProcess):
                    process.resume()
            if message := self.doors[0].listen(0.1):
                said.append(message)
        return said


@pytest.mark.parametrize("point", ["before-adopt", "after-adopt", "after-publish-batch", "before-publisher-flush"])
def test_publishers_that_were_away(
    cluster: Cluster, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """SIGSTOP of publishers past a successor's commit, then SIGCONT: Kafka refuses whatever they send; exact."""
    monkeypatch.setattr(crew, "_SILENT_SECONDS", 2.0)
    engine = Lasting(cluster.connection)
    with Follower(cluster, job) as follower, engine.left:
        with owned(cluster, job) as owner:
            publication = prepare(owner, tmp_path)
            with (
                stopped_at(point, owner, publication, engine) as attempt,
                pytest.raises(PublisherLostError, match="has said nothing for 2 s"),
            ):
                attempt.future.result(60)
            settled(cluster, job)
            publish_run(owner, publication, local(cluster.connection))
        before = cluster.ends(job.sort_list[0].topic, committed=False)
        said = engine.wake(attempt.publishers)
        errors = [m.content for m in said if isinstance(m.content, KafkaTransientError)]
        assert len(errors) == 2
        assert {e.code for e in errors} <= {KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH}
        # Not one record, and no transaction, came of it.
        assert cluster.ends(job.sort_list[0].topic, committed=False) == before
        assert_exact(cluster, job, follower=follower)


def test_publishers_that_slept_over_the_commit(cluster: Cluster, job: Job, tmp_path: Path) -> None:
    """SIGSTOP right behind the report, past the commit of their own attempt: awake, they have nothing to send."""
    engine = Lasting(cluster.connection)
    with Follower(cluster, job) as follower, engine.left:
        with owned(cluster, job) as owner:
            publication = prepare(owner, tmp_path)
            with stopped_at("after-report", owner, publication, engine) as attempt:
                assert attempt.future.result(60).run == 1
        before = cluster.ends(job.sort_list[0].topic, committed=False)
        engine.wake(attempt.publishers)
        assert cluster.ends(job.sort_list[0].topic, committed=False) == before
        assert_exact(cluster, job, follower=follower)


@pytest.mark.parametrize("point", ["after-gather", "before-go", "after-go", "after-reports", "before-commit"])
def test_a_driver_that_was_away(cluster: Cluster, command: Command, source: str, point: str) -> None:
    """SIGSTOP of the driver past a successor's commit, then SIGCONT: it fails, and has changed nothing."""
    job = command.job(source, publishers="2")
    with Follower(cluster, job) as follower:
        command.succeed_while_away(job, point)
        assert_exact(cluster, job, follower=follower)


def test_publishers_of_a_driver_that_is_gone(cluster: Cluster, command: Command, source: str) -> None:
    """SIGKILL of the driver while its publishers are half way: they end by themselves; the next start is exact."""
    job = command.job(source, publishers="2")
    with Follower(cluster, job) as follower:
        running = command.start(job, failpoint="after-publish-batch=stop")
        publishers = wait_until_stopped(2, running.process.pid)
        running.send(signal.SIGKILL)
        assert running.finish().status == KILLED
        wait_for(lambda: _ended(publishers), 10)
        assert cluster.count(job) == 0
        again = command.run(job)
        assert again.status == 0, again.err
        assert_exact(cluster, job, follower=follower)


def _ended(processes: list[psutil.Process]) -> bool:
    """Whether all have ended; those that stopped once more, at their next batch, go on."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.resume()
    return not psutil.wait_procs(processes, 0.2)[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_stop_half_way(cluster: Cluster, command: Command, source: str, number: signal.Signals) -> None:
    """A signal to the driver while its publishers are half way ends all, and nothing is left open for readers."""
    job = command.job(source, publishers="2")
    with Follower(cluster, job) as follower:
        running = command.start(job, failpoint="after-publish-batch=stop")
        publishers = wait_until_stopped(2, running.process.pid)
        running.send(number)
        outcome = running.finish(20)
        assert outcome.status == 128 + number, outcome.err
        assert "stopped before it was done" in outcome.err.splitlines()[-1]
        assert not psutil.wait_procs(publishers, 5)[1]
        settled(cluster, job)
        assert cluster.count(job) == 0
        again = command.run(job)
        assert again.status == 0, again.err
        assert_exact(cluster, job, follower=follower)


@pytest.mark.parametrize("point", ["before-adopt", "after-publish-batch", "before-report"])
def test_the_broker_is_killed(
    mortal: ProxiedBroker, cluster: Cluster, command: Command, source: str, point: str
) -> None:
    """The only broker is killed while publishers are half way, and comes back: the run finishes; exact."""
    job = command.job(source, publishers="2")
    with Follower(cluster, job) as follower:
        running = command.start(job, failpoint=f"{point}=stop")
        wait_until_stopped(2, running.process.pid)
        before = mortal.pid
        mortal.kill()
        wake(running)
        time.sleep(3)
        assert running.process.exitcode is None, running.err
        mortal.start()
        assert mortal.pid != before
        wait_for(lambda: wake(running), 180)
        outcome = running.finish(1)
        assert outcome.status == 0, outcome.err
        assert_exact(cluster, job, follower=follower)


def wake(running: Running) -> bool:
    """Wake the publishers that have stopped; whether the run is over."""
    for process in find_publishers(running.process.pid):
        os.kill(process.pid, signal.SIGCONT)
    return running.process.exitcode is not None
