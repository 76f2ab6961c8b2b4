"""Step 5, dump: writes one source partition's range to Parquet chunks, with the typed key columns beside each record.

Guarantee 3 (nothing lost in silence): a chunk holds every record of its offsets, either among the rows or among the
dead letters. It appears by rename, with its manifest; a chunk whose manifest does not fit is recreated.
"""

import gc
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.arrow import DEAD_LETTERS, RECORD, partition_column
from tasks.checksum import sum_records
from tasks.chunks import ChunkFolder, Chunks
from tasks.errors import SourceLostError
from tasks.failpoints import reach
from tasks.file_columns import source_place
from tasks.formats.base import RecordFormat, used_schemas
from tasks.formats.registry import make_format
from tasks.kafka.consumer_pool import ConsumerPool
from tasks.kafka.fetch import Block
from tasks.kafka.range_reader import RangeReader
from tasks.keys import chunk_schema, encode_keys
from tasks.manifests import Chunk, Dumped, Location, OffsetRange
from tasks.observe.logs import get_logger, log_context
from tasks.placement import OutputColumns, Placements
from tasks.run_context import Meter, current_run
from tasks.settings.budget import Budget
from tasks.settings.connection import current_connection
from tasks.settings.job import Job
from tasks.settings.sorts import KeyColumn
from tasks.sorting.divided_chunks import open_divided, thin_times
from tasks.stage import Stage
from tasks.storage.base import using_storage

# Offsets of a chunk: a retry repeats at most one chunk, and DuckDB reads several side by side.
CHUNK_OFFSETS = 2_000_000
# DuckDB's own row group size: each of its readers takes one row group at a time.
_ROW_GROUP_ROWS = 122_880

# One of so many records leaves its timestamp in the manifest, for the latency.
_TIMED_RECORDS = 1000


@dataclass(frozen=True)
class DumpRequest:
    """The input of a dump task: small and picklable, so that it can run elsewhere.

    `edges`: offsets at which a chunk must begin. `topic`, `keys`: what is read, and its key columns, if these are not
    the source and all key columns of the job. `divided`: the storage that has the parts of each sort, into which chunks
    are divided as they are written; None: chunks stay whole, in the folder.
    """

    job: Job
    run: int
    topic_id: str
    range: OffsetRange
    folder: Path
    placements: Placements = field(default_factory=Placements)
    edges: tuple[int, ...] = ()
    topic: str = ""
    keys: tuple[KeyColumn, ...] = ()
    divided: Location | None = None

    @property
    def title(self) -> str:
        """The name of its task for people."""
        return f"dump {self.topic_name}/{self.range.partition}"

    @property
    def topic_name(self) -> str:
        """The topic that is read."""
        return self.topic or self.job.source_topic

    @property
    def key_columns(self) -> Sequence[KeyColumn]:
        """The key columns that the chunks have."""
        return self.keys or self.job.key_columns

    @property
    def chunks(self) -> Chunks:
        """The place of its chunks."""
        if self.divided is None:
            return ChunkFolder(self.folder, self.run, self.topic_id)
        return open_divided(self.divided, self.run, self.topic_id, Budget.of(self.job).divided_bytes)


def dump_range(request: DumpRequest, consumers: ConsumerPool | None = None) -> Dumped:
    """Read the range into chunks of CHUNK_OFFSETS; chunks that a former attempt finished are taken as they are.

    `consumers`: the pool of a caller that reads range after range; without one, the range has a consumer of its own.
    TransientError if the work folder cannot be used.
    """
    began = time.monotonic()
    reach("before-dump")
    own = closing(ConsumerPool(request.job, current_connection())) if consumers is None else nullcontext(consumers)
    where = f"dump of {request.topic_name}/{request.range.partition}"
    with using_storage(where, request.job.workdir), own as pool, pool.take(request.topic_name) as reader:
        fmt = make_format(request.job, request.key_columns)
        making = _Making(fmt, OutputColumns(request.job, request.placements), request.chunks)
        ranges = split_range(request.range, request.edges)
        chunks = tuple(_take_chunk(request, offsets, reader, making) for offsets in ranges)
    reach("after-dump")
    return Dumped(request.range, chunks, time.monotonic() - began)


@dataclass(frozen=True)
class _Making:
    """Makes chunks out of records. Its parts are made once a task, since a format may hold a cache."""

    fmt: RecordFormat
    outputs: OutputColumns
    chunks: Chunks


