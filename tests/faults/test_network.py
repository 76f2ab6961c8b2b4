"""The network between a run and its broker: replies that are lost, requests that come late, outages."""

import multiprocessing
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from confluent_kafka import KafkaError

from tasks.errors import TransientError
from tasks.kafka.clients import KafkaTransientError, make_admin
from tasks.kafka.lease import LeaseTakenError, describe_owner
from tasks.kafka.reach import require_broker
from tasks.kafka.topics import group_offsets
from tasks.ownership import own_job
from tasks.publish import publish_run
from tasks.settings.connection import Connection as KafkaConnection
from tests.cluster import Cluster, sample_values, wait_for
from tests.command import KILLED, Command
from tests.faults import proxy as kafka
from tests.faults.oracle import Follower, assert_exact
from tests.faults.proxy import Proxy
from tests.stages import make_job, owned, prepare


def test_the_reply_of_a_commit_is_lost(cluster: Cluster, through: Cluster, proxy: Proxy, tmp_path: Path) -> None:
    """The connection breaks before a commit is answered: the same call asks again, and the run is there once."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(500))
    job = make_job(source, tmp_path)
    with Follower(cluster, job) as follower:
        with owned(through, job) as owner:
            publication = prepare(owner, tmp_path)
            proxy.lose_replies(kafka.END_TXN, once=True)
            publish_run(owner, publication)
        assert proxy.lost == 1
        assert_exact(cluster, job, follower=follower)
    assert cluster.count(job, committed=False) == 500


@pytest.mark.slow
def test_no_reply_of_a_commit_comes_ever(cluster: Cluster, through: Cluster, proxy: Proxy, tmp_path: Path) -> None:
    """If a commit gets no answer, the retry fences, reads the ledger, finds the run, and publishes nothing."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(500))
    job = make_job(source, tmp_path, request_timeout=3.0)
    with Follower(cluster, job) as follower:
        with owned(through, job) as owner:
            publication = prepare(owner, tmp_path)
            proxy.lose_replies(kafka.END_TXN)
            with pytest.raises(KafkaTransientError):
                publish_run(owner, publication)
            assert owner.ledger.last is None
            assert proxy.lost >= 1
            proxy.keep_replies()
            assert publish_run(owner, publication) == owner.ledger.last
        assert_exact(cluster, job, follower=follower)
    assert cluster.count(job, committed=False) == 500


# The request of the first run that is held, and the failpoint that makes the first run send it.
LATE = {
    "commit": (kafka.END_TXN, kafka.is_commit, None),
    "abort": (kafka.END_TXN, kafka.is_abort, "after-flush=raise"),
    "rows": (kafka.PRODUCE, None, None),
    "partitions": (kafka.ADD_PARTITIONS_TO_TXN, None, None),
    "offsets": (kafka.TXN_OFFSET_COMMIT, None, None),
    "fence": (kafka.INIT_PRODUCER_ID, None, None),
}


# The broker's answer to an epoch that is not the newest.
REFUSED = {KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED}
OPEN, COMMITTED = "while the successor's transaction is open", "after the successor's commit"
# A fence has no epoch: it makes one, once it has aborted the open transaction.
ANSWERS = {("fence", OPEN): {KafkaError.CONCURRENT_TRANSACTIONS}, ("fence", COMMITTED): {KafkaError.NO_ERROR}}


@pytest.mark.parametrize("moment", [OPEN, COMMITTED])
@pytest.mark.parametrize("late", LATE)
@pytest.mark.slow
def test_a_request_of_a_dead_run_comes_late(
    cluster: Cluster, command: Command, proxied_command: Command, proxy: Proxy, late: str, moment: str
) -> None:
    """A request that the network delivers after its sender died, with a successor at work, has no effect."""
    api, match, failpoint = LATE[late]
    source = cluster.make_topic()
    cluster.produce(source, sample_values(2000))
    job = proxied_command.job(source)
    held = proxy.hold(api, match) if match else proxy.hold(api)
    with Follower(cluster, job) as follower:
        old = proxied_command.start(job, failpoint=failpoint)
        assert held.caught.wait(90), old.err
        old.process.kill()
        assert old.finish().status == KILLED
        if moment == COMMITTED:
            outcome = command.run(job)
            reply = held.release()
        else:
            successor = command.start(job, failpoint="after-flush=stop").wait_until_stopped()
            reply = held.release()
            outcome = successor.finish_awake()
        assert outcome.status == 0, outcome.err
        code = kafka.error_of(held, reply)
        assert code in ANSWERS.get((late, moment), REFUSED), f"the late request was answered with {code}"
        assert_exact(cluster, job, follower=follower)
    if (late, moment) == ("fence", OPEN):
        # The successor's transaction was aborted, and it sent all of its rows again.
        assert cluster.count(job, committed=False) == 12_000


