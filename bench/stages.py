"""Stage by stage, without Prefect: records/s and µs·core a record, beside kcat doing the same.

    python -m bench.stages [--records 5000000] [--rounds 3]      on an embedded broker of its own
    python -m bench.stages --bootstrap-servers HOST:PORT --topic TOPIC [--profile]

"publish, plain" is the benchmark's switch: the same records by the same code, without transaction and ledger.
"""

import argparse
import cProfile
import json
import os
import pstats
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from bench.compare import CONSUME, PARTITIONS, PRODUCE
from tasks.broker.embedded import EmbeddedBroker
from tasks.dump import DUMP
from tasks.generate import generate_records
from tasks.kafka.clients import BATCH_BYTES, make_admin, make_producer
from tasks.kafka.sender import Sender
from tasks.kafka.topics import create_topic
from tasks.manifests import SortedRows
from tasks.outputs import prepare_outputs
from tasks.ownership import Owner, own_job
from tasks.preflight import check_before_lease
from tasks.publication import Publication
from tasks.publishers.rows import write_rows
from tasks.run import Run
from tasks.run_context import run_context
from tasks.runners import ThreadRunner
from tasks.settings.connection import Connection, use_connection
from tasks.settings.job import Job
from tasks.sort import SORT
from tasks.sorting.rows import RowGatherer
from tasks.stage import Q, R, Stage
from tasks.targets.base import Columns


class MeasuredRunner(ThreadRunner):
    """Runs dump and sort as a stream does, and measures each sort by itself."""

    def __init__(self, stages: "Stages", job: Job) -> None:
        self._stages = stages
        self._at_once = job.sort_concurrency > 1
        # One sort at a time runs in this thread, which is the one that a profile sees.
        numbers = {DUMP.name: job.dump_concurrency, SORT.name: job.sort_concurrency}
        super().__init__({name: ThreadPoolExecutor(n) for name, n in numbers.items() if n > 1})

    def run(self, stage: Stage[Q, R], requests: Sequence[Q]) -> list[R]:
        if stage.name == DUMP.name:
            with self._stages.measured("dump", sum(request.range.span for request in requests)):
                return super().run(stage, requests)
        records = sum(chunk.records for chunk in requests[0].chunks)
        if self._at_once:
            with self._stages.measured("sorts", records * len(requests)):
                return super().run(stage, requests)
        sorts = []
        for request in requests:
            with self._stages.measured(f"sort {request.sort.columns}", records):
                sorts += super().run(stage, [request])
        return sorts


class Stages:
    """Run one round: each stage in turn; keep the figures by name."""

    def __init__(self, connection: Connection, topic: str, arguments: argparse.Namespace) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._connection = connection
        self._admin = make_admin(connection)
        self._topic = topic
        self._arguments = arguments

    @contextmanager
    def measured(self, stage: str, records: int) -> Iterator[None]:
        """Print wall time, rate and the CPU a record of this process and its children."""
        wall, before = time.perf_counter(), _cpu_seconds()
        yield
        seconds, cpu = time.perf_counter() - wall, _cpu_seconds() - before
        self.seconds[stage].append(seconds)
        rate = f"{records / seconds:12,.0f} records/s  {cpu / records * 1e6:6.2f} µs·core" if records else ""
        print(f"{stage:18} {seconds:7.2f} s  {rate}", flush=True)

    def job(self, folder: Path) -> Job:
        suffix = uuid4().hex[:6]
        return Job(
            source_topic=self._topic,
            job_name=f"bench-{suffix}",
            sorts=[f"{c}=bench-{suffix}-{c}" for c in ("id", "name", "continent")],
            workdir=folder,
            memory_limit=self._arguments.memory_limit,
            dump_concurrency=1 if self._arguments.profile else self._arguments.dump_concurrency,
            sort_concurrency=self._arguments.sort_concurrency,
            partition_by=self._arguments.partition_by,
            output_key=self._arguments.output_key,
        )

    def run(self, folder: Path) -> None:
        job = self.job(folder)
        with self.measured("start", 0):
            check_before_lease(job, self._connection, self._admin)
        with own_job(job, self._connection) as owner:
            with self.measured("fence and ledger", 0):
                owner.fence()
            run = Run(owner, MeasuredRunner(self, job), lambda _: prepare_outputs(owner), uuid4().hex)
            publication = run.prepare(run.take_snapshot(), folder)
            with self.measured("publish", sum(done.rows for done in publication.sorts)):
                run.publish(publication)
            sorts = publication.sorts
            self._publish_plain(owner, publication)
        if shutil.which("kcat"):
            self._kcat(folder, sorts)

    def _publish_plain(self, owner: Owner, publication: Publication) -> None:
        sorts = publication.sorts
        for done in sorts:
            create_topic(self._admin, f"{done.sort}-plain", PARTITIONS)
        sender, gatherer = make_plain_sender(self._connection, owner.budget.producer_queue_bytes), RowGatherer()
        with self.measured("publish, plain", sum(done.rows for done in sorts)):
            for done in sorts:
                write = partial(send_columns, sender, f"{done.sort}-plain")
                write_rows(write, done, gatherer, lambda _: None)
            sender.flush()
        sender.close()

    def _kcat(self, folder: Path, sorts: tuple[SortedRows, ...]) -> None:
        servers, raw = self._connection.bootstrap_servers, folder / "raw"
        with self.measured("kcat read", sorts[0].rows):
            _shell(CONSUME.format(bootstrap=servers, topic=self._topic, file=raw))
        scripts = []
        for done in sorts:
            output, lines = f"{done.sort}-kcat", folder / f"{done.sort}.csv"
            create_topic(self._admin, output, 1)
            _write_lines(done, lines)
            scripts.append(PRODUCE.format(bootstrap=servers, output=output, file=lines))
        with self.measured("kcat publish", sum(done.rows for done in sorts)):
            for script in scripts:
                _shell(script)

    def summary(self) -> dict[str, float]:
        """Print medians, and the ratios that are asked for."""
        middle = {name: statistics.median(values) for name, values in self.seconds.items()}
        pairs = {"dump": "kcat read", "publish": "kcat publish"}
        ratios = {f"{a} / {b}": middle[a] / middle[b] for a, b in pairs.items() if a in middle and b in middle}
        if "publish, plain" in middle:
            sorts = sum(seconds for name, seconds in middle.items() if name.startswith("sort"))
            without = middle["dump"] + sorts + middle["publish, plain"]
            extra = middle["fence and ledger"] + middle["publish"] - middle["publish, plain"]
            ratios["with exactly once / without"] = (without + extra) / without
            ratios["in the transaction / all stages"] = middle["publish"] / (without + extra)
        return middle | ratios


