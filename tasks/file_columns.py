"""The columns of sorted files: their names and types, their order, and the columns of chunks that they are made of.

First come the key columns of the sort by their names in the job, typed; then the record as the source has it. A record
is whole: value, key and headers byte for byte, its timestamp, and its place in the source. The schema depends on the
job alone, so all files of a folder have the same.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.arrow import HEADERS
from tasks.settings.job import Job
from tasks.settings.sorts import KeyColumn, Sort, SortKey
from tasks.types.registry import key_type

_SOURCE_PLACE: Final = pa.schema({"partition": pa.int32(), "offset": pa.int64()})
_RECORD: Final = {
    "value": pa.binary(),
    "key": pa.binary(),
    "headers": HEADERS,
    "timestamp": pa.timestamp("ms", "UTC"),
    "partition": pa.int32(),
    "offset": pa.int64(),
}


def source_place(job: Job) -> pa.Schema:
    """Return the columns of chunks that have the place of a record in the source, which only files need."""
    return _SOURCE_PLACE if job.folder_sorts else pa.schema([])


def text_columns(job: Job) -> dict[str, str]:
    """Return the columns of chunks with texts as they were written, by the key column, if files need them.

    They are for keys of which a chunk has less, as the lower case.
    """
    named = {key.column for sort in job.folder_sorts for key in sort.by}
    return {key.name: f"t{i}" for i, key in enumerate(job.key_columns) if key.name in named and not _is_kept(key)}


def _is_kept(key: KeyColumn) -> bool:
    """Whether what a chunk stores of a key tells all of it."""
    return key.type.prints_equals_alike


@dataclass(frozen=True)
class FileColumn:
    """One column of files. `source`: the column of chunks that it is made of; `flag`: the one that is 1 where null.

    `term`: the term of the sort that it is, if the order of the column is that of the term.
    """

    name: str
    kind: pa.DataType
    source: str
    convert: Callable[[pa.Array], pa.Array]
    flag: str = ""
    term: SortKey | None = None

    def make(self, columns: Mapping[str, pa.Array], rows: int) -> pa.Array:
        """Make the column of so many rows; null if no record of the run has any."""
        stored = columns.get(self.source)
        if stored is None:
            return pa.nulls(rows, self.kind)
        if self.flag:
            stored = pc.if_else(pc.equal(columns[self.flag], 0), stored, None)
        return self.convert(stored)


@dataclass(frozen=True)
class FileColumns:
    """The columns of one sort's files."""

    keys: tuple[FileColumn, ...]
    record: tuple[FileColumn, ...]

    @property
    def schema(self) -> pa.Schema:
        """The schema of the files."""
        return pa.schema({column.name: column.kind for column in self._all})

    @property
    def sources(self) -> tuple[str, ...]:
        """The columns of chunks that any column is made of."""
        named = ((column.source, column.flag) for column in self._all)
        return tuple(dict.fromkeys(name for pair in named for name in pair if name))

    @property
    def sorting(self) -> list[pq.SortingColumn]:
        """The longest prefix of the sort's terms whose order is that of their columns."""
        found: list[pq.SortingColumn] = []
        for i, column in enumerate(self.keys):
            if column.term is None:
                break
            found.append(pq.SortingColumn(i, column.term.descending, column.term.nulls == "first"))
        return found

    @property
    def doubles(self) -> tuple[FileColumn, ...]:
        """The key columns that may hold NaN."""
        return tuple(column for column in self.keys if pa.types.is_floating(column.kind))

    @property
    def _all(self) -> tuple[FileColumn, ...]:
        return (*self.keys, *self.record)

    def table(self, columns: Mapping[str, pa.Array]) -> pa.Table:
        """Make a table of rows, whose columns are those of chunks."""
        rows = len(columns["value"])
        return pa.table([column.make(columns, rows) for column in self._all], self.schema)


def file_columns(job: Job, sort: Sort) -> FileColumns:
    """Return the columns of a sort's files."""
    numbers = {key.name: i for i, key in enumerate(job.key_columns)}
    names = unique_names([*(key.column for key in sort.by), *_RECORD])
    texts = text_columns(job)
    keys = [
        _key_column(name, term, job.key_columns[i], i, texts.get(term.column))
        for name, term in zip(names, sort.by, strict=False)
        for i in [numbers[term.column]]
    ]
    record = zip(names[len(sort.by) :], _RECORD.items(), strict=True)
    return FileColumns(tuple(keys), tuple(_record_column(name, source, kind) for name, (source, kind) in record))


def _key_column(name: str, term: SortKey, key: KeyColumn, number: int, text: str | None) -> FileColumn:
    kind = key_type(key.type)
    return FileColumn(
        name,
        kind.column,
        text or f"k{number}",
        kind.to_column,
        f"n{number}" if key.nulls else "",
        term if kind.compares_as_column else None,
    )


def _record_column(name: str, source: str, kind: pa.DataType) -> FileColumn:
    return FileColumn(name, kind, source, _to_time if source == "timestamp" else lambda stored: stored)


def _to_time(stored: pa.Array) -> pa.Array:
    """Turn milliseconds into times; a record that has no timestamp has a negative one."""
    return pc.if_else(pc.greater_equal(stored, 0), stored, None).cast(_RECORD["timestamp"])


def unique_names(names: Iterable[str]) -> list[str]:
    """Return the names; one that came before, whatever its case, gets underscores: readers ignore case."""
    taken: set[str] = set()
    found = []
    for name in names:
        own = name
        while own.lower() in taken:
            own += "_"
        taken.add(own.lower())
        found.append(own)
    return found
