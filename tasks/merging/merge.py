"""A merge: the run that reads the outputs of former runs in place of the source, and takes their place.

Guarantee 2 (all or nothing, exactly once): it is a run as any other, in one transaction; its record covers the runs
that it read, and only then their records are deleted. The source's offsets stay where the last run left them.
Guarantee 1 (order): equal keys keep the order of the source: that of the runs, and within a run that of its records.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tasks.chunks import drop_divided
from tasks.dump import DumpRequest
from tasks.errors import TerminalError
from tasks.layouts.row_numbers import sort_whole
from tasks.manifests import Chunk, Dumped, Snapshot
from tasks.merging.choice import UNORDERED, FormerRun, join_checksums, join_covers
from tasks.merging.plan import LATEST, MergedSort, MergePlan, describe
from tasks.observe.logs import get_logger
from tasks.placement import PartitionColumn, Placement, Placements
from tasks.publication import Merged, MergedOutput, Publication
from tasks.publishers.rows import ContentError
from tasks.run import Run
from tasks.run_record import MERGE
from tasks.settings.sorts import KeyColumn
from tasks.snapshot import BatchLimits
from tasks.sort import SortRequest
from tasks.targets.base import Target

_MODULUS = 2**64


class UnfitRecordError(TerminalError):
    """A record of an output has no key by the parse rules of this version, so it has no place in a merge."""

    action = (
        "Make one run of all with `kafka-sort sort --mode replace`, which writes such records to the dead-letter topic."
    )


@dataclass(frozen=True)
class Merge(Run):
    """The merge of the runs of a plan."""

    plan: MergePlan = field(kw_only=True)

    def take_snapshot(self, limits: BatchLimits | None = None) -> Snapshot:
        """Return the plan's."""
        del limits
        runs = self.plan.runs
        get_logger().info("merging", runs=len(runs), records=self.plan.records, left=len(self.plan.left))
        return self.plan.snapshot

    def has_work(self, snapshot: Snapshot) -> bool:
        """Return true: a plan has runs."""
        del snapshot
        return True

    def prepare(self, snapshot: Snapshot, folder: Path) -> Publication:
        """Read each output into chunks of its own, and make its sort of these."""
        target, places = self.open_target(snapshot), [_Place(self, sort, folder) for sort in self.plan.sorts]
        requests = [place.dump_requests() for place in places]
        work = self.work(snapshot, folder)
        dumped = iter(work.dump([request for of_sort in requests for request in of_sort]))
        chunks = [
            _in_order(self.plan, p.sort, list(islice(dumped, len(r)))) for p, r in zip(places, requests, strict=True)
        ]
        outputs = {p.sort.sort.name: count_output(self.plan, p.sort, c) for p, c in zip(places, chunks, strict=True)}
        sorts = sort_whole(work, [p.sort_request(c, target) for p, c in zip(places, chunks, strict=True)])
        all_chunks = tuple(chain.from_iterable(chunks))
        drop_divided(all_chunks, sorts)
        return Publication(self.attempt, snapshot, all_chunks, sorts, target, self.started, self._merged(outputs))

    def _merged(self, outputs: Mapping[str, MergedOutput]) -> Merged:
        runs, newest = self.plan.runs, self.plan.newest
        options: dict[str, Any] = {"mode": MERGE}
        if newest is not None:
            options[LATEST] = describe(newest)
        if not all(run.is_ordered for run in runs):
            options[UNORDERED] = True
        return Merged(join_covers(runs), self.plan.records, join_checksums(runs), outputs, options)


