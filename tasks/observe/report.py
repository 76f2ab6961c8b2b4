"""The report of a run for a person: its plan, progress while it works, and a summary at its end."""

import contextlib
import re
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from uuid import UUID

from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact

from tasks.errors import CancelledError, RunTimeoutError
from tasks.manifests import Key, Snapshot
from tasks.observe.flow_run import is_cancelled
from tasks.observe.logs import get_logger
from tasks.observe.progress import format_duration, format_progress, watching
from tasks.printable import printable
from tasks.run_context import Progress, current_run
from tasks.run_record import RunRecord, WrittenRange, WrittenSort
from tasks.settings.job import Job
from tasks.workdir import free_bytes

_ARTIFACT_SECONDS = 2.0
_LOG_SECONDS = 60.0
# The longest bar in the chart of stages.
_BAR_WIDTH = 24


def artifact_key(*parts: str) -> str:
    """Return a key of lowercase letters, digits and dashes, the only characters in Prefect's artifact keys."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def format_count(number: int) -> str:
    """Return a short number for names, such as `9,999`, `10.5k` or `10.0M`."""
    if number < 10_000:
        return f"{number:,}"
    size, unit = next((size, unit) for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")) if number >= size)
    return f"{number / size:.1f}{unit}"


@contextlib.contextmanager
def report_progress(progress: Progress, key: str, run_timeout: float | None = None) -> Iterator[None]:
    """Update a progress artifact every 2 s and log a line every minute, while the block runs.

    Every 2 s this also checks whether the run was cancelled in Prefect, or takes longer than `run_timeout` seconds, and
    then asks it to stop.
    """
    with watching(partial(_watch, progress, key, run_timeout), "progress"):
        yield


def _watch(progress: Progress, key: str, run_timeout: float | None, ended: threading.Event) -> None:
    log, artifact, logged = get_logger(), None, time.monotonic()
    deadline = None if run_timeout is None else time.monotonic() + run_timeout
    while not ended.wait(_ARTIFACT_SECONDS):
        stop_if_due(run_timeout, deadline)
        artifact = _update_artifact(artifact, progress, key)
        if time.monotonic() >= logged + _LOG_SECONDS:
            logged = time.monotonic()
            log.info("progress", at=format_progress(progress.meters))
    if artifact is not None:
        _update_artifact(artifact, progress, key)


def stop_if_due(run_timeout: float | None = None, deadline: float | None = None) -> None:
    """Ask the run to stop if it was cancelled in Prefect or its time is over."""
    stop = current_run().stop
    if run_timeout is not None and deadline is not None and time.monotonic() > deadline:
        stop.ask(RunTimeoutError(run_timeout, stop.consequence))
    elif not stop.is_set() and is_cancelled():
        stop.ask(CancelledError(stop.consequence))


def _update_artifact(artifact: UUID | None, progress: Progress, key: str) -> UUID | None:
    """Update the artifact, created at its first use. An artifact that cannot be shown must not end a run."""
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
    """Make the table of outputs: for each sort and partition its records, first and last key, offsets."""
    rows = [
        (sort.topic, str(w.partition), f"{w.count:,}", _show(w.first_key), _show(w.last_key), _where(sort, w))
        for sort in record.sorts
        for w in sort.partitions
    ]
    where = "offsets, or file" if any(sort.has_folder for sort in record.sorts) else "offsets"
    return ("sort", "partition", "records", "first key", "last key", where), rows


def _where(sort: WrittenSort, written: WrittenRange) -> str:
    """Say where records were written: the offsets of a topic, or the file of a folder."""
    files = (f"{sort.folder}/{file.name}" for file in sort.files if file.partition == written.partition)
    return next(files, f"{written.first:,} to {written.last:,}")


def stages_table(record: RunRecord) -> Table:
    """Make the table of stages: the time and rate of each."""
    rows = []
    for stage, seconds in record.seconds.items():
        # A merge reads each output, where a run reads the source once.
        once = stage == "dump" and not record.is_merge
        count = record.records if once else record.placed * len(record.sorts)
        rate = f"{count / seconds:,.0f}/s" if seconds else ""
        rows.append((stage, format_duration(seconds), f"{count:,}", rate))
    return ("stage", "time", "records", "rate"), rows


def workers_table(progress: Progress) -> Table:
    """Make the table of stages on workers: tasks, tasks whose worker was lost, CPU time, peak of a worker's memory."""
    used = [(meter.stage, meter.use) for meter in progress.meters if meter.use is not None]
    header = ("stage", "workers", "tasks", "run again", "CPU", "memory of a worker")
    return header, [
        (
            stage,
            f"{use.workers:,}",
            f"{use.tasks:,}",
            f"{use.run_again:,}",
            format_duration(use.cpu_seconds),
            f"{use.memory_bytes / 1e9:.2f} GB",
        )
        for stage, use in used
    ]


