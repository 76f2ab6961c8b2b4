"""CSV, by code of its own: splits a block at once if its values are plain, else one by one with Python's reader."""

import csv
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Self

from tasks.verification.content import Headers
from tasks.verification.formats.base import Columns, Request, Values, Wanted
from tasks.verification.terms import read_kinds

# A field may be as long as a record.
csv.field_size_limit(2**31 - 1)

_BOM = b"\xef\xbb\xbf"
_BREAKS = (b"\n", b"\r")
# Different headers whose fields are remembered.
_MOST_HEADERS = 1000


class _NoRowError(ValueError):
    """The value is no row."""


def make_csv_reader(request: Request) -> "RowReader | HeaderReader":
    """Return the reader of values that are rows, or header lines with rows."""
    if request.facts.get("header") == "yes":
        return HeaderReader(request)
    return RowReader(request, [_name(column.path[0]) for column in read_kinds(request.facts) if not column.field])


def _name(step: str | int) -> bytes:
    return str(step).encode()


class RowReader:
    """Reads values that are one row each, with the fields `names`. A column that is not among them is null."""

    def __init__(self, request: Request, names: Sequence[bytes]) -> None:
        self._wanted = request.columns
        self._width = len(names)
        self._at = [_find_name(names, wanted) for wanted in self._wanted]
        self._delimiter = request.facts.get("delimiter", ",").encode()
        self._has_quotes = request.facts.get("quote") != "none"
        self._splitter = _Splitter(self._delimiter)

    def read(self, values: Values, _: Sequence[Headers] = ()) -> Columns:
        """Return the fields of the block; by one split if all values are plain rows, else row by row."""
        return self._read_plain(values, marks=True) or self.read_rows(trim_all(values))

    def read_rows(self, rows: Sequence[bytes]) -> Columns:
        """Return the fields of rows that are trimmed."""
        return self._read_plain(rows, marks=False) or self._read_each(rows)

    def _read_plain(self, rows: Values, *, marks: bool) -> Columns | None:
        try:
            return _to_columns(self._split_plain(rows, marks=marks), self._wanted)
        except _NoRowError:
            return None

    def _split_plain(self, rows: Values, *, marks: bool) -> list[Sequence[bytes | None]]:
        """Split rows that are each one plain line into columns, by one split: 0.3 µs a record in place of 0.7.

        Between two rows stands a field that is a line break, which no plain row has. If these come at the same
        distance throughout, each row has the right number of fields. `marks`: byte order marks are still to be trimmed.
        """
        if not all(rows):
            raise _NoRowError
        delimiter, width = self._delimiter, self._width + 1
        joined = (delimiter + b"\n" + delimiter).join(rows)  # type: ignore[arg-type]  # all() has excluded None
        if (self._has_quotes and b'"' in joined) or b"\r" in joined or joined.count(b"\n") != len(rows) - 1:
            raise _NoRowError
        # One byte is found ten times as fast as three.
        if marks and _BOM[:1] in joined and _BOM in joined:
            raise _NoRowError
        fields = joined.split(delimiter)
        if len(fields) != width * len(rows) - 1 or fields[width - 1 :: width].count(b"\n") != len(rows) - 1:
            raise _NoRowError
        return [[None] * len(rows) if at is None else fields[at::width] for at in self._at]

    def _read_each(self, rows: Sequence[bytes]) -> Columns:
        """Split each row for itself; those that are no rows are refused."""
        fields = self._split_each(rows)
        good = [i for i, items in enumerate(fields) if len(items) == self._width and rows[i]]
        columns = [[None if at is None else fields[i][at] for i in good] for at in self._at]
        return _to_columns(columns, self._wanted, set(range(len(rows))).difference(good))

    def _split_each(self, rows: Sequence[bytes]) -> list[list[bytes]]:
        whole = b"".join(rows)
        fields = [row.split(self._delimiter) for row in rows]
        specials = (b'"', *_BREAKS) if self._has_quotes else _BREAKS
        present = [special for special in specials if special in whole]
        for index in {i for special in present for i, row in enumerate(rows) if special in row}:
            # Without quotes a line break cannot be within a row.
            fields[index] = self._splitter.split(rows[index]) if self._has_quotes else []
        return fields


