"""Measures reading: keys out of one run, and all of a topic as raw values, beside kcat.

    python -m bench.lookup --job JOB --sort OUTPUT [--gets 200] [--bootstrap-servers localhost:9092]

It changes nothing, and prints medians in milliseconds, records a second, and CPU seconds.
"""

import argparse
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kafka_sort import SortedTopic


def main() -> None:
    """Measure look-ups with the index and without, then a whole read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", default="source")
    parser.add_argument("--sort", default="id")
    parser.add_argument("--gets", type=int, default=200)
    parser.add_argument("--bootstrap-servers", default="localhost:9092")
    options = parser.parse_args()
    with SortedTopic(options.job, options.sort, bootstrap_servers=options.bootstrap_servers) as topic:
        keys = sample_keys(topic, options.gets)
        print(f"{len(topic.runs)} runs, {count(topic):,} records")
        measure_gets("get, sparse index", topic, keys)
        topic._reader._search._index = {}
        measure_gets("get, binary search", topic, keys[: max(len(keys) // 5, 5)])
        output = topic._reader.output.topic
    measure("kafka-sort read --output raw", lambda: run_reader(options))
    if kcat := shutil.which("kcat"):
        command = kcat_command(kcat, options, output)
        measure("kcat", lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))


def count(topic: SortedTopic) -> int:
    """Count the records of the topic."""
    return sum(r.count for run in topic._reader.output.runs for r in run.ranges)


def sample_keys(topic: SortedTopic, wanted: int) -> list[tuple[Any, ...]]:
    """Return encoded keys of random records, read by offset."""
    ranges = [r for run in topic._reader.output.runs for r in run.ranges]
    chance, keys = random.Random(1), []
    for _ in range(wanted):
        r = chance.choice(ranges)
        rows = topic._reader._search._read(r, chance.randint(r.first, r.last), 1)
        keys.append((rows.column("sort_key")[0].as_py(),))
    return keys


def measure_gets(what: str, topic: SortedTopic, keys: list[tuple[Any, ...]]) -> None:
    """Print the times of look-ups, without the first ones."""
    seconds = []
    for (key,) in keys:
        began = time.perf_counter()
        rows = sum(map(len, topic._reader.get(key, is_whole=True)))
        seconds.append(time.perf_counter() - began)
        if not rows:
            raise SystemExit(f"{what}: a key was not found")
    seconds = sorted(seconds[3:])
    p95 = seconds[int(0.95 * len(seconds))]
    print(f"{what}: median {statistics.median(seconds) * 1e3:.1f} ms, p95 {p95 * 1e3:.1f} ms, {len(seconds)} keys")


def run_reader(options: argparse.Namespace) -> None:
    """Read all of the topic to /dev/null, as a user does."""
    flags = ["--job-name", options.job, "--sort", options.sort, "--output", "raw"]
    command = [sys.executable, "-m", "kafka_sort.process", "read", *flags]
    subprocess.run([*command, "--bootstrap-servers", options.bootstrap_servers], check=True, stdout=subprocess.DEVNULL)


def kcat_command(kcat: str, options: argparse.Namespace, topic: str) -> list[str]:
    """Return the command that prints all values of the topic."""
    return [kcat, "-b", options.bootstrap_servers, "-C", "-t", topic, "-o", "beginning", "-e", "-q"]


def measure(what: str, work: Callable[[], object]) -> None:
    """Print the time of a child process, by the clock and by CPU."""
    with timed(what):
        work()


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print wall and CPU seconds of the children that the block has waited for."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    yield
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{what}: {wall:.2f} s, {cpu:.2f} s CPU")


if __name__ == "__main__":
    main()
