"""Chunks that are divided among the parts of each sort while they are written, on the storage of a run.

A file has rows of one chunk for one sort: a row group a part, or several if it is large; parts in order, none for a
part without rows. The file's metadata name the part of each row group. Rows of a part stay in order of arrival. Each
try of a task gives files names of its own, and the chunk's manifest, which comes last, names them: a chunk that is
written twice harms nothing.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import chain, count
from types import TracebackType
from typing import Final, Self
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.arrow import DEAD_LETTERS
from tasks.chunks import PLAIN, ChunkFiles, ChunkWriter, chunk_of
from tasks.manifests import Chunk, Location, OffsetRange
from tasks.sorting.key_parts import KeyParts
from tasks.sorting.order import Order, Term
from tasks.sorting.rows import open_parquet, work_ahead
from tasks.storage.base import Storage, read_file, write_file
from tasks.storage.registry import open_storage

# The folder of what only sorts need.
DIVIDED: Final = "divided"
_PLAN: Final = f"{DIVIDED}/plan.json"
_PARTS: Final = b"parts"
# Row groups that are fetched ahead, and the bytes of one: a heavy key's rows may be most of a file.
_AHEAD: Final = 4
_GROUP_BYTES: Final = 8_000_000
# Timestamps of a chunk that are kept: with many chunks, the driver has them all.
_MOST_TIMES: Final = 16


@dataclass(frozen=True)
class PartedSort:
    """The parts of one sort, and the columns of its rows."""

    parts: KeyParts
    columns: tuple[str, ...]


def write_plan(storage: Storage, sorts: Sequence[PartedSort]) -> None:
    """Write the parts of all sorts, once, for all tasks that divide chunks."""
    plan = [
        {
            "terms": [asdict(term) for term in sort.parts.order.terms],
            "bounds": [bound.hex() for bound in sort.parts.bounds],
            "columns": sort.columns,
        }
        for sort in sorts
    ]
    write_file(storage, _PLAN, json.dumps(plan).encode())


def read_plan(storage: Storage) -> tuple[PartedSort, ...]:
    """Read what `write_plan` wrote."""
    return tuple(
        PartedSort(
            KeyParts(Order(tuple(Term(**term) for term in sort["terms"])), tuple(map(bytes.fromhex, sort["bounds"]))),
            tuple(sort["columns"]),
        )
        for sort in json.loads(read_file(storage, _PLAN))
    )


def open_divided(place: Location, run: int, topic_id: str, most_bytes: int) -> "DividedChunks":
    """Return the chunks of a run on its storage. `most_bytes`: of rows that a task holds until it writes them."""
    return DividedChunks(open_storage(place), run, topic_id, most_bytes)


@dataclass(frozen=True)
class DividedChunks:
    """The chunks of one run's snapshot of one source topic."""

    storage: Storage
    run: int
    topic_id: str
    most_bytes: int

    @cached_property
    def sorts(self) -> tuple[PartedSort, ...]:
        """The parts of each sort."""
        return read_plan(self.storage)

    def find(self, offsets: OffsetRange) -> Chunk | None:
        """Find the chunk that a former try of the task has finished."""
        try:
            raw = json.loads(read_file(self.storage, _manifest(offsets)))
            chunk = chunk_of(raw.pop("chunk"))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return chunk if chunk.range == offsets and raw == self._identity else None

    def writer(self, offsets: OffsetRange, schema: pa.Schema) -> ChunkWriter:
        """Begin a chunk whose rows have this schema."""
        return _DividedWriter(self, _name(offsets), schema)

    def write_manifest(self, chunk: Chunk) -> None:
        """Write the chunk's manifest: from now on the chunk counts."""
        text = json.dumps({**self._identity, "chunk": asdict(chunk)}, default=str)
        write_file(self.storage, _manifest(chunk.range), text.encode())

    @property
    def _identity(self) -> dict[str, object]:
        return {"run": self.run, "topic_id": self.topic_id}


def _name(offsets: OffsetRange) -> str:
    return f"chunk-{offsets.partition:05}-{offsets.start:016}"


def _manifest(offsets: OffsetRange) -> str:
    return f"{DIVIDED}/{_name(offsets)}.json"


class _DividedWriter:
    """Writes one chunk: rows are held, in the order of their parts, until they are as many bytes as a task may hold."""

    def __init__(self, chunks: DividedChunks, name: str, schema: pa.Schema) -> None:
        self.rows = self.dead = 0
        self._chunks = chunks
        self._name = f"{name}-{uuid4().hex[:12]}"
        self._schema = schema
        self._held = [_Held(sort, schema) for sort in chunks.sorts]
        self._files: list[list[str]] = [[] for _ in chunks.sorts]
        self._bytes = 0
        self._pieces = count()
        self._stack = ExitStack()
        self._letters: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, rows: pa.Table, rejects: pa.Table) -> None:
        self.rows += len(rows)
        for held in self._held if len(rows) else ():
            held.add(rows)
        if sum(held.bytes for held in self._held) >= self._chunks.most_bytes:
            self._flush()
        self._reject(rejects)

    def finish(self) -> ChunkFiles:
        self._flush()
        letters = self._chunks.storage.locate(self._letters_name) if self.dead else None
        return ChunkFiles(None, letters, self._bytes, tuple(map(tuple, self._files)))

    def _flush(self) -> None:
        piece = next(self._pieces)
        for number, (held, files) in enumerate(zip(self._held, self._files, strict=True)):
            if held.bytes:
                name = f"{DIVIDED}/{number:03}/{self._name}-{piece:04}.parquet"
                with self._chunks.storage.create(name) as sink:
                    held.write(sink)
                    self._bytes += sink.tell()
                files.append(name)

    @property
    def _letters_name(self) -> str:
        return f"letters/{self._name}.parquet"

    def _reject(self, rejects: pa.Table) -> None:
        if not len(rejects):
            return
        if self._letters is None:
            sink = self._stack.enter_context(self._chunks.storage.create(self._letters_name))
            self._letters = self._stack.enter_context(pq.ParquetWriter(sink, DEAD_LETTERS, **PLAIN))
        self._letters.write_table(rejects, row_group_size=len(rejects))
        self.dead += len(rejects)


