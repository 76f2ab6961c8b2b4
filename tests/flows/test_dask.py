"""A run on workers of Dask: exact, whatever dies; stopped everywhere; never of another cluster."""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from distributed import LocalCluster

from tasks.broker.embedded import EmbeddedBroker
from tasks.dask.orders import INHERITED, bequeath
from tasks.failpoints import VARIABLE
from tasks.kafka.topics import create_topic
from tasks.observe.export import FILE
from tasks.settings.connection import Connection
from tasks.settings.job import Job
from tests.cluster import Cluster, sample_values, wait_for
from tests.command import KILLED, Command, flags_of
from tests.faults.oracle import assert_exact
from tests.flows.hold_dump import FOLDER
from tests.history import History
from tests.processes import KAFKA_SORT, Program
from tests.s3_server import S3Server, running_s3

pytestmark = pytest.mark.slow

HOLDING = Path(__file__).with_name("hold_dump.py")
RECORDS = 2000


@dataclass
class Site:
    """A scheduler, and workers that are processes of their own."""

    cluster: LocalCluster
    folder: Path
    workers: list[Program] = field(default_factory=list)

    @property
    def address(self) -> str:
        return str(self.cluster.scheduler_address)

    @property
    def held(self) -> int:
        """The number of dumps that wait."""
        return len(list(self.folder.glob("held-*")))

    @property
    def ended(self) -> int:
        """The number of dumps that waited, and were stopped."""
        return len(list(self.folder.glob("ended-*")))

    def start_worker(self, *flags: str, **environment: str) -> Program:
        line = [sys.executable, "-m", "distributed.cli.dask_worker", self.address, "--nthreads", "1", "--no-nanny"]
        line += ["--memory-limit", "0", "--no-dashboard", "--local-directory", str(self.folder), *flags]
        self.workers.append(Program.start(line, self.folder, {FOLDER: str(self.folder), **environment}))
        count = len(self.workers)
        wait_for(lambda: len(self.cluster.scheduler_info["workers"]) == count, 60)
        return self.workers[-1]

    def stop(self) -> None:
        for worker in self.workers:
            worker.process.kill()
            worker.process.wait()


@pytest.fixture
def s3() -> Iterator[S3Server]:
    with running_s3() as server:
        yield server


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    how = {"processes": False, "dashboard_address": None, "silence_logs": logging.CRITICAL}
    with LocalCluster(n_workers=0, protocol="tcp://", host="127.0.0.1", **how) as cluster:
        running = Site(cluster, folder)
        yield running
        running.stop()


def fill(cluster: Cluster, partitions: int = 2) -> str:
    source = cluster.make_topic(partitions)
    cluster.produce(source, [*sample_values(RECORDS), b"no row", None], partitions)
    return source


def test_workers_of_this_machine(cluster: Cluster, command: Command, history: History) -> None:
    """They sort a topic exactly; the run in Prefect has their tasks and their lines, and the terminal too."""
    source = fill(cluster)
    job = command.job(source, runner="dask")
    outcome = command.run(job)
    assert outcome.status == 0, outcome.err
    assert_exact(cluster, job)
    (run,) = history.runs(job.name)
    names = {task["name"] for task in history.tasks(run["id"])}
    assert {f"dump {source}/0", f"dump {source}/1", *(f"sort {sort.topic}" for sort in job.sort_list)} <= names
    wait_for(lambda: sum("event=dumped" in line for line in history.logs(run["id"])) == 2)
    (line, _) = (line for line in history.logs(run["id"]) if "event=dumped" in line)
    assert f"job={job.name} run=1 stage=dump" in line
    assert outcome.err.count("dumped") == 2
    assert "distributed" not in outcome.err


def test_a_merge(cluster: Cluster, command: Command) -> None:
    """Runs become one on workers as in threads, with the newest record of each key."""
    source = fill(cluster)
    job = command.job(source, sorts=["continent=o-merged-" + source], runner="dask")
    for flags, name in ((), "sort"), ((), "sort"), (("--latest",), "merge"):
        outcome = command.run(job, *flags, command=name)
        assert outcome.status == 0, outcome.err
        cluster.produce(source, sample_values(100, seed=5), 2)
    found = [record.value for record in cluster.read(job.sort_list[0].topic) if record.value]
    assert len({value.split(b",")[3] for value in found}) == len(found) == 6
    verified = command.run(job, command="verify")
    assert verified.status == 0, verified.err