class HeaderReader:
    """Reads values that are a header line and a row each. The order of the names may differ by record."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._delimiter = request.facts.get("delimiter", ",").encode()
        self._has_quotes = request.facts.get("quote") != "none"
        self._line = _header_line(self._delimiter, has_quotes=self._has_quotes)
        self._splitter = _Splitter(self._delimiter)
        self._readers: dict[bytes, RowReader | None] = {}

    def read(self, values: Values, _: Sequence[Headers] = ()) -> Columns:
        """Return the fields of the block, read by groups of values with the same header."""
        rows: dict[int, tuple[bytes | None, ...]] = {}
        for header, group in self._group(trim_all(values)).items():
            if reader := self._find_reader(header):
                found = reader.read_rows(list(group.values()))
                good = (index for at, index in enumerate(group) if at not in found.refused)
                rows.update(zip(good, zip(*found.columns, strict=True), strict=True))
        columns = list(zip(*(rows[index] for index in sorted(rows)), strict=True)) or [()] * len(self._request.columns)
        return Columns(columns, set(range(len(values))).difference(rows))

    def _group(self, values: Sequence[bytes]) -> dict[bytes, dict[int, bytes]]:
        """Return header line → index → row; without values that have no header line."""
        groups: dict[bytes, dict[int, bytes]] = defaultdict(dict)
        for index, value in enumerate(values):
            if line := self._line.match(value):
                groups[line[0]][index] = value[line.end() :]
        return groups

    def _find_reader(self, header: bytes) -> RowReader | None:
        """Return the reader of rows below this header; None if it lacks a wanted name, or has it twice."""
        if header not in self._readers:
            if len(self._readers) >= _MOST_HEADERS:
                self._readers.clear()
            names = self._split_header(header.removesuffix(b"\n").removesuffix(b"\r"))
            fits = all(_has_name(names, wanted) for wanted in self._request.columns)
            self._readers[header] = RowReader(self._request, names) if fits else None
        return self._readers[header]

    def _split_header(self, header: bytes) -> list[bytes]:
        if not header:
            return []
        if b'"' in header and self._has_quotes:
            return self._splitter.split(header)
        return header.split(self._delimiter)


def _header_line(delimiter: bytes, *, has_quotes: bool) -> re.Pattern[bytes]:
    """Return the pattern of a value's first row, with its line break."""
    if not has_quotes:
        return re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)")
    mark = re.escape(delimiter)
    item = rb'(?:"[^"]*+(?:""[^"]*+)*+"|[^"\r\n%b][^\r\n%b]*+|)' % (mark, mark)
    return re.compile(rb"%b(?:%b%b)*+(?:\r\n|\r|\n)" % (item, mark, item))


def _find_name(names: Sequence[bytes], wanted: Wanted) -> int | None:
    name = _name(wanted.column.path[0])
    return names.index(name) if name in names else None


def _has_name(names: Sequence[bytes], wanted: Wanted) -> bool:
    """Whether a header line has the name once, or not where the column may be null."""
    count = names.count(_name(wanted.column.path[0]))
    return count == 1 or (count == 0 and bool(names) and wanted.nullable)


def _to_columns(
    columns: Sequence[Sequence[bytes | None]], wanted: Sequence[Wanted], refused: Collection[int] = ()
) -> Columns:
    """Make columns of fields. An empty one of a type other than text is null where that is permitted."""
    typed = [item.nullable and item.kind.name != "text" for item in wanted]
    if not any(item.nullable for item in wanted):
        return Columns(columns, set(refused), complete=True)
    items = zip(typed, columns, strict=True)
    return Columns([[field or None for field in column] if fit else column for fit, column in items], set(refused))


class _Splitter:
    """Splits rows with quotes one at a time, by one CSV reader: to make a reader for each would take most of the time.

    The reader asks this object for lines. It gets the row as one line; if it asks for another, the row ends within
    quotes.
    """

    def __init__(self, delimiter: bytes) -> None:
        self._line: str | None = None
        self._reader = csv.reader(self, delimiter=delimiter.decode(), strict=True)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line, self._line = self._line, None
        if line is None:
            raise _NoRowError
        return line

    def split(self, row: bytes) -> list[bytes]:
        """Return the fields; none if the value is not one row."""
        # The reader would take successive line breaks for one.
        if row.endswith(_BREAKS):
            return []
        # Latin-1 maps bytes to characters one to one.
        self._line = row.decode("latin-1")
        try:
            return [item.encode("latin-1") for item in next(self._reader)]
        except (csv.Error, _NoRowError):
            return []


def trim_all(values: Values) -> list[bytes]:
    """Trim the values: a byte order mark before a row and a line break behind it are no part of it."""
    rows = [value or b"" for value in values]
    whole = b"".join(rows)
    if _BOM in whole:
        rows = [row.removeprefix(_BOM) for row in rows]
    if b"\n" in whole or b"\r" in whole:
        rows = [row.removesuffix(b"\n").removesuffix(b"\r") for row in rows]
    return rows
