"""Stage by stage, without Prefect: records/s and µs·core a record of dump, sort and publish.

python bench/stages.py --bootstrap-servers HOST:PORT --topic TOPIC [--stage dump|sort|publish] [--profile]
"""

import argparse
import cProfile
import os
import pstats
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from tasks.dump import DumpRequest, dump_range
from tasks.kafka.clients import make_admin
from tasks.observe.context import run_context
from tasks.ownership import own_job
from tasks.preflight import check_before_lease, prepare_outputs
from tasks.publish import Publication, note_outputs, publish_run
from tasks.settings.connection import Connection, use_connection
from tasks.settings.job import Job
from tasks.snapshot import take_snapshot
from tasks.sort import SortRequest, sort_chunks


@contextmanager
def measured(stage: str, records: int) -> Iterator[None]:
    """Print wall time, rate and this process's CPU a record."""
    wall, usage = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    yield
    seconds, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
    print(
        f"{stage:12} {seconds:7.2f} s  {records / seconds:12,.0f} records/s  {cpu / records * 1e6:6.2f} µs·core/rec"
        f"  peak RSS {after.ru_maxrss / 1e3:.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap-servers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--memory-limit", default="2GB")
    parser.add_argument("--dump-concurrency", type=int, default=2)
    parser.add_argument("--sort-concurrency", type=int, default=1)
    parser.add_argument("--until", default="publish", choices=["dump", "sort", "publish"])
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kafka-sort-bench-"))
    suffix = uuid4().hex[:6]
    job = Job(
        source_topic=arguments.topic,
        job_name=f"bench-{suffix}",
        sorts=[f"{c}=bench-{suffix}-{c}" for c in ("id", "name", "continent")],
        workdir=folder,
        memory_limit=arguments.memory_limit,
        dump_concurrency=arguments.dump_concurrency,
        sort_concurrency=arguments.sort_concurrency,
    )
    try:
        with use_connection(Connection(arguments.bootstrap_servers)), run_context():
            work = partial(run, job, Connection(arguments.bootstrap_servers), folder, arguments.until)
            profiled(work, wanted=arguments.profile)
    finally:
        shutil.rmtree(folder)


def profiled(work: Callable[[], None], *, wanted: bool) -> None:
    if not wanted:
        return work()
    profile = cProfile.Profile()
    profile.runcall(work)
    pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(30)
    return None


def each(work: Callable[[Any], Any], items: list[Any], at_once: int) -> list[Any]:
    with ThreadPoolExecutor(at_once) as pool:
        return [f.result() for f in [pool.submit(copy_context().run, work, item) for item in items]]


def run(job: Job, connection: Connection, folder: Path, until: str) -> None:
    began = time.perf_counter()
    check_before_lease(job, connection, make_admin(connection))
    with own_job(job, connection) as owner:
        prepare_outputs(owner)
        outputs = note_outputs(owner)
        snapshot = take_snapshot(owner)
        print(f"{'start':12} {time.perf_counter() - began:7.2f} s  {snapshot.span:,} offsets, {os.cpu_count()} cores")
        requests = [DumpRequest(job, 1, snapshot.source_topic_id, r, folder) for r in snapshot.ranges if r.span]
        with measured("dump", snapshot.span):
            chunks = tuple(c for part in each(dump_range, requests, job.dump_concurrency) for c in part)
        records = sum(c.records for c in chunks)
        print(f"{'':12} chunks {sum(c.path.stat().st_size for c in chunks if c.path) / 1e6:,.0f} MB")
        if until == "dump":
            return
        files = []
        orders = [SortRequest(job, s, chunks, len(outputs[s.topic].partitions), folder) for s in job.sort_list]
        if job.sort_concurrency > 1:
            with measured("sorts", records * len(orders)):
                files = each(sort_chunks, orders, job.sort_concurrency)
        else:
            for order in orders:
                with measured(f"sort {order.sort.columns}"[:12], records):
                    files.append(sort_chunks(order))
        print(f"{'':12} sorted files {sum(f.path.stat().st_size for f in files) / 1e6:,.0f} MB")
        if until == "sort":
            return
        with measured("publish", records * len(files)):
            publish_run(owner, Publication(uuid4().hex, snapshot, chunks, tuple(files), outputs, datetime.now(UTC)))


if __name__ == "__main__":
    main()
