"""Sums that show without a sort that two sides hold the same records, and equal keys in the same order.

Each record is a mark of 64 bits: its content's digest, its rank among the records of its key, and its partition and
timestamp where the run promises these, mixed by random factors of each verification. A record's key comes from these,
so it needs no part of its own. Two sides with other records, or with equal keys in another order, have the same sum of
marks by a chance of 1 in 2^64.
"""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.verification.content import Digests, digest_all
from tasks.verification.partitions import Partitions
from tasks.verification.spill import FLUSH_ROWS, Spill

# A record on its way to a mark, with the digest of its key.
_ROW = np.dtype([("key", np.uint64), ("mark", np.uint64)])
_BUCKET_ROWS = 1 << 18
# 16 MB, and to sort them twice as much.
PIECE_ROWS = 1 << 20
MODULUS = 1 << 64
_FACTOR_1, _FACTOR_2, _SHIFT = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53), np.uint64(33)

Ranks = npt.NDArray[np.int64]


def _draw() -> np.uint64:
    return np.uint64(secrets.randbits(64) | 1)


@dataclass(frozen=True)
class Marker:
    """Makes marks by factors of its own, so both sides need the same one."""

    rank: np.uint64 = field(default_factory=_draw)
    partition: np.uint64 = field(default_factory=_draw)
    time: np.uint64 = field(default_factory=_draw)

    def begin(self, contents: Digests, partitions: Partitions | None, times: npt.NDArray[np.int64] | None) -> Digests:
        """Return the marks without ranks. `partitions`, `times`: where they count."""
        marks = contents
        if partitions is not None:
            marks = marks + (partitions + 1).astype(np.uint64) * self.partition
        return marks if times is None else marks + times.view(np.uint64) * self.time

    def sum(self, marks: Digests, ranks: Ranks | None = None) -> int:
        """Add the ranks, then sum the marks modulo 2^64. None: all ranks are 0."""
        mixed = marks if ranks is None else marks + ranks.view(np.uint64) * self.rank
        # MurmurHash3's finalizer: a sum of what is linear would not see two records that exchange their ranks.
        mixed = (mixed ^ (mixed >> _SHIFT)) * _FACTOR_1
        mixed = (mixed ^ (mixed >> _SHIFT)) * _FACTOR_2
        return int(np.sum(mixed ^ (mixed >> _SHIFT), dtype=np.uint64))


# The mark of a record without a value, where the newest record of each key is asked for: no other has it but by chance.
_TOMBSTONE = np.uint64(0)


class SourceMarks(Protocol):
    """Sums the marks of the source's records."""

    def add(self, keys: pa.Array, partitions: Partitions | None, marks: Digests) -> None:
        """Add records with these keys. `partitions`: where each has an order of its own."""

    def sum(self) -> int:
        """Return the sum modulo 2^64."""


class PlainMarks:
    """The sum of the marks of the source's records, for an output without equal keys."""

    def __init__(self, marker: Marker) -> None:
        self._marker = marker
        self._sum = 0

    def add(self, _: pa.Array, __: Partitions | None, marks: Digests) -> None:
        """Add records."""
        self._sum += self._marker.sum(marks)

    def sum(self) -> int:
        """Return the sum modulo 2^64."""
        return self._sum % MODULUS


class RankedMarks:
    """The marks of the source's records, which come in order of arrival, with the rank of each in its key.

    Guarantee 5 (bounded memory): marks are on disk, 16 bytes each, by their keys' digests, until they are summed.
    """

    def __init__(self, folder: Path, marker: Marker, records: int) -> None:
        self._spill = Spill(folder, records // _BUCKET_ROWS + 1, FLUSH_ROWS, _ROW)
        self._marker = marker

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spill.close()

    def add(self, keys: pa.Array, partitions: Partitions | None, marks: Digests) -> None:
        """Add records with these keys. `partitions`: where each has an order of its own."""
        rows = np.empty(len(marks), _ROW)
        digests = digest_all(keys.to_pylist())
        rows["key"] = digests if partitions is None else self._marker.begin(digests, partitions, None)
        rows["mark"] = marks
        self._spill.add(rows)

    def sum(self) -> int:
        """Return the sum modulo 2^64."""
        return sum(self._sum_bucket(number) for number in range(self._spill.buckets)) % MODULUS

    def _sum_bucket(self, number: int) -> int:
        ranker, total = _Ranker(), 0
        for rows in self._pieces(number):
            marks, ranks = ranker.rank(np.ascontiguousarray(rows["key"]), rows["mark"])
            total += self._marker.sum(marks, ranks)
        return total

    def _pieces(self, number: int) -> Iterator[npt.NDArray[np.void]]:
        """Yield the rows of a bucket, which one key may fill, in pieces that fit into memory."""
        pending: list[npt.NDArray[np.void]] = []
        for rows in self._spill.read(number):
            pending.append(rows)
            if sum(map(len, pending)) >= PIECE_ROWS:
                yield np.concatenate(pending)
                pending = []
        if pending:
            yield np.concatenate(pending)


class NewestMarks(RankedMarks):
    """The marks of the newest of the source's records of each key, which come in order of arrival."""

    def _sum_bucket(self, number: int) -> int:
        keys, marks = np.empty(0, np.uint64), np.empty(0, np.uint64)
        for rows in self._pieces(number):
            every, newer = np.append(keys, rows["key"]), np.append(marks, rows["mark"])
            order = np.argsort(every, kind="stable")
            ordered = every[order]
            lasts = order[np.append(ordered[1:] != ordered[:-1], True)]
            keys, marks = every[lasts], newer[lasts]
        return self._marker.sum(marks[marks != _TOMBSTONE])


def without_tombstones(marks: Digests, values: Sequence[bytes | None]) -> Digests:
    """Return marks of which NewestMarks leaves those of records without a value out, if they are the newest."""
    return np.where([value is None for value in values], _TOMBSTONE, marks) if None in values else marks


class _Ranker:
    """Ranks records by key, in order of arrival, over the pieces of one bucket."""

    def __init__(self) -> None:
        self._keys = np.empty(0, np.uint64)
        self._counts = np.empty(0, np.int64)

    def rank(self, keys: Digests, marks: Digests) -> tuple[Digests, Ranks]:
        """Return the marks in another order, with the rank of each."""
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        firsts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        counts = np.diff(np.append(firsts, len(keys)))
        before = self._count(ordered[firsts], counts)
        return marks[order], np.arange(len(keys)) - np.repeat(firsts - before, counts)

    def _count(self, keys: Digests, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Add the counts of these keys, which ascend; return how many were there before."""
        every = np.union1d(self._keys, keys) if len(self._keys) else keys
        total = np.zeros(len(every), np.int64)
        total[np.searchsorted(every, self._keys)] = self._counts
        at = np.searchsorted(every, keys)
        before = total[at]
        total[at] += counts
        self._keys, self._counts = every, total
        return before
