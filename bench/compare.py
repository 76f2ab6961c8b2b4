"""The benchmark: this project, `kcat | sort | kcat`, the floor, and any other program, in turn on one broker.

    python -m bench.compare --records 1000000 10000000 --rounds 3 [--program 'NAME=COMMAND {bootstrap} {topic}']
    python -m bench.compare --shapes --records 5000000        this project alone, on data of other shapes
    python -m bench.compare --format csv json none            this project alone, on the same people in other formats
    python -m bench.compare --systems kafka-sort spark         needs spark-submit (pip install pyspark) on PATH

Rounds alternate between the systems, since one machine's speed drifts. Printed and written as JSON for each system and
size: wall time, CPU of all processes (the broker's too), peak memory of the system's processes together (PSS, without
broker and Prefect server), most bytes on disk, and the ratios to the pipe and to the floor, round by round. The system
"nothing new" is this project on a job that is up to date: what the start of Python, Prefect and the protocol costs.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from bench.shapes import Shape, fill_with_keys, formats, shapes
from bench.watch import Watch, cpu_seconds
from kafka_sort.prefect_server import free_port
from tasks.broker.embedded import EmbeddedBroker
from tasks.generate import generate_records
from tasks.kafka.clients import make_admin
from tasks.kafka.topics import create_topic
from tasks.settings.connection import Connection

KEYS = {"id": "-k1,1n", "name": "-k2,2", "continent": "-k4,4"}
PARTITIONS = 4
NOTHING = "bench-nothing"
# The settings of an expert (acks=all, lz4, large batches); the same producer serves pipe and floor.
PRODUCE = (
    "kcat -b {bootstrap} -P -t {output} -p 0 -X acks=all -X compression.type=lz4 -X linger.ms=50 "
    "-X batch.num.messages=100000 -X queue.buffering.max.messages=1000000 < {file}"
)
CONSUME = "kcat -b {bootstrap} -C -t {topic} -o beginning -e -q > {file}"
SORT = "LC_ALL=C sort --parallel=2 -S 1G -t, -s {key} {file} > {sorted}"
# Spark's defaults for one machine, except for the heap: its default of 1 GB is too little for ten million records.
SPARK = (
    "spark-submit --master 'local[2]' --driver-memory 4g --conf spark.ui.enabled=false --conf spark.log.level=ERROR "
    "--packages org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0 {script} {bootstrap} {topic} {prefix}"
)


@dataclass(frozen=True)
class Measurement:
    system: str
    records: int
    round: int
    wall_seconds: float
    cpu_seconds: float
    broker_cpu_seconds: float
    peak_pss_bytes: int
    disk_bytes: int
    stages: dict[str, float]


class Bench:
    def __init__(
        self, broker: EmbeddedBroker, folder: Path, programs: dict[str, str], memory_limits: Sequence[str]
    ) -> None:
        self._broker = broker
        self._folder = folder
        self._programs = programs
        self._memory_limits = memory_limits
        self._connection = Connection(broker.bootstrap_servers)
        self._admin = make_admin(self._connection)

    def fill(self, topic: str, records: int, shape: Shape) -> int:
        """Make the source; return the number of its records."""
        count = int(records * shape.share)
        if shape.keys is None:
            return generate_records(self._connection, topic, count, 1, shape.partitions, make=shape.make)
        return fill_with_keys(self._connection, topic, count, shape)

    def drop(self, topic: str) -> None:
        self._admin.delete_topics([topic])[topic].result()

    def systems(self) -> dict[str, Callable[[str, Path], str]]:
        """Return name → function that makes the shell script for a source topic and a work folder."""
        first, *others = self._memory_limits
        ours = {"kafka-sort": self._sorter(first), **{f"ours {size}": self._sorter(size) for size in others}}
        peers = {name: self._program(text) for name, text in self._programs.items()}
        known = {"nothing new": self._nothing_new, "pipe": self._pipe, "floor": self._floor, "spark": self._spark}
        return {**ours, **known, **peers}

    def measure(self, system: str, records: int, number: int, topic: str) -> Measurement:
        return self.measure_script(system, records, number, lambda folder: self.systems()[system](topic, folder))

    def measure_format(self, name: str, shape: Shape, records: int, number: int, topic: str) -> Measurement:
        sorter = self._sorter(self._memory_limits[0], shape.flags, shape.sorts)
        return self.measure_script(name, records, number, lambda folder: sorter(topic, folder))

    def measure_script(self, system: str, records: int, number: int, make: Callable[[Path], str]) -> Measurement:
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        script = make(folder)
        broker = psutil.Process(self._broker.pid)
        before, children = cpu_seconds(broker), os.times()
        started = time.perf_counter()
        process = subprocess.Popen(["bash", "-o", "pipefail", "-ec", script], stdout=subprocess.DEVNULL, cwd=folder)
        watch = Watch(psutil.Process(process.pid), folder)
        status = process.wait()
        wall = time.perf_counter() - started
        watch.end()
        after = os.times()
        cpu = after.children_user + after.children_system - children.children_user - children.children_system
        stages = self._stages(folder)
        if status:
            log = folder / "log"
            sys.exit(f"{system} failed with status {status}: {script}\n{log.read_text() if log.exists() else ''}")
        shutil.rmtree(folder)
        self._delete_outputs()
        spent = cpu_seconds(broker) - before
        return Measurement(system, records, number, wall, cpu, spent, watch.peak_pss, watch.peak_disk, stages)

    def _sorter(
        self, memory_limit: str, flags: str = "", by: Sequence[str] = tuple(KEYS)
    ) -> Callable[[str, Path], str]:
        def script(topic: str, folder: Path) -> str:
            job = f"bench-job-{uuid4().hex[:8]}"
            sorts = " ".join(f"--sort {key}={job}-{i}" for i, key in enumerate(by))
            command = Path(sys.executable).with_name("kafka-sort")
            return (
                f"{command} sort --bootstrap-servers {self._broker.bootstrap_servers} --source-topic {topic} "
                f"--job-name {job} {sorts} --dead-letter-topic {job}-dead --workdir {folder} "
                f"--memory-limit {memory_limit} {flags} 2> log"
            )

        return script

    def _nothing_new(self, _: str, folder: Path) -> str:
        create_topic(self._admin, NOTHING, PARTITIONS)
        return self._sorter(self._memory_limits[0])(NOTHING, folder)

    def _pipe(self, topic: str, _: Path) -> str:
        lines = []
        for name, key in KEYS.items():
            lines += [self._consume(topic), SORT.format(key=key, file="raw", sorted="sorted")]
            lines.append(self._produce(name, "sorted"))
        return "\n".join(lines)

    def _floor(self, topic: str, _: Path) -> str:
        return "\n".join([self._consume(topic), *(self._produce(name, "raw") for name in KEYS)])

    def _spark(self, topic: str, _: Path) -> str:
        prefix = f"bench-out-{uuid4().hex[:8]}"
        for name in KEYS:
            create_topic(self._admin, f"{prefix}-{name}", PARTITIONS)
        script = Path(__file__).with_name("spark.py")
        return SPARK.format(script=script, bootstrap=self._broker.bootstrap_servers, topic=topic, prefix=prefix)

    def _program(self, text: str) -> Callable[[str, Path], str]:
        return lambda topic, folder: text.format(bootstrap=self._broker.bootstrap_servers, topic=topic, folder=folder)

    def _consume(self, topic: str) -> str:
        return CONSUME.format(bootstrap=self._broker.bootstrap_servers, topic=topic, file="raw")

    def _produce(self, name: str, file: str) -> str:
        output = f"bench-out-{uuid4().hex[:8]}-{name}"
        create_topic(self._admin, output, 1)
        return PRODUCE.format(bootstrap=self._broker.bootstrap_servers, output=output, file=file)

    def _stages(self, folder: Path) -> dict[str, float]:
        """Return what kafka-sort reports of its stages, in the last line of its log."""
        log = folder / "log"
        lines = [line for line in (log.read_text() if log.exists() else "").splitlines() if "committed" in line]
        words = [word.partition("=") for line in lines for word in line.split()]
        return {name: float(value) for name, _, value in words if name in {"dump", "sort", "publish"}}

    def _delete_outputs(self) -> None:
        names = [
            name for name in self._admin.list_topics(timeout=30).topics if name.startswith(("bench-out", "bench-job"))
        ]
        if names:
            for future in self._admin.delete_topics(names).values():
                future.result()


@contextmanager
def prefect_server(folder: Path) -> Iterator[None]:
    """A Prefect server, as a production set-up has one running."""
    port = free_port()
    environment = {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    os.environ.update(environment)
    command = [str(Path(sys.executable).with_name("prefect")), "server", "start", "--port", str(port)]
    with (folder / "prefect.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_until_healthy(f"{environment['PREFECT_API_URL']}/health", server)
        yield
    finally:
        server.terminate()
        server.wait(30)


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    sys.exit("the Prefect server did not start")


def ratios(measurements: list[Measurement], system: str, against: str, records: int) -> list[float]:
    """Divide the wall time of one system by the other's, round by round."""
    walls = {(m.system, m.round): m.wall_seconds for m in measurements if m.records == records}
    rounds = sorted({number for _, number in walls})
    return [walls[system, n] / walls[against, n] for n in rounds if (system, n) in walls and (against, n) in walls]


