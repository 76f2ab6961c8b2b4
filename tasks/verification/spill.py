"""Digests of millions of records on disk, divided by key so that one part at a time fits into memory.

Guarantee 5 (bounded memory): a spill holds at most FLUSH_ROWS in memory; its file has no name and ends with it.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tasks.verification.content import Digests
from tasks.verification.report import Place

FLUSH_ROWS = 1 << 18
# The rows of both sides of a bucket, and the memory for sorting them, stay below 200 MB.
BUCKET_ROWS = 1 << 20
_SMALL = 1 << 16

ROW = np.dtype(
    [("key", np.uint64), ("content", np.uint64), ("partition", np.int32), ("offset", np.int64), ("time", np.int64)]
)
Rows = npt.NDArray[np.void]


def make_rows(
    keys: Digests,
    contents: Digests,
    partition: int,
    offsets: npt.NDArray[np.int64],
    times: npt.NDArray[np.int64] | None = None,
) -> Rows:
    """Make one row a record. `times`: in ms, if they are compared; a source record without one matches any."""
    rows = np.empty(len(keys), ROW)
    rows["key"], rows["content"], rows["partition"], rows["offset"] = keys, contents, partition, offsets
    rows["time"] = 0 if times is None else times
    return rows


def place_of(row: np.void) -> Place:
    """Return the place of a row's record."""
    return Place(int(row["partition"]), int(row["offset"]))


def count_buckets(records: int) -> int:
    """Return the number of buckets for so many records, with BUCKET_ROWS each on average."""
    return records // BUCKET_ROWS + 1


class Spill:
    """Rows in the order they were added, by bucket of their key's digest. `kind`: their type, with a field `key`."""

    def __init__(self, folder: Path, buckets: int, flush_rows: int = FLUSH_ROWS, kind: np.dtype[Any] = ROW) -> None:
        self.buckets = buckets
        self.rows = 0
        self._kind = kind
        self._flush_rows = flush_rows
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed by __exit__
        # Of each flush: where it begins in the file, and the first row of each bucket in it.
        self._flushes: list[tuple[int, npt.NDArray[np.int64]]] = []
        self._pending: list[Rows] = []
        self._pending_rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()

    def add(self, rows: Rows) -> None:
        """Append rows."""
        self.rows += len(rows)
        self._pending.append(rows)
        self._pending_rows += len(rows)
        if self._pending_rows >= self._flush_rows:
            self._flush()

    def _flush(self) -> None:
        if not self._pending_rows:
            return
        rows = np.concatenate(self._pending)
        self._pending, self._pending_rows = [], 0
        # NumPy sorts 16 bits ten times as fast as 64.
        bucket = (rows["key"] % np.uint64(self.buckets)).astype(np.uint16 if self.buckets <= _SMALL else np.int64)
        order = np.argsort(bucket, kind="stable")
        firsts = np.append(0, np.cumsum(np.bincount(bucket, minlength=self.buckets)))
        self._flushes.append((self._file.seek(0, 2), firsts))
        self._file.write(rows[order].data)

    def count(self, bucket: int) -> int:
        """Count the rows of the bucket."""
        self._flush()
        return sum(int(firsts[bucket + 1] - firsts[bucket]) for _, firsts in self._flushes)

    def read(self, bucket: int) -> Iterator[Rows]:
        """Yield the bucket's rows in the order they were added, FLUSH_ROWS or fewer at a time."""
        self._flush()
        for start, firsts in self._flushes:
            first, end = firsts[bucket : bucket + 2].tolist()
            if first < end:
                self._file.seek(start + first * self._kind.itemsize)
                yield np.frombuffer(self._file.read((end - first) * self._kind.itemsize), self._kind)
