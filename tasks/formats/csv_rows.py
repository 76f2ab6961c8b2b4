"""Cuts rows of CSV out of values, a block at a time, and finds out what it can without parsing.

Guarantee: each answer depends on the bytes of one value only.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

from tasks.arrow import binary_buffers

_BOM = b"\xef\xbb\xbf"
_BREAKS = (b"\n", b"\r")

_Bytes = npt.NDArray[np.uint8]
_Positions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def trim_rows(values: pa.Array) -> pa.Array:
    """Return the values without a byte order mark in front and a line break at the end, at most one of each."""
    if not _hold_any(values, (_BOM, b"\n", b"\r")):
        return values
    text, edges = _text_of(values)
    starts, ends = edges[:-1], edges[1:]
    pairs = _stand_at(b"\r\n", text, ends - 2, starts, ends)
    breaks = pairs | _stand_at(b"\n", text, ends - 1, starts, ends) | _stand_at(b"\r", text, ends - 1, starts, ends)
    marks = _stand_at(_BOM, text, starts, starts, ends)
    if not (breaks.any() or marks.any()):
        return values
    surplus = [ends[breaks] - 1, ends[pairs] - 2, *(starts[marks] + i for i in range(len(_BOM)))]
    removed = breaks.astype(np.int64) + pairs + len(_BOM) * marks
    trimmed = _make_binary(np.delete(text, np.concatenate(surplus)), np.diff(edges) - removed)
    return pa.compute.if_else(values.is_valid(), trimmed, None) if values.null_count else trimmed


def _text_of(values: pa.Array) -> tuple[_Bytes, _Positions]:
    """Return the bytes of all values, and the edges (n + 1) of each in them."""
    offsets, data = binary_buffers(values)
    text = np.frombuffer(b"" if data is None else data, np.uint8)
    return text[offsets[0] : offsets[-1]], (offsets - offsets[0]).astype(np.int64)


def _stand_at(wanted: bytes, text: _Bytes, positions: _Positions, starts: _Positions, ends: _Positions) -> Mask:
    """Whether `wanted` is at the position of each value, and within it."""
    found = (positions >= starts) & (positions + len(wanted) <= ends)
    for i, byte in enumerate(wanted):
        found[found] = text[positions[found] + i] == byte
    return found


def _make_binary(text: _Bytes, lengths: _Positions) -> pa.Array:
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    return pa.Array.from_buffers(pa.binary(), len(lengths), [None, pa.py_buffer(offsets), pa.py_buffer(text)])


def _hold_any(values: pa.Array, wanted: Iterable[bytes]) -> bool:
    text = _text_of(values)[0].tobytes()
    # One byte is found ten times as fast as several.
    return any(item[:1] in text and item in text for item in wanted)


def _special(*, quotes: bool) -> tuple[bytes, ...]:
    """Return the characters that may make a row other than one line, or a field other than its bytes."""
    return (b'"', *_BREAKS) if quotes else _BREAKS


def are_all_plain(values: pa.Array, *, quotes: bool = True) -> bool:
    """Whether each value is certainly one line of CSV as it stands, and so are its fields.

    `quotes`: fields may be in double quotes; else a quote is text.
    """
    lengths = np.diff(_text_of(values)[1])
    return not values.null_count and bool(lengths.all()) and not _hold_any(values, (*_special(quotes=quotes), _BOM))


def find_plain(rows: pa.Array, *, quotes: bool = True) -> Mask:
    """Find the rows that are certainly one line of CSV, with their fields as they stand."""
    plain = pa.compute.greater(pa.compute.binary_length(rows), 0).fill_null(False)
    for special in _special(quotes=quotes):
        plain = pa.compute.and_not(plain, pa.compute.match_substring(rows, special).fill_null(True))
    return np.asarray(plain)


def header_pattern(delimiter: str, *, quotes: bool) -> bytes:
    """Return a pattern of Python's `re` for a row of strict CSV and its line break, at the beginning of a value.

    Nothing in it is tried twice, so that no value takes a multiple of its size.
    """
    char = rf"\x{ord(delimiter):02x}"
    item = rf'(?:"(?:[^"]++|"")*+"|[^"\r\n{char}][^\r\n{char}]*+|)'
    row = f"{item}(?:{char}{item})*+" if quotes else r"[^\r\n]*+"
    return rf"{row}(?:\r\n|\r|\n)".encode()


def find_strict(rows: pa.Array, delimiter: str) -> Mask:
    """Find the rows that alone are one row of strict CSV, as Python's `csv.reader(strict=True)` reads them.

    A reader that takes many rows at once reads each of these like a single one: it ends outside of quotes.
    """
    char = rf"\x{ord(delimiter):02x}"
    item = rf'(?:"(?:[^"]|"")*"|[^"\r\n{char}][^\r\n{char}]*|)'
    strict = pa.compute.match_substring_regex(rows, rf"\A{item}(?:{char}{item})*\z").fill_null(False)
    return np.asarray(pa.compute.and_(strict, pa.compute.greater(pa.compute.binary_length(rows), 0).fill_null(False)))


def count_fields(rows: pa.Array, delimiter: str, *, quoted: bool) -> npt.NDArray[np.int64]:
    """Count the fields of each row; rows with quotes must be strict."""
    counted = rows
    if quoted:
        char = rf"\x{ord(delimiter):02x}"
        counted = pa.compute.replace_substring_regex(rows, rf'(\A|{char})"(?:[^"]|"")*"', r"\1")
    return np.asarray(pa.compute.count_substring(counted, delimiter)).astype(np.int64) + 1


def join_rows(rows: pa.Array) -> pa.Buffer:
    """Join rows into one line a row, for Arrow's reader."""
    text = _text_of(pa.compute.binary_join_element_wise(rows, b"", b"\n"))[0]
    # The reader skips a leading byte order mark, or refuses a part of one: this one is not the first row's.
    return pa.py_buffer(_BOM + text.tobytes() if text[0] == _BOM[0] else text)
