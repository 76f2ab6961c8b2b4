"""Step 5, sort: all chunks of a run to one sorted file, and its division among output partitions.

Guarantee 1 (order): rows are ordered by (key columns, source partition, source offset), one ordered query over all
chunks; text compares by bytes, integers as integers. Memory is DuckDB's limit, beyond it the sort spills.
"""

import os
import shutil
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Self

import duckdb
import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.boundaries import cut_rows
from tasks.chunks import HEADERS, name_unfinished
from tasks.errors import TerminalError, TransientError
from tasks.failpoints import reach
from tasks.formats.csv import CsvFormat, format_of
from tasks.observe.context import current_run
from tasks.observe.logs import get_logger, log_context
from tasks.observe.metrics import current_metrics
from tasks.records import Chunk, Key, SortedFile
from tasks.settings.budget import Budget
from tasks.settings.job import Job
from tasks.settings.words import Sort

# Of a batch on its way from DuckDB to the file, and of one read by publish.
_BATCH_ROWS = 100_000
_SHOWN_BYTES = 100
_LOCKED = "SET enable_progress_bar = false; SET enable_external_access = false; SET lock_configuration = true"
_BATCH_BYTES = 32_000_000


@dataclass(frozen=True)
class SortRequest:
    """What a sort task is told: small and picklable, so that it can run elsewhere."""

    job: Job
    sort: Sort
    chunks: tuple[Chunk, ...]
    partitions: int
    folder: Path


def sort_chunks(request: SortRequest) -> SortedFile:
    """Order all rows of the chunks into one Arrow IPC file; cut it for the output's partitions."""
    reach("before-sort")
    job = request.job
    path = request.folder / f"sorted-{job.sort_list.index(request.sort):03}.arrow"
    unfinished = name_unfinished(path)
    try:
        rows = _write_sorted(request, unfinished)
        expected = sum(chunk.records for chunk in request.chunks)
        if rows != expected:
            raise TerminalError(
                f"sort {request.sort.topic} gave {rows} rows of {expected}: a chunk was altered; start again"
            )
        os.replace(unfinished, path)
    finally:
        # Where the disk is full, the next attempt needs the space.
        unfinished.unlink(missing_ok=True)
    with SortedKeys(path, rows, format_of(job), request.sort) as keys:
        ranges = cut_rows(keys, request.partitions, split_heavy_keys=job.split_heavy_keys)
        ranges = tuple(replace(r, first_key=_printable(r.first_key), last_key=_printable(r.last_key)) for r in ranges)
    reach("after-sort")
    return SortedFile(request.sort.topic, path, rows, ranges)


def _write_sorted(request: SortRequest, path: Path) -> int:
    """Stream the ordered query into the file; the number of rows."""
    context, rows = current_run(), 0
    meter = context.progress.meter("sort")
    files = [chunk.path for chunk in request.chunks if chunk.path is not None]
    schema = record_schema(request.job, request.chunks)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        if files:
            with _connect(request) as connection, context.stop.interrupting(connection.interrupt):
                for batch in _ordered(connection, request, files, schema):
                    context.stop.check()
                    writer.write_batch(batch)
                    rows += batch.num_rows
                    meter.add(batch.num_rows)
    return rows


def _ordered(
    connection: duckdb.DuckDBPyConnection, request: SortRequest, files: Sequence[Path], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    columns = ", ".join(schema.names)
    relation = connection.sql(
        f"SELECT {columns} FROM read_parquet($files) ORDER BY {order_by(request.job, request.sort)}",  # noqa: S608
        params={"files": [str(file) for file in files]},
    )
    for batch in relation.to_arrow_reader(_batch_rows(request.chunks)):
        yield batch if batch.schema == schema else batch.cast(schema)


def _batch_rows(chunks: Sequence[Chunk]) -> int:
    """By the largest record, not the mean: the order may put large ones together."""
    largest = max((chunk.largest_bytes for chunk in chunks), default=0)
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(largest, 1)))


def order_by(job: Job, sort: Sort) -> str:
    """The ORDER BY terms. Chunks name their key columns by position, so no name of a user's reaches the SQL."""
    position = {name: i for i, name in enumerate(job.key_columns())}
    terms = [f"k{position[key.column]} {'DESC' if key.descending else 'ASC'}" for key in sort.by]
    return ", ".join([*terms, "arrival ASC"])


