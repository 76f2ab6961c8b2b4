"""The rows of a sort on their way to an output: in order, cut at the partitions, compared with what was read.

Guarantee 2 (all or nothing, exactly once) begins here: rows that disk or memory altered are found before the commit.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from tasks.checksum import hash_records, sum_hashes
from tasks.errors import TerminalError
from tasks.failpoints import reach
from tasks.manifests import KeyRange, SortedRows
from tasks.publication import Publication
from tasks.run_context import current_run
from tasks.settings.job import Job
from tasks.sorting.rows import RowGatherer
from tasks.targets.base import Columns, Sent, Writing

# Partition and columns of records of it, in order.
Write = Callable[[int, Columns], None]


class ContentError(TerminalError):
    """The rows to publish are not the rows that were read."""

    action = "Check disk and memory of the machine, then start again."
    at_risk = "No: nothing was published. But this machine alters data."


@dataclass(frozen=True)
class Total:
    """The number of rows that were written, and the checksum of their records. Those of parts of a sort add up."""

    rows: int = 0
    checksum: int = 0

    def __add__(self, other: "Total") -> "Total":
        return Total(self.rows + other.rows, (self.checksum + other.checksum) % 2**64)


def write_sorts(job: Job, writing: Writing, publication: Publication, wanted: Collection[str]) -> list[Sent]:
    """Write the rows of the wanted sorts, one sort after the other, and return what was sent of each."""
    meter, gatherer, sent = current_run().progress.meter("publish"), RowGatherer(), []
    columns = {sort.name: sort.columns for sort in job.sort_list}
    for rows in (rows for rows in publication.sorts if rows.sort in wanted):
        total = write_rows(partial(writing.write, rows.sort), rows, gatherer, meter.add)
        sent.append(Sent(rows, columns[rows.sort], require_all(rows, total).checksum))
    return sent


def write_rows(
    write: Write,
    sort: SortedRows,
    gatherer: RowGatherer,
    count: Callable[[int], None],
    first: int = 0,
    end: int | None = None,
) -> Total:
    """Write rows [first, end) of a sort in order, each to the partition of its range; all of them by default.

    ContentError if they cannot be read back.
    """
    total = Total()
    for batch in _gathered(sort, gatherer, first, end):
        current_run().stop.check()
        reach("before-publish-batch")
        columns = {"key" if name == sort.key else name: batch.column(name) for name in batch.schema.names}
        for key_range, part in _cut_batch(sort.ranges, first + total.rows, batch.num_rows):
            write(key_range.partition, {name: column[part] for name, column in columns.items()})
        hashes = hash_records(columns["value"], columns.get("key"), columns.get("headers"))
        total += Total(batch.num_rows, sum_hashes(hashes))
        count(batch.num_rows)
        reach("after-publish-batch")
    return total


def require_all(sort: SortedRows, total: Total) -> Total:
    """Return the total of a sort; ContentError if these rows are not what was read."""
    if total != Total(sort.rows, sort.checksum):
        raise ContentError(
            f"sort {sort.sort}: the {total.rows} rows to publish are not the {sort.rows} that were read (checksum "
            f"{total.checksum:016x}, expected {sort.checksum:016x}): disk or memory altered them; nothing was "
            "published, start again"
        )
    return total


def require_range(sort: SortedRows, key_range: KeyRange, total: Total) -> Total:
    """Return the total of one range; ContentError if it has another number of rows. Their checksum adds up later."""
    if total.rows != key_range.count:
        raise ContentError(
            f"sort {sort.sort} partition {key_range.partition}: the {total.rows} rows to publish are not the "
            f"{key_range.count} that were sorted: disk or memory altered them; nothing was published, start again"
        )
    return total


def _gathered(sort: SortedRows, gatherer: RowGatherer, first: int, end: int | None) -> Iterator[pa.RecordBatch]:
    try:
        yield from gatherer.batches(sort, first, end)
    except (OSError, IndexError) as error:
        raise ContentError(
            f"sort {sort.sort}: its rows cannot be read back ({error}): disk or memory altered them; nothing was "
            "published, start again"
        ) from error


def _cut_batch(ranges: tuple[KeyRange, ...], first: int, count: int) -> Iterator[tuple[KeyRange, slice]]:
    """Yield the parts of a batch, rows [first, first + count) of the sort, by output partition."""
    for key_range in ranges:
        start, end = max(key_range.first_row, first), min(key_range.end_row, first + count)
        if start < end:
            yield key_range, slice(start - first, end - first)
