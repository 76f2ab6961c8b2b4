"""Merges sorted streams of blocks into one, by blocks: no Python object a record, memory of some blocks a stream.

Guarantee 1 (order): rows come by (key, stream, their order in the stream).
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final

import pyarrow as pa

from tasks.arrow import one_chunk
from tasks.sorting.encoded import count_before, sort_keys

# The column of encoded keys, ascending in each stream.
KEY: Final = "sort_key"
# Streams are filled side by side: fetching and parsing leave Python's lock free most of the time.
_THREADS: Final = 2
# A round may have a million rows. It comes in parts, so that not all of it is there twice.
_ROWS: Final = 50_000

Blocks = Generator[pa.Table, None, None]


def merge_blocks(streams: Sequence[Blocks], threads: int = _THREADS, *, with_keys: bool = True) -> Blocks:
    """Yield the rows of all streams in order; blocks need not be of one size. One stream comes as it is.

    `with_keys`: their keys stay with them, which takes some time.
    """
    if len(streams) == 1:
        yield from streams[0]
        return
    cursors = [_Cursor(stream) for stream in streams]
    with ExitStack() as stack:
        for stream in streams:
            stack.callback(stream.close)
        fill = stack.enter_context(ThreadPoolExecutor(threads)).map if threads > 1 else map
        while cursors := _fill(cursors, fill):
            if merged := _take_round(cursors):
                yield from _merge(merged, with_keys=with_keys)


class _Cursor:
    """The rows of a stream that were read and not taken yet."""

    def __init__(self, stream: Blocks) -> None:
        self._stream: Blocks | None = stream
        self._filled = 0
        self.rows: pa.Table | None = None
        self.keys: pa.Array = pa.array([], pa.binary())

    @property
    def is_open(self) -> bool:
        """Whether there may be more rows behind these."""
        return self._stream is not None

    def fill(self) -> None:
        """Read a block if less than half of one is left: a round then takes half a block of each stream, or more."""
        while self._stream is not None and 2 * len(self.keys) <= self._filled:
            block = next(self._stream, None)
            if block is None:
                self._stream = None
            elif len(block):
                self._add(block)

    def _add(self, block: pa.Table) -> None:
        left = self.rows if self.rows is not None and len(self.rows) else None
        self.rows = block if left is None else pa.concat_tables([left, block])
        self.keys = one_chunk(self.rows.column(KEY))
        self._filled = len(self.keys)

    def take(self, count: int) -> pa.Table | None:
        """Take the first rows."""
        if not count or self.rows is None:
            return None
        taken = self.rows.slice(0, count)
        self.rows, self.keys = self.rows.slice(count), self.keys.slice(count)
        return taken


def _fill(cursors: Sequence[_Cursor], fill: Callable[..., Iterator[None]]) -> list[_Cursor]:
    """Fill the cursors, and return those that have rows."""
    list(fill(_Cursor.fill, cursors))
    return [cursor for cursor in cursors if len(cursor.keys)]


def _take_round(cursors: Sequence[_Cursor]) -> list[pa.Table]:
    """Take all rows that surely come before those that are not read yet."""
    lasts = [(cursor.keys[-1].as_py(), i) for i, cursor in enumerate(cursors) if cursor.is_open]
    if not lasts:
        return [taken for cursor in cursors if (taken := cursor.take(len(cursor.keys)))]
    bound, least = min(lasts)
    # More keys equal to the bound may follow in that stream, and come before those of later streams.
    counts = [count_before(cursor.keys, bound, with_equal=i <= least) for i, cursor in enumerate(cursors)]
    return [taken for cursor, n in zip(cursors, counts, strict=True) if (taken := cursor.take(n)) is not None]


def _merge(parts: Sequence[pa.Table], *, with_keys: bool) -> Iterator[pa.Table]:
    rows = pa.concat_tables(parts)
    order = sort_keys(one_chunk(rows.column(KEY))) if len(parts) > 1 else None
    if not with_keys:
        rows = rows.drop_columns(KEY)
    if order is None:
        yield rows
        return
    columns = [one_chunk(column) for column in rows.columns]
    for start in range(0, len(rows), _ROWS):
        part = order.slice(start, _ROWS)
        yield pa.table([_take(column, part) for column in columns], rows.schema)


def _take(column: pa.Array, order: pa.Array) -> pa.Array:
    """Put rows into order. Many have neither keys nor headers, and to gather nulls takes as long as texts."""
    if column.null_count == len(column):
        return pa.nulls(len(order), column.type)
    return column.take(order)
