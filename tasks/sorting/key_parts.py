"""Parts of a sort by its keys alone: bounds from a sample, and the part of each row.

Equal keys are in one part, whatever the sample; a sample that is not like the rows only makes parts of unequal sizes.
Keys and bounds are compared as bytes: those of a column that is in this order as it is, else in the encoding of
`encode_rows`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.arrow import binary_buffers, one_chunk
from tasks.sorting.encoded import encode_rows
from tasks.sorting.order import Order

_WORD: Final = 8
# A bound need not be a key: the first bytes of one divide rows as well, if they tell it from the bound before.
_KEPT_BYTES: Final = 64
_MOST_BYTES: Final = 4096

_Words = npt.NDArray[np.uint64]
Parts = npt.NDArray[np.int16]


@dataclass(frozen=True)
class KeyParts:
    """The parts of one sort. `bounds`: ascending, the least key of each part but the first."""

    order: Order
    bounds: tuple[bytes, ...] = ()

    @property
    def count(self) -> int:
        """The number of parts, some of which may have no row."""
        return len(self.bounds) + 1

    @cached_property
    def _arrow_bounds(self) -> pa.Array:
        return pa.array(self.bounds, pa.binary())

    @cached_property
    def _bound_words(self) -> _Words:
        return first_words(self._arrow_bounds)

    def find(self, rows: pa.Table) -> Parts:
        """Return the part of each row. `rows`: with the order's columns as chunks have them."""
        if not self.bounds:
            return np.zeros(len(rows), np.int16)
        keys = _comparable(self.order, {name: one_chunk(rows.column(name)) for name in self.order.columns})
        words = first_words(keys)
        # Most keys differ from all bounds in their first word; those that do not are compared whole.
        low = np.searchsorted(self._bound_words, words, "left")
        high = np.searchsorted(self._bound_words, words, "right")
        unsure = np.flatnonzero(low < high)
        if len(unsure):
            low[unsure] = self._compare(keys.take(pa.array(unsure)), low[unsure], high[unsure])
        return low.astype(np.int16)

    def _compare(
        self, keys: pa.Array, low: npt.NDArray[np.int64], high: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Count the bounds that each key reaches, of which there are at least `low` and at most `high`."""
        while (low < high).any():
            middle = np.minimum((low + high) // 2, len(self.bounds) - 1)
            open_ = low < high
            reached = np.asarray(pc.greater_equal(keys, self._arrow_bounds.take(pa.array(middle))))
            low, high = np.where(open_ & reached, middle + 1, low), np.where(open_ & ~reached, middle, high)
        return low


def _comparable(order: Order, columns: Mapping[str, pa.Array]) -> pa.Array:
    """Return the keys of rows as bytes in their order."""
    (first, *others) = order.terms
    column = columns[first.column]
    # To encode texts takes 0.13 µs a row, more than all else here.
    plain = not others and not first.descending and pa.types.is_binary(column.type)
    return column if plain else encode_rows(order, columns)


def first_words(keys: pa.Array) -> _Words:
    """Return the first 8 bytes of each key as one number, a shorter key with zeros behind it."""
    offsets, data = binary_buffers(keys)
    if data is None:
        return np.zeros(len(keys), np.uint64)
    whole = np.frombuffer(data, np.uint8)[: offsets[-1]]
    # The last key's word must lie within the bytes.
    padded = np.concatenate([whole, np.zeros(_WORD, np.uint8)])
    every = np.ndarray((len(whole) + 1,), ">u8", padded.data, strides=(1,))
    words = every[offsets[:-1]].astype(np.uint64)
    lengths = np.diff(offsets)
    if (short := lengths < _WORD).any():
        unused = (8 * (_WORD - lengths[short])).astype(np.uint64)
        # A shift by all 64 bits is not defined.
        words[short] = np.where(unused < 64, (words[short] >> (unused % 64)) << (unused % 64), 0)
    return words


def sample_parts(order: Order, rows: Mapping[str, pa.Array], weights: npt.NDArray[np.float64], parts: int) -> KeyParts:
    """Divide rows into parts of about equal weight. `rows`: the order's columns of a sample; `weights`: of its rows."""
    keys = _comparable(order, rows)
    ranked = np.asarray(pc.sort_indices(keys))
    if not len(ranked) or parts < 2:
        return KeyParts(order)
    ends = np.cumsum(weights[ranked])
    # The sampled row at which a part begins is the first behind the weight of those before it.
    places = np.searchsorted(ends, ends[-1] * np.arange(1, parts) / parts, side="right")
    least, *firsts = keys.take(pa.array(ranked[[0, *np.minimum(places, len(ranked) - 1)]])).to_pylist()
    return KeyParts(order, _ascending(least, firsts))


def _ascending(least: bytes, keys: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return the bounds, each once: a key that is the quantile of several parts is in one of them."""
    pairs = pairwise([least, *dict.fromkeys(keys)])
    return tuple(dict.fromkeys(_shorten(former, key) for former, key in pairs))


def _shorten(former: bytes, key: bytes) -> bytes:
    """Return the first bytes of a key, enough to tell it from the key before."""
    size = _KEPT_BYTES
    while size < _MOST_BYTES and key[:size] <= former:
        size *= 2
    return key[:size]