def record_schema(job: Job, chunks: Sequence[Chunk]) -> pa.Schema:
    """Columns of a sorted file: those of a record that any record of the run has."""
    fields = [("value", pa.binary(), True)]
    fields.append(("key", pa.binary(), any(chunk.has_keys for chunk in chunks)))
    fields.append(("headers", HEADERS, any(chunk.has_headers for chunk in chunks)))
    fields.append(("timestamp", pa.int64(), job.timestamps == "keep"))
    return pa.schema([(name, kind) for name, kind, wanted in fields if wanted])


@contextmanager
def _connect(request: SortRequest) -> Iterator[duckdb.DuckDBPyConnection]:
    """A private DuckDB: bounded, with its own spill folder, blind to files but the attempt's; all this is locked."""
    job = request.job
    budget = Budget.of(job.memory_bytes, job.dump_concurrency, job.sort_concurrency)
    spill = mkdtemp(prefix="spill-", dir=request.folder)
    connection = duckdb.connect(
        config={
            "threads": max(1, (os.cpu_count() or 1) // job.sort_concurrency),
            "memory_limit": f"{budget.duckdb_bytes}B",
            # Pages that are kept, not given back and faulted in again: a third fewer faults, an eighth less CPU where
            # the sort spills (20 million rows in 412 MB), nothing lost where it does not.
            "block_allocator_memory": f"{budget.duckdb_bytes}B",
            # Each chunk is read once, so to keep it in memory would only crowd the sort.
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
            f"sort {request.sort.topic} needs more than its {budget.duckdb_bytes / 1e6:.0f} MB of memory or spill: "
            f"raise --memory-limit, lower --sort-concurrency or make space in {job.workdir} ({_first_line(error)})"
        ) from error
    except (duckdb.IOException, duckdb.InvalidInputException) as error:
        raise TransientError(f"sort {request.sort.topic}: {_first_line(error)}") from error
    finally:
        connection.close()
        shutil.rmtree(spill, ignore_errors=True)


def _first_line(error: duckdb.Error) -> str:
    """What happened; DuckDB's advice on its own settings follows it."""
    return str(error).partition("\n")[0]


class SortedKeys(Sequence[Key]):
    """The keys of a sorted file's rows, read from the records themselves, one at a time."""

    def __init__(self, path: Path, rows: int, fmt: CsvFormat, sort: Sort) -> None:
        self._rows = rows
        self._format = fmt
        self._columns = [key.column for key in sort.by]
        self._map = pa.memory_map(str(path))
        self._file = pa.ipc.open_file(self._map)
        self._newest = (-1, pa.nulls(0))
        self._starts = [0]
        for i in range(self._file.num_record_batches):
            self._starts.append(self._starts[-1] + self._file.get_batch(i).num_rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        del self._newest
        self._map.close()

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> Key:  # type: ignore[override]  # never sliced
        batch = bisect_right(self._starts, row) - 1
        if self._newest[0] != batch:
            self._newest = (batch, self._file.get_batch(batch).column(0))
        value = self._newest[1].slice(row - self._starts[batch], 1)
        columns = self._format.parse(value).columns
        return tuple(columns[name][0].as_py() for name in self._columns)


def _printable(key: Key | None) -> Key | None:
    """As the ledger has it, which must stay small; bytes that are not UTF-8 as escapes."""
    if key is None:
        return None
    return tuple(_shorten(part) if isinstance(part, bytes) else part for part in key)


def _shorten(text: bytes) -> str:
    shown = text[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
    return shown if len(text) <= _SHOWN_BYTES else f"{shown}…"


@task(task_run_name="sort {request.sort.topic}", cache_policy=NO_CACHE, persist_result=False)
def sort_records(request: SortRequest) -> SortedFile:
    """Order all chunks by one sort's key columns."""
    with log_context(stage="sort", sort=request.sort.topic):
        try:
            file = sort_chunks(request)
        except OSError as error:
            raise TransientError(f"sort {request.sort.topic}: {error}") from error
        size = sum(chunk.record_bytes for chunk in request.chunks)
        current_metrics().count("sort", file.rows, size, sort=request.sort.topic)
        get_logger().info("sorted", records=file.rows, partitions=len(file.ranges))
        return file
