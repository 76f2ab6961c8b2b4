"""Publications: what dump and sort leave for the publish of a run, and the facts that a merge adds to its record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from tasks import checksum
from tasks.manifests import Chunk, LostRange, Snapshot, SortedRows
from tasks.run_record import MERGE, CoveredRuns, DeletedRange, RunRecord, WrittenSort
from tasks.targets.base import Target


@dataclass(frozen=True)
class MergedOutput:
    """The facts of a merge about one output. `expired`, `superseded`: of all runs that went into it, however early.

    `kept_from`: partition → the offset from which on there are runs that the merge leaves as they are.
    """

    expired: int
    superseded: int
    superseded_checksum: int
    kept_from: Mapping[int, int]

    def complete(self, sort: WrittenSort, rows: SortedRows) -> WrittenSort:
        """Add the facts to what was written."""
        kept = (DeletedRange(d.partition, self.kept_from.get(d.partition, d.before)) for d in sort.delete_before)
        return replace(
            sort,
            delete_before=tuple(kept),
            expired=self.expired,
            superseded=self.superseded + rows.superseded,
            superseded_checksum=f"{(self.superseded_checksum + rows.superseded_checksum) % 2**64:016x}",
        )


@dataclass(frozen=True)
class Merged:
    """The facts of a merge, which publishes records again. `covers`: their runs, in the order of their age.

    `records`, `checksum`: of the source, as these runs had placed them. `outputs`: by the names of the sorts.
    """

    covers: tuple[CoveredRuns, ...]
    records: int
    checksum: str
    outputs: Mapping[str, MergedOutput]
    options: Mapping[str, Any]

    def complete(self, record: RunRecord, sorts: Sequence[SortedRows]) -> RunRecord:
        """Make the record of a run that read nothing of the source that of the merge."""
        rows = {done.sort: done for done in sorts}
        return replace(
            record,
            records=self.records,
            dead_letters=0,
            # What retention has removed meanwhile is counted as expired: the source has lost nothing.
            lost=(),
            checksum={"name": checksum.NAME, "sum": self.checksum},
            sorts=tuple(self.outputs[sort.topic].complete(sort, rows[sort.topic]) for sort in record.sorts),
            options={**record.options, **self.options},
            covers=self.covers,
            requires=(MERGE, *record.requires),
        )


@dataclass(frozen=True)
class Publication:
    """The input of a publish attempt, besides the owner; it is the same for every attempt of one run.

    `merged`: of a merge, whose records are those of other runs.
    """

    attempt: str
    snapshot: Snapshot
    chunks: tuple[Chunk, ...]
    sorts: tuple[SortedRows, ...]
    target: Target
    started: datetime
    merged: Merged | None = None

    @property
    def records(self) -> int:
        """The number of rows in each sort."""
        return sum(chunk.records for chunk in self.chunks)

    @property
    def dead_letters(self) -> int:
        """The number of records that no sort can place."""
        return sum(chunk.dead_letters for chunk in self.chunks)

    @property
    def lost(self) -> tuple[LostRange, ...]:
        """The ranges that were removed before they were read."""
        return (*self.snapshot.lost, *(lost for chunk in self.chunks for lost in chunk.lost))

    @property
    def record_bytes(self) -> int:
        """The bytes of key, value and headers in the rows of each sort; of a merge, their mean."""
        total = sum(chunk.record_bytes for chunk in self.chunks)
        # A merge has chunks of each sort.
        return total // len(self.sorts) if self.merged else total

    @property
    def disk_bytes(self) -> int:
        """The bytes of chunks and of the sorts' files, when all were there."""
        chunks = {chunk.path for chunk in self.chunks}
        others = frozenset[Path]().union(*(rows.files for rows in self.sorts)) - chunks
        ordered = sum(path.stat().st_size for path in others) + sum(rows.file_bytes for rows in self.sorts)
        return sum(chunk.file_bytes for chunk in self.chunks) + ordered

    @property
    def checksum(self) -> int:
        """The checksum of the records that each sort places, as the source has them."""
        return sum(chunk.checksum for chunk in self.chunks) % 2**64
