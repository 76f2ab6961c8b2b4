"""Chunk files: Parquet with a manifest beside each, which says what the chunk holds and what its bytes are.

A chunk appears by rename, and counts only with a manifest that fits. A chunk that was cut off, altered or made for
another snapshot counts as absent, and is recreated.
"""

import json
import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from tasks.arrow import DEAD_LETTERS
from tasks.manifests import Chunk, Location, LostRange, OffsetRange, SortedRows, read_location


def name_unfinished(path: Path) -> Path:
    """Return a name for the unfinished file that no other attempt uses, even if a failed one still writes."""
    return path.with_name(f"{path.name}.{uuid4().hex}.part")


# A full sort has no use for dictionaries and statistics. Plain pages cost 118 ns a record; lz4 costs 247 and saves a
# quarter (70 of 95 bytes a record), which every sort would have to unpack again.
PLAIN: Final[dict[str, Any]] = {"compression": "none", "use_dictionary": False, "write_statistics": False}


def column_bytes(table: pa.Table) -> dict[str, int]:
    """Return column → the bytes that it takes in a chunk."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **PLAIN)
    meta = pq.read_metadata(pa.BufferReader(sink.getvalue()))
    sizes = dict.fromkeys(table.column_names, 0)
    for group in map(meta.row_group, range(meta.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            sizes[column.path_in_schema.partition(".")[0]] += column.total_uncompressed_size
    return sizes


class TableWriter:
    """Writes Parquet, a row group a table, under a temporary name until the file is whole; no file without rows."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.rows = 0
        self._path = path
        self._unfinished = name_unfinished(path)
        self._schema = schema
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        whole = False
        try:
            if self._writer is not None:
                self._writer.close()
            whole = kind is None
        finally:
            # If the disk is full, the next attempt needs the space.
            if not whole:
                self._unfinished.unlink(missing_ok=True)

    def write(self, table: pa.Table) -> None:
        """Write one row group."""
        if not table.num_rows:
            return
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._unfinished, self._schema, **PLAIN)
        self._writer.write_table(table, row_group_size=table.num_rows)
        self.rows += table.num_rows

    def finish(self) -> Path | None:
        """Give the file its name; return None if there were no rows."""
        if not self.rows:
            return None
        os.replace(self._unfinished, self._path)
        return self._path


@dataclass(frozen=True)
class ChunkFiles:
    """The files of a chunk: `path` has its rows, or those of `divided` have them for each sort."""

    path: Path | None
    dead_letter_path: Location | None
    file_bytes: int
    divided: tuple[tuple[str, ...], ...] = ()


class ChunkWriter(Protocol):
    """Writes one chunk, within a block, and is finished behind it."""

    @property
    def rows(self) -> int:
        """The number of rows so far."""

    @property
    def dead(self) -> int:
        """The number of dead letters so far."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def write(self, rows: pa.Table, rejects: pa.Table) -> None:
        """Write the rows of one row group, and its dead letters."""

    def finish(self) -> ChunkFiles:
        """Make the files whole."""


class Chunks(Protocol):
    """The chunks of one run's snapshot of one source topic, wherever they lie."""

    def find(self, offsets: OffsetRange) -> Chunk | None:
        """Find the chunk of a former attempt; None unless it is whole."""

    def writer(self, offsets: OffsetRange, schema: pa.Schema) -> ChunkWriter:
        """Begin a chunk whose rows have this schema."""

    def write_manifest(self, chunk: Chunk) -> None:
        """Write the chunk's manifest: from now on the chunk counts."""


class _PlainWriter:
    """Writes a chunk as a file of rows and, if there are any, one of dead letters."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._rows = TableWriter(path, schema)
        self._dead = TableWriter(path.with_suffix(".dead.parquet"), DEAD_LETTERS)
        self._stack = ExitStack()

    @property
    def rows(self) -> int:
        return self._rows.rows

    @property
    def dead(self) -> int:
        return self._dead.rows

    def __enter__(self) -> Self:
        self._stack.enter_context(self._rows)
        self._stack.enter_context(self._dead)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, rows: pa.Table, rejects: pa.Table) -> None:
        self._rows.write(rows)
        self._dead.write(rejects)

    def finish(self) -> ChunkFiles:
        path, dead = self._rows.finish(), self._dead.finish()
        return ChunkFiles(path, dead, sum(file.stat().st_size for file in (path, dead) if file is not None))


@dataclass(frozen=True)
class ChunkFolder:
    """Chunks in a folder of this machine, a file each."""

    folder: Path
    run: int
    topic_id: str

    def path(self, offsets: OffsetRange) -> Path:
        """Return the path of the chunk of these offsets, where it lies once it is whole."""
        return self.folder / f"chunk-{offsets.partition:05}-{offsets.start:016}.parquet"

    def writer(self, offsets: OffsetRange, schema: pa.Schema) -> ChunkWriter:
        """Begin a chunk whose rows have this schema."""
        return _PlainWriter(self.path(offsets), schema)

    def write_manifest(self, chunk: Chunk) -> None:
        """Write the chunk's manifest: from now on the chunk counts."""
        path = self._manifest(chunk.range)
        unfinished = name_unfinished(path)
        unfinished.write_text(json.dumps({**self._identity(chunk), "chunk": asdict(chunk)}, default=str))
        os.replace(unfinished, path)

    def find(self, offsets: OffsetRange) -> Chunk | None:
        """Find the chunk of a former attempt; None unless its manifest and its bytes fit."""
        try:
            raw = json.loads(self._manifest(offsets).read_text())
            chunk = chunk_of(raw.pop("chunk"))
            return chunk if chunk.range == offsets and raw == self._identity(chunk) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _manifest(self, offsets: OffsetRange) -> Path:
        return self.path(offsets).with_suffix(".json")

    def _identity(self, chunk: Chunk) -> dict[str, object]:
        files = [path for path in (chunk.path, chunk.dead_letter_path) if isinstance(path, Path)]
        return {"run": self.run, "topic_id": self.topic_id, "digests": [_digest(path) for path in files]}


def chunk_of(fields: dict[str, Any]) -> Chunk:
    """Return the chunk that JSON has as its fields; KeyError or TypeError if these are none."""
    return Chunk(
        **{
            **fields,
            "path": fields["path"] and Path(fields["path"]),
            "dead_letter_path": fields["dead_letter_path"] and read_location(fields["dead_letter_path"]),
            "range": OffsetRange(**fields["range"]),
            "lost": tuple(LostRange(**item) for item in fields["lost"]),
            "published": tuple((key, checksum) for key, checksum in fields["published"]),
            "times": tuple(fields["times"]),
            "schemas": tuple((name, digest) for name, digest in fields["schemas"]),
            "divided": tuple(map(tuple, fields["divided"])),
        }
    )


def drop_divided(chunks: Iterable[Chunk], sorts: Iterable[SortedRows]) -> None:
    """Remove the chunks whose rows every sort has in its own parts; dead letters stay."""
    needed = frozenset[Path]().union(*(rows.files for rows in sorts))
    for chunk in chunks:
        if chunk.path is not None and chunk.path not in needed:
            chunk.path.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = xxhash.xxh3_128()
        while data := file.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()
