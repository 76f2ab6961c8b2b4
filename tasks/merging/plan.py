"""The plan of a merge: which runs it takes, where their records lie in each output, and what it needs.

Guarantee 3 (nothing lost in silence): what retention has removed of a run is not looked for, and counted as expired.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tasks.errors import SettingsError, TerminalError
from tasks.kafka.topics import EARLIEST, Topic, describe_topics, list_offsets
from tasks.manifests import Chunk, OffsetRange, Snapshot
from tasks.merging.choice import FormerRun, by_age, choose_runs, current_runs
from tasks.ownership import Owner
from tasks.run_record import RunRecord, WrittenRange
from tasks.sample import measure_records
from tasks.settings.job import Job
from tasks.settings.sorts import Sort
from tasks.snapshot import check_disk, estimate_disk, most_records
from tasks.sorting.newest import Newest

# The option of a run record that says that the merge kept the newest record of each key alone.
LATEST = "latest"


@dataclass(frozen=True)
class Piece:
    """The offsets [start, end) of one run in one output partition, as far as retention has left them."""

    run: FormerRun
    start: int
    end: int
    written: WrittenRange

    @property
    def records(self) -> int:
        """The most records that it may have: of folded runs, not every offset has one."""
        return min(self.end - self.start, self.written.count)

    @property
    def is_whole(self) -> bool:
        """Whether no record of it was deleted when the merge began."""
        return self.run.is_known and self.start == self.written.first


@dataclass(frozen=True)
class MergedSort:
    """One sort of a merge: the pieces of its output by partition, in the order in which they lie there.

    `kept_from`: partition → the first offset of the runs that stay as they are.
    """

    sort: Sort
    topic: Topic
    pieces: Mapping[int, Sequence[Piece]]
    kept_from: Mapping[int, int] = field(default_factory=dict)

    def ranges(self) -> list[tuple[OffsetRange, tuple[int, ...]]]:
        """Return the range of each partition that has a piece, and where its pieces begin."""
        return [
            (OffsetRange(partition, pieces[0].start, pieces[-1].end), tuple(piece.start for piece in pieces))
            for partition, pieces in sorted(self.pieces.items())
            if pieces
        ]

    def piece_of(self, chunk: Chunk) -> Piece:
        """Return the piece that a chunk is of."""
        pieces = self.pieces[chunk.range.partition]
        return pieces[bisect_right([piece.start for piece in pieces], chunk.range.start) - 1]


@dataclass(frozen=True)
class MergePlan:
    """The plan of a merge. `runs`: in the order of their age. `left`: current runs that stay as they are."""

    runs: tuple[FormerRun, ...]
    left: tuple[FormerRun, ...]
    sorts: tuple[MergedSort, ...]
    snapshot: Snapshot
    newest: Newest | None = None

    @property
    def records(self) -> int:
        """The number of records that the runs placed in each output."""
        return sum(run.records for run in self.runs)


def plan_merge(owner: Owner, newest: Newest | None) -> MergePlan | None:
    """Choose the runs to merge, and find where they lie; None if there is nothing to merge.

    SettingsError if no two of them fit a transaction, or not all, if the newest record of each key is asked for.
    """
    last = owner.ledger.last
    if last is None:
        return None
    current = current_runs(owner.ledger)
    topics = describe_topics(owner.admin, [sort.topic for sort in owner.job.sort_list])
    found = [_find_pieces(owner, sort, topics.get(sort.topic), current) for sort in owner.job.sort_list]
    # Retention may have emptied another output.
    fullest = max(found, key=lambda sort: sum(r.span for r, _ in sort.ranges()))
    mean = measure_records(owner, fullest.sort.topic, [r for r, _ in fullest.ranges()])
    most = most_records(mean, len(found), owner.transaction_seconds)
    sizes = count_present(current, found)
    chosen = _choose(owner, _Choice(current, sizes, most), last, newest)
    if not chosen:
        return None
    left = tuple(run for run in current if run not in chosen)
    sorts = tuple(_only(sort, chosen, left) for sort in found)
    records = sum(sizes[run.number] for run in chosen)
    snapshot = _make_snapshot(owner.job, last, records, mean, copied=newest is not None)
    return MergePlan(by_age(chosen), left, sorts, snapshot, newest)


@dataclass(frozen=True)
class _Choice:
    """The current runs, how many records the outputs have of each now, and how many fit a transaction."""

    current: tuple[FormerRun, ...]
    sizes: Mapping[int, int]
    most: int


def count_present(runs: Sequence[FormerRun], sorts: Sequence[MergedSort]) -> dict[int, int]:
    """Return run → how many records that output has of it which has the most; what has expired takes no time."""
    present = dict.fromkeys((run.number for run in runs), 0)
    for sort in sorts:
        counts = Counter[int]()
        for piece in (piece for pieces in sort.pieces.values() for piece in pieces):
            counts[piece.run.number] += piece.records
        present |= {run: max(present[run], count) for run, count in counts.items()}
    return present


def _choose(owner: Owner, choice: _Choice, last: RunRecord, newest: Newest | None) -> tuple[FormerRun, ...]:
    if newest is not None:
        return _choose_all(owner, choice, last, newest)
    if sum(size > 0 for size in choice.sizes.values()) < 2:
        return ()
    if chosen := choose_runs(choice.current, choice.sizes, choice.most):
        return chosen
    raise SettingsError(
        f"no two runs of job {owner.job.name} that follow one another fit one transaction, which its timeout of "
        f"{owner.transaction_seconds:g} s limits to {choice.most:,} records: raise transaction.max.timeout.ms on the "
        "broker (and --transaction-timeout, if given)"
    )


def _choose_all(owner: Owner, choice: _Choice, last: RunRecord, newest: Newest) -> tuple[FormerRun, ...]:
    """Return all runs; the newest record of a key may be in any of them."""
    job, current, records = owner.job, choice.current, sum(choice.sizes.values())
    if records > choice.most:
        raise SettingsError(
            f"--latest needs all runs of job {job.name} in one transaction, and their {records:,} records are more "
            f"than the {choice.most:,} that its timeout of {owner.transaction_seconds:g} s permits: raise "
            "transaction.max.timeout.ms on the broker (and --transaction-timeout, if given), or merge without --latest"
        )
    if not all(run.is_ordered for run in current):
        raise SettingsError(
            f"--latest: of the oldest runs of job {job.name} the ledger does not say where each lies, so which of two "
            "records of a key is newer is not known: make one run of all with kafka-sort sort --mode replace, then "
            "merge with --latest"
        )
    kept = {describe(newest), describe(Newest(drop_tombstones=True))}
    if len(current) == 1 and current[0].number == last.run and last.options.get(LATEST) in kept:
        return ()
    return current if records else ()


def describe(newest: Newest) -> str:
    """Say which records a merge kept, for its record."""
    return "without tombstones" if newest.drop_tombstones else "with tombstones"


def _find_pieces(owner: Owner, sort: Sort, topic: Topic | None, runs: Sequence[FormerRun]) -> MergedSort:
    """Find where the runs lie in an output; what retention has deleted is left out."""
    if topic is None:
        raise TerminalError(
            f"output {sort.topic} is gone, and with it what the runs of job {owner.job.name} wrote: sort the source "
            "again with --mode replace"
        )
    starts = list_offsets(owner.admin, topic.name, topic.partitions, EARLIEST)
    pieces: dict[int, list[Piece]] = {partition: [] for partition in topic.partitions}
    for run in runs:
        written = run.sorts.get(sort.topic)
        for w in written.partitions if written and written.topic_id == topic.id else ():
            start, end = max(w.first, starts[w.partition]), w.last + 1
            if w.count and start < end:
                pieces[w.partition].append(Piece(run, start, end, w))
    return MergedSort(sort, topic, pieces)


def _only(sort: MergedSort, runs: Sequence[FormerRun], left: Sequence[FormerRun]) -> MergedSort:
    """Return the sort with the pieces of these runs alone."""
    numbers = {run.number for run in runs}
    pieces = {p: [piece for piece in found if piece.run.number in numbers] for p, found in sort.pieces.items()}
    # What runs that stay wrote to a topic of the same name that was deleted is nowhere.
    written = [run.sorts[sort.sort.name] for run in left if sort.sort.name in run.sorts]
    kept: dict[int, int] = {}
    for w in (w for s in written if s.topic_id == sort.topic.id for w in s.partitions):
        kept[w.partition] = min(w.first, kept.get(w.partition, w.first))
    return replace(sort, pieces=pieces, kept_from=kept)


def _make_snapshot(job: Job, last: RunRecord, records: int, mean: float, *, copied: bool) -> Snapshot:
    """Return the snapshot of a run that reads nothing of the source. SettingsError if the disk has too little space.

    `records`: how many each output has at most. `copied`: whether those that are kept are copied before the sort.
    """
    read = Snapshot(last.run + 1, last.source_topic_id, (OffsetRange(0, 0, records),), mean_record_bytes=mean)
    # Each sort has chunks of its own.
    more = len(job.sort_list) * (2 if copied else 1) - 1
    disk = estimate_disk(job, read) + int(records * mean * more)
    ends = tuple(OffsetRange(r.partition, r.end, r.end) for r in last.read)
    snapshot = Snapshot(
        last.run + 1, last.source_topic_id, ends, mean_record_bytes=mean, disk_bytes=disk, replaces=True
    )
    check_disk(job, snapshot)
    return snapshot
