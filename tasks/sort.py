"""Step 5, sort: orders all rows of a run, and divides them among output partitions.

Guarantee 1 (order): rows are ordered by (key columns, source partition, source offset); text compares by bytes,
integers as integers. DuckDB orders keys and row numbers, one part of the run at a time, which fits the memory.
"""

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import mkdtemp

import duckdb
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.chunks import name_unfinished
from tasks.errors import TerminalError, TransientError
from tasks.failpoints import reach
from tasks.file_columns import file_columns
from tasks.manifests import Chunk, SortedPart, SortedRows
from tasks.observe.logs import get_logger, log_context
from tasks.placement import Placement
from tasks.run_context import current_run
from tasks.settings.budget import Budget
from tasks.settings.job import Job
from tasks.settings.sorts import KeyColumn, Sort
from tasks.sorting.cutting import cut_sort
from tasks.sorting.newest import Newest, keep_newest
from tasks.sorting.order import Order, order_of
from tasks.sorting.order_files import OrderWriter, PartitionedOrder, PlainOrder, count_partitions
from tasks.sorting.rows import RowGroups, RowNumbers, SortedKeys
from tasks.sorting.split import Division, divide
from tasks.stage import Stage

# The limits of a batch of records that publish gathers.
_BATCH_ROWS = 100_000
_BATCH_BYTES = 32_000_000
# Row numbers in a batch from DuckDB to the file of the order.
_ORDER_ROWS = 1_000_000
_LOCKED = "SET enable_progress_bar = false; SET enable_external_access = false; SET lock_configuration = true"


@dataclass(frozen=True)
class SortRequest:
    """The input of a sort task: small and picklable, so that it can run elsewhere.

    `chunks`: in the order of their arrival, which decides among equal keys. `newest`: whether of equal keys the newest
    record alone is kept, and whether that one too is left out if it has no value. `keys`: the key columns of the
    chunks, if these are not all of the job's.
    """

    job: Job
    sort: Sort
    chunks: tuple[Chunk, ...]
    partitions: int
    folder: Path
    placement: Placement = field(default_factory=Placement)
    newest: Newest | None = None
    keys: tuple[KeyColumn, ...] = ()

    @property
    def title(self) -> str:
        """The name of its task for people."""
        return f"sort {self.sort.name}"

    @property
    def number(self) -> int:
        """The number of the sort in its job, for the names of its files."""
        return self.job.sort_list.index(self.sort)


def sort_chunks(request: SortRequest) -> SortedRows:
    """Order all rows of the chunks, in parts that fit the memory; cut them for the output's partitions.

    TransientError if the work folder cannot be used.
    """
    began = time.monotonic()
    try:
        return replace(_sort_chunks(request), seconds=time.monotonic() - began)
    except OSError as error:
        raise TransientError(f"sort {request.sort.name}, work folder {request.job.workdir}: {error}") from error


def _sort_chunks(request: SortRequest) -> SortedRows:
    reach("before-sort")
    job, sort = request.job, request.sort
    order = order_of(request.keys or job.key_columns, sort)
    partition = request.placement.partition
    chunks, key = _kept(request, order), request.placement.key
    columns = record_columns(job, sort, chunks, key)
    parts = order_parts(request, chunks, columns, order, Budget.of(job).part_bytes)
    rows, expected = sum(part.rows for part in parts), sum(chunk.records for chunk in chunks)
    if rows != expected:
        raise TerminalError(f"sort {sort.name} gave {rows} rows of {expected}: a chunk was altered; start again")
    keys = SortedKeys(parts, order.columns)
    counts = count_partitions(parts, partition, request.partitions) if partition else None
    ranges = cut_sort(job, sort, order, keys, request.partitions, counts)
    reach("after-sort")
    checksum = published_checksum(chunks, key)
    return SortedRows(
        sort.name,
        rows,
        tuple(parts),
        columns,
        batch_rows(chunks),
        ranges,
        key=key,
        checksum=checksum,
        superseded=sum(chunk.records for chunk in request.chunks) - rows,
        superseded_checksum=(published_checksum(request.chunks, key) - checksum) % 2**64,
    )


def _kept(request: SortRequest, order: Order) -> tuple[Chunk, ...]:
    """Return the chunks with those rows that the sort keeps: all, if it is not asked for the newest."""
    if request.newest is None:
        return request.chunks

    def name(i: int) -> Path:
        return request.folder / f"newest-{request.number:03}-{i:05}.parquet"

    with _connect(request) as connection, current_run().stop.interrupting(connection.interrupt):
        return keep_newest(connection, request.chunks, order.columns, request.newest, name)


def order_parts(
    request: SortRequest, chunks: Sequence[Chunk], columns: tuple[str, ...], order: Order, most_bytes: int
) -> list[SortedPart]:
    """Divide the rows into parts of at most so many bytes, and order each. `columns`: those of a record."""
    job, partition, number = request.job, request.placement.partition, request.number
    files = [chunk.path for chunk in chunks if chunk.path is not None]
    division = Division(
        order.behind(partition) if partition else order,
        columns,
        most_bytes,
        _threads(job),
        lambda part: request.folder / f"part-{number:03}-{part:05}.parquet",
    )
    divided = divide(files, division) if files else []
    with _connect(request) as connection:
        return [
            _order_part(connection, part, order, partition, request.folder / f"order-{number:03}-{i:05}.u32")
            for i, part in enumerate(divided)
        ]


def published_checksum(chunks: Iterable[Chunk], key: str) -> int:
    """Return the checksum of the records with the record keys of this column."""
    return sum(dict(chunk.published).get(key, 0) for chunk in chunks) % 2**64


