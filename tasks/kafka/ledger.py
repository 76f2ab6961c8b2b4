"""The ledger: a compacted topic that says what every run of a job read and wrote. It is Kafka's memory of what is done.

It is read only after fencing: then no transaction of this id is open, and what is read is all there is.
"""

import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from tasks.errors import SettingsError, TerminalError, TransientError
from tasks.kafka.clients import is_of_group, make_consumer, translate
from tasks.kafka.topic_rules import ledger_rules
from tasks.kafka.topics import EARLIEST, LATEST, describe_topic, list_offsets, topic_settings
from tasks.manifests import OffsetRange
from tasks.run_record import (
    EarlierRuns,
    Reading,
    ReadRange,
    RunRecord,
    is_alike,
    is_of_newer_format,
    join_ranges,
    missing_features,
)
from tasks.settings.connection import Connection
from tasks.settings.names import JobNames

LAST = b"last"
EARLIER = b"earlier"
_RUN = b"run/"
# What a footprint has that takes the place of no run.
_NO_COVERS = b'"covers":[]'
# Later transactions fold run records that are older than this many runs into one.
KEPT_RUNS = 1000
# `consume` waits this long at the end of the ledger, and each start reads it twice.
_CONSUME_SECONDS = 0.02
# A run's record is sent right before its commit, so a living run has it open for a moment.
_SETTLE_SECONDS = 1.0

R = TypeVar("R", RunRecord, EarlierRuns)


class LedgerError(TerminalError):
    """The ledger holds something that no run of this job wrote."""

    action = "Find out what wrote to the ledger, then do what the line says."
    at_risk = "Perhaps: without its ledger a job does not know what it has published. This run has published nothing."


class NewerLedgerError(TerminalError):
    """The ledger was written by a newer version, and requires features that this one does not know: `features`."""

    action = "Install the version that the line asks for, on every machine that runs the job."

    def __init__(self, name: str, features: Iterable[str]) -> None:
        self.features = tuple(sorted(features))
        super().__init__(
            f"the ledger {name} requires {', '.join(self.features)}, which this version of kafka-sort does not know: "
            "nothing was changed; install a newer version, as the run that wrote it had"
        )


@dataclass(frozen=True)
class Ledger:
    """The ledger's content after fencing: the newest run, the records by number, and the runs folded into one record.

    `footprints`: run → what it left in the outputs, as bytes, for each run whose record lies in the topic. A stream
    keeps these, and only the newest of the records. `placed`: whether any run of the job has placed a record in an
    output; until then a run is the job's first. `seen`: the offsets that all runs together have read.
    """

    last: RunRecord | None
    runs: Mapping[int, RunRecord]
    earlier: EarlierRuns | None = None
    footprints: Mapping[int, bytes] = field(default_factory=dict)
    placed: bool = False
    seen: Mapping[Reading, tuple[ReadRange, ...]] = field(default_factory=dict)

    @property
    def covering(self) -> RunRecord | None:
        """The newest run that took the place of others; None if there is none."""
        runs = self.records
        return next((runs[number] for number in sorted(runs, reverse=True) if runs[number].covers), None)

    @property
    def records(self) -> dict[int, RunRecord]:
        """The records of all runs that are known one by one, by number."""
        return {**self.runs, **({self.last.run: self.last} if self.last else {})}

    @property
    def current(self) -> tuple[RunRecord, ...]:
        """The runs of which no later one has taken the place, in the order in which they lie in the outputs."""
        records = self.records
        return tuple(records[n] for n in sorted(records) if not records[n].is_covered_by(records.values()))

    @property
    def current_earlier(self) -> EarlierRuns | None:
        """The runs folded into one record, if the outputs got records of them, and no later ones took their place."""
        earlier = self.earlier
        if earlier is None or not earlier.placed or earlier.are_replaced(self.records.values()):
            return None
        return earlier

    def outdated(self, newest: int) -> list[int]:
        """List the runs that a transaction for run `newest` folds into `earlier` and tombstones."""
        return sorted(run for run in self.footprints if run <= newest - KEPT_RUNS)

    def covered_by(self, record: RunRecord) -> list[int]:
        """List the runs that this record takes the place of, as far as no earlier one has."""
        former = self.covering
        taken = [c for c in record.covers if former is None or c not in former.covers]
        done = max((c.last for c in former.covers), default=0) if former else 0
        return sorted(run for run in self.footprints if run > done and any(c.first <= run <= c.last for c in taken))

    def folded(self, record: RunRecord) -> EarlierRuns | None:
        """Return the record `earlier` with the runs added that this record's transaction folds.

        A merge may have taken the place of some of them alone, and its own run is counted by itself.
        """
        outdated = self.outdated(record.run)
        if not outdated:
            return self.earlier
        known = [EarlierRuns.from_json(data) for data in self.footprints.values() if _NO_COVERS not in data]
        covers = (*record.covers, *(c for run in known for c in run.covers))
        earlier = self.earlier
        if earlier is not None and earlier.are_replaced([EarlierRuns.of(record), *known]):
            earlier = earlier.emptied()
        for run in outdated:
            later = EarlierRuns.from_json(self.footprints[run])
            later = later.emptied() if any(c.first <= run <= c.last for c in covers) else later
            earlier = later if earlier is None else earlier.joined(later)
        return earlier

    def read_before(self, reading: Reading, ranges: Iterable[OffsetRange]) -> tuple[ReadRange, ...]:
        """Return those offsets of the ranges that earlier runs have read.

        `reading`: of this very topic, by these parse rules, and with this dead-letter topic.
        """
        known = join_ranges(r for read, found in self.seen.items() if is_alike(read, reading) for r in found)
        wanted = {r.partition: r for r in ranges}
        cut = (_cut(r, wanted[r.partition]) for r in known if r.partition in wanted)
        return tuple(r for r in cut if r.start < r.end)

    def read_of(self, source_topic_id: str) -> tuple[ReadRange, ...]:
        """Return all offsets that runs have read of this very topic."""
        return join_ranges(r for (topic, *_), found in self.seen.items() if topic == source_topic_id for r in found)

    def written(self) -> tuple[EarlierRuns, ...]:
        """Return what each run, or the folded ones together, left in the outputs, in their order."""
        known = tuple(EarlierRuns.from_json(self.footprints[run]) for run in sorted(self.footprints))
        return (self.earlier, *known) if self.earlier else known

    def followed_by(self, record: RunRecord) -> "Ledger":
        """Return the ledger after a transaction that wrote this record."""
        outdated = set(self.outdated(record.run))
        kept = {run: data for run, data in self.footprints.items() if run not in outdated}
        kept[record.run] = EarlierRuns.of(record).to_json()
        placed = self.placed or record.placed > 0
        seen = _join_read(self.seen, [EarlierRuns.of(record)])
        return Ledger(record, {record.run: record}, self.folded(record), kept, placed, seen)


