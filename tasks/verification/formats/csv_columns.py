"""CSV by whole columns: finds the delimiters of a block at once, for rows without quotes, line breaks or other marks.

Rows that are not plain are left to `csv`, which decides on them alone: the outcome of a row depends on its own bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.arrow import binary_buffers
from tasks.verification.formats.base import Request
from tasks.verification.terms import read_kinds

_QUOTE, _LF, _CR, _BOM = (ord(mark) for mark in '"\n\r\xef')
_Bytes = npt.NDArray[np.uint8]
_Mask = npt.NDArray[np.bool_]
_Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PlainFields:
    """Fields of the plain rows of a block. `columns`: one for each wanted column; `odd`: whether a row is not plain."""

    columns: list[pa.Array]
    odd: _Mask


class PlainRowReader:
    """Reads values that are one row each."""

    def __init__(self, request: Request) -> None:
        names = [column.path[0] for column in read_kinds(request.facts) if not column.field]
        self._width = len(names)
        self._at = [names.index(wanted.column.path[0]) for wanted in request.columns]
        self._delimiter = ord(request.facts.get("delimiter", ","))
        self._marks = (_LF, _CR) if request.facts.get("quote") == "none" else (_LF, _CR, _QUOTE)

    @staticmethod
    def permits(request: Request) -> bool:
        """Whether the values of a format can be read so."""
        facts = request.facts
        names = [column.path[0] for column in read_kinds(facts) if not column.field]
        return (
            facts.get("name", "csv") == "csv"
            and facts.get("header") != "yes"
            and facts.get("delimiter", ",").isascii()
            and len(facts.get("delimiter", ",")) == 1
            and all(wanted.column.path[0] in names for wanted in request.columns)
        )

    def read(self, values: pa.Array) -> PlainFields:
        """Return the fields of the plain rows."""
        offsets, buffer = binary_buffers(values)
        if buffer is None or values.null_count or offsets[0] == offsets[-1]:
            return PlainFields([pa.array([], pa.binary())] * len(self._at), np.ones(len(values), np.bool_))
        data, first = np.frombuffer(buffer, np.uint8)[: offsets[-1]], int(offsets[0])
        # One byte is found in a text at a tenth of the time of a comparison with each.
        text = data[first:].tobytes()
        present = [mark for mark in self._marks if mark in text]
        starts, ends = offsets[:-1].astype(np.int64), _trim(data, offsets, present)
        odd = ends <= starts
        if _BOM in text:
            odd |= data[np.minimum(starts, len(data) - 1)] == _BOM
        for mark in present:
            _note_rows(odd, np.flatnonzero(data[first:] == mark) + first, offsets, ends)
        found = np.flatnonzero(data[first:] == self._delimiter) + first
        marks = self._divide(found, starts, ends, odd)
        bounds = _bounds(starts[~odd], ends[~odd], marks)
        return PlainFields([_take_field(bounds, buffer, self._width, at) for at in self._at], odd)

    def _divide(self, found: _Positions, starts: _Positions, ends: _Positions, odd: _Mask) -> _Positions:
        """Return the delimiters of the plain rows, a line each; note rows that have another number of them."""
        count = self._width - 1
        if len(found) == count * len(starts) and not odd.any():
            marks = found.reshape(len(starts), count)
            if not count or ((marks[:, 0] >= starts) & (marks[:, -1] < ends)).all():
                return marks
        rows = np.searchsorted(starts, found, "right") - 1
        odd |= np.bincount(rows, minlength=len(starts)) != count
        return found[~odd[rows]].reshape(-1, count) if count else np.empty((int((~odd).sum()), 0), np.int64)


def _trim(data: _Bytes, offsets: npt.NDArray[np.int32], present: Sequence[int]) -> _Positions:
    """Return the ends of the rows, without a line break behind. `present`: the marks to look for."""
    ends = offsets[1:].astype(np.int64)
    for mark in (mark for mark in (_LF, _CR) if mark in present):
        last = ends - 1
        ends = np.where((ends > offsets[:-1]) & (data[np.maximum(last, 0)] == mark), last, ends)
    return ends


def _note_rows(odd: _Mask, marks: _Positions, offsets: npt.NDArray[np.int32], ends: _Positions) -> None:
    """Note the rows with a mark in front of their end."""
    if len(marks):
        rows = np.searchsorted(offsets, marks, "right") - 1
        odd[rows[marks < ends[rows]]] = True


def _bounds(starts: _Positions, ends: _Positions, marks: _Positions) -> npt.NDArray[np.int32]:
    """Return where fields, and what is between them, begin and end: all fields of a row, one row behind the other."""
    bounds = np.empty((len(starts), 2 * marks.shape[1] + 2), np.int32)
    bounds[:, 0], bounds[:, -1] = starts, ends
    bounds[:, 1:-1:2], bounds[:, 2:-1:2] = marks, marks + 1
    return bounds.reshape(-1)


def _take_field(bounds: npt.NDArray[np.int32], buffer: pa.Buffer, width: int, at: int) -> pa.Array:
    """Return one field of each row. An array of the fields and of all between them needs no copy of the bytes."""
    if not len(bounds):
        return pa.array([], pa.binary())
    pieces = pa.Array.from_buffers(pa.binary(), len(bounds) - 1, [None, pa.py_buffer(bounds), buffer])
    return pieces.take(pa.array(np.arange(2 * at, len(bounds), 2 * width)))
