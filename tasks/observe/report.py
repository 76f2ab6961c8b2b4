"""What a person sees of a run: progress while it works, and a summary table at its end."""

import contextlib
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextvars import copy_context
from uuid import UUID

from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact

from tasks.observe.context import Meter, Progress
from tasks.observe.logs import get_logger
from tasks.records import Key, RunRecord

_ARTIFACT_SECONDS = 2.0
_LOG_SECONDS = 10.0


def artifact_key(*parts: str) -> str:
    """Prefect's artifact keys have lowercase letters, digits and dashes only."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def format_duration(seconds: float) -> str:
    """`8.3 s`, `2:05 min`."""
    return f"{seconds:.1f} s" if seconds < 100 else f"{int(seconds) // 60}:{int(seconds) % 60:02} min"


def format_progress(meters: Sequence[Meter]) -> str:
    """The stage under way: `sort 1,200,000 of 3,000,000, 800,000/s, 2.3 s left`."""
    running = [m for m in meters if m.ended is None] or list(meters[-1:])
    if not running:
        return "starting"
    meter = running[-1]
    parts = [f"{meter.stage} {meter.done:,}" + (f" of {meter.total:,}" if meter.total else "")]
    parts.append(f"{meter.rate:,.0f}/s")
    if meter.seconds_left is not None and meter.ended is None:
        parts.append(f"{format_duration(meter.seconds_left)} left")
    return ", ".join(parts)


@contextlib.contextmanager
def report_progress(progress: Progress, key: str) -> Iterator[None]:
    """While the block runs: a progress artifact every 2 s, a log line every 10 s."""
    ended = threading.Event()
    # A thread starts with an empty context: without this one it would not know the flow run.
    thread = threading.Thread(
        target=copy_context().run, args=(_report, progress, key, ended), name="progress", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _report(progress: Progress, key: str, ended: threading.Event) -> None:
    log, artifact, logged = get_logger(), None, time.monotonic()
    while not ended.wait(_ARTIFACT_SECONDS):
        artifact = _update_artifact(artifact, progress, key)
        if time.monotonic() >= logged + _LOG_SECONDS:
            logged = time.monotonic()
            log.info("progress", at=format_progress(progress.meters))
    if artifact is not None:
        _update_artifact(artifact, progress, key)


def _update_artifact(artifact: UUID | None, progress: Progress, key: str) -> UUID | None:
    """Made at the first use; that it cannot be shown must not end a run."""
    done, total = sum(m.done for m in progress.meters), sum(m.total for m in progress.meters)
    percent = min(100.0, 100.0 * done / total) if total else 0.0
    with contextlib.suppress(Exception):
        if artifact is None:
            made = create_progress_artifact(percent, key=key, description=format_progress(progress.meters))
            return made if isinstance(made, UUID) else None
        update_progress_artifact(artifact, percent, description=format_progress(progress.meters))
    return artifact


Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def outputs_table(record: RunRecord) -> Table:
    """Per sort and partition: records, first and last key, offsets."""
    rows = [
        (
            sort.topic,
            str(w.partition),
            f"{w.count:,}",
            _show(w.first_key),
            _show(w.last_key),
            f"{w.first:,} to {w.last:,}",
        )
        for sort in record.sorts
        for w in sort.partitions
    ]
    return ("sort", "partition", "records", "first key", "last key", "offsets"), rows


def stages_table(record: RunRecord) -> Table:
    """Per stage: time and rate."""
    rows = []
    for stage, seconds in record.seconds.items():
        count = record.records if stage == "dump" else (record.records - record.dead_letters) * len(record.sorts)
        rate = f"{count / seconds:,.0f}/s" if seconds else ""
        rows.append((stage, format_duration(seconds), f"{count:,}", rate))
    return ("stage", "time", "records", "rate"), rows


def headline(record: RunRecord) -> str:
    """One line: what the run was."""
    parts = [f"{record.job} run {record.run}: {record.records:,} records of {record.source_topic}"]
    parts.append(f"sorted by {', '.join(sort.columns for sort in record.sorts)}")
    if record.dead_letters:
        parts.append(f"{record.dead_letters:,} dead letters in {record.dead_letter_topic}")
    if record.lost:
        parts.append(f"lost: {'; '.join(map(str, record.lost))}")
    return ", ".join(parts)


def publish_summary(record: RunRecord) -> None:
    """The summary as a markdown artifact; its history by job shows under one key."""
    tables = (outputs_table(record), stages_table(record))
    text = "\n\n".join([f"### {headline(record)}", *map(_markdown, tables)])
    with contextlib.suppress(Exception):
        create_markdown_artifact(text, key=artifact_key("summary", record.job), description=headline(record))


def _markdown(table: Table) -> str:
    header, rows = table
    lines = [header, ["---"] * len(header), *([_escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _show(key: Key | None) -> str:
    text = ", ".join(map(str, key or ()))
    return text if len(text) <= 40 else f"{text[:39]}…"
