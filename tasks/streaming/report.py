"""The report of a stream for a person: its status while it works, and a summary at its end.

Guarantee: a Prefect server that is away, or refuses, never ends a stream.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from functools import partial
from uuid import UUID

from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from tasks.observe.progress import format_duration, watching
from tasks.observe.report import artifact_key, stop_if_due
from tasks.streaming.stats import StreamStats, StreamStatus

_STATUS_SECONDS = 10.0
_LOOK_SECONDS = 2.0


def stream_headline(status: StreamStatus) -> str:
    """Say in one line what the stream has done."""
    parts = [f"{status.job}: {status.records:,} records in {status.batches:,} batches"]
    parts.append(f"{format_duration(status.seconds)}")
    if status.last is not None:
        parts.append(f"last run {status.last.run}")
    if status.dead_letters:
        most = "MORE THAN HALF of them, " * (2 * status.dead_letters > status.records)
        parts.append(f"{most}{status.dead_letters:,} dead letters")
    if status.skipped:
        parts.append(f"skipped without a leader: partition {', '.join(map(str, status.skipped))}")
    return ", ".join(parts)


@contextlib.contextmanager
def quiet_tasks() -> Iterator[None]:
    """Drop Prefect's own line for each task run that ends: with one a batch they would be most of the log."""
    logger = logging.getLogger("prefect.task_runs")
    former = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(former)


@contextlib.contextmanager
def report_stream(stats: StreamStats) -> Iterator[None]:
    """Rewrite one status artifact every 10 s while the block runs, and check whether Prefect cancelled the run."""
    with watching(partial(_report, stats), "status"):
        yield


def _report(stats: StreamStats, ended: threading.Event) -> None:
    artifact, shown = None, time.monotonic()
    while not ended.wait(_LOOK_SECONDS):
        stop_if_due()
        if time.monotonic() >= shown + _STATUS_SECONDS:
            artifact, shown = _show(artifact, stats.status()), time.monotonic()
    _show(artifact, stats.status())


def _show(artifact: UUID | None, status: StreamStatus) -> UUID | None:
    text, headline = status_markdown(status), stream_headline(status)
    with contextlib.suppress(Exception):
        if artifact is None:
            made = create_markdown_artifact(text, key=artifact_key("stream", status.job), description=headline)
            return made if isinstance(made, UUID) else None
        # The artifact is rewritten, not added to: a day has 8,640 times ten seconds.
        update = ArtifactUpdate(data=text, description=headline)
        with get_client(sync_client=True) as client:
            client.update_artifact(artifact, update)
    return artifact


def status_markdown(status: StreamStatus) -> str:
    """Return the status as a page: rate and latency of the last minute, lag by partition, the last batch."""
    last = status.last
    lines = [
        f"### {stream_headline(status)}",
        "",
        "| of the last minute | |",
        "| --- | --- |",
        f"| rate | {status.rate:,.0f} records/s |",
        f"| latency p50 | {_seconds(status.p50)} |",
        f"| latency p99 | {_seconds(status.p99)} |",
        "",
        "| source partition | lag |",
        "| --- | --- |",
        *(f"| {partition} | {lag:,} |" for partition, lag in sorted(status.lag.items())),
        *(f"| {partition} | no leader |" for partition in status.skipped),
    ]
    if last is not None:
        stages = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in last.seconds.items())
        lines += ["", f"Last batch: run {last.run}, {last.records:,} records, at {last.published}; {stages}."]
    return "\n".join(lines)


def _seconds(value: float | None) -> str:
    return "no batch" if value is None else f"{value:.2f} s"