@pytest.mark.slow
@pytest.mark.parametrize("point", ["before-dump-chunk", "after-begin", "after-publish", "after-flush", "before-commit"])
def test_an_outage(cluster: Cluster, proxied_command: Command, proxy: Proxy, point: str) -> None:
    """Five seconds without network are longer than the lease: the run regains it, and finishes by its retries."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(20_000))
    job = proxied_command.job(source)
    with Follower(cluster, job) as follower:
        running = proxied_command.start(job, failpoint=f"{point}=stop").wait_until_stopped()
        proxy.cut()
        outage = threading.Timer(5, proxy.mend)
        outage.start()
        outcome = running.finish_awake()
        outage.join()
        assert outcome.status == 0, outcome.err
        assert proxy.refused > 0
        assert_exact(cluster, job, follower=follower)


@pytest.mark.slow
def test_a_flapping_network(cluster: Cluster, proxied_command: Command, proxy: Proxy) -> None:
    """The network is away for one second in four: the run finishes, or fails clean and the next one does."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(50_000))
    job = proxied_command.job(source)
    with Follower(cluster, job) as follower:
        running = proxied_command.start(job, failpoint="before-snapshot=stop").wait_until_stopped()
        ended = threading.Event()
        flapping = threading.Thread(target=flap, args=(proxy, ended))
        flapping.start()
        outcome = running.finish_awake()
        ended.set()
        flapping.join()
        assert proxy.refused > 0
        assert outcome.status in {0, 1}, outcome.err
        if outcome.status:
            assert proxied_command.run(job).status == 0
        assert_exact(cluster, job, follower=follower)


def flap(proxy: Proxy, ended: threading.Event) -> None:
    while not ended.is_set():
        proxy.cut()
        time.sleep(1)
        proxy.mend()
        ended.wait(3)


@pytest.mark.slow
def test_a_slow_network(cluster: Cluster, proxied_command: Command, proxy: Proxy) -> None:
    """A tenth of a second of delay for each way and request makes the run slower, and changes nothing else."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(5000))
    job = proxied_command.job(source)
    proxy.delay = 0.1
    with Follower(cluster, job) as follower:
        outcome = proxied_command.run(job)
        assert outcome.status == 0, outcome.err
        assert proxy.requests[kafka.PRODUCE] > 0
        assert_exact(cluster, job, follower=follower)


@pytest.mark.slow
def test_an_outage_that_does_not_end(cluster: Cluster, proxied_command: Command, proxy: Proxy) -> None:
    """Retries come to an end: one line, status 1, nothing visible; once the network is back, the next run does it."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(2000))
    job = proxied_command.job(source, retries=1, retry_delay=0.1, request_timeout=2.0)
    with Follower(cluster, job) as follower:
        running = proxied_command.start(job, failpoint="after-begin=stop").wait_until_stopped()
        proxy.cut()
        outcome = running.finish_awake()
        assert outcome.status == 1, outcome.err
        assert outcome.err.splitlines()[-1].startswith("kafka-sort: ")
        assert proxy.refused > 0
        proxy.mend()
        assert cluster.count(job) == 0
        assert proxied_command.run(job).status == 0
        assert_exact(cluster, job, follower=follower)


def ask_in_an_outage(address: str, parent: Connection) -> None:
    """Ask about a group at each signal of the parent, in a child."""
    connection = KafkaConnection(address)
    admin = make_admin(connection)
    require_broker(admin, connection, 30)
    for _ in range(2):
        parent.send("ready")
        parent.recv()
        describe_owner(admin, "nobody")
    assert group_offsets(connection, "nobody", "nothing", [0]) == {}


@pytest.mark.slow
def test_a_coordinator_that_comes_back(proxy: Proxy, cluster: Cluster) -> None:
    """A client that asked about a group while its coordinator was away survives its return."""
    assert describe_owner(cluster.admin, "nobody") is None
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    child = spawn.Process(target=ask_in_an_outage, args=(proxy.address, theirs))
    child.start()
    ours.recv()
    proxy.cut()
    ours.send("ask")
    ours.recv()
    proxy.mend()
    ours.send("ask")
    child.join()
    assert proxy.refused > 0
    assert child.exitcode == 0


def lose_lease(proxy: Proxy, lost: Callable[[], bool]) -> None:
    proxy.cut()
    wait_for(lost)
    proxy.mend()


@pytest.mark.slow
def test_a_lease_that_is_lost_is_regained(cluster: Cluster, through: Cluster, proxy: Proxy, tmp_path: Path) -> None:
    """An outage longer than the session timeout costs the lease; nobody else took it, so the run takes it again."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(500))
    job = make_job(source, tmp_path)
    with Follower(cluster, job) as follower:
        with owned(through, job) as owner:
            publication = prepare(owner, tmp_path)
            lose_lease(proxy, lambda: not owner._lease.held)
            owner.fence()
            assert owner._lease.held
            publish_run(owner, publication)
        assert_exact(cluster, job, follower=follower)


@pytest.mark.slow
def test_a_lease_that_another_run_took_is_not_regained(
    cluster: Cluster, through: Cluster, proxy: Proxy, tmp_path: Path
) -> None:
    """A run that lost the lease does not fence a living successor, and names it."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(500))
    job = make_job(source, tmp_path)
    with Follower(cluster, job) as follower:
        with owned(through, job) as owner:
            publication = prepare(owner, tmp_path)
            proxy.cut()
            with own_job(job, cluster.connection) as successor:
                proxy.mend()
                wait_for(lambda: not owner._lease.held)
                with pytest.raises(LeaseTakenError, match="another run of job"):
                    owner.fence()
                # The producer it still has cannot commit either: the successor has fenced.
                with pytest.raises((TransientError, LeaseTakenError)):
                    publish_run(owner, publication)
                assert cluster.count(job) == 0
                publish_run(successor, prepare(successor, tmp_path))
        assert_exact(cluster, job, follower=follower)