def print_table(measurements: list[Measurement]) -> None:
    heads = ("wall s", "CPU s", "broker", "PSS MB", "disk MB")
    print(f"{'records':>12} {'system':12} " + " ".join(f"{h:>8}" for h in heads) + "  /pipe /floor")
    for records in sorted({m.records for m in measurements}):
        for system in dict.fromkeys(m.system for m in measurements):
            mine = [m for m in measurements if (m.system, m.records) == (system, records)]
            if not mine:
                continue
            cells: list[Any] = [_median(m.wall_seconds for m in mine), _median(m.cpu_seconds for m in mine)]
            cells += [_median(m.broker_cpu_seconds for m in mine)]
            cells += [max(m.peak_pss_bytes for m in mine) / 1e6, max(m.disk_bytes for m in mine) / 1e6]
            by = [_median(ratios(measurements, system, against, records)) for against in ("pipe", "floor")]
            print(
                f"{records:12,} {system:12} "
                + " ".join(f"{c:8.1f}" for c in cells)
                + " "
                + " ".join(f"{r:6.2f}" for r in by)
            )


def _median(numbers: Any) -> float:
    values = list(numbers)
    return statistics.median(values) if values else float("nan")


def compare(bench: Bench, sizes: Sequence[int], rounds: int, systems: Sequence[str]) -> list[Measurement]:
    """Run all systems in turn, round by round, size by size."""
    measurements: list[Measurement] = []
    for records in sizes:
        topic = f"bench-{records}"
        bench.fill(topic, records, shapes(records)["plain"])
        for number in range(rounds):
            for system in systems:
                measurements.append(bench.measure(system, records, number, topic))
                print(f"  {system} {records:,} round {number}: {measurements[-1].wall_seconds:.1f} s", flush=True)
        bench.drop(topic)
    print_table(measurements)
    return measurements