@pytest.mark.parametrize("point", ["before-dump-chunk", "before-sort"])
def test_a_worker_is_killed(cluster: Cluster, command: Command, site: Site, point: str) -> None:
    """A worker that dies in dump or in sort costs its unfinished task, which another worker does; all is exact."""
    job = command.job(fill(cluster), runner="dask", scheduler=site.address, memory_limit="4GB")
    victim = site.start_worker(**{VARIABLE: f"{point}=kill"})
    site.start_worker()
    file = site.folder / "metrics.prom"
    outcome = command.run(job, environment={FILE: str(file)})
    assert victim.process.wait(10) == KILLED
    assert outcome.status == 0, outcome.err
    assert "a worker was lost: its task is run again" in outcome.err
    stage = "dump" if "dump" in point else "sort"
    assert f'kafka_sort_tasks_run_again_total{{job="{job.name}",stage="{stage}"}} 1.0' in file.read_text()
    assert_exact(cluster, job)


def test_files_in_s3(cluster: Cluster, command: Command, site: Site, s3: S3Server) -> None:
    """Workers that share no folder leave their files in a bucket; one that dies costs its task; nothing is left."""
    job = command.job(fill(cluster), runner="dask", scheduler=site.address, memory_limit="4GB")
    job = job.model_copy(update={"workdir": f"s3://{s3.bucket}/work"})
    victim = site.start_worker(**{VARIABLE: "before-sort=kill"})
    site.start_worker()
    outcome = command.run(job, environment=s3.environment)
    assert outcome.status == 0, outcome.err
    assert victim.process.wait(10) == KILLED
    assert_exact(cluster, job)
    assert s3.keys("work") == []
    assert list(site.folder.rglob("scratch-*")) == []


@pytest.mark.raises("WorkersLostError")
def test_all_workers_are_killed(cluster: Cluster, command: Command) -> None:
    """A task that ends each of its workers ends the run in one line; the next run is exact."""
    job = command.job(fill(cluster), runner="dask")
    outcome = command.run(job, failpoint="before-dump-chunk=kill")
    assert outcome.status == 1, outcome.err
    assert "kafka-sort: a task lost its worker 4 times" in outcome.err
    assert cluster.count(job, committed=False) == 0
    assert command.run(job.model_copy(update={"runner": "threads"})).status == 0
    assert_exact(cluster, job)


@pytest.mark.parametrize(
    ("number", "send"), [(signal.SIGTERM, os.kill), (signal.SIGINT, os.killpg)], ids=["SIGTERM", "Ctrl-C"]
)
def test_a_stop(
    cluster: Cluster, command: Command, tmp_path: Path, number: signal.Signals, send: Callable[[int, int], None]
) -> None:
    """A signal ends workers that read, and the command, with its status; no process and no file is left.

    Ctrl-C in a terminal is a signal to the workers as well.
    """
    job = command.job(fill(cluster), runner="dask")
    line = [KAFKA_SORT, "sort", "--bootstrap-servers", cluster.bootstrap_servers, *flags_of(job)]
    environment = {"DASK_DISTRIBUTED__WORKER__PRELOAD": str(HOLDING), FOLDER: str(tmp_path)}
    program = Program.start(line, tmp_path, environment, start_new_session=True)
    wait_for(lambda: program.is_over or len(list(tmp_path.glob("held-*"))) == 2, 120)
    children = program.children()
    send(program.process.pid, number)
    outcome = program.finish(20)
    assert outcome.status == 128 + number, outcome.err
    assert "Traceback" not in outcome.err
    assert f"{number.name}: stopped before it was done" in outcome.err
    assert len(list(tmp_path.glob("ended-*"))) == 2
    assert not psutil.wait_procs(children, 10)[1]
    assert list((command.workdir / job.name).iterdir()) == []