def _take_chunk(request: DumpRequest, offsets: OffsetRange, reader: RangeReader, making: _Making) -> Chunk:
    """Return the chunk of these offsets: a former attempt's, or a new one."""
    meter = current_run().progress.meter("dump")
    chunk = making.chunks.find(offsets)
    if chunk is not None:
        meter.add(offsets.span)
        return chunk
    reach("before-dump-chunk")
    with _paused_gc():
        chunk = _dump_chunk(request, offsets, reader, making, meter)
    reach("after-dump-chunk")
    return chunk


def refuse_lost(job: Job, chunks: Sequence[Chunk]) -> None:
    """Raise SourceLostError if records were removed before they were read, unless the job goes on without them."""
    lost = tuple(lost for chunk in chunks for lost in chunk.lost)
    if lost and not job.skip_lost:
        raise SourceLostError(job.source_topic, lost)


def split_range(whole: OffsetRange, edges: Iterable[int] = ()) -> Iterator[OffsetRange]:
    """Split the range into consecutive ranges of at most CHUNK_OFFSETS, one for each chunk, and at these edges."""
    inner = {edge for edge in edges if whole.start < edge < whole.end}
    starts = {*range(whole.start, whole.end, CHUNK_OFFSETS), *inner}
    for start, end in pairwise([*sorted(starts), whole.end]):
        yield OffsetRange(whole.partition, start, end)


def _dump_chunk(
    request: DumpRequest, offsets: OffsetRange, reader: RangeReader, making: _Making, meter: Meter
) -> Chunk:
    tally = _Tally(dict.fromkeys(request.placements.record_keys, 0))
    buffer_bytes = Budget.of(request.job).chunk_buffer_bytes
    schema = chunk_schema(request.key_columns, source_place(request.job))
    with making.chunks.writer(offsets, request.placements.extend(schema)) as writer:
        for group in _gather(reader.read(offsets), offsets.partition, buffer_bytes, meter):
            table, rejects = group.split(request.job, making.fmt, request.key_columns)
            table = making.outputs.add(table, offsets.partition)
            tally.add(table, group.times)
            writer.write(table, rejects)
            reach("after-dump-block")
    # Progress counts offsets, some of which hold no record.
    meter.add(offsets.span - writer.rows - writer.dead)
    files = writer.finish()
    chunk = Chunk(
        path=files.path,
        range=offsets,
        records=tally.records,
        largest_bytes=tally.largest_bytes,
        checksum=tally.checksum % 2**64,
        has_keys=tally.has_keys,
        has_headers=tally.has_headers,
        dead_letters=writer.dead,
        dead_letter_path=files.dead_letter_path,
        file_bytes=files.file_bytes,
        record_bytes=tally.record_bytes,
        lost=reader.take_lost(),
        published=tuple((key, checksum % 2**64) for key, checksum in tally.published.items()),
        times=tuple(tally.times) if request.divided is None else thin_times(tally.times),
        schemas=used_schemas(making.fmt),
        divided=files.divided,
    )
    making.chunks.write_manifest(chunk)
    return chunk


@dataclass
class _Tally:
    """The facts of a chunk. `published`: column of record keys → checksum of the records with these keys."""

    published: dict[str, int] = field(default_factory=dict)
    records: int = 0
    record_bytes: int = 0
    largest_bytes: int = 0
    checksum: int = 0
    has_keys: bool = False
    has_headers: bool = False
    times: list[int] = field(default_factory=list)

    def add(self, table: pa.Table, times: list[int]) -> None:
        value, key, headers = (table.column(name).chunk(0) for name in ("value", "key", "headers"))
        with_keys, with_headers = key.null_count < len(key), headers.null_count < len(headers)
        checksum = sum_records(value, key, headers)
        self.records += table.num_rows
        # The largest record is that of the source, or that of an output.
        keys = {name: table.column(name).chunk(0) if name else None for name in self.published}
        largest_key = np.max([_sizes(column) for column in (key, *keys.values()) if column is not None], axis=0)
        sizes = _sizes(value) + largest_key + _sizes(headers)
        for name, column in keys.items():
            self.published[name] += checksum if name == "key" else sum_records(value, column, headers)
        self.record_bytes += sum(map(_total_bytes, (value, key, *headers.flatten().flatten())))
        self.largest_bytes = max(self.largest_bytes, int(np.max(sizes, initial=0)))
        self.times += times
        self.checksum += checksum
        self.has_keys |= with_keys
        self.has_headers |= with_headers


