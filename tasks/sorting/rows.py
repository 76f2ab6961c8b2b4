"""Parts of a sort: consecutive rows of its total order that fit the memory, and the order they come in.

A part's records lie in Parquet files in order of arrival, and stay where they are. If all of a run fits, the one part
of every sort is the run's chunks. A sort makes a list of row numbers, by which publish gathers the records. A number
takes 4 bytes where a record takes 50 or 1000, and moves once for each time that a record would. A part that is a sorted
file needs no numbers, and is only read.
"""

import os
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property, lru_cache, partial
from itertools import accumulate
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.arrow import binary_buffers
from tasks.errors import TransientError
from tasks.manifests import Key, Location, SortedFile, SortedPart, SortedRows
from tasks.storage.base import FilesGoneError
from tasks.storage.registry import open_file

S = TypeVar("S")
T = TypeVar("T")
RowNumbers = npt.NDArray[np.uint32]
# The memory of a row besides its size in the file: its number in the order, and whether it is null.
_ROW_BYTES: Final = 8
# Row groups whose keys are held while a sort is cut; each is no larger than a chunk's buffer.
_GROUPS_HELD: Final = 8
# Row groups of a sorted file that are read ahead.
_READ_AHEAD: Final = 2
# Parts whose files are known while a sort is cut.
_PARTS_HELD: Final = 16
# Below this number, reading takes less time than to make threads.
_FEW_ROWS: Final = 500_000


class RowGroups:
    """The row groups of Parquet files in their order, as one sequence of rows. OSError if one cannot be read."""

    def __init__(self, files: Sequence[Location]) -> None:
        self.files = tuple(files)
        self._metadata = [_read_metadata(file) for file in files]
        self._groups = [(i, group) for i, meta in enumerate(self._metadata) for group in range(meta.num_row_groups)]
        # The first row of each group, and the number of rows.
        self.starts = [0, *accumulate(self._metadata[i].row_group(group).num_rows for i, group in self._groups)]

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def rows(self) -> int:
        """The number of rows in all files."""
        return int(self.starts[-1])

    @cached_property
    def file_starts(self) -> list[int]:
        """The number of each file's first row."""
        return [0, *accumulate(meta.num_rows for meta in self._metadata)][:-1]

    @property
    def names(self) -> list[str]:
        """The names of all columns."""
        return self._metadata[0].schema.to_arrow_schema().names if self._metadata else []

    def kind(self, column: str) -> pa.DataType:
        """Return the type of a column; null if there is no row."""
        return self._metadata[0].schema.to_arrow_schema().field(column).type if self._metadata else pa.null()

    def read(self, index: int, columns: Sequence[str]) -> pa.Table:
        """Read one row group."""
        i, group = self._groups[index]
        with open_parquet(self.files[i], self._metadata[i]) as file:
            return file.read_row_group(group, columns=list(columns), use_threads=False)

    def each(self, work: Callable[[int], T], threads: int) -> Iterator[T]:
        """Yield the results of `work` for each group's index, in order; threads work ahead, one group each."""
        return work_ahead(work, range(len(self)), threads)

    def size(self, index: int, columns: Sequence[str]) -> int:
        """Return the bytes that a row group's rows take once they are loaded."""
        i, group = self._groups[index]
        meta = self._metadata[i].row_group(group)
        stored = (meta.column(n) for n in range(meta.num_columns))
        wanted = (c.total_uncompressed_size for c in stored if c.path_in_schema.partition(".")[0] in columns)
        return int(sum(wanted) + meta.num_rows * _ROW_BYTES)


def work_ahead(work: Callable[[S], T], items: Iterable[S], threads: int) -> Iterator[T]:
    """Yield the results of `work` for each item, in order; so many threads work ahead, an item each."""
    if threads == 1:
        yield from map(work, items)
        return
    ahead: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                ahead.append(pool.submit(work, item))
                if len(ahead) > threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


