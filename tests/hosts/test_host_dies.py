"""Three hosts of which one dies, with its broker and its worker: the run is exact, by those that are left."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster import sample_values, wait_for
from tests.faults.oracle import Follower, assert_exact
from tests.hosts.bed import Bed, Site, finish, is_stopped, make_bed, make_site
from tests.hosts.hosts import HostsUnavailableError, require_namespaces
from tests.s3_server import running_s3

pytestmark = pytest.mark.slow
RECORDS = 5000
VICTIM = 2


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    try:
        require_namespaces()
    except HostsUnavailableError as error:
        pytest.skip(str(error))
    with make_bed(tmp_path_factory.mktemp("bed")) as made:
        yield made


@pytest.fixture
def site(bed: Bed, tmp_path: Path) -> Iterator[Site]:
    with make_site(bed, tmp_path) as made:
        yield made
    bed.revive()


def fill(bed: Bed) -> str:
    source = bed.make_topic()
    bed.cluster.produce(source, [*sample_values(RECORDS), b"no row"])
    return source


@contextmanager
def shared_workdir(bed: Bed, site: Site, kind: str) -> Iterator[str]:
    """A work folder that all hosts see: on a file system, or in S3 at the bridge's address."""
    if kind == "folder":
        yield str(site.folder / "work")
        return
    with running_s3(bed.hosts.address) as s3:
        yield f"s3://{s3.bucket}/work"


# Where its worker is held, how the host ends, and where work files lie.
AT_WORK = {
    "in the dump": ("before-dump-chunk", "kill", "folder"),
    "in the dump, with no word to its peers": ("before-dump-chunk", "lose", "folder"),
    "in a sort": ("before-sort", "kill", "folder"),
    "in a sort, files in S3": ("before-sort", "kill", "s3"),
}


@pytest.mark.parametrize(("point", "end", "kind"), AT_WORK.values(), ids=AT_WORK)
def test_a_host_dies_while_its_worker_works(bed: Bed, site: Site, point: str, end: str, kind: str) -> None:
    """Its task is run again on another host, its broker's partitions have other leaders, and the run is exact."""
    host, broker = bed.host(VICTIM), bed.brokers.brokers[VICTIM]
    with shared_workdir(bed, site, kind) as workdir:
        site.start_workers(f"{point}=stop", VICTIM)
        job, worker = site.job(fill(bed), workdir=workdir), site.workers[VICTIM]
        with Follower(bed.cluster, job) as follower:
            running = site.start(job)
            wait_for(lambda: running.is_over or is_stopped(worker), 180)
            # Its task had begun, and was not done.
            assert not running.is_over, running.err
            dead = {"kill": host.kill, "lose": host.lose}[end]()
            assert {worker.process.pid, broker.pid} <= set(dead)
            outcome = finish(running)
            assert outcome.status == 0, outcome.err
            assert "a worker was lost: its task is run again" in outcome.err
            # The host is still away.
            assert host.pids() == []
            assert_exact(bed.cluster, job, follower=follower)


# The part of the broker on the host, and where the run is held.
WHILE_IT_PUBLISHES = [("leader", "after-publish-batch"), ("coordinator", "after-flush")]


@pytest.mark.parametrize(("role", "point"), WHILE_IT_PUBLISHES, ids=[role for role, _ in WHILE_IT_PUBLISHES])
def test_a_host_dies_while_a_run_publishes(bed: Bed, site: Site, role: str, point: str) -> None:
    """The leader of an output dies amid the rows, or the coordinator before the commit: another takes over; exact."""
    site.start_workers()
    job = site.job(fill(bed), publishers=1)
    with Follower(bed.cluster, job) as follower:
        running = site.start(job, failpoint=f"{point}=stop")
        wait_for(lambda: running.is_over or is_stopped(running), 180)
        assert not running.is_over, running.err
        # Rows are sent, perhaps to the run's own queue, or all of them are there; none is committed.
        there = 3 * RECORDS if point == "after-flush" else 0
        assert bed.cluster.count(job, committed=False) >= there
        assert bed.cluster.count(job) == 0
        node = {
            "leader": lambda: bed.brokers.leader(job.sort_list[0].topic, 0),
            "coordinator": lambda: bed.brokers.coordinator("__transaction_state", f"kafka-sort.{job.name}"),
        }[role]()
        dead = bed.host(node).kill()
        assert {bed.brokers.brokers[node].pid, site.workers[node].process.pid} <= set(dead)
        outcome = finish(running)
        assert outcome.status == 0, outcome.err
        assert_exact(bed.cluster, job, follower=follower)


@pytest.mark.parametrize("point", ["after-publish-batch", "after-publisher-flush"])
def test_a_host_dies_with_one_of_several_publishers(bed: Bed, site: Site, point: str) -> None:
    """A publisher is lost with rows that are sent, or all written: another attempt publishes all of them; exact."""
    site.start_workers(f"{point}=stop", VICTIM)
    job, worker = site.job(fill(bed), publishers=3), site.workers[VICTIM]
    host, broker = bed.host(VICTIM), bed.brokers.brokers[VICTIM]
    with Follower(bed.cluster, job) as follower:
        running = site.start(job)
        wait_for(lambda: running.is_over or is_stopped(worker), 180)
        assert not running.is_over, running.err
        assert bed.cluster.count(job) == 0
        assert {worker.process.pid, broker.pid} <= set(host.kill())
        outcome = finish(running)
        assert outcome.status == 0, outcome.err
        assert "PublisherLostError" in outcome.err or "ended before it had sent its rows" in outcome.err
        assert_exact(bed.cluster, job, follower=follower)
