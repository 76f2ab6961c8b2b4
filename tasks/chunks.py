"""Chunk files: Parquet with a manifest beside each, which says what the chunk holds and what its bytes are.

A chunk appears by rename, and counts only with a manifest that fits. A chunk that was cut off, altered or made for
another snapshot counts as absent, and is recreated.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from tasks.manifests import Chunk, LostRange, OffsetRange, SortedRows


def name_unfinished(path: Path) -> Path:
    """Return a name for the unfinished file that no other attempt uses, even if a failed one still writes."""
    return path.with_name(f"{path.name}.{uuid4().hex}.part")


# A full sort has no use for dictionaries and statistics. Plain pages cost 118 ns a record; lz4 costs 247 and saves a
# quarter (70 of 95 bytes a record), which every sort would have to unpack again.
_PLAIN: Final[dict[str, Any]] = {"compression": "none", "use_dictionary": False, "write_statistics": False}


def column_bytes(table: pa.Table) -> dict[str, int]:
    """Return column → the bytes that it takes in a chunk."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **_PLAIN)
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
            self._writer = pq.ParquetWriter(self._unfinished, self._schema, **_PLAIN)
        self._writer.write_table(table, row_group_size=table.num_rows)
        self.rows += table.num_rows

    def finish(self) -> Path | None:
        """Give the file its name; return None if there were no rows."""
        if not self.rows:
            return None
        os.replace(self._unfinished, self._path)
        return self._path


@dataclass(frozen=True)
class ChunkFolder:
    """The chunks of one run's snapshot of one source topic."""

    folder: Path
    run: int
    topic_id: str

    def path(self, offsets: OffsetRange) -> Path:
        """Return the path of the chunk of these offsets, where it lies once it is whole."""
        return self.folder / f"chunk-{offsets.partition:05}-{offsets.start:016}.parquet"

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
            fields = raw.pop("chunk")
            chunk = Chunk(
                **{
                    **fields,
                    "path": fields["path"] and Path(fields["path"]),
                    "dead_letter_path": fields["dead_letter_path"] and Path(fields["dead_letter_path"]),
                    "range": OffsetRange(**fields["range"]),
                    "lost": tuple(LostRange(**item) for item in fields["lost"]),
                    "published": tuple((key, checksum) for key, checksum in fields["published"]),
                    "times": tuple(fields["times"]),
                    "schemas": tuple((name, digest) for name, digest in fields["schemas"]),
                }
            )
            return chunk if chunk.range == offsets and raw == self._identity(chunk) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _manifest(self, offsets: OffsetRange) -> Path:
        return self.path(offsets).with_suffix(".json")

    def _identity(self, chunk: Chunk) -> dict[str, object]:
        files = [path for path in (chunk.path, chunk.dead_letter_path) if path is not None]
        return {"run": self.run, "topic_id": self.topic_id, "digests": [_digest(path) for path in files]}


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
