"""The plan of a run on standard output, for `kafka-sort sort --dry-run`: tables, or one JSON object."""

from collections.abc import Iterator
from typing import Any

from kafka_sort.display import Display
from kafka_sort.tables import print_json, print_table
from tasks.estimates import Estimates
from tasks.manifests import Key, KeyRange
from tasks.observe.progress import format_duration
from tasks.plan import PlannedOutput, RunPlan, plan_run
from tasks.settings.connection import Connection
from tasks.settings.job import Job


def print_plan(job: Job, connection: Connection, display: Display, patience: float = 0) -> None:
    """Plan the job's next run and print that. `patience`: seconds to wait for the source."""
    plan = plan_run(job, connection, patience)
    # The plan is all that was asked for, so a collector of log lines gets it too.
    if display.output == "json":
        print_json(plan_facts(plan))
    elif not display.quiet:
        _print_tables(plan)


def _print_tables(plan: RunPlan) -> None:
    print(headline(plan))
    if plan.has_work:
        print_table("plan", ("what", "how much"), list(_rows(plan)), fold=True)
        ranges = [(str(r.partition), f"{r.start:,}", f"{r.end:,}", f"{r.span:,}") for r in plan.snapshot.ranges]
        print_table("to read", ("partition", "from offset", "to before", "offsets"), ranges)
        print_table("to write, by a sample", _OUTPUTS, [row for out in plan.outputs for row in _output_rows(plan, out)])


_OUTPUTS = ("sort", "partition", "records, about", "first key, about", "last key, about")


def headline(plan: RunPlan) -> str:
    """Say in one line what the run would be."""
    job, snapshot = plan.job, plan.snapshot
    until = f" before {job.end}" if job.end_moment else ""
    if not plan.has_work:
        told = f"{job.name}: nothing new in {job.source_topic}{until}"
    else:
        told = f"{job.name} run {snapshot.run} would read {snapshot.span:,} offsets of {job.source_topic}{until}"
    alive = f"; a run of the job is alive ({plan.holder}), and may come first" if plan.holder else ""
    return f"{told}{alive}; nothing was changed"


def _rows(plan: RunPlan) -> Iterator[tuple[str, str]]:
    yield from _need_rows(plan)
    yield from _range_rows(plan)
    for key in plan.job.key_columns:
        yield f"type of {key.name}", f"{key.type}{', by a sample' if key.name in plan.snapshot.types else ''}"
    if plan.created:
        yield "topics to create", ", ".join(plan.created)
    if plan.grown:
        yield "topics to give more partitions", ", ".join(plan.grown)


def _need_rows(plan: RunPlan) -> Iterator[tuple[str, str]]:
    """Say what the run would take."""
    job, snapshot, found = plan.job, plan.snapshot, plan.estimates
    rough = ", rough: no run of the job tells how fast this machine is" if found.is_rough else ", by former runs"
    yield "records", f"about {found.records:,}, {_bytes(found.record_bytes)}"
    if found.dead_letters:
        yield "dead letters", f"about {found.dead_letters:,}"
    yield "time", f"about {format_duration(found.seconds)}{rough}"
    yield "memory", f"about {_bytes(found.memory_bytes)}, at most {job.memory_limit}"
    fewer = f", fewer than asked for: {snapshot.fewer_publishers}" * bool(snapshot.fewer_publishers)
    yield "publishers", f"{snapshot.publishers}{fewer}"
    yield "disk", f"about {_bytes(found.disk_bytes)}, at most {_bytes(snapshot.disk_bytes)} {_free(plan)}"


def _free(plan: RunPlan) -> str:
    free = plan.disk_free_bytes
    return f"in {plan.job.workdir}" if free is None else f"of {_bytes(free)} free in {plan.job.workdir}"