def _cut(r: ReadRange, wanted: OffsetRange) -> ReadRange:
    return ReadRange(r.partition, max(r.start, wanted.start), min(r.end, wanted.end))


def run_key(number: int) -> bytes:
    """Return the key of a run's record."""
    return _RUN + str(number).encode()


def ensure_ledger(admin: AdminClient, name: str, replication_factor: int | None) -> bool:
    """Create the ledger if absent, check its settings; return whether it was created. SettingsError if they differ."""
    made = describe_topic(admin, name) is None
    if made:
        ledger_rules().make(admin, name, 1, replication_factor)
    check_ledger(admin, name)
    return made


def check_ledger(admin: AdminClient, name: str) -> None:
    """Raise SettingsError if the ledger exists with settings that would lose records of runs, or mix their order."""
    topic = describe_topic(admin, name)
    if topic is None:
        return
    breaches = ledger_rules().breaches(topic, topic_settings(admin, name), refused=True)
    wrong = [f"{breach.setting} (must be {breach.rule.needed})" for breach in breaches]
    if len(topic.partitions) != 1:
        wrong.append(f"{len(topic.partitions)} partitions (must be 1)")
    if wrong:
        raise SettingsError(
            f"the ledger {name} has {', '.join(wrong)}: set it back (kafka-configs --alter), "
            "or, if it cannot be, delete it and start with --append from --start group"
        )


def read_ledger(
    connection: Connection, admin: AdminClient, name: str, job: str, timeout: float, *, fenced: bool = True
) -> Ledger:
    """Read all committed records, up to the high watermark at the time of the call.

    A reader that has not fenced must say so: an open transaction is then another run's work, and is not waited for.

    The bound is the *uncommitted* high watermark, not the last stable offset and not an EOF event: with either, a
    committed record above somebody's open transaction would be missed (Materialize #23380, #19879).
    TransientError if that cannot be reached within `timeout` seconds.
    """
    content = read_newest(connection, admin, name, job, timeout, committed=not fenced)
    return _parse(content, name, job)


def read_newest(
    connection: Connection, admin: AdminClient, name: str, job: str, timeout: float, *, committed: bool
) -> dict[bytes, bytes]:
    """Return the newest value of each key in a compacted topic of one partition, up to its end at the time of the call.

    `committed`: to the last stable offset, else to the high watermark. TransientError as for the ledger.
    """
    start = list_offsets(admin, name, [0], EARLIEST)[0]
    end = list_offsets(admin, name, [0], LATEST, committed=committed)[0]
    if start >= end:
        return {}
    consumer = make_consumer(connection, JobNames(job).group)
    try:
        consumer.assign([TopicPartition(name, 0, start)])
        return _read_to(consumer, name, end, time.monotonic() + timeout)
    finally:
        consumer.close()


