"""Three hosts, each with a broker and a worker of Dask; scheduler, Prefect's server and the run are beside them."""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
from confluent_kafka.admin import NewTopic
from distributed import LocalCluster

from tasks.failpoints import VARIABLE
from tasks.settings.connection import ALLOW_PLAINTEXT
from tasks.settings.job import Job
from tests.cluster import Cluster, wait_for
from tests.command import Outcome, flags_of
from tests.deployed import Server
from tests.faults.three_brokers import ThreeBrokers
from tests.hosts.hosts import Host, Hosts, make_hosts
from tests.processes import KAFKA_SORT, Program

# An outage of a host is over for its peers once their timeouts are: 30 s for Dask, 60 s for an answer of Kafka.
_FINISH_SECONDS = 420


@dataclass
class Bed:
    """The bed; broker n is on host n, from 1 on. `environment`: of the run and of the workers."""

    hosts: Hosts
    brokers: ThreeBrokers
    environment: dict[str, str]

    @property
    def cluster(self) -> Cluster:
        return Cluster(self.brokers.bootstrap_servers)

    def host(self, node: int) -> Host:
        return self.hosts.hosts[node - 1]

    def make_topic(self, partitions: int = 4) -> str:
        """Make a topic with a replica on every host."""
        name, cluster = f"t-{uuid4().hex[:12]}", self.cluster
        cluster.admin.create_topics([NewTopic(name, partitions, 3)])[name].result()
        wait_for(lambda: len(cluster.ends(name)) == partitions)
        return name

    def revive(self) -> None:
        """Bring hosts and brokers that died back to life."""
        dead = [node for node, broker in self.brokers.brokers.items() if not self.host(node).pids()]
        for node in dead:
            self.host(node).mend()
            self.brokers.brokers[node].kill()
        self.brokers.start(*dead)


@contextmanager
def make_bed(folder: Path) -> Iterator[Bed]:
    """Make the bed for the time of the block. HostsUnavailableError if this machine permits no namespaces."""
    with make_hosts(3) as hosts, ThreeBrokers(hosts.hosts) as brokers, ExitStack() as stack:
        server = Server(folder, host=hosts.address)
        stack.callback(server.stop)
        server.start()
        yield Bed(hosts, brokers, {**server.environment, ALLOW_PLAINTEXT: "1"})


@dataclass
class Site:
    """A scheduler beside the hosts, and a worker on each; `folder` is shared by all."""

    bed: Bed
    scheduler: LocalCluster
    folder: Path
    workers: dict[int, Program] = field(default_factory=dict)
    runs: list[Program] = field(default_factory=list)

    @property
    def address(self) -> str:
        return str(self.scheduler.scheduler_address)

    def start_workers(self, failpoint: str | None = None, victim: int = 0) -> None:
        """Start a worker on each host; that on the victim has the failpoint."""
        for node in self.bed.brokers.brokers:
            self._start(node, {VARIABLE: failpoint} if failpoint and node == victim else {})
        wait_for(lambda: len(self.scheduler.scheduler_info["workers"]) == len(self.workers), 120)

    def _start(self, node: int, environment: dict[str, str]) -> None:
        host = self.bed.host(node)
        line = [sys.executable, "-m", "distributed.cli.dask_worker", self.address, "--host", host.address]
        line += ["--nthreads", "1", "--no-nanny", "--memory-limit", "0", "--no-dashboard"]
        line += ["--local-directory", str(self.folder)]
        self.workers[node] = Program.start(host.within(*line), self.folder, {**self.bed.environment, **environment})

    def job(self, source: str, **over: Any) -> Job:
        suffix = uuid4().hex[:8]
        workdir = self.folder / "work"
        fields = {
            "source_topic": source,
            "sorts": [f"{column}=o-{suffix}-{column}" for column in ("id", "name", "continent")],
            "workdir": workdir,
            "runner": "dask",
            "scheduler": self.address,
            "memory_limit": "4GB",
            "replication_factor": 3,
            "request_timeout": 20.0,
            **over,
        }
        return Job.model_validate(fields)

    def start(self, job: Job, failpoint: str | None = None) -> Program:
        """Start a run beside the hosts."""
        line = [KAFKA_SORT, "sort", "--bootstrap-servers", self.bed.cluster.bootstrap_servers, *flags_of(job)]
        environment = {**self.bed.environment, **({VARIABLE: failpoint} if failpoint else {})}
        self.runs.append(Program.start(line, self.folder, environment))
        return self.runs[-1]

    def stop(self) -> None:
        """End what is left, also a run that was stopped at its failpoint when its test failed."""
        for program in (*self.runs, *self.workers.values()):
            program.process.kill()
            program.process.wait()


@contextmanager
def make_site(bed: Bed, folder: Path) -> Iterator[Site]:
    how: dict[str, Any] = {"processes": False, "dashboard_address": None, "silence_logs": logging.CRITICAL}
    with LocalCluster(n_workers=0, protocol="tcp://", host=bed.hosts.address, **how) as scheduler:
        site = Site(bed, scheduler, folder)
        try:
            yield site
        finally:
            site.stop()


def is_stopped(program: Program) -> bool:
    """Whether it was stopped at its failpoint."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(program.process.pid).status() == psutil.STATUS_STOPPED
    return False


def finish(running: Program) -> Outcome:
    """Wait for its end; wake it whenever it stops at its failpoint."""

    def is_over() -> bool:
        if is_stopped(running):
            os.kill(running.process.pid, signal.SIGCONT)
        return running.is_over

    with suppress(AssertionError):  # The error of `finish` has what it printed.
        wait_for(is_over, _FINISH_SECONDS)
    return running.finish(1)