def _range_rows(plan: RunPlan) -> Iterator[tuple[str, str]]:
    """Say why the run would read what it reads, and leave the rest."""
    job, snapshot = plan.job, plan.snapshot
    if job.end_moment:
        yield "behind the end", f"{snapshot.behind_end:,} offsets, for later runs"
    if snapshot.replaces and snapshot.run > 1:
        yield "replaces", f"runs 1 to {snapshot.run - 1}: their records in the outputs are deleted once it is committed"
    if snapshot.capped:
        yield "capped by", f"{snapshot.capped}: {plan.runs} runs for all that is there"
    if plan.held_back:
        yield "held back", f"{plan.held_back:,} offsets, by an open transaction of another producer"
    for lost in snapshot.lost:
        yield "lost", str(lost)
    if snapshot.skipped:
        yield "skipped", f"partition {', '.join(map(str, snapshot.skipped))}: no leader"


def _output_rows(plan: RunPlan, output: PlannedOutput) -> Iterator[tuple[str, ...]]:
    for r in output.ranges:
        records = f"{_scaled(plan, output, r):,}"
        yield output.topic, str(r.partition), records, _show(r.first_key), _show(r.last_key)


def _show(key: Key | None) -> str:
    return "" if key is None else ", ".join("null" if part is None else str(part) for part in key)


def _bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _scaled(plan: RunPlan, output: PlannedOutput, r: KeyRange) -> int:
    """Scale a range from the rows of the sample to those of the run."""
    rows = sum(found.count for found in output.ranges)
    return round((plan.estimates.records - plan.estimates.dead_letters) * r.count / rows) if rows else 0


def plan_facts(plan: RunPlan) -> dict[str, Any]:
    """Return the object of `--output json`, as docs/output.md describes it."""
    job, snapshot = plan.job, plan.snapshot
    return {
        "job": job.name,
        "run": snapshot.run,
        "state": "planned" if plan.has_work else "nothing new",
        "owner": plan.holder,
        "source": job.source_topic,
        "end": job.end,
        "offsets": snapshot.span,
        "ranges": [{"partition": r.partition, "start": r.start, "end": r.end} for r in snapshot.ranges],
        "lost": [{"partition": r.partition, "start": r.start, "end": r.end} for r in snapshot.lost],
        "skipped": list(snapshot.skipped),
        "offsets_behind_end": snapshot.behind_end,
        "offsets_held_back": plan.held_back,
        "replaces": snapshot.replaces,
        "capped_by": snapshot.capped or None,
        "runs": plan.runs,
        "publishers": snapshot.publishers,
        "fewer_publishers_because": snapshot.fewer_publishers or None,
        "estimates": _estimate_facts(plan.estimates) if plan.has_work else None,
        "limits": {
            "disk_bytes": snapshot.disk_bytes,
            "disk_free_bytes": plan.disk_free_bytes,
            "memory_bytes": job.memory_bytes,
        },
        "types": [
            {"column": key.name, "type": str(key.type), "by_sample": key.name in snapshot.types}
            for key in job.key_columns
        ],
        "outputs": [_output_facts(plan, output) for output in plan.outputs],
        "creates": list(plan.created),
        "adds_partitions": list(plan.grown),
    }


def _estimate_facts(found: Estimates) -> dict[str, Any]:
    return {
        "records": found.records,
        "dead_letters": found.dead_letters,
        "record_bytes": found.record_bytes,
        "disk_bytes": found.disk_bytes,
        "memory_bytes": found.memory_bytes,
        "seconds": round(found.seconds, 3),
        "seconds_are_rough": found.is_rough,
    }


def _output_facts(plan: RunPlan, output: PlannedOutput) -> dict[str, Any]:
    return {
        "topic": output.topic,
        "columns": output.columns,
        "partitions": [
            {
                "partition": r.partition,
                "records": _scaled(plan, output, r),
                "first_key": None if r.first_key is None else list(r.first_key),
                "last_key": None if r.last_key is None else list(r.last_key),
            }
            for r in output.ranges
        ],
    }
