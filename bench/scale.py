"""Threads beside workers of Dask: wall time, and the CPU seconds of all processes but the broker.

    python -m bench.scale --records 10000000 --rounds 2

Two workers and their scheduler are started once, as on machines of their own, and share a work folder; the runs take
turns. CPU seconds are those of the command, its children, Prefect's server, the scheduler and the workers. Stages have
their seconds from the run's record.
"""

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from uuid import uuid4

import psutil

from tasks.broker.embedded import EmbeddedBroker
from tasks.generate import generate_records
from tasks.kafka.clients import make_admin
from tasks.settings.connection import Connection

PARTITIONS = 4
COLUMNS = ("id", "name", "continent")
KAFKA_SORT = str(Path(sys.executable).with_name("kafka-sort"))


def start_prefect(folder: Path) -> psutil.Popen:
    """Start the server to which the command and all workers report."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    os.environ |= {"PREFECT_HOME": str(folder), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    line = [str(Path(sys.executable).with_name("prefect")), "server", "start", "--port", str(port)]
    server = psutil.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        with suppress(OSError), urllib.request.urlopen(f"{os.environ['PREFECT_API_URL']}/health"):
            return server
        time.sleep(0.2)


class Site:
    """Prefect's server, a scheduler and workers, each a process of its own."""

    def __init__(self, folder: Path, workers: int) -> None:
        self._processes = [start_prefect(folder)]
        dask = [sys.executable, "-m"]
        file = folder / "scheduler.json"
        plain = ["--no-dashboard", "--scheduler-file", str(file)]
        scheduler = [*dask, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", *plain]
        self._processes.append(psutil.Popen(scheduler, stderr=subprocess.DEVNULL))
        while not file.exists():
            time.sleep(0.1)
        self.address = json.loads(file.read_text())["address"]
        worker = [*dask, "distributed.cli.dask_worker", self.address, "--nthreads", "1", "--no-nanny"]
        worker += ["--memory-limit", "0", "--no-dashboard", "--local-directory", str(folder)]
        self._processes += [psutil.Popen(worker, stderr=subprocess.DEVNULL) for _ in range(workers)]

    @property
    def cpu_seconds(self) -> float:
        times = [process.cpu_times() for process in self._processes]
        return sum(t.user + t.system for t in times)

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            process.wait()


@contextmanager
def started(workers: int) -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="kafka-sort-bench-") as name:
        site = Site(Path(name), workers)
        try:
            yield site
        finally:
            site.stop()


def children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Scale:
    """The runs, in turn, and their figures."""

    def __init__(self, servers: str, topic: str, site: Site, arguments: argparse.Namespace) -> None:
        self.figures: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._servers = servers
        self._topic = topic
        self._site = site
        self._arguments = arguments
        self._admin = make_admin(Connection(servers))

    def run(self, way: str, flags: list[str], workdir: str) -> None:
        job = f"bench-{uuid4().hex[:8]}"
        outputs = [f"{job}-{column}" for column in COLUMNS]
        line = [KAFKA_SORT, "sort", "--bootstrap-servers", self._servers, "--source-topic", self._topic]
        line += ["--job-name", job, "--workdir", workdir, "--memory-limit", self._arguments.memory_limit, *flags]
        line += ["--output", "json"]
        for column, topic in zip(COLUMNS, outputs, strict=True):
            line += ["--sort", f"{column}={topic}"]
        before, began = children_seconds() + self._site.cpu_seconds, time.perf_counter()
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        wall = time.perf_counter() - began
        cpu = children_seconds() + self._site.cpu_seconds - before
        if done.returncode:
            raise SystemExit(done.stderr)
        self.figures[way].append((wall, cpu))
        load, stages = os.getloadavg()[0], json.loads(done.stdout)["seconds"]
        shown = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in stages.items())
        print(f"{way:24} {wall:7.1f} s  {cpu:7.1f} s CPU  load {load:.1f}  {shown}", flush=True)
        if self._arguments.show:
            print(done.stderr)
        for future in self._admin.delete_topics(outputs).values():
            future.result()

    def report(self) -> None:
        walls, cpus = ({way: median(pair[i] for pair in pairs) for way, pairs in self.figures.items()} for i in (0, 1))
        for way in walls:
            ratios = f"{walls[way] / walls['threads']:.2f} x wall, {cpus[way] / cpus['threads']:.2f} x CPU"
            each = cpus[way] / self._arguments.records * 1e6
            print(f"{way:24} {walls[way]:7.1f} s  {cpus[way]:7.1f} s CPU  {each:5.2f} µs·core a record  {ratios}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--publishers", nargs="*", default=["1", "4"], help="their numbers, each measured in turn")
    parser.add_argument("--memory-limit", default="3GB")
    parser.add_argument("--show", action="store_true", help="print the lines of each run")
    arguments = parser.parse_args()
    with EmbeddedBroker() as broker, started(arguments.workers) as site, tempfile.TemporaryDirectory() as workdir:
        servers = broker.bootstrap_servers
        generate_records(Connection(servers), "bench-source", arguments.records, 1, PARTITIONS)
        scale = Scale(servers, "bench-source", site, arguments)
        dask = ["--runner", "dask", "--scheduler", site.address]
        runners = {"threads": [], "workers": dask}
        for _ in range(arguments.rounds):
            for runner, flags in runners.items():
                for count in arguments.publishers:
                    way = runner if count == "1" else f"{runner}, {count} publishers"
                    scale.run(way, [*flags, "--publishers", count], workdir)
        scale.report()


if __name__ == "__main__":
    main()
