"""Joins two sorted topics on their keys, block by block.

Memory holds some blocks of each side, and all records of the right one that share one key.
"""

from collections.abc import Iterator
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.arrow import one_chunk
from tasks.errors import SettingsError
from tasks.reading.keys import KeyReader
from tasks.reading.merging import KEY, Blocks
from tasks.reading.sorted_topic import SCHEMA
from tasks.sorting.encoded import count_before

_PAIRS: Final = 50_000
_Numbers = npt.NDArray[np.int64]
_SIDES: Final = ("left", "right")


class Joinable(Protocol):
    """One side of a join: a sorted topic."""

    @property
    def keys(self) -> KeyReader:
        """The keys of the sort."""

    def keyed_blocks(self) -> Blocks:
        """Yield all records in order, with the column of encoded keys."""


def merge_join(left: Joinable, right: Joinable, how: Literal["inner", "left"] = "inner") -> pa.RecordBatchReader:
    """Join two sorted topics on their whole keys; return pairs in the order of the keys, as batches.

    The columns are those of the records, as `left_value` and `right_value`. `left` keeps records of the left side that
    have no partner, with nulls beside them. Null keys equal each other. SettingsError if the sorts' keys differ in
    type, direction or place of nulls.
    """
    if how not in {"inner", "left"}:
        raise SettingsError(f"how={how!r}: a join is inner or left")
    if (one := left.keys.terms) != (other := right.keys.terms):
        raise SettingsError(f"the sorts cannot be joined, since their keys differ: {one} and {other}")
    fields = [pa.field(f"{side}_{field.name}", field.type) for side in _SIDES for field in SCHEMA]
    return pa.RecordBatchReader.from_batches(pa.schema(fields), _join(left.keyed_blocks(), right.keyed_blocks(), how))


def _join(left: Blocks, right: Blocks, how: str) -> Iterator[pa.RecordBatch]:
    one, other = _Side(left), _Side(right)
    try:
        while one.fill():
            other.fill()
            bound = one.last if other.is_over else min(one.last, other.last)
            other.complete(bound)
            yield from _pairs(one.take(bound), other.peek(bound), how)
            other.drop(bound)
    finally:
        left.close()
        right.close()


class _Side:
    """The records of one side that were read and not joined yet."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks: Blocks | None = blocks
        self._rows: pa.Table | None = None

    def fill(self) -> bool:
        """Read a block if there is none; return whether there is one."""
        while self._blocks is not None and not self._count:
            self._read()
        return self._count > 0

    def _read(self) -> None:
        block = next(self._blocks, None) if self._blocks is not None else None
        if block is None:
            self._blocks = None
        elif len(block):
            self._rows = block if not self._count else pa.concat_tables([self._rows, block])

    @property
    def _count(self) -> int:
        return 0 if self._rows is None else len(self._rows)

    @property
    def is_over(self) -> bool:
        """Whether all records were read."""
        return self._blocks is None

    @property
    def last(self) -> bytes:
        """The last key that was read."""
        return bytes(self._rows.column(KEY)[-1].as_py()) if self._rows is not None else b""

    def complete(self, bound: bytes) -> None:
        """Read on until all records with this key are there."""
        while self._blocks is not None and self._count and self.last == bound:
            self._read()

    def _up_to(self, bound: bytes, *, with_equal: bool) -> int:
        return (
            count_before(one_chunk(self._rows.column(KEY)), bound, with_equal=with_equal)
            if self._rows is not None
            else 0
        )

    def peek(self, bound: bytes) -> pa.Table | None:
        """Return the records up to this key."""
        return None if self._rows is None else self._rows.slice(0, self._up_to(bound, with_equal=True))

    def take(self, bound: bytes) -> pa.Table:
        """Return the records up to this key, and forget them."""
        taken = self.peek(bound)
        if self._rows is not None and taken is not None:
            self._rows = self._rows.slice(len(taken))
        return taken

    def drop(self, bound: bytes) -> None:
        """Forget the records below this key: more of the other side may have the key itself."""
        if self._rows is not None:
            self._rows = self._rows.slice(self._up_to(bound, with_equal=False))


def _pairs(left: pa.Table, right: pa.Table | None, how: str) -> Iterator[pa.RecordBatch]:
    """Yield the pairs of records with equal keys, both sides in order."""
    keys = one_chunk(left.column(KEY))
    others = one_chunk(right.column(KEY)) if right is not None else pa.array([], pa.binary())
    firsts, counts = _find_partners(keys, others)
    widths = np.maximum(counts, 1) if how == "left" else counts
    ends = np.cumsum(widths)
    for start in range(0, int(ends[-1]) if len(ends) else 0, _PAIRS):
        pairs = np.arange(start, min(start + _PAIRS, int(ends[-1])))
        rows = np.searchsorted(ends, pairs, side="right")
        partners = firsts[rows] + pairs - (ends[rows] - widths[rows])
        yield _make_batch(left, right, rows, pa.array(partners, mask=counts[rows] == 0))


def _find_partners(keys: pa.Array, others: pa.Array) -> tuple[_Numbers, _Numbers]:
    """Return for each key the first of the ascending others that equals it, and how many do."""
    coded = others.dictionary_encode()
    codes = np.asarray(coded.indices)
    starts = np.flatnonzero(np.diff(codes, prepend=-1)) if len(codes) else np.zeros(0, np.int64)
    lengths = np.diff(np.append(starts, len(codes)))
    found = np.asarray(pc.index_in(keys, coded.dictionary).fill_null(-1))
    if not len(starts):
        return np.zeros(len(keys), np.int64), np.zeros(len(keys), np.int64)
    return np.where(found < 0, 0, starts[found]), np.where(found < 0, 0, lengths[found])


def _make_batch(left: pa.Table, right: pa.Table | None, rows: _Numbers, partners: pa.Array) -> pa.RecordBatch:
    kept = left.select(SCHEMA.names).take(pa.array(rows)).cast(SCHEMA)
    if right is None:
        found = pa.table([pa.nulls(len(rows), field.type) for field in SCHEMA], schema=SCHEMA)
    else:
        found = right.select(SCHEMA.names).take(partners).cast(SCHEMA)
    names = [f"{side}_{name}" for side in _SIDES for name in SCHEMA.names]
    columns = [one_chunk(column) for table in (kept, found) for column in table.columns]
    return pa.RecordBatch.from_arrays(columns, names=names)
