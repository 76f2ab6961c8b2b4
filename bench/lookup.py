"""Measures reading: keys out of one run, and all of a topic as raw values, beside kcat.

    python -m bench.lookup --job JOB --sort OUTPUT [--gets 200] [--rounds 3] [--bootstrap-servers localhost:9092]

It changes nothing, and prints medians in milliseconds, records a second, CPU seconds, and the peak of memory.
"""

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from typing import Any

from kafka_sort import SortedTopic

# Wall seconds, CPU seconds, MB.
Taken = tuple[float, float, float]


def main() -> None:
    """Measure look-ups with the index and without, then a whole read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", default="source")
    parser.add_argument("--sort", default="id")
    parser.add_argument("--gets", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bootstrap-servers", default="localhost:9092")
    options = parser.parse_args()
    with SortedTopic(options.job, options.sort, bootstrap_servers=options.bootstrap_servers) as topic:
        keys = sample_keys(topic, options.gets)
        print(f"{len(topic.runs)} runs, {count(topic):,} records")
        measure_gets("get, sparse index", topic, keys)
        topic._reader._search._index = {}
        measure_gets("get, binary search", topic, keys[: max(len(keys) // 5, 5)])
        output = topic._reader.output.topic
        records = count(topic)
    commands = {"kafka-sort read --output raw": reader_command(options)}
    if shutil.which("kcat"):
        commands["kcat"] = kcat_command(options, output)
    if options.rounds:
        compare(commands, options.rounds, records)


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
    seconds, before = [], time.process_time()
    for (key,) in keys:
        began = time.perf_counter()
        rows = sum(map(len, topic._reader.get(key, is_whole=True)))
        seconds.append(time.perf_counter() - began)
        if not rows:
            raise SystemExit(f"{what}: a key was not found")
    cpu, seconds = (time.process_time() - before) / len(keys), sorted(seconds[3:])
    middle, p95 = statistics.median(seconds), seconds[int(0.95 * len(seconds))]
    print(f"{what}: median {middle * 1e3:.1f} ms, p95 {p95 * 1e3:.1f} ms, {cpu * 1e3:.1f} ms CPU, {len(keys)} keys")


def reader_command(options: argparse.Namespace) -> list[str]:
    """Return the command that prints all values of the topic, in order."""
    flags = ["--job-name", options.job, "--sort", options.sort, "--output", "raw"]
    command = [sys.executable, "-m", "kafka_sort.process", "read", *flags]
    return [*command, "--bootstrap-servers", options.bootstrap_servers]


def kcat_command(options: argparse.Namespace, topic: str) -> list[str]:
    """Return the command that prints all values of the topic, as they come."""
    return ["kcat", "-b", options.bootstrap_servers, "-C", "-t", topic, "-o", "beginning", "-e", "-q"]


def compare(commands: dict[str, list[str]], rounds: int, records: int) -> None:
    """Run the commands in turn, each into a pipe, and print the medians of what they took."""
    taken: dict[str, list[Taken]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            taken[name].append(run_piped(command))
    for name, rows in taken.items():
        wall, cpu, peak = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{name}: {wall:.2f} s ({records / wall:,.0f} records/s), {cpu:.2f} s CPU, at most {peak:.0f} MB")


def run_piped(command: list[str]) -> Taken:
    """Run a command whose output is read and dropped; return wall seconds, CPU seconds and the peak of its memory."""
    began = time.perf_counter()
    writer = subprocess.Popen(command, stdout=subprocess.PIPE)
    with subprocess.Popen(["cat"], stdin=writer.stdout, stdout=subprocess.DEVNULL):
        if writer.stdout:
            writer.stdout.close()
        _, status, used = os.wait4(writer.pid, 0)
        writer.returncode = os.waitstatus_to_exitcode(status)
    if writer.returncode:
        raise SystemExit(f"{command[0]} ended with status {writer.returncode}")
    return time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


if __name__ == "__main__":
    main()
