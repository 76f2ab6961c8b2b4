"""Keeps the newest record of each key, for a merge that is asked for the latest state.

Rows are numbered in the order of their arrival, so the newest row of a key is the one with the greatest number. DuckDB
finds these numbers, within its memory and its spill; then each file is copied, a row group at a time, without the
others.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.checksum import sum_records
from tasks.chunks import TableWriter
from tasks.manifests import Chunk
from tasks.run_context import current_run
from tasks.sorting.rows import RowGroups

# Row numbers in a batch from DuckDB.
_BATCH_ROWS = 1_000_000


@dataclass(frozen=True)
class Newest:
    """The wish to keep the newest of records with equal keys. `drop_tombstones`: nor that one, if it has no value."""

    drop_tombstones: bool = False


def keep_newest(
    connection: duckdb.DuckDBPyConnection,
    chunks: Sequence[Chunk],
    columns: Sequence[str],
    newest: Newest,
    name: Callable[[int], Path],
) -> tuple[Chunk, ...]:
    """Return copies of the chunks with the rows that are kept. `columns`: those of the keys; `name`: path of copy i."""
    files = [chunk.path for chunk in chunks if chunk.path is not None]
    if not files:
        return tuple(chunks)
    groups = RowGroups(files)
    kept = _KeptRows(connection, groups, columns)
    starts = iter(groups.file_starts)
    return tuple(
        chunk if chunk.path is None else _copy(chunk, chunk.path, next(starts), kept, newest, name(i))
        for i, chunk in enumerate(chunks)
    )


class _KeptRows:
    """The numbers of the rows that are kept, ascending, read as they are asked for."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, groups: RowGroups, columns: Sequence[str]) -> None:
        self._batches = self._select(connection, groups, columns)
        self._ahead = np.empty(0, np.int64)

    def below(self, end: int) -> npt.NDArray[np.int64]:
        """Return the numbers below `end` that no call has returned yet."""
        found = []
        while not len(self._ahead) or self._ahead[-1] < end:
            found.append(self._ahead)
            batch = next(self._batches, None)
            if batch is None:
                self._ahead = np.empty(0, np.int64)
                return np.concatenate(found)
            self._ahead = batch
        place = int(np.searchsorted(self._ahead, end))
        found.append(self._ahead[:place])
        self._ahead = self._ahead[place:]
        return np.concatenate(found)

    @staticmethod
    def _select(
        connection: duckdb.DuckDBPyConnection, groups: RowGroups, columns: Sequence[str]
    ) -> Iterator[npt.NDArray[np.int64]]:
        relation = connection.sql(
            "SELECT max(file_row_number + list_extract($starts, file_index::BIGINT + 1))::BIGINT AS row "  # noqa: S608
            f"FROM read_parquet($files, file_row_number = true) GROUP BY {', '.join(columns)} ORDER BY row",
            params={"files": [str(file) for file in groups.files], "starts": groups.file_starts},
        )
        for batch in relation.to_arrow_reader(_BATCH_ROWS):
            yield batch.column(0).to_numpy()


def _copy(chunk: Chunk, path: Path, first: int, kept: _KeptRows, newest: Newest, copy: Path) -> Chunk:
    """Copy the rows of a chunk that are kept; the first of its rows has number `first`."""
    groups, checksums = RowGroups([path]), dict.fromkeys(dict(chunk.published), 0)
    with TableWriter(copy, pq.read_schema(path)) as writer:
        for i in range(len(groups)):
            current_run().stop.check()
            start, end = first + groups.starts[i], first + groups.starts[i + 1]
            table = groups.read(i, groups.names).take(pa.array(kept.below(end) - start))
            if newest.drop_tombstones:
                table = table.filter(pc.is_valid(table.column("value")))
            writer.write(table)
            for key in checksums:
                checksums[key] += _sum(table, key)
        finished = writer.finish()
    published = tuple((key, checksum % 2**64) for key, checksum in checksums.items())
    size = 0 if finished is None else finished.stat().st_size
    return replace(chunk, path=finished, records=writer.rows, file_bytes=size, published=published)


def _sum(table: pa.Table, key: str) -> int:
    """Return the checksum of records with the record keys of this column."""
    if not table.num_rows:
        return 0
    value, keys, headers = (table.column(name).combine_chunks() for name in ("value", key or "key", "headers"))
    return sum_records(value, keys if key else None, headers)