@dataclass(frozen=True)
class _Place:
    """One sort of a merge, with the folder of its files."""

    merge: Merge
    sort: MergedSort
    folder: Path

    @property
    def _keys(self) -> tuple[KeyColumn, ...]:
        columns = {key.column for key in self.sort.sort.by}
        return tuple(key for key in self.merge.owner.job.key_columns if key.name in columns)

    def dump_requests(self) -> list[DumpRequest]:
        """Return one for each partition of the output: a record keeps its key, and what is no range keeps its place."""
        job, run = self.merge.owner.job, self.merge.plan.snapshot.run
        folder = self.folder / f"sort-{job.sort_list.index(self.sort.sort):03}"
        folder.mkdir(mode=0o700, exist_ok=True)
        placements, topic = Placements((self._placement(0),), (), self._columns()), self.sort.topic
        return [
            DumpRequest(job, run, topic.id, whole, folder, placements, edges, topic.name, self._keys)
            for whole, edges in self.sort.ranges()
        ]

    def sort_request(self, chunks: tuple[Chunk, ...], target: Target) -> SortRequest:
        """Return the request for the sort of the chunks."""
        job, sort, count = self.merge.owner.job, self.sort.sort, target.partitions(self.sort.sort.name)
        return SortRequest(
            job, sort, chunks, count, self.folder, self._placement(count), self.merge.plan.newest, self._keys
        )

    def _placement(self, count: int) -> Placement:
        return Placement("key", "".join(column.name for column in self._columns()), count)

    def _columns(self) -> tuple[PartitionColumn, ...]:
        return () if self.merge.owner.job.partition_by == "range" else (PartitionColumn("p0", "", 0),)


def _in_order(plan: MergePlan, sort: MergedSort, dumped: Sequence[Dumped]) -> tuple[Chunk, ...]:
    """Return the chunks in the order of the source: by the age of their runs, then as they lie in the output."""
    ages = {run.number: age for age, run in enumerate(plan.runs)}
    chunks = [chunk for part in dumped for chunk in part.chunks]
    return tuple(sorted(chunks, key=lambda c: (ages[sort.piece_of(c).run.number], c.range.partition, c.range.start)))


def count_output(plan: MergePlan, sort: MergedSort, chunks: Iterable[Chunk]) -> MergedOutput:
    """Count what was read of an output, and compare it with what the runs wrote.

    UnfitRecordError if a record has no key any more; ContentError if what was read is not what a run wrote.
    """
    read: dict[int, list[Chunk]] = defaultdict(list)
    for chunk in chunks:
        _refuse_unfit(sort, chunk)
        read[sort.piece_of(chunk).run.number].append(chunk)
    former = [run.sorts[sort.sort.name] for run in plan.runs if sort.sort.name in run.sorts]
    for run in plan.runs:
        _check_whole(sort, run, read[run.number])
    expired = plan.records - sum(w.superseded for w in former)
    expired -= sum(chunk.records for of_run in read.values() for chunk in of_run)
    sums = sum(int(w.superseded_checksum or "0", 16) for w in former) % _MODULUS
    return MergedOutput(expired, sum(w.superseded for w in former), sums, sort.kept_from)


def _refuse_unfit(sort: MergedSort, chunk: Chunk) -> None:
    if chunk.dead_letter_path is None:
        return
    letter = pq.read_table(chunk.dead_letter_path).slice(0, 1).to_pylist()[0]
    raise UnfitRecordError(
        f"output {sort.topic.name} partition {letter['partition']} offset {letter['offset']}: {letter['reason']}, by "
        "the rules of this version: nothing was changed; make one run of all with kafka-sort sort --mode replace"
    )


def _check_whole(sort: MergedSort, run: FormerRun, chunks: Sequence[Chunk]) -> None:
    """Compare what was read of a run of which nothing has expired with its record."""
    written = run.sorts.get(sort.sort.name)
    pieces = [piece for of_partition in sort.pieces.values() for piece in of_partition if piece.run is run]
    is_whole = len(pieces) == sum(w.count > 0 for w in written.partitions) if written else False
    if written is None or not is_whole or not all(p.is_whole for p in pieces) or any(c.lost for c in chunks):
        return
    records, checksum = sum(c.records for c in chunks), sum(dict(c.published)["key"] for c in chunks) % _MODULUS
    if records != written.count or written.checksum not in {"", f"{checksum:016x}"}:
        raise ContentError(
            f"output {sort.topic.name} has {records} records of run {run.number} (checksum {checksum:016x}), which "
            f"wrote {written.count} ({written.checksum}): it was altered; nothing was changed; kafka-sort verify "
            "finds what differs"
        )
