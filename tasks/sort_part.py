"""Step 5, sort by parts: each task orders one part of a sort, and writes its rows in order as one file.

Guarantee 1 (order): parts are consecutive in the sort's order, and a part's rows are ordered as those of a whole sort.
A file is written once, and the part's manifest, which comes last, names it: a task that is run twice harms nothing.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.arrow import one_chunk
from tasks.checksum import hash_records, sum_hashes
from tasks.chunks import PLAIN, TableWriter
from tasks.failpoints import reach
from tasks.manifests import Chunk, Location, OffsetRange, SortedFile, SortedRows, read_location
from tasks.observe.logs import get_logger, log_context
from tasks.placement import Placement
from tasks.run_context import current_run
from tasks.settings.budget import Budget
from tasks.settings.job import Job
from tasks.settings.sorts import Sort
from tasks.sort import SortRequest, order_parts
from tasks.sorting.divided_chunks import fetch_part, read_list
from tasks.sorting.order import Order, order_of
from tasks.sorting.rows import RowGatherer
from tasks.stage import Stage
from tasks.storage.base import Storage, read_file, using_storage, write_file
from tasks.storage.registry import open_storage
from tasks.workdir import scratch_folder

# The folder of sorted files.
SORTED: Final = "sorted"
# A row group of a sorted file: it is read whole to look up one key, and a publisher holds four of them.
_GROUP_ROWS: Final = 122_880
_GROUP_BYTES: Final = 8_000_000
# Of what may be gathered at once: a row group ends with a batch.
_BATCH_SHARE: Final = 4


@dataclass(frozen=True)
class PartRequest:
    """The input of a task that sorts one part: small and picklable, so that it can run elsewhere.

    `files`: the name of the list of the sort's files. `columns`: those of a record that any record of the run has.
    `batch_rows`: how many records may be gathered at once.
    """

    job: Job
    sort: Sort
    part: int
    files: str
    storage: Location
    folder: Path
    columns: tuple[str, ...]
    schema: pa.Schema
    batch_rows: int
    placement: Placement

    @property
    def title(self) -> str:
        """The name of its task for people."""
        return f"sort {self.sort.name} part {self.part}"

    @property
    def number(self) -> int:
        """The number of the sort in its job."""
        return self.job.sort_list.index(self.sort)

    @property
    def order(self) -> Order:
        """The order of the sort."""
        return order_of(self.job.key_columns, self.sort)


@dataclass(frozen=True)
class SortedFacts:
    """The result of sorting a part. `checksum`: of its records as they are to be published.

    `file`: None if the part has no row. `counts`: partition → rows, if the order begins with the partition.
    """

    rows: int = 0
    checksum: int = 0
    file: SortedFile | None = None
    counts: tuple[tuple[int, int], ...] = ()
    seconds: float = 0.0


def sort_part(request: PartRequest) -> SortedFacts:
    """Fetch a part's rows, order them, write them; what a former try has finished is taken as it is.

    TransientError if the storage or the folder of this machine cannot be used; FilesGoneError if rows are gone.
    """
    began = time.monotonic()
    storage = open_storage(request.storage)
    with using_storage(request.title, request.job.workdir):
        facts = _find(storage, request)
        if facts is not None:
            current_run().progress.meter("sort").add(facts.rows)
            return facts
        reach("before-sort")
        with scratch_folder(request.folder) as scratch:
            facts = _sort(storage, request, scratch, began)
        write_file(storage, _manifest(request), json.dumps(asdict(facts), default=str).encode())
        reach("after-sort")
    return facts


def _manifest(request: PartRequest) -> str:
    return f"{SORTED}/{request.number:03}-{request.part:05}.json"


def _find(storage: Storage, request: PartRequest) -> SortedFacts | None:
    try:
        raw = json.loads(read_file(storage, _manifest(request)))
        file = raw["file"] and {**raw["file"], "location": read_location(raw["file"]["location"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return SortedFacts(**{**raw, "file": file and SortedFile(**file), "counts": tuple(map(tuple, raw["counts"]))})


def _sort(storage: Storage, request: PartRequest, scratch: Path, began: float) -> SortedFacts:
    gatherer = RowGatherer()
    chunk, most = _fetch(storage, request, scratch, gatherer)
    if not chunk.records:
        return SortedFacts(seconds=time.monotonic() - began)
    job, order = request.job, request.order
    local = SortRequest(job, request.sort, (chunk,), request.placement.count, scratch, request.placement)
    parts = order_parts(local, (chunk,), request.schema.names, order, most)
    rows = SortedRows(
        request.sort.name,
        sum(part.rows for part in parts),
        tuple(parts),
        tuple(request.schema.names),
        max(1, request.batch_rows // _BATCH_SHARE),
    )
    name = f"{SORTED}/{request.number:03}-{request.part:05}-{uuid4().hex[:12]}.parquet"
    with storage.create(name) as sink:
        written = _SortedWriter(sink, request)
        written.write_all(gatherer.batches(rows))
        size = sink.tell()
    return SortedFacts(
        rows.rows,
        written.checksum % 2**64,
        SortedFile(storage.locate(name), rows.rows, size),
        tuple(sorted(written.counts.items())),
        time.monotonic() - began,
    )


def _fetch(storage: Storage, request: PartRequest, scratch: Path, gatherer: RowGatherer) -> tuple[Chunk, int]:
    """Fetch the rows of the part: into memory, with their keys in a file for DuckDB, or all into a file.

    Return the file as a chunk, and the most bytes of it that may be ordered at once.
    """
    tables = fetch_part(storage, read_list(storage, request.files), request.part, request.schema)
    path, most = scratch / "part.parquet", Budget.of(request.job).fetched_bytes
    held: list[pa.Table] = []
    size, whole = 0, True
    for table in tables:
        current_run().stop.check()
        held.append(table)
        size += table.nbytes
        if size > most:
            whole = False
            break
    if whole:
        return _hold(request, held, path, gatherer), sys.maxsize
    with TableWriter(path, request.schema) as writer:
        while held:
            writer.write(held.pop(0))
        for table in tables:
            current_run().stop.check()
            writer.write(table)
    return _chunk(writer.finish(), writer.rows), most


def _hold(request: PartRequest, tables: list[pa.Table], path: Path, gatherer: RowGatherer) -> Chunk:
    """Keep the rows in memory, and write the columns of the order into the file."""
    placed = [request.placement.partition] if request.placement.partition else []
    ordered = [*dict.fromkeys((*placed, *request.order.columns))]
    with TableWriter(path, pa.schema([request.schema.field(name) for name in ordered])) as writer:
        for table in tables:
            writer.write(table.select(ordered))
    finished = writer.finish()
    if finished is not None:
        whole = pa.concat_tables(tables)
        tables.clear()
        gatherer.hold((finished,), {name: one_chunk(whole.column(name)) for name in whole.column_names})
    return _chunk(finished, writer.rows)


def _chunk(path: Path | None, rows: int) -> Chunk:
    return Chunk(path, OffsetRange(0, 0, rows), rows, 0, 0)


class _SortedWriter:
    """Writes the rows of a part in row groups of bounded size. `counts`: partition → rows."""

    def __init__(self, sink: pa.NativeFile, request: PartRequest) -> None:
        self.checksum = 0
        self.counts: Counter[int] = Counter()
        self._sink = sink
        self._request = request
        names = dict.fromkeys((*request.columns, *request.order.columns))
        self._schema = pa.schema([request.schema.field(name) for name in names])
        self._pending: list[pa.RecordBatch] = []

    def write_all(self, batches: Iterator[pa.RecordBatch]) -> None:
        """Write the batches, which come in order."""
        with ExitStack() as stack:
            writer = stack.enter_context(pq.ParquetWriter(self._sink, self._schema, **PLAIN))
            for batch in batches:
                current_run().stop.check()
                self._note(batch)
                self._pending.append(batch.select(self._schema.names))
                if self._is_enough():
                    self._write_group(writer)
            self._write_group(writer)

    def _note(self, batch: pa.RecordBatch) -> None:
        key = self._request.placement.key
        columns = self._request.columns
        keys = batch.column(key) if key in columns else None
        headers = batch.column("headers") if "headers" in columns else None
        self.checksum += sum_hashes(hash_records(batch.column("value"), keys, headers))
        if partition := self._request.placement.partition:
            counts = np.bincount(np.asarray(batch.column(partition)))
            self.counts.update({int(number): int(counts[number]) for number in np.flatnonzero(counts)})

    def _is_enough(self) -> bool:
        rows = sum(map(len, self._pending))
        return rows >= _GROUP_ROWS or sum(batch.nbytes for batch in self._pending) >= _GROUP_BYTES

    def _write_group(self, writer: pq.ParquetWriter) -> None:
        if self._pending:
            table = pa.Table.from_batches(self._pending, self._schema)
            writer.write_table(table, row_group_size=len(table))
            self._pending = []


@task(task_run_name="{request.title}", cache_policy=NO_CACHE, persist_result=False)
def sort_one_part(request: PartRequest) -> SortedFacts:
    """Order the rows of one part by one sort's key columns."""
    with log_context(stage="sort", sort=request.sort.name):
        done = sort_part(request)
        get_logger().info("sorted", part=request.part, records=done.rows)
        return done


SORT_PART: Stage[PartRequest, SortedFacts] = Stage(
    "sort-part", meter="sort", work=sort_part, task=sort_one_part, at_once=lambda job: job.sort_concurrency
)
