"""Searches a block of JSON values for what the fast reader would take too leniently, or not exactly.

Guarantee: each answer depends on the bytes of one value only. What is not found is certainly in order; of what is
found, a stricter look decides.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.arrow import binary_buffers
from tasks.formats.json_strict import BOM, MOST_LEVELS, find_nesting

Mask = npt.NDArray[np.bool_]
_Bytes = npt.NDArray[np.uint8]
_Positions = npt.NDArray[np.int64]

# Bytes searched at once: they stay in the processor's cache.
_WINDOW = 1 << 17
# What stands in front of a literal.
_BEFORE = np.isin(np.arange(256), list(b":,[- \t\r\n"))
_BEGINS = np.isin(np.arange(256), list(b"nNiI"))
# Outside of strings: NaN and Infinity in all their spellings, and a comma before the end of an object or array.
_LENIENT: Final = r'(?is)\A(?:[^"]|"(?:[^"\\]|\\.)*")*(?:nan|inf|,[ \t\r\n]*[}\]])'
# With fewer digits a double has the same decimal value.
BLURRED_DIGITS: Final = 16
_STRIDE = 4
# Of one in so many values each is looked at: a parse of all takes as long.
_LOOKED_AT = 8


def strip_marks(values: pa.Array) -> pa.Array:
    """Return the values without a byte order mark in front, at most one of each."""
    text, edges = _text_of(values)
    if BOM[0] not in text.tobytes():
        return values
    marked = np.asarray(pc.starts_with(values, BOM).fill_null(False))
    starts = edges[:-1][marked]
    rest = np.delete(text, np.concatenate([starts + i for i in range(len(BOM))]))
    bounds = np.concatenate(([0], np.cumsum(np.diff(edges) - len(BOM) * marked))).astype(np.int32)
    valid = pa.py_buffer(np.packbits(np.asarray(values.is_valid()), bitorder="little")) if values.null_count else None
    return pa.Array.from_buffers(pa.binary(), len(values), [valid, pa.py_buffer(bounds), pa.py_buffer(rest)])


def find_lenient(values: pa.Array) -> Mask:
    """Find values that DuckDB may take for JSON although they are none, or that are nested too deeply."""
    text, edges = _text_of(values)
    found = np.zeros(len(values), np.bool_)
    found[_find_marked(text, edges)] = True
    candidates = np.flatnonzero(found)
    lenient = pc.match_substring_regex(values.take(pa.array(candidates)), _LENIENT).fill_null(False)
    found[candidates] = np.asarray(lenient)
    for row in _find_large(text, edges).tolist():
        found[row] |= find_nesting(text[edges[row] : edges[row + 1]].tobytes()) is not None
    return found


def find_broken(values: pa.Array) -> Mask:
    """Find values that are certainly no object and no array: by their first and last byte."""
    text, edges = _text_of(values)
    if not len(text):
        return np.ones(len(values), np.bool_)
    first, last = text[np.minimum(edges[:-1], len(text) - 1)], text[edges[1:] - 1]
    # An opening bracket and its closing one differ by 2; blanks may stand around.
    closed = (last - first == 2) & ((first | 0x20) == ord("{"))
    return np.asarray(~(closed | (first <= ord(" ")) | (last <= ord(" "))) | (np.diff(edges) == 0))


def find_illegible(values: pa.Array) -> Mask:
    """Find values that are not UTF-8, if few are beyond ASCII; of many it finds none."""
    found = ~np.asarray(pc.string_is_ascii(values.view(pa.string())).fill_null(True))
    if np.count_nonzero(found) * _LOOKED_AT > len(found):
        return np.zeros(len(found), np.bool_)
    for row in np.flatnonzero(found).tolist():
        found[row] = not _is_legible(values[row].as_buffer())
    return found


def _is_legible(value: pa.Buffer) -> bool:
    try:
        str(memoryview(value), "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def find_long_numbers(values: pa.Array) -> Mask:
    """Find values with a run of digits and points as long as BLURRED_DIGITS, wherever it is."""
    text, edges = _text_of(values)
    if len(text) < BLURRED_DIGITS:
        return np.zeros(len(values), np.bool_)
    # Of every fourth byte, such a run covers four.
    sparse = (text[::_STRIDE] - np.uint8(ord("."))) <= ord("9") - ord(".")
    times = BLURRED_DIGITS // _STRIDE
    runs = np.logical_and.reduce([sparse[i : len(sparse) - times + 1 + i] for i in range(times)])
    found = np.zeros(len(values), np.bool_)
    found[_rows_at(np.flatnonzero(runs) * _STRIDE, edges)] = True
    return found


def _text_of(values: pa.Array) -> tuple[_Bytes, _Positions]:
    """Return the bytes of all values, and the edges (n + 1) of each in them."""
    offsets, data = binary_buffers(values)
    text = np.frombuffer(b"" if data is None else data, np.uint8)
    return text[offsets[0] : offsets[-1]], (offsets - offsets[0]).astype(np.int64)


def _rows_at(positions: _Positions, edges: _Positions) -> _Positions:
    """Return for each of these bytes the row that holds it."""
    return np.searchsorted(edges, positions, "right") - 1


def _find_marked(text: _Bytes, edges: _Positions) -> _Positions:
    """Find rows with what looks like an end behind a comma, or like a literal that JSON lacks."""
    rows = [np.zeros(0, np.int64)]
    for start, window in _windows(text):
        folded = window | 0x20
        n, f = folded == ord("n"), folded == ord("f")
        rows.append(_begin_alone(text, edges, _where(n[:-2] & n[2:] | n[1:-1] & f[2:], start)))
        before = window[:-1]
        ends = _where((folded[1:] == ord("}")) & ((before == ord(",")) | (before <= ord(" "))), start)
        rows.append(_once(_rows_at(ends, edges)))
    return np.concatenate(rows)


def _begin_alone(text: _Bytes, edges: _Positions, places: _Positions) -> _Positions:
    """Return the rows in which a literal may begin at one of these places."""
    rows = _rows_at(places, edges)
    alone = ((edges[rows] == places) | _BEFORE[text[places - 1]]) & _BEGINS[text[places]]
    return _once(rows[alone])


def _once(rows: _Positions) -> _Positions:
    """Return ascending rows without repetition where they are many: a value may be full of what is looked for."""
    return np.unique(rows) if len(rows) > _WINDOW // 16 else rows


def _windows(text: _Bytes) -> Iterator[tuple[int, _Bytes]]:
    """Return the text in windows that overlap by two bytes."""
    for start in range(0, len(text), _WINDOW):
        yield start, text[start : start + _WINDOW + 2]


def _where(mask: Mask, start: int) -> _Positions:
    return np.flatnonzero(mask) + start if mask.any() else np.zeros(0, np.int64)


def _find_large(text: _Bytes, edges: _Positions) -> _Positions:
    """Find the rows with more brackets than the levels that are permitted."""
    if np.diff(edges).max(initial=0) <= 2 * MOST_LEVELS:
        return np.zeros(0, np.int64)
    levels = np.zeros(len(edges) - 1, np.int64)
    for start, window in _windows(text):
        opening = _where((window[:_WINDOW] | 0x20) == ord("{"), start)
        rows, counts = np.unique(_rows_at(opening, edges), return_counts=True)
        levels[rows] += counts
    return np.flatnonzero(levels > MOST_LEVELS)
