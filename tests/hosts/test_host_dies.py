"""Three hosts of which one dies, with its broker and its worker: the run is exact, by those that are left."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import sample_values, wait_for
from tests.faults.oracle import Follower, assert_exact
from tests.hosts.bed import Bed, Site, finish, is_stopped, make_bed, make_site
from tests.hosts.hosts import HostsUnavailableError, require_namespaces

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


@pytest.mark.parametrize(
    ("point", "end"),
    [("before-dump-chunk", "kill"), ("before-sort", "kill"), ("before-dump-chunk", "lose")],
    ids=["in the dump", "in a sort", "in the dump, with no word to its peers"],
)
def test_a_host_dies_while_its_worker_works(bed: Bed, site: Site, point: str, end: str) -> None:
    """Its task is run again on another host, its broker's partitions have other leaders, and the run is exact."""
    site.start_workers(f"{point}=stop", VICTIM)
    job = site.job(fill(bed))
    host, worker, broker = bed.host(VICTIM), site.workers[VICTIM], bed.brokers.brokers[VICTIM]
    with Follower(bed.cluster, job) as follower:
        running = site.start(job)
        wait_for(lambda: running.is_over or is_stopped(worker), 180)
        # Its task had begun, and was not done.
        assert not running.is_over, running.err
        dead = {"kill": host.kill, "lose": host.lose}[end]()
        assert {worker.process.pid, broker.pid} <= set(dead)
        assert host.pids() == []
        outcome = finish(running)
        assert outcome.status == 0, outcome.err
        assert "a worker was lost: its task is run again" in outcome.err
        # The host is still away.
        assert host.pids() == []
        assert_exact(bed.cluster, job, follower=follower)


@pytest.mark.parametrize("publishers", [1])
@pytest.mark.parametrize(("role", "point"), [("leader", "after-publish-batch"), ("coordinator", "after-flush")])
def test_a_host_dies_while_a_run_publishes(bed: Bed, site: Site, role: str, point: str, publishers: int) -> None:
    """The leader of an output dies amid the rows, or the coordinator before the commit: another takes over; exact."""
    assert publishers == 1
    site.start_workers()
    job = site.job(fill(bed))
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
