"""Cuts the total order of a sort into output partitions: at exact quantiles of the sorted rows, or at known rows.

Where the order begins with the partition, the number of rows in each is known. Else the rows are cut at quantiles. The
rows are sorted and their number is known, so a quantile is a row number. That needs no sample and no estimate, and
works for any number, type and direction of key columns. Equal keys stay together by default: a cut inside a run of
equal keys moves to the nearer end of that run.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

from tasks.manifests import Key, KeyRange


def cut_rows(keys: Sequence[Key], partitions: int, *, split_heavy_keys: bool = False) -> tuple[KeyRange, ...]:
    """Cut the sorted rows, whose keys are `keys`, into a range for each output partition; reads about 50 keys a cut.

    Every range is within one row of rows/partitions if keys permit; a heavy key leaves ranges empty.
    """
    quantiles = [len(keys) * i // partitions for i in range(1, partitions)]
    inner = quantiles if split_heavy_keys or not keys else [_nearest_key_change(keys, row) for row in quantiles]
    return _cut(keys, [0, *inner, len(keys)])


def cut_counts(keys: Sequence[Key], counts: Iterable[int]) -> tuple[KeyRange, ...]:
    """Cut the sorted rows into a range for each output partition, which has so many rows."""
    return _cut(keys, [0, *accumulate(counts)])


def _cut(keys: Sequence[Key], edges: Sequence[int]) -> tuple[KeyRange, ...]:
    return tuple(_key_range(keys, partition, *edge) for partition, edge in enumerate(pairwise(edges)))


def _nearest_key_change(keys: Sequence[Key], row: int) -> int:
    """Return `row`, or the nearer end of the run of equal keys around it."""
    key = keys[row]
    if row == 0 or keys[row - 1] != key:
        # Most keys are rare, and a micro-batch has as many cuts as a large run.
        return row
    # A search for equality is enough: the rows are sorted, whatever the direction of their columns.
    start = bisect_left(range(row), True, key=lambda r: keys[r] == key)
    end = row + bisect_right(range(row, len(keys)), False, key=lambda r: keys[r] != key)
    return start if row - start <= end - row else end


def _key_range(keys: Sequence[Key], partition: int, first: int, end: int) -> KeyRange:
    if first == end:
        return KeyRange(partition, first, end)
    return KeyRange(partition, first, end, keys[first], keys[end - 1])
