"""Shows what an inspection found: tables for a person on standard error, and the job file on standard output.

For scripts, one JSON object takes the place of both.
"""

import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from kafka_sort.tables import print_json, print_table
from tasks.errors import SettingsError
from tasks.inspection.columns import Column
from tasks.inspection.fields import Times
from tasks.inspection.proposal import is_heavy
from tasks.inspection.topic import Inspection, inspect_topic
from tasks.kafka.clients import make_admin
from tasks.printable import counted, excerpt
from tasks.settings.connection import Connection
from tasks.settings.registry import check_address
from tasks.settings.sorts import check_topic_name

_HEADER = ("column", "type", "nulls", "distinct", "commonest value", "remark")
_SHOWN_COLUMNS = 40
_DAY_MS = 86_400_000


def print_inspection(connection: Connection, topic: str, registry: str | None, output: str) -> None:
    """Inspect a topic, and print what was found. `output`: table or json."""
    try:
        check_topic_name(topic, "TOPIC")
        address = registry if registry is None else check_address(registry)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    found = inspect_topic(connection, make_admin(connection), topic, address)
    if output == "json":
        print_json(describe(found))
        return
    print_table(f"topic {topic}", ("fact", "in the topic"), list(tell(found)), fold=True, file=sys.stderr)
    columns = [*found.guess.columns, found.keys.column]
    title = f"columns, by {counted(found.count, 'sampled record')}"
    print_table(title, _HEADER, list(map(_row, columns[:_SHOWN_COLUMNS])), fold=True, file=sys.stderr)
    if len(columns) > _SHOWN_COLUMNS:
        print(f"and {len(columns) - _SHOWN_COLUMNS:,} more columns", file=sys.stderr)
    print(found.job_file, end="")


def _row(column: Column) -> tuple[str, ...]:
    """Return the cells of a column's line."""
    heaviest = f"{column.commonest} ({_share(column.heaviest_share)})" if column.heaviest else ""
    warning = "heavy: its partition is much larger than others" if is_heavy(column) else ""
    remark = "; ".join(filter(None, (column.note, warning)))
    return column.name, column.type, _share(column.null_share), f"{column.distinct:,}", heaviest, remark


def _share(part: float) -> str:
    """Return a share in percent: 0 % and 100 % only if it is so."""
    return f"{part:.0%}" if part in {0, 1} or 0.005 <= part <= 0.995 else "<1%" if part < 0.5 else ">99%"


def tell(found: Inspection) -> Iterator[tuple[str, str]]:
    """Yield the facts of the topic for a person."""
    sample, guess = found.sample, found.guess
    spans = [r.span for r in sample.ranges]
    span = f"{min(spans):,} to {max(spans):,}" if min(spans) < max(spans) else f"{max(spans):,}"
    yield "partitions", f"{len(sample.topic.partitions):,}, of {span} offset{'s' * (max(spans) != 1)}"
    if sample.topic.leaderless:
        yield "without a leader", ", ".join(map(str, sample.topic.leaderless))
    about = "" if sample.is_whole else "about "
    yield "records", f"{about}{sample.estimate:,}, at {counted(sample.offsets, 'offset')}"
    if sample.held_back:
        yield "held back", f"{counted(sample.held_back, 'offset')} behind open transactions"
    yield "sampled", f"{counted(found.count, 'record')} of {counted(sample.read, 'partition')}"
    yield "values", "; ".join((guess.name, *guess.notes))
    yield from _tell_others(found)
    parts = (f"{name} {size.mean:,.0f}, at most {size.largest:,}" for name, size in found.sizes.items())
    yield "bytes of a record", "; ".join(parts)
    yield "keys", "; ".join(filter(None, (found.keys.kind, found.keys.note)))
    if found.headers:
        yield "headers", ", ".join(f"{name} ({_share(n / found.count)})" for name, n in found.headers.items())
    yield "timestamps", _tell_times(found.times)
    yield from _tell_settings(found)


