"""Measures a run and its verification in turn, without Prefect: seconds, and CPU seconds of the process.

python -m bench.verify [--records 5000000] [--rounds 3]      on an embedded broker of its own
"""

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

from bench.compare import PARTITIONS
from tasks.broker.embedded import EmbeddedBroker
from tasks.dump import DUMP
from tasks.generate import generate_records
from tasks.outputs import prepare_outputs
from tasks.ownership import own_job
from tasks.run import Run
from tasks.run_context import run_context
from tasks.runners import ThreadRunner
from tasks.settings.connection import Connection, use_connection
from tasks.settings.job import Job
from tasks.verify import verify_job

SOURCE = "bench-source"
# Seconds, and CPU seconds.
Cost = tuple[float, float]


def main() -> None:
    """Measure rounds, each with a job of its own over the same source; print them, and the medians of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with EmbeddedBroker() as broker, tempfile.TemporaryDirectory(prefix="kafka-sort-bench-") as folder:
        connection = Connection(broker.bootstrap_servers)
        generate_records(connection, SOURCE, options.records, 1, PARTITIONS)
        rounds = [measure_round(connection, Path(folder)) for _ in range(options.rounds)]
    for index, name in enumerate(("time", "CPU time")):
        middle = statistics.median(verified[index] / ran[index] for ran, verified in rounds)
        print(f"{name} of verification / of the run: {middle:.2f}")


def measure_round(connection: Connection, folder: Path) -> tuple[Cost, Cost]:
    """Sort by three keys into topics of a new job, then verify the run."""
    name = f"bench-{uuid4().hex[:6]}"
    sorts = [f"{column}={name}-{column}" for column in ("id", "name", "continent")]
    job = Job(source_topic=SOURCE, job_name=name, sorts=sorts, workdir=folder)
    with use_connection(connection), run_context():
        ran = measure("run", lambda: run_job(job, connection, folder / name))
        return ran, measure("verification", lambda: verify(job, connection))


def run_job(job: Job, connection: Connection, folder: Path) -> None:
    """Take one snapshot to its commit, as a stream takes a batch."""
    folder.mkdir()
    with own_job(job, connection) as owner, ThreadPoolExecutor(job.dump_concurrency) as pool:
        owner.fence()
        run = Run(owner, ThreadRunner({DUMP.name: pool}), lambda _: prepare_outputs(owner), uuid4().hex)
        run.publish(run.prepare(run.take_snapshot(), folder))


def verify(job: Job, connection: Connection) -> None:
    """Verify the run, which has no difference."""
    verification = verify_job(job, connection)
    if verification.lines():
        raise SystemExit(verification.headline())


def measure(what: str, work: Callable[[], None]) -> Cost:
    """Print and return what the work takes."""
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    work()
    seconds, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{what:14} {seconds:7.1f} s  {cpu:7.1f} s CPU  {after.ru_maxrss >> 10:6} MB at most", flush=True)
    return seconds, cpu


if __name__ == "__main__":
    main()