def make_plain_sender(connection: Connection, queue_bytes: int) -> Sender:
    """Sends like the transactional producer, with the same queues, but outside of any transaction."""
    queue = {"queue.buffering.max.kbytes": queue_bytes // 1024, "queue.buffering.max.messages": queue_bytes // 128}
    over: dict[str, Any] = {"delivery.report.only.error": True, "batch.size": BATCH_BYTES, **queue}
    return Sender(make_producer(connection, **over), "plain records", 60.0)


def send_columns(sender: Sender, topic: str, partition: int, columns: Columns) -> None:
    sender.send(topic, partition, columns["value"], columns.get("key"), columns.get("headers"))


def _cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _shell(script: str) -> None:
    subprocess.run(["bash", "-ec", script], check=True)


def _write_lines(rows: SortedRows, path: Path) -> None:
    with path.open("wb") as lines:
        for batch in RowGatherer().batches(rows):
            lines.write(b"\n".join(batch.column("value").to_pylist()) + b"\n")


def _profiled(work: Callable[[], None], *, wanted: bool) -> None:
    if not wanted:
        return work()
    profile = cProfile.Profile()
    profile.runcall(work)
    pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(30)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap-servers")
    parser.add_argument("--topic")
    parser.add_argument("--records", type=int, default=5_000_000, help="records of a new topic")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-limit", default="2GB")
    parser.add_argument("--dump-concurrency", type=int, default=2)
    parser.add_argument("--sort-concurrency", type=int, default=1)
    parser.add_argument("--partition-by", choices=["range", "hash", "source"], default="range")
    parser.add_argument("--output-key", choices=["keep", "sort", "none"], default="keep")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("bench/out/stages.json"))
    arguments = parser.parse_args()
    with nullcontext() if arguments.bootstrap_servers else EmbeddedBroker() as broker:
        connection = Connection(broker.bootstrap_servers if broker else arguments.bootstrap_servers)
        topic = arguments.topic or "bench-source"
        if not arguments.topic:
            generate_records(connection, topic, arguments.records, 1, PARTITIONS)
        stages = Stages(connection, topic, arguments)
        for number in range(arguments.rounds):
            print(f"round {number}, {os.cpu_count()} cores")
            folder = tempfile.TemporaryDirectory(prefix="kafka-sort-bench-")
            with folder as name, use_connection(connection), run_context():
                _profiled(partial(stages.run, Path(name)), wanted=arguments.profile)
        print("medians")
        for name, value in stages.summary().items():
            print(f"{name:32} {value:7.2f}")
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(stages.summary(), indent=1))


if __name__ == "__main__":
    main()