@contextmanager
def open_parquet(location: Location, metadata: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
    """Open a file of any storage. OSError for an altered one: it is as bad as one that is gone."""
    far = not isinstance(location, Path)
    try:
        with open_file(location) as source, pq.ParquetFile(source, metadata=metadata, pre_buffer=far) as file:
            yield file
    except pa.ArrowException as error:
        raise OSError(f"{location}: {error}") from error


def _read_metadata(location: Location) -> pq.FileMetaData:
    with open_parquet(location) as file:
        return file.metadata


class RowGatherer:
    """Holds the records of one part in memory at a time, for as long as parts of the same files are asked for."""

    def __init__(self) -> None:
        self._files: tuple[Path, ...] = ()
        self._columns: Mapping[str, pa.Array] = {}

    def batches(self, rows: SortedRows, first: int = 0, end: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the records of rows [first, end) of a sort in their order; of all by default.

        IndexError if an order names a row that does not exist.
        """
        for part, start, stop in _cut_parts(rows, first, rows.rows if end is None else end):
            if isinstance(part, SortedFile):
                yield from read_sorted(part, rows.columns, rows.batch_rows, start, stop)
            else:
                yield from self._gather(part, rows, slice(start, stop))

    def hold(self, files: tuple[Path, ...], columns: Mapping[str, pa.Array]) -> None:
        """Take the columns of a part that are in memory already."""
        self._files, self._columns = files, columns

    def _gather(self, part: SortedPart, rows: SortedRows, wanted: slice) -> Iterator[pa.RecordBatch]:
        self._hold(part.files, rows.columns)
        order = read_order(part)[wanted]
        for first in range(0, len(order), rows.batch_rows):
            numbers = pa.array(order[first : first + rows.batch_rows])
            yield pa.RecordBatch.from_pydict({name: self._columns[name].take(numbers) for name in rows.columns})

    def _hold(self, files: tuple[Path, ...], columns: Sequence[str]) -> None:
        """Load these columns of a part. The others go first: there is memory for one part."""
        kept = columns if files == self._files else ()
        self._columns = {name: column for name, column in self._columns.items() if name in kept}
        self._files = files
        if missing := [name for name in columns if name not in self._columns]:
            groups = RowGroups(files)
            self._columns = {**self._columns, **{name: _load_column(groups, name) for name in missing}}


def read_sorted(
    part: SortedFile, columns: Sequence[str], batch_rows: int, first: int = 0, end: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield rows [first, end) of a sorted file, each row group read while the one before it is used.

    FilesGoneError if it is not there; TransientError if a bucket does not give it; OSError if a disk altered it.
    """
    try:
        yield from _read_sorted(part, columns, batch_rows, first, part.rows if end is None else end)
    except FileNotFoundError as error:
        raise FilesGoneError(f"sorted file {part.location} is gone: start again") from error
    except OSError as error:
        # A bucket compares what it gives with its own checksums, so its errors are those of the network or the service.
        if isinstance(part.location, Path):
            raise
        raise TransientError(f"sorted file {part.location} cannot be read: {error}; nothing was published") from error


def _read_sorted(
    part: SortedFile, columns: Sequence[str], batch_rows: int, first: int, end: int
) -> Iterator[pa.RecordBatch]:
    groups = RowGroups(part.files)
    if groups.rows != part.rows:
        raise OSError(f"{part.location} has {groups.rows} rows of {part.rows}")
    wanted = [i for i in range(len(groups)) if groups.starts[i] < end and groups.starts[i + 1] > first]
    tables = work_ahead(lambda i: (groups.starts[i], groups.read(i, columns)), wanted, _READ_AHEAD)
    for start, table in tables:
        cut = table.slice(max(first - start, 0), min(end - start, len(table)) - max(first - start, 0))
        for batch in cut.combine_chunks().to_batches(max_chunksize=batch_rows):
            yield batch.select(columns)


def _cut_parts(rows: SortedRows, first: int, end: int) -> Iterator[tuple[SortedPart | SortedFile, int, int]]:
    """Yield the parts that have rows of [first, end), each with the first and the end of these in it."""
    start = 0
    for part in rows.parts:
        if max(first, start) < min(end, start + part.rows):
            yield part, max(first - start, 0), min(end - start, part.rows)
        start += part.rows


def read_order(part: SortedPart) -> RowNumbers:
    """Read the numbers of the part's rows in their order."""
    return np.fromfile(part.order, np.uint32)


def _load_column(groups: RowGroups, name: str) -> pa.Array:
    threads = (os.cpu_count() or 1) if groups.rows > _FEW_ROWS else 1
    columns = groups.each(lambda i: groups.read(i, [name]).column(0), threads)
    read = (chunk for column in columns for chunk in column.chunks)
    if pa.types.is_binary(groups.kind(name)):
        return _join(read, groups.rows, sum(groups.size(i, [name]) for i in range(len(groups))))
    return pa.concat_arrays(list(read))


def _join(arrays: Iterator[pa.Array], rows: int, most_bytes: int) -> pa.Array:
    """Join binary arrays into one, copying each as it comes: to concatenate them would take their memory twice.

    `most_bytes`: at least the size of their data. Memory that is not needed is never touched.
    """
    offsets, data = np.zeros(rows + 1, np.int32), np.empty(most_bytes, np.uint8)
    valid = np.ones(rows, np.bool_)
    row = end = 0
    for array in arrays:
        source, buffer = binary_buffers(array)
        first, last, count = int(source[0]), int(source[-1]), len(array)
        if buffer is not None:
            data[end : end + last - first] = np.frombuffer(buffer, np.uint8)[first:last]
        offsets[row + 1 : row + 1 + count] = source[1:] + np.int32(end - first)
        if array.null_count:
            valid[row : row + count] = np.asarray(array.is_valid())
        row, end = row + count, end + last - first
    bitmap = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(pa.binary(), rows, [bitmap, pa.py_buffer(offsets), pa.py_buffer(data)])


class SortedKeys(Sequence[Key]):
    """The keys of a sort's rows in their order, read from its parts one at a time."""

    def __init__(self, parts: Sequence[SortedPart | SortedFile], columns: Sequence[str]) -> None:
        self._parts = parts
        self._starts = [0, *accumulate(part.rows for part in parts)]
        # Caching a bound method makes a cycle that only the cyclic garbage collector frees, which a stream rarely runs.
        self._open = lru_cache(_PARTS_HELD)(partial(_open_part, parts))
        self._read = lru_cache(_GROUPS_HELD)(partial(_read_columns, self._open, columns))

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, row: int) -> Key:  # type: ignore[override]  # never sliced
        part = bisect_right(self._starts, row) - 1
        groups, order = self._open(part)
        number = row - self._starts[part]
        number = number if order is None else int(order[number])
        starts = groups.starts
        group = bisect_right(starts, number) - 1
        return tuple(column[number - starts[group]].as_py() for column in self._read(part, group))

    def take(self, rows: npt.NDArray[np.int64]) -> list[pa.Array]:
        """Return the key columns of these rows, which ascend; each row group is read once for each part."""
        parts = np.searchsorted(self._starts, rows, side="right") - 1
        pieces = [self._take_of_part(int(part), rows[parts == part]) for part in np.unique(parts)]
        return [pa.concat_arrays(columns) for columns in zip(*pieces, strict=True)]

    def _take_of_part(self, part: int, rows: npt.NDArray[np.int64]) -> list[pa.Array]:
        opened, order = self._open(part)
        numbers = rows - self._starts[part]
        numbers = numbers if order is None else order[numbers].astype(np.int64)
        starts = np.array(opened.starts)
        groups = np.searchsorted(starts, numbers, side="right") - 1
        by_group = np.argsort(groups, kind="stable")
        pieces = []
        for group in np.unique(groups):
            wanted = pa.array(numbers[groups == group] - starts[group])
            pieces.append([column.take(wanted) for column in self._read(part, int(group))])
        back = pa.array(np.argsort(by_group, kind="stable"))
        joined = [
            pa.chunked_array([c for column in columns for c in column.chunks]) for columns in zip(*pieces, strict=True)
        ]
        return [column.take(back).combine_chunks() for column in joined]


def _open_part(parts: Sequence[SortedPart | SortedFile], number: int) -> tuple[RowGroups, RowNumbers | None]:
    """Return the files of a part, and the numbers of its rows in their order; None if they lie in it."""
    part = parts[number]
    order = None if isinstance(part, SortedFile) else np.memmap(part.order, np.uint32, "r")
    return RowGroups(part.files), order


def _read_columns(
    open_part: Callable[[int], tuple[RowGroups, RowNumbers | None]], names: Sequence[str], part: int, group: int
) -> list[pa.ChunkedArray]:
    table = open_part(part)[0].read(group, names)
    return [table.column(name) for name in names]
