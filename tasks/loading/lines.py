"""Cuts text into lines, or into rows of CSV, a block at a time, whatever the blocks are.

A line ends at LF or CRLF, and the last one may end at the end of the file. A row of CSV goes on behind a line break
that is within quotes. A row whose quotes are broken is its first line alone, so that it costs no other row.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.formats.csv_rows import find_strict

BOM: Final = b"\xef\xbb\xbf"
_LF: Final = ord("\n")
_CR: Final = ord("\r")
_QUOTE: Final = ord('"')

_Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]
_NONE: Final = np.zeros(0, np.int64)


class BrokenInputError(ValueError):
    """A file cannot be read on; the message says why, without the file's name."""


def describe_long_line(line: int, longest: int) -> str:
    """Say that a line is no record for the topic."""
    return f"line {line:,} is longer than {longest:,} bytes, the most that the topic takes (its max.message.bytes)"


@dataclass(frozen=True)
class Rows:
    """Rows that follow each other in a file. `first`: for each, the number of its first line, from 1; none is empty.

    `end`: the lines of the file up to the last of these rows and the empty lines behind it. `empty`: the number of
    empty lines among them.
    """

    first: Numbers
    end: int
    empty: int
    _starts: Numbers
    _ends: Numbers
    _text: bytes

    def __len__(self) -> int:
        return len(self.first)

    @property
    def lengths(self) -> Numbers:
        """The bytes of each row, without its line break."""
        return self._ends - self._starts

    def values(self, rows: Numbers | None = None) -> pa.Array:
        """Copy all rows, or these, into a binary array."""
        wanted = np.arange(len(self)) if rows is None else rows
        return self._alternating.take(pa.array(2 * wanted))

    @cached_property
    def _alternating(self) -> pa.Array:
        """The text as an array, without a copy: every second value is a row, and those between divide them."""
        edges = np.empty(2 * len(self), np.int32)
        edges[::2], edges[1::2] = self._starts, self._ends
        buffers = [None, pa.py_buffer(edges), pa.py_buffer(self._text)]
        return pa.Array.from_buffers(pa.binary(), max(len(edges) - 1, 0), buffers)

    def only(self, kept: slice | _Mask) -> "Rows":
        """Return some of the rows."""
        return Rows(
            self.first[kept],
            self.end,
            self.empty,
            self._starts[kept],
            self._ends[kept],
            self._text,
        )


class LineCutter:
    """Cuts the text of one file, which comes in blocks of any size. A byte order mark in front is skipped.

    `delimiter`: that of CSV whose fields may be in double quotes; None: a line is a row. A row of more than `longest`
    bytes is a BrokenInputError once nothing in front of it is left; so are quotes that are not closed.
    """

    def __init__(self, delimiter: str | None, longest: int) -> None:
        self._rows = None if delimiter is None else _RowFinder(delimiter)
        self._longest = longest
        self._left = b""
        self._lines = 0
        self._begun = False

    def cut(self, block: bytes, *, last: bool = False) -> Rows:
        """Return the rows that end within this block, and after the former ones. `last`: nothing follows it."""
        text = self._left + block
        if not self._begun:
            if len(text) < len(BOM) and not last:
                self._left = text
                return Rows(_NONE, 0, 0, _NONE, _NONE, b"")
            text, self._begun = text.removeprefix(BOM), True
        if last and text and not text.endswith(b"\n"):
            text += b"\n"
        before, rows = self._lines, self._cut(text)
        if self._left and self._lines == before and (last or len(self._left) > self._longest):
            raise BrokenInputError(self._explain())
        return rows

    def _explain(self) -> str:
        line = self._lines + 1
        if b"\n" in self._left:
            return f"the quotes of the row that begins in line {line:,} are not closed: correct it, or --csv-quote none"
        return describe_long_line(line, self._longest)

    def _cut(self, text: bytes) -> Rows:
        data = np.frombuffer(text, np.uint8)
        breaks = np.flatnonzero(data == _LF)
        ending = np.arange(len(breaks))
        if self._rows is not None and b'"' in text:
            ending = self._rows.find_ends(text, data, breaks)
        if not len(ending):
            self._left = text
            return Rows(_NONE, self._lines, 0, _NONE, _NONE, b"")
        # The index of the line at which each row begins.
        begins = np.concatenate(([0], ending[:-1] + 1))
        starts, ends = np.where(begins > 0, breaks[begins - 1] + 1, 0), breaks[ending]
        self._left = text[int(ends[-1]) + 1 :]
        first, self._lines = begins + self._lines + 1, self._lines + int(ending[-1]) + 1
        ends = ends - ((ends > starts) & (data[ends - 1] == _CR))
        kept = ends > starts
        rows = Rows(first, self._lines, len(kept) - int(np.count_nonzero(kept)), starts, ends, text)
        return rows if kept.all() else rows.only(kept)


