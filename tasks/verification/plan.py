"""Plans which offsets of which topics the verification of each run reads, from the ledger alone.

Every committed record of an output belongs to a run. The offsets behind a run's range, up to the next range, are read
with it, and must hold no record.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka.admin import AdminClient

from tasks.errors import SettingsError
from tasks.kafka.ledger import read_settled_ledger
from tasks.kafka.topics import LATEST, describe_topic, list_offsets
from tasks.run_record import ReadRange, RunRecord, WrittenRange, WrittenSort
from tasks.settings.connection import Connection
from tasks.settings.job import Job
from tasks.verification.merges import look_at_merge

# Topic, topic id, partition → the end of what earlier runs wrote there.
_Ends = dict[tuple[str, str, int], int]
# Topic → partition → last stable offset.
_Tails = Mapping[str, Mapping[int, int]]


@dataclass(frozen=True)
class PartitionPlan:
    """Offsets [begin, end) of an output partition are read; the run's records are those in [first, stop)."""

    partition: int
    begin: int
    first: int
    stop: int
    end: int
    count: int


@dataclass(frozen=True)
class OutputPlan:
    """One sort of a run."""

    sort: WrittenSort
    partitions: tuple[PartitionPlan, ...]


@dataclass(frozen=True)
class RunPlan:
    """One run. `has_older_letters`: whether runs that it covers wrote dead letters of its source by other settings.

    Of a merge, `record` has what its runs had read of the source, and `reads` the ranges of each of them, in the order
    of their age. `unread`: why its contents cannot be compared with the source record by record; empty if they can.
    `newest`: whether its outputs have the newest record of each key alone, and `keeps_tombstones` whether also one
    without a value. `contradictions`: output → how its record differs from those of its runs.
    """

    record: RunRecord
    outputs: tuple[OutputPlan, ...]
    has_older_letters: bool = False
    reads: tuple[ReadRange, ...] = ()
    unread: str = ""
    newest: bool = False
    keeps_tombstones: bool = True
    contradictions: tuple[tuple[str, str], ...] = ()

    @property
    def total(self) -> int:
        """The number of records to read: the source, and each output."""
        return self.record.records * (1 + len(self.outputs))


def plan_runs(job: Job, connection: Connection, admin: AdminClient, runs: int | None) -> tuple[RunPlan, ...]:
    """Plan the newest `runs` runs (None: all in the ledger), in their order; none if a job has no run yet.

    Runs that a later one took the place of are left out: their records are deleted. SettingsError if there is no such
    job.
    """
    if runs is not None and runs < 1:
        raise SettingsError(f"{runs} runs cannot be verified: ask for 1 or more")
    if not (known := _read_records(job, connection, admin)):
        return ()
    # A run that commits meanwhile must not look like a foreign writer: outputs are read first, then the ledger again.
    tails = _read_tails(admin, known[-1])
    records = _read_records(job, connection, admin)
    plans = tuple(plan for plan in _plan_all(records, tails) if not plan.record.is_covered_by(records))
    return plans if runs is None else plans[-runs:]


def _read_records(job: Job, connection: Connection, admin: AdminClient) -> list[RunRecord]:
    if describe_topic(admin, job.ledger) is None:
        raise SettingsError(
            f"job {job.name} has no ledger {job.ledger}, so no run to verify: sort first, or name a job with --job-name"
        )
    ledger = read_settled_ledger(connection, admin, job.ledger, job.name, job.request_timeout)
    if ledger.last is None:
        return []
    records = {**ledger.runs, ledger.last.run: ledger.last}
    return [records[number] for number in sorted(records)]


def _read_tails(admin: AdminClient, newest: RunRecord) -> _Tails:
    topics = [
        topic
        for sort in newest.sorts
        if not sort.has_folder and (topic := describe_topic(admin, sort.topic)) is not None
    ]
    return {topic.name: list_offsets(admin, topic.name, topic.partitions, LATEST) for topic in topics}


def _plan_all(records: list[RunRecord], tails: _Tails) -> Iterable[RunPlan]:
    ends: _Ends = {}
    for record in records:
        tail = tails if record is records[-1] else {}
        outputs = (_plan_output(record, sort, ends, tail.get(sort.topic, {})) for sort in record.sorts)
        merged = look_at_merge(record, {known.run: known for known in records})
        older = _has_older_letters(record, records)
        yield RunPlan(
            merged.record,
            tuple(outputs),
            older,
            merged.reads,
            merged.unread,
            merged.newest,
            merged.keeps_tombstones,
            merged.differences,
        )


def _has_older_letters(record: RunRecord, others: Iterable[RunRecord]) -> bool:
    """Whether a run that this one covers may have refused other records of the same source, in the same topic."""
    place = (record.source_topic_id, record.dead_letter_topic)
    covered = [other for other in others if other.dead_letters and other.is_covered_by([record])]
    return any(
        (other.source_topic_id, other.dead_letter_topic) == place and _settings(other) != _settings(record)
        for other in covered
    )


def _settings(record: RunRecord) -> Mapping[str, Any]:
    """Return what decides which records are dead letters."""
    return {**record.format, "schemas": "", "sorts": [sort.columns for sort in record.sorts]}


def _plan_output(record: RunRecord, sort: WrittenSort, ends: _Ends, tail: Mapping[int, int]) -> OutputPlan:
    written = {w.partition: w for w in sort.partitions if w.count}
    plans = []
    for partition in sorted({*written, *tail}):
        identity = (sort.topic, sort.topic_id, partition)
        begin = ends.get(identity, _begin(record, written.get(partition)))
        plan = _plan_partition(partition, begin, written.get(partition), tail.get(partition, 0))
        ends[identity] = plan.stop
        plans.append(plan)
    return OutputPlan(sort, tuple(plans))


def _begin(record: RunRecord, written: WrittenRange | None) -> int | None:
    """Return where the first known run of an output begins to answer for it; None: not before its own records.

    Before the first run an output is empty, unless the job was permitted to append. Records of runs that the ledger has
    forgotten are not judged.
    """
    known_empty = record.run == 1 and not record.options.get("append")
    if known_empty or written is None:
        return 0 if known_empty else None
    return written.first


def _plan_partition(partition: int, begin: int | None, written: WrittenRange | None, tail: int) -> PartitionPlan:
    if written is None:
        start = tail if begin is None else begin
        return PartitionPlan(partition, start, start, start, max(tail, start), 0)
    stop = written.last + 1
    return PartitionPlan(partition, min(begin or 0, written.first), written.first, stop, max(stop, tail), written.count)