def _order_part(
    connection: duckdb.DuckDBPyConnection, files: tuple[Path, ...], order: Order, partition: str, path: Path
) -> SortedPart:
    """Write the numbers of the part's rows in their order, behind the column of partitions, if there is one."""
    context, groups, rows = current_run(), RowGroups(files), 0
    meter = context.progress.meter("sort")
    unfinished = name_unfinished(path)
    try:
        with unfinished.open("wb") as sink, context.stop.interrupting(connection.interrupt):
            writer: OrderWriter = PartitionedOrder(sink, groups, partition) if partition else PlainOrder(sink)
            for numbers in _ordered(connection, groups, order):
                context.stop.check()
                writer.write(numbers)
                rows += len(numbers)
                meter.add(len(numbers))
        os.replace(unfinished, path)
    finally:
        # If the disk is full, the next attempt needs the space.
        unfinished.unlink(missing_ok=True)
    return SortedPart(files, path, rows)


def _ordered(connection: duckdb.DuckDBPyConnection, groups: RowGroups, order: Order) -> Iterator[RowNumbers]:
    """Select the row numbers in order. Rows are numbered by arrival, so their number is the order's last term."""
    relation = connection.sql(
        "SELECT (file_row_number + list_extract($starts, file_index::BIGINT + 1))::UINTEGER AS row "  # noqa: S608
        f"FROM read_parquet($files, file_row_number = true) ORDER BY {order.sql}",
        params={"files": [str(file) for file in groups.files], "starts": groups.file_starts},
    )
    for batch in relation.to_arrow_reader(_ORDER_ROWS):
        yield batch.column(0).to_numpy()


def batch_rows(chunks: Sequence[Chunk]) -> int:
    """Return how many records may be gathered at once.

    It goes by the largest record, not the mean: the order may put large ones together.
    """
    largest = max((chunk.largest_bytes for chunk in chunks), default=0)
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(largest, 1)))


def record_columns(job: Job, sort: Sort, chunks: Sequence[Chunk], key: str = "key") -> tuple[str, ...]:
    """Return the columns of the output that any record of the run has.

    `key`: the column of record keys; empty for none.
    """
    has_keys, has_headers = any(chunk.has_keys for chunk in chunks), any(chunk.has_headers for chunk in chunks)
    return possible_columns(job, sort, key, has_keys=has_keys, has_headers=has_headers)


def possible_columns(
    job: Job, sort: Sort, key: str, *, has_keys: bool = True, has_headers: bool = True
) -> tuple[str, ...]:
    """Return the columns of the output, if any record has a key, or headers."""
    wanted = {
        "value": True,
        key: has_keys if key == "key" else bool(key),
        "headers": has_headers,
        "timestamp": job.timestamps == "keep",
    }
    if sort.has_folder:
        others = (name for name in file_columns(job, sort).sources if name not in {"value", "key", "headers"})
        wanted |= dict.fromkeys(others, True)
    return tuple(name for name in wanted if wanted[name])


def _threads(job: Job) -> int:
    return max(1, (os.cpu_count() or 1) // job.sort_concurrency)


@contextmanager
def _connect(request: SortRequest) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a private DuckDB: bounded, with its own spill folder, and files of the attempt only; all this is locked."""
    job = request.job
    budget = Budget.of(job)
    spill = mkdtemp(prefix="spill-", dir=request.folder)
    connection = duckdb.connect(
        config={
            "threads": _threads(job),
            "memory_limit": f"{budget.duckdb_bytes}B",
            # Pages are kept, not given back and faulted in again: a third fewer faults, an eighth less CPU if the sort
            # spills (20 million rows in 412 MB), no loss if it does not.
            "block_allocator_memory": f"{budget.duckdb_bytes}B",
            # Each chunk is read once, so to keep it in memory would only take space from the sort.
            "enable_external_file_cache": False,
            "temp_directory": spill,
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
        }
    )
    try:
        connection.execute("SET allowed_directories = [$folder]", {"folder": str(request.folder)})
        connection.execute(_LOCKED)
        yield connection
    except duckdb.InterruptException:
        current_run().stop.check()
        raise
    except duckdb.OutOfMemoryException as error:
        raise TerminalError(
            f"sort {request.sort.name} needs more than its {budget.duckdb_bytes / 1e6:.0f} MB of memory or spill: "
            f"raise --memory-limit, lower --sort-concurrency or make space in {job.workdir} ({_first_line(error)})"
        ) from error
    except (duckdb.IOException, duckdb.InvalidInputException) as error:
        raise TransientError(f"sort {request.sort.name}: {_first_line(error)}") from error
    finally:
        connection.close()
        shutil.rmtree(spill, ignore_errors=True)


def _first_line(error: duckdb.Error) -> str:
    """Return the error itself; DuckDB's advice on its own settings follows it."""
    return str(error).partition("\n")[0]


@task(task_run_name="{request.title}", cache_policy=NO_CACHE, persist_result=False)
def sort_records(request: SortRequest) -> SortedRows:
    """Order all chunks by one sort's key columns."""
    with log_context(stage="sort", sort=request.sort.name):
        done = sort_chunks(request)
        get_logger().info("sorted", records=done.rows, partitions=len(done.ranges), parts=len(done.parts))
        return done


SORT: Stage[SortRequest, SortedRows] = Stage(
    "sort", meter="sort", work=sort_chunks, task=sort_records, at_once=lambda job: job.sort_concurrency
)
