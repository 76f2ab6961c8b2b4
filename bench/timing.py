"""CPU time of small benchmarks, in this thread: others on the machine do not count."""

import argparse
import time
from collections.abc import Callable


def cpu_seconds(work: Callable[[], object]) -> float:
    """Measure the CPU seconds of this thread while it works."""
    started = time.thread_time()
    work()
    return time.thread_time() - started


def read_arguments(description: str | None, values: int, rounds: int) -> argparse.Namespace:
    """Read `--values` and `--rounds`, with these defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", type=int, default=values)
    parser.add_argument("--rounds", type=int, default=rounds)
    return parser.parse_args()