def _tell_others(found: Inspection) -> Iterator[tuple[str, str]]:
    """Yield what is in the values besides what most of them are."""
    if found.tombstones:
        yield "tombstones", f"{found.tombstones:,} ({_share(found.tombstones / found.count)})"
    if found.empty:
        yield "empty values", f"{found.empty:,} ({_share(found.empty / found.count)})"
    if example := find_misfit(found):
        place, reason = f"partition {example['partition']} offset {example['offset']}", example["reason"]
        told = reason if example["value"] in reason else f"{reason}: {example['value']}"
        yield "other values", f"{len(found.guess.misfits):,}, as that of {place}: {told}"


def find_misfit(found: Inspection) -> dict[str, Any] | None:
    """Return one record whose value is something else than most; None if there is none."""
    if not found.guess.misfits:
        return None
    row, reason = next(iter(found.guess.misfits.items()))
    record = {name: found.sample.records.column(name)[row].as_py() for name in ("partition", "offset", "value")}
    return {**record, "value": excerpt(record["value"] or b""), "reason": reason}


def _tell_times(times: Times) -> str:
    if times.first is None or times.last is None:
        return "none"
    order = "in order" if times.in_order else "not in order"
    absent = f"; {times.absent:,} records have none" if times.absent else ""
    return f"{_show_time(times.first)} to {_show_time(times.last)}, {order} within the partitions{absent}"


def _show_time(millis: int) -> str:
    try:
        return f"{datetime.fromtimestamp(millis / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError):
        return f"{millis} ms"


def _tell_settings(found: Inspection) -> Iterator[tuple[str, str]]:
    settings = found.sample.settings
    if not settings:
        yield "settings", "not permitted to be seen: they need DescribeConfigs"
        return
    yield "cleanup policy", settings.get("cleanup.policy", "")
    shown = {"retention.ms": _show_age, "retention.bytes": _show_bytes}
    told = [show(int(settings[name])) for name, show in shown.items() if int(settings.get(name, "-1")) >= 0]
    yield "retention", ", ".join(told) or "without limit"


def _show_age(millis: int) -> str:
    return f"{millis / _DAY_MS:,.1f} days".replace(".0 ", " ")


def _show_bytes(size: int) -> str:
    return f"{size:,} bytes a partition"


def describe(found: Inspection) -> dict[str, Any]:
    """Return the facts of the topic for a script."""
    sample, guess, times = found.sample, found.guess, found.times
    return {
        "topic": sample.topic.name,
        "partitions": {str(r.partition): {"start": r.start, "end": r.end} for r in sample.ranges},
        "leaderless": list(sample.topic.leaderless),
        "offsets": sample.offsets,
        "held_back": sample.held_back,
        "records": sample.estimate,
        "records_are_exact": sample.is_whole,
        "sampled": {"records": found.count, "partitions": sample.read},
        "values": {
            "kind": guess.name,
            "notes": list(guess.notes),
            "tombstones": found.tombstones,
            "empty": found.empty,
            "other": len(guess.misfits),
            "example": find_misfit(found),
        },
        "columns": list(map(_describe_column, guess.columns)),
        "keys": {"kind": found.keys.kind, "note": found.keys.note, **_describe_column(found.keys.column)},
        "headers": dict(found.headers),
        "bytes": {name: {"largest": size.largest, "mean": round(size.mean, 1)} for name, size in found.sizes.items()},
        "timestamps": asdict(times),
        "settings": {name: sample.settings.get(name) for name in ("cleanup.policy", "retention.ms", "retention.bytes")},
        "job": dict(found.proposal.settings),
        "other_sorts": [term for term, _ in found.proposal.others],
        "job_file": found.job_file,
    }


def _describe_column(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": column.type or None,
        "records": column.count,
        "nulls": column.nulls,
        "distinct": column.distinct,
        "commonest": column.commonest if column.heaviest else None,
        "commonest_records": column.heaviest,
        "heavy": is_heavy(column),
        "remark": column.note,
    }
