"""The Parquet files of one sort: a file for each output partition that has rows, written one after the other.

A file has row groups of as many rows as DuckDB reads at once, the order of its rows, and statistics by which readers
skip row groups and pages. Memory holds one row group.
"""

import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.file_columns import FileColumns
from tasks.folders.base import DigestSink
from tasks.manifests import SortedRows
from tasks.run_record import WrittenFile
from tasks.sorting.rows import RowGroups

GROUP_ROWS: Final = 122_880
# Large records make smaller row groups.
_GROUP_BYTES: Final = 64_000_000
# The columns of the record by which readers may skip rows; a value's smallest and largest bytes tell nobody anything.
_COUNTED: Final = frozenset({"timestamp", "partition", "offset"})


def file_name(partition: int) -> str:
    """Return the name of a partition's file."""
    return f"part-{partition:05}.parquet"


def columns_with_nan(columns: FileColumns, rows: SortedRows) -> frozenset[str]:
    """Return the columns of which a row has NaN.

    Of these there must be no smallest and largest value: Arrow leaves NaN out of them, and readers to whom NaN is a
    number behind all others would skip it.
    """
    found = set[str]()
    for part in rows.parts if columns.doubles else ():
        groups = RowGroups(part.files)
        for i in range(len(groups)):
            table = groups.read(i, [column.source for column in columns.doubles])
            found |= {c.name for c in columns.doubles if _has_nan(c.convert, table.column(c.source))}
    return frozenset(found)


def _has_nan(convert: Callable[[pa.Array], pa.Array], stored: pa.ChunkedArray) -> bool:
    """Whether a key is NaN, which is the largest one as it is stored."""
    largest = convert(pa.array([pa.compute.max(stored).as_py()], stored.type))
    return bool(pa.compute.any(pa.compute.is_nan(largest)).as_py())


class SortFiles:
    """Writes the files of a sort. `create`: opens a file by its name. `plain`: columns without statistics."""

    def __init__(
        self,
        create: Callable[[str], AbstractContextManager[DigestSink]],
        columns: FileColumns,
        plain: frozenset[str],
    ) -> None:
        self.files: list[WrittenFile] = []
        self._create = create
        self._columns = columns
        self._counted = [
            *(column.name for column in columns.keys if column.name not in plain),
            *(column.name for column in columns.record if column.source in _COUNTED),
        ]
        # Sorted keys repeat themselves: their values are written once.
        self._listed = [column.name for column in columns.keys if pa.types.is_string(column.kind)]
        self._partition = -1
        self._stack = ExitStack()
        self._sink: DigestSink | None = None
        self._writer: pq.ParquetWriter | None = None
        self._pending: list[pa.Table] = []
        self._rows = self._bytes = 0

    def write(self, partition: int, columns: Mapping[str, pa.Array]) -> None:
        """Append rows to a partition; partitions come in turn."""
        if partition != self._partition:
            self.end_file()
            self._partition = partition
        table = self._columns.table(columns)
        self._pending.append(table)
        self._rows += table.num_rows
        self._bytes += table.nbytes
        while self._rows >= GROUP_ROWS:
            self._write_group(GROUP_ROWS)
        if self._bytes >= _GROUP_BYTES:
            self._write_group(self._rows)

    def _write_group(self, rows: int) -> None:
        table = pa.concat_tables(self._pending)
        self._open().write_table(table.slice(0, rows), row_group_size=rows)
        rest = table.slice(rows)
        self._pending, self._rows = [rest] if rest.num_rows else [], rest.num_rows
        self._bytes = rest.nbytes

    def _open(self) -> pq.ParquetWriter:
        """Return the writer of the partition's file, which is made for its first rows."""
        if self._writer is None:
            self._sink = self._stack.enter_context(self._create(file_name(self._partition)))
            self._writer = pq.ParquetWriter(
                self._sink,
                self._columns.schema,
                compression="zstd",
                use_dictionary=self._listed,
                write_statistics=self._counted,
                write_page_index=True,
                sorting_columns=self._columns.sorting or None,
            )
        return self._writer

    def end_file(self) -> None:
        """Write what is left of the partition's file, and make it last."""
        if self._rows:
            self._write_group(self._rows)
        if self._writer is None or self._sink is None:
            return
        self._writer.close()
        sink, self._writer, self._sink = self._sink, None, None
        self._stack.close()
        self.files.append(WrittenFile(self._partition, file_name(self._partition), sink.bytes, sink.digest))

    def abandon(self) -> None:
        """Close the file that is open, without an end."""
        with contextlib.suppress(Exception):
            self._stack.close()
