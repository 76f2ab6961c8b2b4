"""Cuts the sorted rows of a sort for its output's partitions, as the ledger and the sparse index have the ranges."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np

from tasks.manifests import Key, KeyRange
from tasks.settings.job import Job
from tasks.settings.sorts import Sort
from tasks.sorting.bound import KeyBound, encode_key
from tasks.sorting.cuts import cut_counts, cut_rows
from tasks.sorting.encoded import encode_rows
from tasks.sorting.order import Order, order_of
from tasks.sorting.rows import SortedKeys
from tasks.sparse_index import index_lines, sampled_rows
from tasks.types.base import KeyType
from tasks.types.registry import key_type

_SHOWN_CHARACTERS = 100


def cut_sort(
    job: Job, sort: Sort, order: Order, keys: SortedKeys, partitions: int, counts: Sequence[int] | None
) -> tuple[KeyRange, ...]:
    """Return the range of each output partition, with its entries of the sparse index.

    `counts`: the rows of each partition, where the order begins with it; None: the rows are cut at quantiles.
    """
    if counts is None:
        ranges = cut_rows(keys, partitions, split_heavy_keys=job.split_heavy_keys)
    else:
        ranges = cut_counts(keys, counts)
    ranges = record_ranges(job, sort, ranges)
    return ranges if sort.has_folder else _indexed(order, keys, ranges)


def record_ranges(job: Job, sort: Sort, ranges: Iterable[KeyRange]) -> tuple[KeyRange, ...]:
    """Return the ranges as the ledger has them: their keys for a person, and encoded."""
    order, types = order_of(job.key_columns, sort), _key_types(job, sort)
    return tuple(_recorded(order, types, r) for r in ranges)


def _key_types(job: Job, sort: Sort) -> list[KeyType]:
    """Return the types of the sort's keys, flags aside: they know how a key is shown."""
    kinds = {key.name: key.type for key in job.key_columns}
    return [key_type(kinds[key.column]) for key in sort.by]


def _recorded(order: Order, types: Sequence[KeyType], r: KeyRange) -> KeyRange:
    """Return the range for the ledger, which must stay small: its keys for a person, and encoded."""
    if r.first_key is None or r.last_key is None:
        return r
    low, high = (str(KeyBound.of(encode_key(order, key))) for key in (r.first_key, r.last_key))
    first, last = (_printable(types, order.without_flags(key)) for key in (r.first_key, r.last_key))
    return KeyRange(r.partition, r.first_row, r.end_row, first, last, low, high)


def _indexed(order: Order, keys: SortedKeys, ranges: Sequence[KeyRange]) -> tuple[KeyRange, ...]:
    """Add the entries of the sparse index to each range that is large enough for one."""
    sampled = [sampled_rows(r.first_row, r.end_row) for r in ranges]
    if not any(sampled):
        return tuple(ranges)
    columns = keys.take(np.concatenate([np.asarray(rows, np.int64) for rows in sampled]))
    encoded = encode_rows(order, dict(zip(order.columns, columns, strict=True))).to_pylist()
    ends = accumulate(map(len, sampled))
    return tuple(
        replace(r, index=index_lines(encoded[end - len(rows) : end]))
        for r, rows, end in zip(ranges, sampled, ends, strict=True)
    )


def _printable(types: Sequence[KeyType], key: Key) -> Key:
    """Show each part of a key as its type does, shortened."""
    return tuple(None if part is None else _shorten(kind.show(part)) for kind, part in zip(types, key, strict=True))


def _shorten(shown: int | str) -> int | str:
    if isinstance(shown, int) or len(shown) <= _SHOWN_CHARACTERS:
        return shown
    return f"{shown[:_SHOWN_CHARACTERS]}…"
