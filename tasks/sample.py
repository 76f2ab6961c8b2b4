"""A bounded sample of what a run will read: the mean size of a record, and whether a first run is worth starting.

Guarantee 3 (nothing lost in silence): a job whose settings do not fit its source is refused before anything is written.
It would turn all into dead letters, move its offsets on, and be bound to the wrong columns.
"""

import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from confluent_kafka import Consumer, Message

from tasks.errors import SettingsError, TransientError
from tasks.formats.guess import SHOWN_BYTES, guess_format
from tasks.formats.kinds import find_kinds, note_texts, usual_types
from tasks.formats.registry import make_format
from tasks.kafka.clients import make_consumer, record_bytes
from tasks.kafka.fetch import Block
from tasks.kafka.windows import FETCH_WAIT_MS, plan_windows, read_windows
from tasks.manifests import OffsetRange, Snapshot
from tasks.ownership import JobView
from tasks.printable import printable
from tasks.settings.job import Job

# Records in all, over all partitions.
_RECORDS = 600
_SIZED_SECONDS = 0.5
_JUDGED_SECONDS = 10.0
_SHOWN_REASONS = 3
_SHOWN_LETTERS = 60
# Format → the settings that decide what a record's keys are.
_WAYS_OUT = {"csv": "--columns, --delimiter", "json": "--format, --sort"}
# An integer in a column of the type `time`.
_BARE_TIME = re.compile(r"is not a time: '?\s*-?[0-9]{5,}\s*'?$")


class MostlyDeadLettersError(SettingsError):
    """More than half of a sample of what a job's first run would read cannot be sorted by the job's settings."""

    action = (
        "Correct `--format`, `--columns`, `--delimiter`, `--sort` or `--source-topic`, as the line hints; or permit it "
        "with `--allow-dead-letters`."
    )


@dataclass(frozen=True)
class SampledRecord:
    """A record. `size`: all its bytes. `value`: the part that a guess needs. `reason`: empty if it can be placed.

    `seen`: what it holds in the columns without a given type, by their names; such as "number".
    """

    partition: int
    offset: int
    size: int
    value: bytes | None
    reason: str = ""
    seen: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """Records from the beginning, the middle and the end of each range, or from the beginning alone."""

    records: tuple[SampledRecord, ...] = ()

    @property
    def mean_record_bytes(self) -> float:
        """The mean size of key, value and headers; 0 without a record."""
        return sum(record.size for record in self.records) / max(len(self.records), 1)

    def within(self, snapshot: Snapshot) -> "Sample":
        """Return the records that the snapshot reads, which may be fewer than when the sample was taken."""
        ranges = {r.partition: r for r in snapshot.ranges}
        return Sample(tuple(r for r in self.records if r.offset < ranges[r.partition].end))


def is_judged(view: JobView) -> bool:
    """Whether this is the job's first run, so that its sample decides whether it begins."""
    return not (view.ledger.placed or view.job.allow_dead_letters)


def take_sample(view: JobView, snapshot: Snapshot) -> Sample:
    """A few records of each range of the snapshot; parsed where this run is judged by them.

    TransientError where none can be read for a run that is judged.
    """
    ranges = [r for r in snapshot.ranges if r.span]
    if not ranges:
        return Sample()
    judged = is_judged(view) or bool(view.job.untyped)
    topic, seconds = view.job.source_topic, _JUDGED_SECONDS if judged else _SIZED_SECONDS
    deadline, records = time.monotonic() + seconds, list[SampledRecord]()
    limits = {"queued.max.messages.kbytes": 1024, "fetch.wait.max.ms": FETCH_WAIT_MS}
    consumer = make_consumer(view.connection, view.job.group, **limits)
    try:
        for windows in plan_windows(ranges, _RECORDS, thorough=judged):
            for messages in read_windows(consumer, topic, windows, deadline):
                records += _parse(view.job, messages) if judged else map(_sized, messages)
        if view.job.untyped and not records:
            records += _find_first(consumer, view.job, ranges, deadline)
    finally:
        consumer.close()
    if judged and not records and time.monotonic() > deadline:
        raise TransientError(f"no record of source {topic} could be read for {seconds:g} s")
    return Sample(tuple(records))