def headline(record: RunRecord) -> str:
    """Say in one line what the run was."""
    if record.is_merge:
        return _merge_headline(record)
    until = f" before {record.end}" if record.end else ""
    parts = [f"{record.job} run {record.run}: {record.records:,} records of {record.source_topic}{until}"]
    parts.append(f"sorted by {', '.join(dict.fromkeys(sort.columns for sort in record.sorts))}")
    parts += [f"in place of runs {covered}" for covered in record.covers]
    if record.dead_letters:
        most = "MORE THAN HALF of them, " * record.is_mostly_dead
        written = record.dead_letters_written
        new = "" if written is None else f", {written:,} of them new,"
        parts.append(f"{most}{record.dead_letters:,} dead letters{new} in {record.dead_letter_topic}")
    if record.lost:
        parts.append(f"lost: {'; '.join(map(str, record.lost))}")
    return ", ".join(parts)


def _merge_headline(record: RunRecord) -> str:
    covered = ", ".join(str(c) if c.first < c.last else str(c.first) for c in record.covers)
    parts = [f"{record.job} run {record.run}: merged runs {covered}, {record.records:,} records"]
    for what in ("superseded", "expired"):
        counts = {sort.topic: getattr(sort, what) for sort in record.sorts}
        if any(counts.values()):
            parts.append(f"{what}: {', '.join(f'{count:,} in {topic}' for topic, count in counts.items())}")
    return ", ".join(parts)


def publish_plan(job: Job, snapshot: Snapshot) -> None:
    """Publish what the run is going to read, and what that takes, as a markdown artifact."""
    key, text = artifact_key("plan", job.name), _plan_text(job, snapshot)
    with contextlib.suppress(Exception):
        create_markdown_artifact(text, key=key, description=_plan_line(job, snapshot))


def _plan_line(job: Job, snapshot: Snapshot) -> str:
    return f"{job.name} run {snapshot.run}: {snapshot.span:,} offsets of {job.source_topic}"


def _plan_text(job: Job, snapshot: Snapshot) -> str:
    free = free_bytes(job)
    room = "in" if free is None else f"of {free / 1e9:.0f} GB free in"
    facts = [
        ("records, at most", f"{snapshot.span:,}"),
        ("mean record", f"{snapshot.mean_record_bytes:.0f} bytes"),
        ("to read", f"{snapshot.span * snapshot.mean_record_bytes / 1e9:.2f} GB"),
        ("disk", f"up to {snapshot.disk_bytes / 1e9:.2f} GB {room} {job.workdir}"),
        ("memory", f"up to {job.memory_limit}"),
        ("publishers", f"{snapshot.publishers}" + f"; {snapshot.fewer_publishers}" * bool(snapshot.fewer_publishers)),
        *([("end", _end_text(job, snapshot))] if job.end_moment else []),
        *([("capped by", f"{snapshot.capped}; the rest is the next run's")] if snapshot.capped else []),
        *([("mode", "replace: former records of the outputs are deleted after the commit")] * snapshot.replaces),
        *(("lost", str(lost)) for lost in snapshot.lost),
        *((f"type of {name}", f"{kind}, by a sample") for name, kind in snapshot.types.items()),
    ]
    ranges = [(str(r.partition), f"{r.start:,}", f"{r.end:,}", f"{r.span:,}") for r in snapshot.ranges]
    sorts = [(sort.columns, sort.topic) for sort in job.sort_list]
    tables: tuple[Table, ...] = (
        (("what", "how much"), facts),
        (("partition", "from offset", "to before", "offsets"), ranges),
        (("sorted by", "into"), sorts),
    )
    return "\n\n".join([f"### {_plan_line(job, snapshot)}", *map(_markdown, tables)])


def _end_text(job: Job, snapshot: Snapshot) -> str:
    return f"before {job.end}: {snapshot.behind_end:,} offsets behind it are left to later runs"


def publish_summary(record: RunRecord) -> None:
    """Publish the summary as a markdown artifact; its history by job shows under one key."""
    workers = workers_table(current_run().progress)
    tables = (
        _with_bars(stages_table(record), list(record.seconds.values())),
        *([workers] if workers[1] else []),
        outputs_table(record),
    )
    text = "\n\n".join([f"### {headline(record)}", *map(_markdown, tables)])
    with contextlib.suppress(Exception):
        create_markdown_artifact(text, key=artifact_key("summary", record.job), description=headline(record))


def _with_bars(table: Table, values: Sequence[float]) -> Table:
    """Return the table with a chart as its last column."""
    header, rows = table
    most = max(values, default=0) or 1
    bars = ("█" * max(1, round(_BAR_WIDTH * value / most)) for value in values)
    return (*header, "chart"), [(*row, bar) for row, bar in zip(rows, bars, strict=True)]


def _markdown(table: Table) -> str:
    header, rows = table
    lines = [header, ["---"] * len(header), *([_escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escape(cell: str) -> str:
    """Escape a record's text: it must be no markup, no link, and no picture that a browser would fetch."""
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~&@/])", r"\\\1", cell)


def _show(key: Key | None) -> str:
    text = printable(", ".join("null" if part is None else str(part) for part in key or ()))
    return text if len(text) <= 40 else f"{text[:39]}…"
