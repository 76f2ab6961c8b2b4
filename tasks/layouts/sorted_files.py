"""The layout of several machines: parts of each sort, each sorted by a task of its own into a file that is only read.

Sample ▶ dump and divide ▶ sort ▶ cut. Bounds of the parts come from a sample, by keys alone. A task that dumps divides
its chunk for each sort; a task that sorts fetches the rows of its part from all chunks. What goes to a task does not
grow with the number of chunks, and what comes back from it is a few facts.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import ceil
from typing import Final

import pyarrow as pa

from tasks.dump import CHUNK_OFFSETS, DumpRequest, refuse_lost
from tasks.errors import TerminalError
from tasks.file_columns import source_place
from tasks.formats.known_schemas import describe_schemas
from tasks.kafka.clients import KafkaTerminalError, KafkaTransientError
from tasks.keys import chunk_schema
from tasks.layouts.base import Prepared, Work, count_sorted
from tasks.manifests import Chunk, OffsetRange, SortedRows
from tasks.observe.logs import get_logger, log_context
from tasks.placement import Placement, Placements
from tasks.publishers.rows import ContentError
from tasks.settings.budget import Budget
from tasks.settings.sorts import Sort
from tasks.sort import batch_rows, possible_columns, published_checksum, record_columns
from tasks.sort_part import SORT_PART, PartRequest, SortedFacts
from tasks.sorting.cutting import cut_sort
from tasks.sorting.divided_chunks import DIVIDED, PartedSort, list_files, write_plan
from tasks.sorting.key_parts import KeyParts, sample_parts
from tasks.sorting.order import Order, order_of
from tasks.sorting.rows import SortedKeys
from tasks.stage import Capacity
from tasks.storage.base import using_storage
from tasks.storage.registry import open_storage
from tasks.survey import RECORDS, Survey, take_survey

# More parts would make row groups too small to be fetched one by one.
_MOST_PARTS: Final = 500
_MOST_TASKS: Final = 1000
# Tasks of a stage for each worker, so that a slow one has less left to do.
_TASKS_OF_WORKER: Final = 3
# Sampled records for each part: its size is then within a third of the mean, mostly.
_SAMPLED: Final = 100
_SAMPLE_SECONDS: Final = 10.0
_NO_SECONDS: Final = -1.0
_FILL: Final = 0.7


@dataclass(frozen=True)
class _Placed:
    """A sort with its place, and its order behind the column of partitions, if there is one."""

    sort: Sort
    place: Placement
    order: Order


class SortedFiles:
    """Sample ▶ dump and divide ▶ sort ▶ cut."""

    def prepare(self, work: Work, placements: Placements, placed: Sequence[tuple[Sort, Placement]]) -> Prepared:
        """Dump and sort."""
        with using_storage("sort", work.job.workdir):
            return self._prepare(work, placements, placed)

    def _prepare(self, work: Work, placements: Placements, placed: Sequence[tuple[Sort, Placement]]) -> Prepared:
        storage, capacity = open_storage(work.storage), work.runner.capacity(work.job)
        sorts = [_place(work, *pair) for pair in placed]
        survey = _sample(work, placements, capacity)
        plan = [_plan_parts(work, survey, sort, capacity) for sort in sorts]
        write_plan(storage, plan)
        chunks = _dump(work, placements, capacity)
        parted = [(sort, parts.parts) for sort, parts in zip(sorts, plan, strict=True)]
        made = _sort(work, placements, chunks, parted)
        storage.remove(DIVIDED)
        return Prepared(chunks, made)


def _place(work: Work, sort: Sort, place: Placement) -> _Placed:
    order = order_of(work.job.key_columns, sort)
    behind = order.behind(place.partition) if place.partition else order
    return _Placed(sort, place, behind)


def _sample(work: Work, placements: Placements, capacity: Capacity) -> Survey:
    fetched = Budget.of(capacity.job).fetched_bytes
    rough = work.snapshot.span * work.snapshot.mean_record_bytes / (fetched * _FILL)
    most = max(RECORDS, _SAMPLED * min(_MOST_PARTS, int(rough)))
    try:
        return take_survey(work.owner, work.snapshot, placements, most, _SAMPLE_SECONDS)
    except (KafkaTransientError, KafkaTerminalError) as error:
        # Such as records that have expired since the snapshot: the dump knows what to do about these.
        get_logger().warning("no sample was read, so each sort has one part", error=str(error))
        return take_survey(work.owner, work.snapshot, placements, most, _NO_SECONDS)


def _plan_parts(work: Work, survey: Survey, sort: _Placed, capacity: Capacity) -> PartedSort:
    """Return the parts of a sort: each is as large as a task can hold, but there is one for each worker."""
    columns = possible_columns(work.job, sort.sort, sort.place.key)
    wanted = tuple(dict.fromkeys((*columns, *sort.order.columns)))
    rows = work.snapshot.span * survey.share * survey.placed_share
    size = rows * survey.row_bytes(*wanted)
    parts = ceil(size / (Budget.of(capacity.job).fetched_bytes * _FILL))
    sampled = {name: survey.rows.column(name).combine_chunks() for name in sort.order.columns}
    found = sample_parts(sort.order, sampled, survey.weights, min(max(parts, capacity.tasks), _MOST_PARTS))
    return PartedSort(found, wanted)


def _dump(work: Work, placements: Placements, capacity: Capacity) -> tuple[Chunk, ...]:
    job, snapshot = work.job, work.snapshot
    requests = [
        DumpRequest(job, snapshot.run, snapshot.source_topic_id, r, work.folder, placements, divided=work.storage)
        for r in split_ranges(snapshot.ranges, capacity.tasks)
    ]
    chunks = tuple(chunk for part in work.dump(requests) for chunk in part.chunks)
    refuse_lost(job, chunks)
    describe_schemas(work.owner.recorded_format, chunks)
    return chunks


def split_ranges(ranges: Sequence[OffsetRange], workers: int) -> Iterator[OffsetRange]:
    """Split ranges so that all workers have something to read, into pieces no smaller than a chunk where that does."""
    total = sum(r.span for r in ranges)
    fair = min(max(total / (workers * _TASKS_OF_WORKER), CHUNK_OFFSETS), total / workers)
    size = max(fair, total / _MOST_TASKS, 1)
    for r in ranges:
        pieces = max(1, round(r.span / size))
        edges = [r.start + r.span * i // pieces for i in range(pieces + 1)]
        yield from (OffsetRange(r.partition, start, end) for start, end in pairwise(edges) if start < end)


def _sort(
    work: Work, placements: Placements, chunks: Sequence[Chunk], sorts: Sequence[tuple[_Placed, KeyParts]]
) -> tuple[SortedRows, ...]:
    records = sum(chunk.records for chunk in chunks)
    requests = [
        request
        for place, (sort, parts) in enumerate(sorts if records else ())
        for request in _requests(work, placements, chunks, place, sort, parts)
    ]
    facts = work.sort(SORT_PART, requests, records * len(sorts))
    by_sort = {
        name: [done for _, done in pairs]
        for name, pairs in groupby(zip(requests, facts, strict=True), key=lambda pair: pair[0].sort.name)
    }
    made = tuple(_cut(work, chunks, sort, by_sort.get(sort.sort.name, [])) for sort, _ in sorts)
    for done in made:
        count_sorted(done, chunks)
    return made


def _requests(
    work: Work, placements: Placements, chunks: Sequence[Chunk], place: int, sort: _Placed, parts: KeyParts
) -> Iterator[PartRequest]:
    """Yield a request for each part of a sort, the `place`-th of the plan."""
    job = work.job
    names = (name for chunk in chunks for name in chunk.divided[place])
    files = list_files(open_storage(work.storage), place, names)
    columns = record_columns(job, sort.sort, chunks, sort.place.key)
    whole = placements.extend(chunk_schema(job.key_columns, source_place(job)))
    schema = pa.schema([whole.field(name) for name in dict.fromkeys((*columns, *sort.order.columns))])
    for part in range(parts.count):
        yield PartRequest(
            job, sort.sort, part, files, work.storage, work.folder, columns, schema, batch_rows(chunks), sort.place
        )


def _cut(work: Work, chunks: Sequence[Chunk], sort: _Placed, facts: Sequence[SortedFacts]) -> SortedRows:
    """Put the parts together, and cut them for the output's partitions.

    ContentError if their rows are not those that were read.
    """
    job, place = work.job, sort.place
    parts = tuple(done.file for done in facts if done.file is not None)
    rows, checksum = sum(done.rows for done in facts), published_checksum(chunks, place.key)
    _check_whole(sort.sort, chunks, facts, rows, checksum)
    order = order_of(job.key_columns, sort.sort)
    counts = Counter[int]()
    for done in facts:
        counts.update(dict(done.counts))
    placed = [counts[partition] for partition in range(place.count)] if place.partition else None
    keys = SortedKeys(parts, order.columns)
    ranges = cut_sort(job, sort.sort, order, keys, place.count, placed)
    columns = record_columns(job, sort.sort, chunks, place.key)
    seconds = sum(done.seconds for done in facts)
    with log_context(stage="sort", run=work.snapshot.run, sort=sort.sort.name):
        get_logger().info("sorted", records=rows, partitions=len(ranges), parts=len(parts))
    return SortedRows(sort.sort.name, rows, parts, columns, batch_rows(chunks), ranges, seconds, place.key, checksum)


def _check_whole(sort: Sort, chunks: Sequence[Chunk], facts: Sequence[SortedFacts], rows: int, checksum: int) -> None:
    expected, found = sum(chunk.records for chunk in chunks), sum(done.checksum for done in facts) % 2**64
    if rows != expected:
        raise TerminalError(f"sort {sort.name} gave {rows} rows of {expected}: a file was altered; start again")
    if found != checksum:
        raise ContentError(
            f"sort {sort.name}: its sorted rows are not those that were read (checksum {found:016x}, expected "
            f"{checksum:016x}): disk or memory altered them; nothing was published, start again"
        )