def test_the_driver_is_killed(cluster: Cluster, command: Command, site: Site) -> None:
    """Tasks of a driver that is gone end within seconds; the next start is exact."""
    job = command.job(fill(cluster), runner="dask", scheduler=site.address, memory_limit="4GB")
    site.start_worker("--preload", str(HOLDING))
    running = command.start(job)
    wait_for(lambda: site.held == 1, 60)
    running.send(signal.SIGKILL)
    wait_for(lambda: site.ended == 1, 10)
    assert running.finish().status == KILLED
    again = command.run(job.model_copy(update={"runner": "threads", "scheduler": None}))
    assert again.status == 0, again.err
    assert_exact(cluster, job)


@pytest.mark.raises("WorkersLostError")
def test_the_scheduler_is_lost(cluster: Cluster, command: Command, site: Site) -> None:
    """With the scheduler its state is lost: the run ends in one line, and the next one is exact."""
    job = command.job(fill(cluster), runner="dask", scheduler=site.address, memory_limit="4GB")
    site.start_worker("--preload", str(HOLDING))
    running = command.start(job)
    wait_for(lambda: site.held == 1, 60)
    site.cluster.close()
    outcome = running.finish()
    assert outcome.status == 1, outcome.err
    assert "kafka-sort: Dask lost its scheduler" in outcome.err
    again = command.run(job.model_copy(update={"runner": "threads", "scheduler": None}))
    assert again.status == 0, again.err
    assert_exact(cluster, job)


@pytest.mark.raises("OtherClusterError")
def test_another_cluster(cluster: Cluster, command: Command, site: Site, tmp_path: Path) -> None:
    """A worker whose environment leads to another cluster, with a topic of the same name, reads nothing of it."""
    source = fill(cluster)
    job: Job = command.job(source, runner="dask", scheduler=site.address, memory_limit="4GB")
    with EmbeddedBroker() as other:
        elsewhere = Cluster(other.bootstrap_servers)
        create_topic(elsewhere.admin, source, 2, 1, {})
        elsewhere.produce(source, sample_values(RECORDS, seed=2), 2)
        site.start_worker(**bequeath(Connection(other.bootstrap_servers)))
        outcome = command.run(job)
    assert INHERITED in bequeath(Connection())
    assert outcome.status == 2, outcome.err
    assert "and the run reads" in outcome.err
    assert cluster.count(job, committed=False) == 0


@pytest.mark.parametrize("count", [2, 5], ids=["one a worker", "several a worker"])
def test_publishers_on_workers(cluster: Cluster, command: Command, history: History, count: int) -> None:
    """Publishers are tasks on the workers of the run, which end with it; their transaction is exact."""
    source = fill(cluster)
    job = command.job(source, runner="dask", publishers=str(count), output_partitions=2)
    outcome = command.run(job)
    assert outcome.status == 0, outcome.err
    assert_exact(cluster, job)
    (run,) = history.runs(job.name)
    tasks = {task["name"]: task["state"]["type"] for task in history.tasks(run["id"])}
    numbers = {
        n for name in tasks if name.startswith("publisher ") for n in name.removeprefix("publisher ").split(", ")
    }
    assert numbers == {str(number) for number in range(1, count + 1)}
    assert set(tasks.values()) == {"COMPLETED"}


@pytest.mark.raises("PublisherLostError")
def test_the_worker_of_a_publisher_is_killed(cluster: Cluster, command: Command, site: Site) -> None:
    """A worker that dies while its publisher is half way costs the attempt; those that are left publish, exactly."""
    job = command.job(fill(cluster), runner="dask", scheduler=site.address, memory_limit="4GB", publishers="2")
    victim = site.start_worker(**{VARIABLE: "after-publish-batch=kill"})
    site.start_worker()
    outcome = command.run(job)
    assert victim.process.wait(10) == KILLED
    assert outcome.status == 0, outcome.err
    assert "before it had sent its rows" in outcome.err
    assert cluster.count(job, committed=False) > 3 * RECORDS
    assert_exact(cluster, job)


