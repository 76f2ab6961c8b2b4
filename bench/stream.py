"""The stream's figures: `kafka-sort stream` with three sorts as a process of its own, broker and generator beside it.

    python -m bench.stream backlog --records 20000000     throughput over what waits when the stream starts
    python -m bench.stream live --rate 100000             lag and memory while a generator runs on the same cores
    python -m bench.stream latency --rate 50000           from produce to readable by a `read_committed` reader
    python -m bench.stream restart                        from SIGKILL to the first new run
    python -m bench.stream soak --seconds 600 --kills 20  memory over time; nothing lost or doubled over kills
    python -m bench.stream rotation --rate 5000           the longest wait of a reader while the flow run is rotated
    python -m bench.stream idle                           CPU of the whole process while nothing comes

Every mode ends with `kafka-sort verify` over the runs that the ledger keeps, unless `--no-verify`.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import groupby, pairwise
from pathlib import Path
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import psutil

from bench.compare import KEYS, PARTITIONS, prefect_server
from bench.load import Feed, Tail
from bench.watch import cpu_seconds, pss_bytes
from tasks.broker.embedded import EmbeddedBroker
from tasks.generate import generate_records
from tasks.kafka.clients import make_admin
from tasks.kafka.ledger import Ledger, read_ledger
from tasks.kafka.topics import EARLIEST, LATEST, create_topic, describe_topic, list_offsets
from tasks.run_record import RunRecord
from tasks.settings.connection import Connection
from tasks.stream import SEGMENT_BATCHES

TOPIC = "bench-stream"


class Bench:
    def __init__(self, broker: EmbeddedBroker, folder: Path, flags: list[str]) -> None:
        self.connection = Connection(broker.bootstrap_servers)
        self.admin = make_admin(self.connection)
        self.job = f"bench-{uuid4().hex[:8]}"
        self.memory: list[tuple[float, int]] = []
        self._broker = broker
        self._folder = folder
        self._flags = flags
        create_topic(self.admin, TOPIC, PARTITIONS)

    def command(self, name: str, *flags: str) -> list[str]:
        sorts = [word for key in KEYS for word in ("--sort", f"{key}={self.job}-{key}")]
        base = [
            str(Path(sys.executable).with_name("kafka-sort")),
            name,
            "--source-topic",
            TOPIC,
            "--job-name",
            self.job,
        ]
        where = ["--bootstrap-servers", self._broker.bootstrap_servers, "--workdir", str(self._folder / "work")]
        return [*base, *where, *sorts, *flags]

    def start(self) -> subprocess.Popen[bytes]:
        log = (self._folder / "log").open("ab")
        return subprocess.Popen(self.command("stream", *self._flags), stdout=log, stderr=log)

    @contextmanager
    def streaming(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run the stream as a process during the block; end it as a service manager does; measure CPU and memory."""
        process = self.start()
        watched = psutil.Process(process.pid)
        try:
            yield process
            cpu = cpu_seconds(watched), cpu_seconds(psutil.Process(self._broker.pid))
        finally:
            process.terminate()
            status = process.wait(60)
        print(f"stream: exit {status}, {cpu[0]:.1f} s of CPU; broker {cpu[1]:.1f} s in all")
        if status:
            sys.exit((self._folder / "log").read_text())

    def ledger(self) -> Ledger:
        name = f"kafka-sort.{self.job}.ledger"
        if describe_topic(self.admin, name) is None:
            return Ledger(None, {})
        return read_ledger(self.connection, self.admin, name, self.job, 30, fenced=False)

    def lag(self) -> int:
        last = self.ledger().last
        ends = list_offsets(self.admin, TOPIC, range(PARTITIONS), LATEST)
        starts = last.ends if last else list_offsets(self.admin, TOPIC, range(PARTITIONS), EARLIEST)
        return sum(ends.values()) - sum(starts.values())

    def wait_for_run(self, number: int, seconds: float = 120) -> float:
        """Return the time at which the run was seen in the ledger."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            last = self.ledger().last
            if last is not None and last.run >= number:
                return time.monotonic()
            time.sleep(0.05)
        sys.exit(f"run {number} did not come:\n{(self._folder / 'log').read_text()}")

    def drain(self, process: subprocess.Popen[bytes]) -> None:
        while self.lag():
            if process.poll() is not None:
                sys.exit(f"the stream ended before it had read all:\n{(self._folder / 'log').read_text()}")
            time.sleep(0.2)

    def verify(self) -> None:
        done = subprocess.run(self.command("verify"), capture_output=True, text=True, check=False)
        print(f"verify: exit {done.returncode}, {done.stdout.splitlines()[0] if done.stdout else done.stderr}")

    def watch(self, process: subprocess.Popen[bytes], seconds: float) -> list[int]:
        """Measure lag and memory, about once a second."""
        return [self.lag() for _ in self._memory_samples(process, seconds, 1.0)]

    def watch_memory(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        """Measure often, since memory moves by 50 MB within each batch."""
        for _ in self._memory_samples(process, seconds, 0.4):
            pass

    def _memory_samples(self, process: subprocess.Popen[bytes], seconds: float, every: float) -> Iterator[None]:
        end = time.monotonic() + seconds
        while time.monotonic() < end and process.poll() is None:
            self.memory.append((time.monotonic(), pss_bytes(process.pid)))
            yield
            time.sleep(every)

    def print_memory(self, warm_up: float = 60.0) -> None:
        started = self.memory[0][0]
        points = [(t - started, pss) for t, pss in self.memory if t - started >= warm_up] or self.memory
        times, sizes = zip(*points, strict=True)
        slope = np.polyfit(times, sizes, 1)[0] * 60 / 1e6 if len(points) > 1 else float("nan")
        print(
            f"memory: {max(pss for _, pss in self.memory) / 1e6:.0f} MB at most, {slope:+.2f} MB a minute after warm-up"
        )
        minutes = groupby(self.memory, lambda point: int((point[0] - started) / 60))
        means = (np.mean([pss for _, pss in points]) / 1e6 for _, points in minutes)
        print("memory, mean of each minute, MB: " + ", ".join(f"{mean:.0f}" for mean in means))


def run_backlog(bench: Bench, arguments: argparse.Namespace) -> None:
    generate_records(bench.connection, TOPIC, arguments.records, 1, PARTITIONS)
    with bench.streaming() as process:
        while bench.lag() and process.poll() is None:
            bench.watch(process, 1.0)
    runs = [run for _, run in sorted(bench.ledger().runs.items())]
    first, last = (datetime.fromisoformat(text) for text in (runs[0].started, runs[-1].published))
    seconds = (last - first).total_seconds()
    print(f"backlog: {arguments.records:,} records in {seconds:.1f} s, {arguments.records / seconds:,.0f}/s")
    print("batches: " + ", ".join(f"{run.records:,}" for run in runs))
    print(f"pauses between batches: {sum(_pause(a, b) for a, b in pairwise(runs)):.2f} s in all")
    stages = {name: sum(run.seconds[name] for run in runs) for name in runs[0].seconds}
    print("stages: " + ", ".join(f"{name} {value:.1f} s" for name, value in stages.items()))
    bench.print_memory(10.0)


def run_live(bench: Bench, arguments: argparse.Namespace) -> None:
    with bench.streaming() as process:
        with Feed(bench.connection, TOPIC, PARTITIONS, arguments.rate) as feed:
            bench.wait_for_run(1)
            lags = bench.watch(process, arguments.seconds)
            print(f"live: {feed.sent / (time.monotonic() - feed.started):,.0f} records/s were produced")
        bench.drain(process)
    thirds = np.array_split(np.array(lags), 3)
    print("lag, mean and largest, of each third: " + ", ".join(f"{t.mean():,.0f} ({t.max():,})" for t in thirds))
    print_batches(bench)
    bench.print_memory()


def run_latency(bench: Bench, arguments: argparse.Namespace) -> None:
    with bench.streaming() as process, Feed(bench.connection, TOPIC, PARTITIONS, arguments.rate):
        # Records that were sent while Python and Prefect started are backlog.
        bench.wait_for_run(3)
        while bench.lag() > arguments.rate:
            time.sleep(0.5)
        bench.watch(process, 5.0)
        with Tail(bench.connection, f"{bench.job}-name", PARTITIONS) as tail:
            # Looking at the ledger costs a processor what the stream needs.
            process.poll()
            time.sleep(arguments.seconds)
    print(f"latency, {arguments.rate:,} records/s, {len(tail.seconds):,} samples: {_quantiles(tail.seconds)}")
    for part in np.array_split(np.array(tail.seconds), 4):
        print(f"  of a quarter: {_quantiles(part)}")
    print_batches(bench)
    bench.print_memory(0.0)


def _quantiles(seconds: Sequence[float] | npt.NDArray[np.float64]) -> str:
    values = np.quantile(seconds, (0.5, 0.9, 0.99, 1.0))
    return ", ".join(f"{n} {value:.2f} s" for n, value in zip(("p50", "p90", "p99", "max"), values, strict=True))


def run_restart(bench: Bench, arguments: argparse.Namespace) -> None:
    process = bench.start()
    with Feed(bench.connection, TOPIC, PARTITIONS, arguments.rate):
        bench.wait_for_run(3)
        for _ in range(arguments.kills or 3):
            time.sleep(2.0)
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed, last = time.monotonic(), bench.ledger().last
            process = bench.start()
            seen = bench.wait_for_run((last.run if last else 0) + 1)
            print(f"restart: first new run {seen - killed:.1f} s after SIGKILL, the new process started at once")
    bench.drain(process)
    process.terminate()
    print(f"stream: exit {process.wait(60)}")


def run_soak(bench: Bench, arguments: argparse.Namespace) -> None:
    process = bench.start()
    every = arguments.seconds / (arguments.kills + 1)
    with Feed(bench.connection, TOPIC, PARTITIONS, arguments.rate) as feed:
        bench.wait_for_run(1)
        for kill in range(arguments.kills + 1):
            bench.watch_memory(process, every)
            if kill < arguments.kills:
                process.send_signal(signal.SIGKILL)
                process.wait()
                process = bench.start()
        sent = feed.sent
    bench.drain(process)
    process.terminate()
    last = bench.ledger().last
    outputs = [sum(list_offsets(bench.admin, f"{bench.job}-{key}", range(PARTITIONS), LATEST).values()) for key in KEYS]
    print(f"soak: {arguments.kills} kills, {sent:,} records, {last.run if last else 0} runs, exit {process.wait(60)}")
    print(f"output ends (aborted records and markers among them): {outputs}")
    bench.print_memory()


def run_rotation(bench: Bench, arguments: argparse.Namespace) -> None:
    with bench.streaming(), Feed(bench.connection, TOPIC, PARTITIONS, arguments.rate):
        bench.wait_for_run(20)
        with Tail(bench.connection, f"{bench.job}-name", PARTITIONS) as tail:
            bench.wait_for_run(SEGMENT_BATCHES + 50, 3600)
    print(
        f"rotation: a reader waited {tail.longest_wait:.2f} s at most, over the rotation at {SEGMENT_BATCHES} batches"
    )
    print_batches(bench)


def run_idle(bench: Bench, arguments: argparse.Namespace) -> None:
    generate_records(bench.connection, TOPIC, 1000, 1, PARTITIONS)
    with bench.streaming() as process:
        bench.wait_for_run(1)
        time.sleep(10.0)
        watched = psutil.Process(process.pid)
        before = cpu_seconds(watched)
        time.sleep(arguments.seconds)
        used = cpu_seconds(watched) - before
    print(f"idle: {used / arguments.seconds:.2%} of one core over {arguments.seconds:.0f} s")


def print_batches(bench: Bench) -> None:
    runs = [run for _, run in sorted(bench.ledger().runs.items())][-60:]
    sizes = np.array([run.records for run in runs])
    print(f"the last {len(runs)} batches: {np.median(sizes):,.0f} records in the middle, {sizes.max():,} at most")
    stages = {name: float(np.median([run.seconds[name] for run in runs])) for name in runs[-1].seconds}
    print("their stages: " + ", ".join(f"{name} {value:.3f} s" for name, value in stages.items()))
    between = sorted(((_pause(a, b), b) for a, b in pairwise(runs)), key=lambda item: item[0])
    print(f"pauses between them: {between[len(between) // 2][0]:.2f} s in the middle, {between[-1][0]:.2f} s at most")
    for run in sorted(runs, key=lambda run: -sum(run.seconds.values()))[:3]:
        print(
            f"slow: run {run.run}, {run.records:,} records, "
            + ", ".join(f"{n} {v:.2f} s" for n, v in run.seconds.items())
        )


def _pause(run: RunRecord, following: RunRecord) -> float:
    """Return the seconds from one's end to the other's start; waits for records are among them."""
    return (datetime.fromisoformat(following.started) - datetime.fromisoformat(run.published)).total_seconds()


MODES = {
    "backlog": run_backlog,
    "live": run_live,
    "latency": run_latency,
    "restart": run_restart,
    "soak": run_soak,
    "rotation": run_rotation,
    "idle": run_idle,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", nargs="?", default="backlog", choices=MODES)
    parser.add_argument("--records", type=int, default=2_000_000, help="of a backlog")
    parser.add_argument("--rate", type=int, default=50_000, help="records/s of the generator")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--max-latency", default="0.5")
    parser.add_argument("--no-verify", action="store_true")
    arguments, flags = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="kafka-sort-bench-") as temporary:
        folder = Path(temporary)
        with EmbeddedBroker(data=folder / "broker") as broker, prefect_server(folder):
            bench = Bench(broker, folder, ["--max-latency", arguments.max_latency, *flags])
            print(f"{arguments.mode}: {os.cpu_count()} cores", flush=True)
            MODES[arguments.mode](bench, arguments)
            if not arguments.no_verify:
                bench.verify()


if __name__ == "__main__":
    main()