def measure_records(view: JobView, topic: str, ranges: Iterable[OffsetRange]) -> float:
    """Return the mean size of a few records of a topic; 0 if there is none."""
    wanted = [r for r in ranges if r.span]
    if not wanted:
        return 0.0
    limits = {"queued.max.messages.kbytes": 1024, "fetch.wait.max.ms": FETCH_WAIT_MS}
    deadline, records = time.monotonic() + _SIZED_SECONDS, list[SampledRecord]()
    with closing(make_consumer(view.connection, view.job.group, **limits)) as consumer:
        for windows in plan_windows(wanted, _RECORDS, thorough=False):
            for messages in read_windows(consumer, topic, windows, deadline):
                records += map(_sized, messages)
    return Sample(tuple(records)).mean_record_bytes


def _find_first(
    consumer: Consumer, job: Job, ranges: Sequence[OffsetRange], deadline: float
) -> Iterable[SampledRecord]:
    """Find the first records of ranges whose sampled offsets hold none, as behind an aborted transaction."""
    whole = {r.partition: (r.start, r.end) for r in ranges}
    return next(
        (_parse(job, found) for found in read_windows(consumer, job.source_topic, whole, deadline) if found), ()
    )


def _sized(message: Message, reason: str = "", seen: Mapping[str, str] | None = None) -> SampledRecord:
    value = message.value()
    shown = value[:SHOWN_BYTES] if isinstance(value, bytes) else None
    place = message.partition() or 0, message.offset() or 0
    return SampledRecord(*place, record_bytes(message), shown, reason, seen or {})


def _parse(job: Job, messages: Sequence[Message]) -> Iterable[SampledRecord]:
    if not messages:
        return []
    table = Block.of(messages).table([message.partition() or 0 for message in messages])
    kinds = find_kinds(job, table)
    # Columns whose types are not known yet are read as the type of most of these records; if the others are of
    # another one, the run ends anyway.
    parsed = make_format(job.with_types(usual_types(job, kinds))).parse(table)
    note_texts(job, parsed, kinds)
    return [
        _sized(m, parsed.rejected.get(i, ""), seen) for i, (m, seen) in enumerate(zip(messages, kinds, strict=True))
    ]


def refuse_mostly_dead(job: Job, sample: Sample) -> None:
    """Raise MostlyDeadLettersError if more than half of the sample would be dead letters."""
    dead = [record for record in sample.records if record.reason]
    if 2 * len(dead) <= len(sample.records):
        return
    kinds = Counter(_kind(record.reason) for record in dead)
    shown = next(record for record in dead if _kind(record.reason) == kinds.most_common(1)[0][0])
    reasons = "; ".join(f"{count:,}: {kind}" for kind, count in kinds.most_common(_SHOWN_REASONS))
    hint = _hint(job, shown.reason, [record.value for record in dead])
    raise MostlyDeadLettersError(
        f"source {job.source_topic}: {len(dead):,} of {len(sample.records):,} records that were sampled would be dead "
        f"letters ({reasons}), as that of partition {shown.partition} offset {shown.offset}: {_show(shown.value)}"
        f"{f'; it {hint}' if hint.startswith('looks') else f'; {hint}' if hint else ''}; nothing was published: "
        f"correct {_way_out(job, shown.reason)} or --source-topic, or permit it with --allow-dead-letters"
    )


def _is_of_field(reason: str) -> bool:
    """Whether it is a field of the record, and not its value, that cannot be read."""
    return reason.startswith("@")


def _way_out(job: Job, reason: str) -> str:
    return "--key-format, --sort" if _is_of_field(reason) else _WAYS_OUT.get(job.format, "--sort")


def _hint(job: Job, reason: str, values: Sequence[bytes | None]) -> str:
    """Return what helps against the commonest reason; empty if that is not known."""
    if _BARE_TIME.search(reason):
        return "an integer is a time with its unit: time(s), time(ms), time(us) or time(ns)"
    if "has no zone" in reason:
        return "a time needs a zone, as in 2026-01-31T12:00:00Z: as text it compares as it is written"
    return "" if _is_of_field(reason) else guess_format(values, job)


def _kind(reason: str) -> str:
    """Return the reason without the value that it names, so that reasons can be counted."""
    return printable(re.sub(r":? (['\"`]).*\1", "", reason))


def _show(value: bytes | None) -> str:
    if value is None:
        return "no value"
    text = printable(value.decode("utf-8", "backslashreplace"))
    return f"'{text}'" if len(text) <= _SHOWN_LETTERS else f"'{text[:_SHOWN_LETTERS]}…'"