def test_publishers_outlive_their_driver(cluster: Cluster, command: Command, site: Site) -> None:
    """Workers that are frozen half way, past the end of their driver and the commit of a successor, change nothing."""
    job = command.job(fill(cluster), runner="dask", scheduler=site.address, memory_limit="4GB", publishers="2")
    workers = [site.start_worker(**{VARIABLE: "after-publish-batch=stop"}) for _ in range(2)]
    running = command.start(job)
    wait_for(lambda: all(psutil.Process(w.process.pid).status() == psutil.STATUS_STOPPED for w in workers), 120)
    running.send(signal.SIGKILL)
    assert running.finish().status == KILLED
    again = command.run(job.model_copy(update={"runner": "threads", "scheduler": None}))
    assert again.status == 0, again.err
    before = cluster.ends(job.sort_list[0].topic, committed=False)
    for _ in range(20):
        for worker in workers:
            worker.send(signal.SIGCONT)
        time.sleep(0.2)
    assert cluster.ends(job.sort_list[0].topic, committed=False) == before
    assert_exact(cluster, job)


@pytest.mark.raises("OtherClusterError")
def test_publishers_of_another_cluster(cluster: Cluster, command: Command, site: Site) -> None:
    """A worker whose environment leads to another cluster by the time of the publish fences nobody there."""
    job = command.job(fill(cluster), runner="dask", scheduler=site.address, memory_limit="4GB", publishers="2")
    site.start_worker()
    with EmbeddedBroker() as other:
        elsewhere = Cluster(other.bootstrap_servers)
        running = command.start(job, failpoint="before-gather=stop").wait_until_stopped()
        site.workers[0].process.kill()
        site.workers[0].process.wait()
        site.workers.clear()
        wait_for(lambda: not site.cluster.scheduler_info["workers"])
        site.start_worker(**bequeath(Connection(other.bootstrap_servers)))
        running.send(signal.SIGCONT)
        outcome = running.finish()
        assert outcome.status == 2, outcome.err
        assert "nothing was fenced" in outcome.err
        assert elsewhere.admin.list_topics().topics.keys() == set()
    assert cluster.count(job, committed=False) == 0


@pytest.mark.raises("PublisherLostError")
def test_the_scheduler_of_publishers_is_lost(cluster: Cluster, command: Command, site: Site) -> None:
    """Without a scheduler no publisher is left: the run ends, leaves nothing open, and the next one is exact."""
    job = command.job(fill(cluster), runner="dask", scheduler=site.address, memory_limit="4GB", publishers="2")
    for _ in range(2):
        site.start_worker(**{VARIABLE: "after-publish-batch=stop"})
    running = command.start(job, "--retries", "1")
    wait_for(lambda: all(psutil.Process(w.process.pid).status() == psutil.STATUS_STOPPED for w in site.workers), 120)
    site.cluster.close()
    outcome = running.finish()
    assert outcome.status == 1, outcome.err
    assert "kafka-sort: Dask lost its scheduler, and with it all publishers" in outcome.err
    for sort in job.topic_sorts:
        assert cluster.ends(sort.topic) == cluster.ends(sort.topic, committed=False)
    assert cluster.count(job) == 0
    again = command.run(job.model_copy(update={"runner": "threads", "scheduler": None}))
    assert again.status == 0, again.err
    assert_exact(cluster, job)


def test_a_stop_of_publishers(cluster: Cluster, command: Command, site: Site) -> None:
    """SIGTERM while the workers of all publishers are frozen: the run ends, and leaves nothing open for readers."""
    job = command.job(fill(cluster), runner="dask", scheduler=site.address, memory_limit="4GB", publishers="2")
    for _ in range(2):
        site.start_worker(**{VARIABLE: "after-publisher-flush=stop"})
    running = command.start(job)
    wait_for(lambda: all(psutil.Process(w.process.pid).status() == psutil.STATUS_STOPPED for w in site.workers), 120)
    assert cluster.count(job, committed=False) == 3 * RECORDS
    running.send(signal.SIGTERM)
    outcome = running.finish(20)
    assert outcome.status == 128 + signal.SIGTERM, outcome.err
    for sort in job.topic_sorts:
        assert cluster.ends(sort.topic) == cluster.ends(sort.topic, committed=False)
    assert cluster.count(job) == 0
