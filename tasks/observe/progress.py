"""The progress of a run in words, and as log lines for a command that works without Prefect."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context

from tasks.observe.logs import get_logger
from tasks.run_context import Meter, Progress


def format_duration(seconds: float) -> str:
    """Return a duration such as `8.3 s` or `2:05 min`."""
    return f"{seconds:.1f} s" if seconds < 100 else f"{int(seconds) // 60}:{int(seconds) % 60:02} min"


def format_progress(meters: Sequence[Meter]) -> str:
    """Describe the current stage: `sort 1,200,000 of 3,000,000, 800,000/s, 2.3 s left`."""
    running = [m for m in meters if m.ended is None] or list(meters[-1:])
    if not running:
        return "starting"
    meter = running[-1]
    parts = [f"{meter.stage} {meter.done:,}" + (f" of {meter.total:,}" if meter.total else "")]
    if meter.use is not None:
        parts.append(f"{meter.use.done:,} of {meter.use.tasks:,} tasks on {meter.use.workers:,} workers")
    parts.append(f"{meter.rate:,.0f}/s")
    if meter.seconds_left is not None and meter.ended is None:
        parts.append(f"{format_duration(meter.seconds_left)} left")
    return ", ".join(parts)


@contextmanager
def watching(watch: Callable[[threading.Event], None], name: str) -> Iterator[None]:
    """Run `watch` in a thread while the block runs; it returns once its event is set, at the end of the block."""
    ended = threading.Event()
    # A thread starts with an empty context: only with this one does it know the flow run.
    thread = threading.Thread(target=copy_context().run, args=(watch, ended), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def log_progress(progress: Progress, seconds: float) -> Iterator[None]:
    """Log a line of progress every so many seconds while the block runs."""

    def watch(ended: threading.Event) -> None:
        while not ended.wait(seconds):
            get_logger().info("progress", at=format_progress(progress.meters))

    with watching(watch, "progress"):
        yield