def read_settled_ledger(connection: Connection, admin: AdminClient, name: str, job: str, timeout: float) -> Ledger:
    """Read all committed records without fencing: those of a transaction that was committed just now among them.

    A commit is answered before its markers are written, a moment later. A transaction that is open in the ledger for
    longer is that of a run that was killed.
    """
    deadline = time.monotonic() + _SETTLE_SECONDS
    while _is_open(admin, name) and time.monotonic() < deadline:
        time.sleep(_CONSUME_SECONDS)
    return read_ledger(connection, admin, name, job, timeout, fenced=False)


def _is_open(admin: AdminClient, name: str) -> bool:
    stable, end = (list_offsets(admin, name, [0], LATEST, committed=committed)[0] for committed in (True, False))
    return stable < end


def _read_to(consumer: Consumer, name: str, end: int, deadline: float) -> dict[bytes, bytes]:
    content: dict[bytes, bytes] = {}
    position = TopicPartition(name, 0)
    # The position also moves past control records, so an aborted tail does not hold the reader.
    while (reached := consumer.position([position])[0].offset) < end:
        if time.monotonic() > deadline:
            raise TransientError(
                f"the topic {name} could be read to offset {max(reached, 0)} of {end} only: is a replica down?"
            )
        for message in consumer.consume(1000, _CONSUME_SECONDS):
            if error := message.error():
                if is_of_group(error):
                    continue
                raise translate(f"reading the topic {name}", error)
            key, value = message.key() or b"", message.value()
            if value is None:
                content.pop(key, None)
            else:
                content[key] = value
    return content


def _parse(content: dict[bytes, bytes], name: str, job: str) -> Ledger:
    _require_understood(content, name)
    last, earlier, runs = None, None, dict[int, RunRecord]()
    for key, value in content.items():
        if key == EARLIER:
            earlier = _read_record(EarlierRuns, key, value, name, job)
        elif key == LAST:
            last = _read_record(RunRecord, key, value, name, job)
        elif key.startswith(_RUN):
            record = _read_record(RunRecord, key, value, name, job)
            if key != run_key(record.run):
                raise LedgerError(_foreign(name, key, "whose key and content differ"))
            runs[record.run] = record
        elif not _is_newer(value):
            raise LedgerError(_foreign(name, key, "which is not a run record"))
    if last is None and (runs or earlier):
        raise LedgerError(
            f"the ledger {name} has run records but no record 'last': it was altered; "
            "use another --job-name with --append"
        )
    footprints = {number: EarlierRuns.of(runs[number]).to_json() for number in sorted(runs)}
    placed = any(record.placed for record in (last, earlier, *runs.values()) if record is not None)
    known = [*([earlier] if earlier else []), *map(EarlierRuns.of, runs.values())]
    return Ledger(last, runs, earlier, footprints, placed, _join_read({}, known))


def _join_read(
    seen: Mapping[Reading, tuple[ReadRange, ...]], runs: Iterable[EarlierRuns]
) -> dict[Reading, tuple[ReadRange, ...]]:
    """Add what the runs have read."""
    read = defaultdict[Reading, list[ReadRange]](list, {reading: [*found] for reading, found in seen.items()})
    for run in runs:
        read[run.reading] += run.read
    return {reading: join_ranges(found) for reading, found in read.items()}


def _require_understood(content: Mapping[bytes, bytes], name: str) -> None:
    """Raise NewerLedgerError if a record requires features that this version does not know."""
    missing: set[str] = set()
    for value in content.values():
        with contextlib.suppress(ValueError, TypeError):
            missing |= missing_features(value)
    if missing:
        raise NewerLedgerError(name, missing)


def _read_record(kind: type[R], key: bytes, value: bytes, name: str, job: str) -> R:
    try:
        record = kind.from_json(value)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LedgerError(_foreign(name, key, "which is not a run record")) from None
    if record.job != job:
        raise LedgerError(_foreign(name, key, f"of another job ({record.job})"))
    return record


def _is_newer(value: bytes) -> bool:
    """Whether a later format wrote it, with keys that this version does not know and does not need."""
    try:
        return is_of_newer_format(value)
    except (ValueError, TypeError):
        return False


def _foreign(name: str, key: bytes, what: str) -> str:
    shown = json.dumps(key.decode("utf-8", "backslashreplace"))
    return (
        f"the ledger {name} holds a record with key {shown} {what}: nothing was published; "
        "write a tombstone for that key, or use another --job-name with --append"
    )
