"""The runs of an output that a reader shows, from the ledger: current ones, whole, and where their records lie.

Guarantee 2 (all or nothing, exactly once): a run counts from its record in the ledger on, and is shown once its markers
are written. Runs that a later one took the place of are not shown from that record on.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from confluent_kafka.admin import AdminClient

from tasks.errors import SettingsError, TerminalError, TransientError
from tasks.kafka.ledger import Ledger, read_ledger
from tasks.kafka.topics import EARLIEST, LATEST, Topic, describe_topic, list_offsets
from tasks.keys import RULES
from tasks.observe.logs import get_logger
from tasks.reading.recorded import choose_sort, recorded_job
from tasks.run_record import RunRecord, WrittenRange, WrittenSort
from tasks.settings.connection import Connection
from tasks.settings.job import Job
from tasks.settings.names import JobNames
from tasks.settings.options import JobOptions
from tasks.settings.sorts import Sort
from tasks.sorting.bound import KeyBound

MOST_RUNS = 64
MAKE_ONE_RUN = "make one run of them with kafka-sort merge"
_STABLE_POLL_SECONDS = 0.05
# A run that is committed between two looks takes the place of others at most this often before a reader gives up.
_LOOKS = 5


class UnmergedRunsError(TerminalError):
    """The runs of a job cannot be read together as they are: too many, folded in the ledger, or of other rules."""

    action = "Make one run of them with `kafka-sort merge`. Or read less, with `--run` or `--newest`."


class RunDeletedError(TerminalError):
    """Records of a run were deleted while it was read: a later run took its place, or retention removed them."""

    action = "Read again: a reader that begins now shows the runs that are current now."
    at_risk = "No. What was shown before the error is a part of a run that is deleted."


@dataclass(frozen=True)
class Choice:
    """The choice of a reader: an output, and one run or all.

    `newest`: leave out runs that are not known one by one, or were parsed by other rules.
    """

    output: str | None = None
    run: int | None = None
    newest: bool = False


@dataclass(frozen=True)
class ReadableRange:
    """The records of one run in one partition: offsets first to last, without gaps. Bounds are None if not known."""

    run: int
    partition: int
    first: int
    last: int
    first_bound: KeyBound | None = None
    last_bound: KeyBound | None = None
    # The number of records that the run wrote there, also of those that retention removed.
    written: int = 0
    # The attempt that made the run.
    attempt: str = ""

    @property
    def count(self) -> int:
        """The number of records."""
        return self.last - self.first + 1

    def may_hold(self, low: bytes | None, high: bytes | None) -> bool:
        """Whether there may be keys from `low` on that are below `high`; None is no limit."""
        is_before = low is not None and self.last_bound is not None and self.last_bound.is_before(low)
        is_behind = high is not None and self.first_bound is not None and self._begins_at(high)
        return not (is_before or is_behind)

    def _begins_at(self, high: bytes) -> bool:
        bound = self.first_bound
        return bound is not None and (bound.is_behind(high) or (not bound.cut and bound.prefix == high))


@dataclass(frozen=True)
class ReadableRun:
    """One run in an output. `streams`: its ranges as sequences, each in the order of the sort."""

    number: int
    streams: tuple[tuple[ReadableRange, ...], ...]

    @property
    def ranges(self) -> Iterator[ReadableRange]:
        """All ranges, by partition."""
        return (r for stream in self.streams for r in stream)

    def narrowed(self, low: bytes | None, high: bytes | None) -> "ReadableRun":
        """Return the run with the ranges that may hold such keys."""
        streams = (tuple(r for r in stream if r.may_hold(low, high)) for stream in self.streams)
        return replace(self, streams=tuple(stream for stream in streams if stream))


@dataclass(frozen=True)
class SortedOutput:
    """An output with its current runs, oldest first. `last`: the newest run of the job, whether it is shown or not."""

    job: Job
    sort: Sort
    runs: tuple[ReadableRun, ...]
    last: int = 0
    cut: tuple[str, ...] = ()

    @property
    def topic(self) -> str:
        """The topic of the output."""
        return self.sort.topic


def names_of(given: JobOptions) -> JobNames:
    """Return the names of the job that the options are of."""
    return JobNames(given.job_name or given.source_topic)


def find_output(given: JobOptions, choice: Choice, connection: Connection, admin: AdminClient) -> SortedOutput:
    """Find an output and its current runs, once they can be read whole.

    SettingsError if there is no such job, sort or run; UnmergedRunsError if the ledger does not know the runs one by
    one. Runs of which retention has removed records are told in a warning.
    """
    names = names_of(given)
    if describe_topic(admin, names.ledger) is None:
        raise SettingsError(
            f"job {names.job} has no ledger {names.ledger}, so nothing to read: sort first, or name a job with "
            "--job-name"
        )
    for _ in range(_LOOKS):
        ledger = _read_ledger(given, connection, admin)
        output = _look(given, choice, ledger, admin)
        # A deletion that came in between is not retention: its run's record is in the ledger by now.
        if not output.cut or _is_same(ledger, _read_ledger(given, connection, admin)):
            for told in output.cut:
                get_logger().warning(told)
            return output
    raise RunDeletedError(f"the runs of job {names.job} are replaced faster than they can be found: read again")


def _read_ledger(given: JobOptions, connection: Connection, admin: AdminClient) -> Ledger:
    names = names_of(given)
    return read_ledger(connection, admin, names.ledger, names.job, given.request_timeout, fenced=False)


def _is_same(one: Ledger, other: Ledger) -> bool:
    return (one.last and one.last.run) == (other.last and other.last.run)


def _look(given: JobOptions, choice: Choice, ledger: Ledger, admin: AdminClient) -> SortedOutput:
    if ledger.last is None:
        raise SettingsError(f"job {names_of(given).job} has no run yet, so nothing to read: sort first")
    job = recorded_job(given, ledger.last)
    sort = choose_sort(job, choice.output)
    topic = describe_topic(admin, sort.topic)
    written = [(r, s) for r in _choose_runs(job, choice, ledger) for s in r.sorts if s.topic == sort.topic]
    if topic is None or (written and not any(s.topic_id == topic.id for _, s in written)):
        raise TerminalError(
            f"output {sort.topic} was deleted{' and recreated' if topic else ''} since run {ledger.last.run} of job "
            f"{job.name}, and what the runs wrote is gone: sort the source again with --mode replace"
        )
    cut = [f"run {r.run} wrote to a topic {sort.topic} that was deleted" for r, s in written if s.topic_id != topic.id]
    written = [(r, s) for r, s in written if s.topic_id == topic.id]
    starts = list_offsets(admin, topic.name, topic.partitions, EARLIEST)
    _await_stable(admin, topic, _ends(written), given.request_timeout)
    runs = []
    for record, s in written:
        runs.append(_make_run(record, s, starts))
        if told := _describe_cut(record, s, starts):
            cut.append(told)
    return SortedOutput(job, sort, tuple(run for run in runs if run.streams), ledger.last.run, tuple(cut))


def _choose_runs(job: Job, choice: Choice, ledger: Ledger) -> list[RunRecord]:
    # Equal keys come in the order of the source: a merge has older records than runs that it left as they were.
    current = sorted(ledger.current, key=lambda record: record.age)
    if choice.run is not None:
        return [_choose_run(job, choice.run, ledger.records, current)]
    if choice.newest:
        return [record for record in current if record.rules == RULES]
    _require_known(job, ledger)
    if others := [record.run for record in current if record.rules != RULES]:
        raise UnmergedRunsError(
            f"runs {', '.join(map(str, others))} of job {job.name} were parsed by other rules than this version's, so "
            f"their order may be another: {MAKE_ONE_RUN}, or leave them out with --newest"
        )
    return current


def _choose_run(job: Job, number: int, records: Mapping[int, RunRecord], current: Sequence[RunRecord]) -> RunRecord:
    found = next((record for record in current if record.run == number), None)
    if found is None:
        known = ", ".join(str(record.run) for record in current[-10:])
        what = "a later run took its place" if number in records else "the ledger does not have it"
        raise SettingsError(f"--run {number}: {what}; the newest current runs of job {job.name} are {known}")
    return found


def _require_known(job: Job, ledger: Ledger) -> None:
    earlier = ledger.current_earlier
    if earlier is not None:
        raise UnmergedRunsError(
            f"runs {earlier.first_run} to {earlier.last_run} of job {job.name} are one record in the ledger, which "
            f"does not say where each lies: {MAKE_ONE_RUN}, or read the newer ones with --newest"
        )


def _ends(written: Sequence[tuple[RunRecord, WrittenSort]]) -> dict[int, int]:
    """Return partition → the offset behind the last record of any run."""
    ends: dict[int, int] = {}
    for _, sort in written:
        for w in sort.partitions:
            ends[w.partition] = max(ends.get(w.partition, 0), w.last + 1)
    return ends


def _await_stable(admin: AdminClient, topic: Topic, ends: Mapping[int, int], patience: float) -> None:
    """Wait until each partition can be read to its end: Kafka answers a commit before its markers are written."""
    deadline = time.monotonic() + patience
    while True:
        stable = list_offsets(admin, topic.name, ends, LATEST)
        behind = [partition for partition, end in ends.items() if stable[partition] < end]
        if not behind:
            return
        if time.monotonic() > deadline:
            where = f"{topic.name}/{behind[0]} can be read to offset {stable[behind[0]]} of {ends[behind[0]]} only"
            raise TransientError(f"{where}, for {patience:g} s: an open transaction holds it back; read again later")
        time.sleep(_STABLE_POLL_SECONDS)


def _make_run(record: RunRecord, sort: WrittenSort, starts: Mapping[int, int]) -> ReadableRun:
    ranges = tuple(
        ReadableRange(
            record.run,
            w.partition,
            max(w.first, starts[w.partition]),
            w.last,
            *_bounds(record, w),
            w.count,
            record.attempt,
        )
        for w in sorted(sort.partitions, key=lambda w: w.partition)
        if w.count and w.last >= starts[w.partition]
    )
    if record.partition_by == "range":
        return ReadableRun(record.run, (ranges,) if ranges else ())
    return ReadableRun(record.run, tuple((r,) for r in ranges))


def _bounds(record: RunRecord, w: WrittenRange) -> tuple[KeyBound | None, KeyBound | None]:
    """Return the bounds; those of other parse rules say nothing of keys."""
    texts = (w.first_bound, w.last_bound) if record.rules == RULES else (None, None)
    first, last = (None if text is None else KeyBound.parse(text) for text in texts)
    return first, last


def _describe_cut(record: RunRecord, sort: WrittenSort, starts: Mapping[int, int]) -> str:
    cut = [w for w in sort.partitions if w.count and starts[w.partition] > w.first]
    gone = sum(min(w.last + 1, starts[w.partition]) - w.first for w in cut)
    where = ", ".join(str(w.partition) for w in cut)
    return f"run {record.run} is cut: retention removed its first {gone} records in partitions {where}" if cut else ""
