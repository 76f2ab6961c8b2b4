"""Keys of many rows as bytes that compare as the order does: the encoding of `bound.encode_key`, a column at a time."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.arrow import binary_buffers
from tasks.sorting.order import Order, Term

_SIGN: Final = np.uint64(1 << 63)
_WORD: Final = 8

_Bytes = npt.NDArray[np.uint8]


def encode_rows(order: Order, columns: Mapping[str, pa.Array]) -> pa.Array:
    """Return the keys of rows (binary). `columns`: key columns and flags as chunks have them, none of them null."""
    parts = [_encode(term, columns[term.column]) for term in order.terms]
    return parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, b"")


def sort_keys(keys: pa.Array) -> pa.Array:
    """Return the indexes that put encoded keys into order; equal ones stay in theirs."""
    offsets, data = binary_buffers(keys)
    if data is not None and (np.diff(offsets) == _WORD).all():
        # Keys of one integer: several times as fast, and blocks are sorted in stretches already.
        words = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]].view(">u8").astype(np.uint64)
        return pa.array(np.argsort(words, kind="stable"))
    return pc.sort_indices(keys)


def count_before(keys: pa.Array, bound: bytes, *, with_equal: bool = False) -> int:
    """Count the leading ones of ascending keys that come before the bound, or are equal to it if so asked."""
    low, high = 0, len(keys)
    while low < high:
        middle = (low + high) // 2
        key = keys[middle].as_py()
        if key < bound or (with_equal and key == bound):
            low = middle + 1
        else:
            high = middle
    return low


def end_of(prefix: bytes) -> bytes | None:
    """Return the least bytes behind all that begin with the prefix; None if there are none."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else None


def _encode(term: Term, column: pa.Array) -> pa.Array:
    if term.is_flag:
        return _fixed(np.asarray(column).astype(np.uint8), 1, inverted=term.descending)
    if pa.types.is_integer(column.type):
        words = (np.asarray(column).astype(np.int64).view(np.uint64) ^ _SIGN).astype(">u8")
        return _fixed(words.view(np.uint8), _WORD, inverted=term.descending)
    escaped = pc.replace_substring(column, b"\0", b"\0\xff")
    ended = pc.binary_join_element_wise(escaped, b"\0\0", b"")
    return _invert(ended) if term.descending else ended


def _fixed(data: _Bytes, width: int, *, inverted: bool) -> pa.Array:
    offsets = np.arange(0, len(data) + 1, width, dtype=np.int32)
    data = ~data if inverted else np.ascontiguousarray(data)
    return pa.Array.from_buffers(pa.binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def _invert(column: pa.Array) -> pa.Array:
    offsets, data = binary_buffers(column)
    inverted = ~np.frombuffer(data, np.uint8)[: offsets[-1]] if data is not None else np.empty(0, np.uint8)
    buffers = [None, pa.py_buffer(np.ascontiguousarray(offsets)), pa.py_buffer(inverted)]
    return pa.Array.from_buffers(pa.binary(), len(column), buffers)
