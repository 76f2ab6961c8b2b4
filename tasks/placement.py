"""Record keys and partitions of the outputs, as columns of the chunks, computed at the dump.

Guarantee: equal keys of a sort have equal record keys, except for texts that compare without regard to case or by a
language. Of records with equal keys, in a topic partitioned by hash, none is in another partition.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.arrow import RECORD, one_chunk
from tasks.errors import TerminalError
from tasks.file_columns import text_columns
from tasks.formats.registry import make_format
from tasks.json_arrays import join_array
from tasks.murmur2 import partition_of
from tasks.settings.column_types import TEXT
from tasks.settings.job import Job
from tasks.settings.sorts import INTEGER_KEYS, KeyColumn, Sort
from tasks.types.registry import key_type


@dataclass(frozen=True)
class Placement:
    """The columns of a chunk that say how one output's records are published.

    `key`: of their record keys; empty: they have none. `partition`: of their partitions; empty: the sort is cut into
    ranges. `count`: the number of the output's partitions.
    """

    key: str = "key"
    partition: str = ""
    count: int = 0


@dataclass(frozen=True)
class KeyOfSort:
    """A column of record keys that are sort keys. `columns`: those of the sort, by their names in the job."""

    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class PartitionColumn:
    """A column of partitions. `key`: the column that is hashed; empty: the partition is that of the source."""

    name: str
    key: str
    partitions: int


@dataclass(frozen=True)
class Placements:
    """The placement of each sort of a job, in their order, and the columns that chunks have for them.

    Sorts with the same record keys share a column, and so do those with the same partitions. `texts`: key columns whose
    texts files have as they were written, each with the column that holds these.
    """

    of_sorts: tuple[Placement, ...] = ()
    keys: tuple[KeyOfSort, ...] = ()
    partitions: tuple[PartitionColumn, ...] = ()
    texts: tuple[tuple[str, str], ...] = ()

    @property
    def record_keys(self) -> tuple[str, ...]:
        """The columns of record keys that any output has, each once; empty for outputs without keys."""
        return tuple(dict.fromkeys(placement.key for placement in self.of_sorts))

    def extend(self, schema: pa.Schema) -> pa.Schema:
        """Add the columns to the schema of a chunk."""
        keys = [(key.name, pa.binary()) for key in self.keys]
        texts = [(column, pa.binary()) for _, column in self.texts]
        return pa.schema([*schema, *keys, *((p.name, pa.int32()) for p in self.partitions), *texts])


def place_outputs(job: Job, counts: Sequence[int]) -> Placements:
    """Return the placements of the job's sorts, whose outputs have so many partitions each."""
    names: dict[tuple[str, ...], str] = {}
    columns: dict[tuple[str, int], str] = {}
    placements = []
    for sort, count in zip(job.sort_list, counts, strict=True):
        key = _record_key(job, sort, names)
        partition = ""
        if job.partition_by != "range":
            hashed = (key, count) if job.partition_by == "hash" else ("", 0)
            partition = columns.setdefault(hashed, f"p{len(columns)}")
        placements.append(Placement(key, partition, count))
    keys = tuple(KeyOfSort(name, by) for by, name in names.items())
    partitions = tuple(PartitionColumn(name, key, count) for (key, count), name in columns.items())
    return Placements(tuple(placements), keys, partitions, tuple(text_columns(job).items()))


def _record_key(job: Job, sort: Sort, names: dict[tuple[str, ...], str]) -> str:
    """Return the column of an output's record keys; a new one is added to `names`."""
    if job.output_key != "sort":
        return "key" if job.output_key == "keep" else ""
    by = tuple(key.column for key in sort.by)
    return "key" if _is_record_key(job, by) else names.setdefault(by, f"o{len(names)}")


def _is_record_key(job: Job, by: tuple[str, ...]) -> bool:
    """Whether a sort's key is the bytes of the record key: a text, or an integer that Kafka's serializers wrote."""
    kinds = {key.name: key.type for key in job.key_columns}
    return by == ("@key",) and (
        job.key_format in INTEGER_KEYS or (job.key_format == "text" and kinds["@key"].name == "text")
    )


class OutputColumns:
    """Computes the columns of record keys and partitions for the rows of one job's chunks. A task makes it once."""

    def __init__(self, job: Job, placements: Placements) -> None:
        self._placements = placements
        self._columns = {key.name: (i, key) for i, key in enumerate(job.key_columns)}
        used = {name for key in placements.keys for name in key.columns} | {name for name, _ in placements.texts}
        # What is stored of these texts does not tell how they were written, so they are read again.
        self._texts = [
            KeyColumn(key.name, TEXT, key.nulls)
            for key in job.key_columns
            if key.name in used and not key.type.prints_equals_alike
        ]
        self._reader = make_format(job, self._texts) if self._texts else None

    def add(self, rows: pa.Table, partition: int) -> pa.Table:
        """Add the columns to rows of a chunk, which are of one source partition."""
        printed = self._read_texts(rows)
        for key in self._placements.keys:
            rows = rows.append_column(key.name, self._make_key(rows, key.columns, printed))
        for column in self._placements.partitions:
            rows = rows.append_column(column.name, _place(rows, column, partition))
        for name, text in self._placements.texts:
            rows = rows.append_column(text, printed[name])
        return rows

    def _read_texts(self, rows: pa.Table) -> dict[str, pa.Array]:
        """Return texts as they were written, null where a row has none, by the names of their columns."""
        if self._reader is None:
            return {}
        columns = {
            field.name: rows.column(field.name) if field.name in rows.schema.names else pa.nulls(len(rows), field.type)
            for field in RECORD
        }
        parsed = self._reader.parse(pa.table(columns, RECORD))
        if parsed.rejected:
            raise TerminalError(f"a record that was accepted has no text: {next(iter(parsed.rejected.values()))}")
        return parsed.columns

    def _make_key(self, rows: pa.Table, columns: Sequence[str], printed: dict[str, pa.Array]) -> pa.Array:
        texts = [printed[name] if name in printed else self._print(rows, name) for name in columns]
        if len(texts) == 1:
            return texts[0]
        return join_array(
            [(text, key_type(self._columns[name][1].type)) for name, text in zip(columns, texts, strict=True)]
        )

    def _print(self, rows: pa.Table, name: str) -> pa.Array:
        """Print a key column, null where a row has no such key."""
        i, key = self._columns[name]
        column = one_chunk(rows.column(f"k{i}"))
        if key.nulls:
            column = pc.if_else(pc.equal(one_chunk(rows.column(f"n{i}")), 0), column, None)
        return key_type(key.type).print_all(column)


def _place(rows: pa.Table, column: PartitionColumn, partition: int) -> pa.Array:
    """Return the partition of each row; a record without a key is where its source partition leads."""
    if not column.key:
        return pa.repeat(pa.scalar(partition, pa.int32()), len(rows))
    found = partition_of(one_chunk(rows.column(column.key)), column.partitions)
    return pa.array(np.where(found < 0, partition % column.partitions, found).astype(np.int32))