def _gather(blocks: Iterator[Block], partition: int, buffer_bytes: int, meter: Meter) -> Iterator["RowGroup"]:
    """Gather the blocks into row groups.

    Parsing, hashing and writing release the GIL, but each takes it often: done a block at a time, two threads spend
    their time handing it to each other, so they are done a row group at a time.
    """
    group = RowGroup(partition)
    # A block of large records is a multiple of what a parser may have at once.
    for block in chain.from_iterable(block.split(buffer_bytes) for block in blocks):
        if group.rows >= _ROW_GROUP_ROWS or (group.rows and group.bytes + block.nbytes > buffer_bytes):
            yield group
            group = RowGroup(partition)
        group.add(block)
        meter.add(len(block))
    if group.rows:
        yield group


class RowGroup:
    """The records of one row group, as columns."""

    def __init__(self, partition: int) -> None:
        self.rows = 0
        self.bytes = 0
        self.times: list[int] = []
        self._partition = partition
        self._columns: dict[str, list[pa.Array]] = {name: [] for name in RECORD.names if name != "partition"}

    def add(self, block: Block) -> None:
        """Add the records of a block."""
        columns = (block.values, block.keys, block.headers, pa.array(block.timestamps), pa.array(block.offsets))
        for name, column in zip(self._columns, columns, strict=True):
            self._columns[name].append(column)
        self.rows += len(block)
        self.bytes += block.nbytes
        self.times += block.timestamps[::_TIMED_RECORDS].tolist()

    def split(self, job: Job, fmt: RecordFormat, keys: Sequence[KeyColumn]) -> tuple[pa.Table, pa.Table]:
        """Return the accepted records as a table of the chunk's schema, and the dead letters.

        `keys` numbers the key columns, for chunks as for the order of a sort: a format may have them in another order.
        """
        columns = {name: pa.concat_arrays(columns) for name, columns in self._columns.items()}
        group = pa.table({**columns, "partition": partition_column(self._partition, self.rows)}, RECORD)
        parsed = fmt.parse(group)
        rejects = self._dead_letters(group, parsed.rejected)
        accepted = parsed.accepted(self.rows)
        rows = group if accepted is None else group.take(pa.array(accepted))
        schema = chunk_schema(keys, source_place(job))
        record = {name: rows.column(name) for name in RECORD.names if name in schema.names}
        if job.timestamps != "keep" and not job.folder_sorts:
            record["timestamp"] = pa.nulls(len(rows), pa.int64())
        return pa.table({**record, **encode_keys(keys, parsed.columns)}, schema), rejects

    def _dead_letters(self, group: pa.Table, rejected: dict[int, str]) -> pa.Table:
        indexes = sorted(rejected)
        rows = group.take(pa.array(indexes, pa.int64()))
        rows = rows.append_column("reason", pa.array([rejected[i] for i in indexes], pa.string()))
        return rows.select(DEAD_LETTERS.names).cast(DEAD_LETTERS)


def _sizes(column: pa.Array) -> npt.NDArray[np.int64]:
    """Return the bytes of each entry; for headers, an even share of all their bytes is good enough."""
    if pa.types.is_binary(column.type):
        return np.asarray(pa.compute.binary_length(column).fill_null(0)).astype(np.int64)
    return np.full(len(column), column.nbytes // max(len(column), 1))


def _total_bytes(column: pa.Array) -> int:
    return int(pa.compute.sum(pa.compute.binary_length(column)).as_py() or 0)


_gc_lock = threading.Lock()
_gc_pauses = 0


@contextmanager
def _paused_gc() -> Iterator[None]:
    """Pause cyclic collection: thousands of live messages make each one long, and they hold no cycles."""
    global _gc_pauses  # noqa: PLW0603  # the process has one collector, and the dumps share its pause
    with _gc_lock:
        _gc_pauses += 1
        gc.disable()
    try:
        yield
    finally:
        with _gc_lock:
            _gc_pauses -= 1
            if not _gc_pauses:
                gc.enable()


@task(
    task_run_name="{request.title}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def dump_partition(request: DumpRequest) -> Dumped:
    """Read one partition into chunks."""
    with log_context(stage="dump", partition=request.range.partition):
        dumped = dump_range(request)
        get_logger().info(
            "dumped",
            start=request.range.start,
            end=request.range.end,
            records=dumped.records,
            dead_letters=dumped.dead_letters,
        )
        return dumped


DUMP: Stage[DumpRequest, Dumped] = Stage(
    "dump",
    meter="dump",
    work=dump_range,
    task=dump_partition,
    at_once=lambda job: job.dump_concurrency,
    source=lambda request: (request.topic_name, request.topic_id),
)