class _Held:
    """Rows of one sort that are not written yet. `bytes`: of these rows."""

    def __init__(self, sort: PartedSort, schema: pa.Schema) -> None:
        self.bytes = 0
        self._sort = sort
        self._fields = [schema.field(name) for name in sort.columns]
        # For each part, its rows in order of arrival.
        self._parts: dict[int, list[pa.Table]] = {}

    def add(self, rows: pa.Table) -> None:
        """Take rows of a row group, as they come: sorted by part while they are in the processor's cache."""
        numbers = self._sort.parts.find(rows)
        # Columns that no record has are not moved.
        table = rows.select([f.name for f in self._fields if rows.column(f.name).null_count < len(rows)])
        counts = np.bincount(numbers, minlength=self._sort.parts.count)
        if len(found := np.flatnonzero(counts)) > 1:
            table = table.take(pa.array(np.argsort(numbers, kind="stable")))
        start = 0
        for part in found.tolist():
            self._parts.setdefault(part, []).append(table.slice(start, int(counts[part])))
            start += int(counts[part])
        self.bytes += table.nbytes + 1

    def write(self, sink: pa.NativeFile) -> None:
        """Write all rows, in row groups of one part each, and forget them."""
        parts, of_groups = sorted(self._parts), list[int]()
        there = {name for part in parts for table in self._parts[part] for name in table.column_names}
        schema = pa.schema([field for field in self._fields if field.name in there])
        with pq.ParquetWriter(sink, schema, **PLAIN) as writer:
            for part in parts:
                table = pa.concat_tables(_complete(table, schema) for table in self._parts.pop(part))
                groups = min(-(-table.nbytes // _GROUP_BYTES) or 1, len(table))
                size = -(-len(table) // groups)
                writer.write_table(table, row_group_size=size)
                of_groups += [part] * -(-len(table) // size)
            writer.add_key_value_metadata({_PARTS.decode(): ",".join(map(str, of_groups))})
        self.bytes = 0


def _complete(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the table with all columns of the schema, null where it has none."""
    if table.schema.names == schema.names:
        return table
    columns = {name: table.column(name) for name in table.column_names}
    return pa.table([columns.get(f.name, pa.nulls(len(table), f.type)) for f in schema], schema)


def fetch_part(storage: Storage, files: Sequence[str], part: int, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of a part from all files of its sort, in the order of the files; threads work ahead.

    What is ahead is bounded, however large the part is: a row group at a time, or the rows of a file if these are few.
    """

    def read(file: pq.ParquetFile, groups: Sequence[int]) -> pa.Table:
        there = set(file.schema_arrow.names)
        names = [name for name in schema.names if name in there]
        return _complete(file.read_row_groups(groups, names, use_threads=False).select(names), schema)

    def read_again(name: str, metadata: pq.FileMetaData, group: int) -> pa.Table:
        with open_parquet(storage.locate(name), metadata) as file:
            return read(file, [group])

    def look(name: str) -> Sequence[Callable[[], pa.Table]]:
        with open_parquet(storage.locate(name)) as file:
            metadata = file.metadata
            found = metadata.metadata[_PARTS].decode().split(",")
            groups = [i for i, number in enumerate(found) if int(number) == part]
            if len(groups) > 1:
                return [partial(read_again, name, metadata, group) for group in groups]
            tables = [read(file, [group]) for group in groups]
        return [partial(_itself, table) for table in tables]

    found = chain.from_iterable(work_ahead(look, files, _AHEAD))
    return work_ahead(lambda load: load(), found, _AHEAD)


def _itself(table: pa.Table) -> pa.Table:
    return table


def thin_times(times: Sequence[int]) -> tuple[int, ...]:
    """Return some of a chunk's timestamps."""
    return tuple(times[:: max(1, -(-len(times) // _MOST_TIMES))])


def list_files(storage: Storage, sort: int, files: Iterable[str]) -> str:
    """Write the names of all files of a sort, in order of arrival, once for all its tasks; return the list's own."""
    name = f"{DIVIDED}/{sort:03}/files.json"
    write_file(storage, name, json.dumps(list(files)).encode())
    return name


def read_list(storage: Storage, name: str) -> list[str]:
    """Read what `list_files` wrote."""
    names: list[str] = json.loads(read_file(storage, name))
    return names
