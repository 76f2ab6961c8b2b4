"""A run on workers of Dask: exact, whatever dies; stopped everywhere; never of another cluster."""

import logging
import os
import signal
import sys
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
