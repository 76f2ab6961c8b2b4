"""Reads the files of a run back: their bytes by digests, then row by row, with the keys that their columns have."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from tasks.folders.registry import open_folder
from tasks.run_context import current_run
from tasks.run_record import WrittenFile
from tasks.verification.plan import OutputPlan
from tasks.verification.reading import Block
from tasks.verification.report import Findings
from tasks.verification.terms import KeyColumn, SortKey
from tasks.verification.tools import Tools
from tasks.verification.types.times import Instant

_BATCH_ROWS = 5000
_READ_BYTES = 1 << 20
# The columns behind the keys, in their order.
_RECORD = ("value", "key", "headers", "timestamp", "partition", "offset")


@dataclass(frozen=True)
class FileRow:
    """A row of a file, besides its record: time (ms, 0 for none), place in the source, and typed keys."""

    time: int
    partition: int
    offset: int
    keys: tuple[Any, ...]

    def timestamp(self) -> tuple[int, int]:
        """Return the time as Kafka's messages do: its kind and milliseconds."""
        return 1, self.time


class FileBlock(Block):
    """Rows of a file. Partition and offsets are those of the output: the file, and the rows in it."""

    @property
    def places(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The places that the rows say they have in the source."""
        rows: list[FileRow] = self.messages  # type: ignore[assignment]  # rows stand for messages
        return np.array([row.partition for row in rows], np.int64), np.array([row.offset for row in rows], np.int64)


class FolderPlace:
    """The folder of a run. A folder that was removed cannot be verified; one that was altered differs."""

    def __init__(self, tools: Tools, plan: OutputPlan, sort: SortKey, findings: Findings) -> None:
        self._tools = tools
        self._plan = plan
        self._sort = sort
        self._findings = findings
        self._folder = open_folder(plan.sort.topic)
        self._files = {file.partition: file for file in plan.sort.files}

    def bound(self) -> tuple[Mapping[int, tuple[int, int]], bool]:
        """Return the rows that can be read, by partition, and whether the folder is there."""
        written = self._plan.sort
        sizes = self._folder.sizes(written.folder)
        if sizes is None:
            self._tools.unverifiable.append(f"{written.topic}: {written.folder} was removed")
            return {}, False
        for name in sorted(sizes.keys() - {file.name for file in written.files}):
            self._findings.add_general(f"{written.folder} holds {name}, which the run did not write")
        rows = {plan.partition: plan.stop for plan in self._plan.partitions if plan.count}
        return {p: (0, rows[p]) for p, file in self._files.items() if self._check_file(file, sizes)}, True

    def _check_file(self, file: WrittenFile, sizes: Mapping[str, int]) -> bool:
        """Return whether the file can be read."""
        if file.name not in sizes:
            self._findings.add_general("the file is missing", file.partition)
            return False
        if self._digest(file) != file.digest:
            self._findings.add_general("the file was altered: its digest differs from the ledger's", file.partition)
        try:
            with self._open(file) as opened:
                return self._has_columns(opened, file)
        except (OSError, pa.ArrowException) as error:
            self._findings.add_general(f"the file cannot be read: {error}", file.partition)
            return False

    def _has_columns(self, opened: pq.ParquetFile, file: WrittenFile) -> bool:
        columns = len(opened.schema_arrow)
        if columns == len(self._sort) + len(_RECORD) or (not self._sort and columns > len(_RECORD)):
            return True
        self._findings.add_general(f"the file has {columns} columns, which are not those of the run", file.partition)
        return False

    def _digest(self, file: WrittenFile) -> str:
        digest = xxhash.xxh3_128()
        with self._folder.open(self._plan.sort.folder, file.name) as opened:
            while data := opened.read(_READ_BYTES):
                current_run().stop.check()
                digest.update(data)
        return digest.hexdigest()

    def _open(self, file: WrittenFile) -> pq.ParquetFile:
        return pq.ParquetFile(self._folder.open(self._plan.sort.folder, file.name))

    def read(self, partition: int, start: int, end: int) -> Iterator[Block]:
        """Yield the rows [start, end) of a partition's file; fewer if it ends, or cannot be read any further."""
        row = 0
        try:
            with self._open(self._files[partition]) as opened:
                for batch in opened.iter_batches(_BATCH_ROWS, use_threads=False):
                    current_run().stop.check()
                    yield self._block(partition, row, batch).within(start, end)
                    row += batch.num_rows
                    if row >= end:
                        break
        except (OSError, pa.ArrowException) as error:
            self._findings.add_general(f"the file cannot be read behind row {row}: {error}", partition)

    def _block(self, partition: int, first: int, batch: pa.RecordBatch) -> Block:
        count = batch.num_columns - len(_RECORD)
        keys = [_values(batch.column(i), key) for i, key in enumerate(self._sort)]
        record = {name: batch.column(count + i) for i, name in enumerate(_RECORD)}
        times = record["timestamp"].cast(pa.int64()).fill_null(0).to_pylist()
        places = zip(record["partition"].to_pylist(), record["offset"].to_pylist(), strict=True)
        typed = zip(*keys, strict=True) if keys else iter([()] * batch.num_rows)
        rows = [FileRow(time, *place, row) for time, place, row in zip(times, places, typed, strict=True)]
        values, own_keys = record["value"].to_pylist(), record["key"].to_pylist()
        headers = [[(h["name"], h["value"]) for h in item or ()] for item in record["headers"].to_pylist()]
        offsets = np.arange(first, first + batch.num_rows)
        return FileBlock(partition, offsets, values, own_keys, headers, rows)  # type: ignore[arg-type]  # rows stand for messages


def _values(column: pa.Array, key: KeyColumn) -> Sequence[Any]:
    """Return the values of a key column as the types of verification take them."""
    if key.kind.name == "time":
        return [None if item is None else Instant(item) for item in column.cast(pa.int64()).to_pylist()]
    if key.kind.name == "uuid":
        return [None if item is None else UUID(bytes=item) for item in column.storage.to_pylist()]
    if pa.types.is_string(column.type):
        return list(column.cast(pa.binary()).to_pylist())
    return list(column.to_pylist())