class _RowFinder:
    """Finds the line breaks at which rows of CSV end."""

    def __init__(self, delimiter: str) -> None:
        self._delimiter = delimiter
        char = rf"\x{ord(delimiter):02x}".encode()
        # Nothing is tried twice, so that no row takes a multiple of its size.
        text, field = rb'[^"\n%b][^\n%b]*+' % (char, char), rb'"(?:[^"]++|"")*+"'
        self._row, self._strict = (
            re.compile(rb"(?:%b|%b|)(?:%b(?:%b|%b|))*+%b" % (item, text, char, item, text, end))
            for item, end in ((field + rb"[^\n%b]*+" % char, rb"\n"), (field, rb"\r?\n"))
        )
        self._before = _table(delimiter.encode() + b'\n"')
        self._behind = _table(delimiter.encode() + b'\n\r"')

    def find_ends(self, text: bytes, data: _Bytes, breaks: Numbers) -> Numbers:
        """Return the indexes of those line breaks that end a row; the text begins at a row."""
        quotes = np.flatnonzero(data == _QUOTE)
        if self._are_regular(data, quotes):
            return np.flatnonzero(np.searchsorted(quotes, breaks) % 2 == 0)
        return self._walk(text, breaks)

    def _are_regular(self, data: _Bytes, quotes: Numbers) -> bool:
        """Whether each quote opens a field, closes it, or is half of a pair: then every second one opens."""
        opening, closing = quotes[::2], quotes[1::2]
        before = self._before[data[opening - 1]]
        if opening[0] == 0:
            before[0] = True
        return bool(before.all()) and bool(self._is_behind(data, closing).all())

    def _is_behind(self, data: _Bytes, closing: Numbers) -> _Mask:
        """Whether what may be behind a field follows each of these quotes; nothing may, at the end of the data."""
        next_, after = (data[np.minimum(closing + i, len(data) - 1)] for i in (1, 2))
        alone = (next_ == _CR) & (after != _LF) & (closing + 2 < len(data))
        return np.asarray(self._behind[next_] & ~alone)

    def _walk(self, text: bytes, breaks: Numbers) -> Numbers:
        """Find the ends where some quotes are text, or broken: lines that are no rows by themselves are looked at."""
        inner = np.zeros(len(breaks), np.bool_)
        done = 0
        for line in self._find_partial(text, breaks):
            if line < done:
                continue
            start = int(breaks[line - 1]) + 1 if line else 0
            row = self._row.match(text, start)
            if row is None:
                inner[line:] = True
                break
            end = int(np.searchsorted(breaks, row.end() - 1))
            if end > line and self._strict.fullmatch(row[0]):
                inner[line:end] = True
                done = end + 1
        return np.flatnonzero(~inner)

    def _find_partial(self, text: bytes, breaks: Numbers) -> list[int]:
        """Return the indexes of lines that alone are no row of strict CSV."""
        edges = np.concatenate(([0], breaks + 1)).astype(np.int32)
        lines = pa.Array.from_buffers(pa.binary(), len(breaks), [None, pa.py_buffer(edges), pa.py_buffer(text)])
        quoted = np.flatnonzero(np.asarray(pa.compute.match_substring(lines, b'"')))
        trimmed = pa.compute.replace_substring_regex(lines.take(pa.array(quoted)), r"\r?\n\z", "")
        found: list[int] = quoted[~find_strict(trimmed, self._delimiter)].tolist()
        return found


def _table(characters: bytes) -> _Mask:
    """Return for each byte whether it is one of these."""
    return np.isin(np.arange(256), list(characters))