def compare_shapes(bench: Bench, records: int, rounds: int) -> list[Measurement]:
    """Run this project on each shape; the shape stands in the system's place."""
    measurements: list[Measurement] = []
    sizes: dict[str, int] = {}
    made = shapes(records)
    for name, shape in made.items():
        sizes[name] = bench.fill(_topic(name), records, shape)
    for number in range(rounds):
        for name in made:
            measured = bench.measure("kafka-sort", sizes[name], number, _topic(name))
            measurements.append(replace(measured, system=name))
            print(f"  {name} {sizes[name]:,} round {number}: {measured.wall_seconds:.1f} s", flush=True)
    plain = _median(m.wall_seconds for m in measurements if m.system == "plain") / sizes["plain"]
    for name, count in sizes.items():
        mine = [m for m in measurements if m.system == name]
        wall = _median(m.wall_seconds for m in mine)
        print(
            f"{name:16} {count:12,} records {wall:7.1f} s  {wall / count / plain:5.2f} of plain a record  "
            f"PSS {max(m.peak_pss_bytes for m in mine) / 1e6:.0f} MB"
        )
    return measurements


def compare_formats(bench: Bench, records: int, rounds: int, names: Sequence[str]) -> list[Measurement]:
    """Run this project on the same people in each format, in turn; CSV is always among them."""
    wanted = {"csv", *names, *(["csv by name"] if "none" in names else [])}
    made = {name: shape for name, shape in formats().items() if name in wanted}
    measurements: list[Measurement] = []
    for name, shape in made.items():
        bench.fill(_topic(name), records, shape)
    for number in range(rounds):
        for name, shape in made.items():
            measurements.append(bench.measure_format(name, shape, records, number, _topic(name)))
            stages = " ".join(f"{stage} {seconds:.1f}" for stage, seconds in measurements[-1].stages.items())
            print(f"  {name} {records:,} round {number}: {measurements[-1].wall_seconds:.1f} s ({stages})", flush=True)
    for name in made:
        against = "csv by name" if name == "none" else "csv"
        shares = ratios(measurements, against, name, records)
        wall = _median(m.wall_seconds for m in measurements if m.system == name)
        print(f"{name:16} {wall:7.1f} s  {records / wall:12,.0f} records/s  {_median(shares):5.2f} of {against}'s")
    return measurements


def _topic(shape: str) -> str:
    return f"bench-{shape.replace(' ', '-').lower()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-limit", nargs="+", default=["2GB"], help="limits of kafka-sort, each in turn")
    parser.add_argument("--systems", nargs="+", default=["kafka-sort", "nothing new", "pipe", "floor"])
    parser.add_argument("--program", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--shapes", action="store_true", help="sort data of other shapes in place of other systems")
    parser.add_argument(
        "--format", nargs="+", choices=list(formats()), help="formats to sort in place of other systems"
    )
    parser.add_argument("--out", type=Path, help="result; default: bench/out/compare.json, or shapes.json")
    arguments = parser.parse_args()
    programs = dict(text.split("=", 1) for text in arguments.program)
    for name in ("kcat", "sort"):
        if shutil.which(name) is None and not (arguments.shapes or arguments.format):
            sys.exit(f"{name} is not installed: apt-get install kcat coreutils")
    with tempfile.TemporaryDirectory(prefix="kafka-sort-bench-") as temporary:
        folder = Path(temporary)
        with EmbeddedBroker(data=folder / "broker") as broker, prefect_server(folder):
            bench = Bench(broker, folder, programs, arguments.memory_limit)
            if arguments.shapes:
                measurements = compare_shapes(bench, arguments.records[0], arguments.rounds)
            elif arguments.format:
                measurements = compare_formats(bench, arguments.records[0], arguments.rounds, arguments.format)
            else:
                systems = [*arguments.systems, *programs]
                measurements = compare(bench, arguments.records, arguments.rounds, systems)
    name = "shapes" if arguments.shapes else "formats" if arguments.format else "compare"
    out = arguments.out or Path("bench/out") / f"{name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps([asdict(m) for m in measurements], indent=1))


if __name__ == "__main__":
    main()
