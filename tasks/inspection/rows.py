"""Values that are rows of CSV, with or without a header line in each, or lines of text: their fields as columns."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import pyarrow as pa

from tasks.formats.base import RejectedError
from tasks.formats.csv import split_row
from tasks.formats.csv_rows import header_pattern, trim_rows
from tasks.formats.guess import DELIMITERS
from tasks.inspection.columns import Column, describe_texts
from tasks.inspection.documents import read_documents
from tasks.inspection.guesses import ENOUGH, Guess, Values, is_enough
from tasks.printable import excerpt
from tasks.settings.column_types import TEXT, ColumnType, parse_type
from tasks.settings.options import LONGEST_SETTING
from tasks.settings.paths import quote
from tasks.settings.sorts import format_columns
from tasks.types.registry import key_type

# Delimiters that ordinary texts have as well: every value must have equally many of them.
_WEAK: Final = (" ", ":")
_STRONG: Final = (*(mark for mark in DELIMITERS if mark not in _WEAK), "\x1f")
_TRIED_VALUES: Final = 300
_TRIED_BYTES: Final = 2_000_000
_DESCRIBED: Final = 100
# A line that differs from value to value is no header line.
_HEADER_LINES: Final = 0.1
# Codes below the blank that no text has: delimiters and line breaks are not among them.
_BINARY: Final = re.compile(rb"[\x00\x02-\x08\x0b\x0c\x0e-\x1a\x7f]")


@dataclass(frozen=True)
class _Split:
    """One way to split rows. `count`: the fields of a row that fits."""

    delimiter: str
    quotes: bool = True
    count: int = 0
    share: float = 0.0

    def fields(self, row: bytes) -> list[bytes] | str:
        """Return the fields of a row, or the reason why there are none."""
        try:
            return split_row(row, self.delimiter, quotes=self.quotes)
        except RejectedError as error:
            return str(error)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of a job that splits rows so."""
        mark = self.delimiter if self.delimiter.isprintable() else _name(self.delimiter)
        return {
            "format": "csv",
            **({"delimiter": mark} if mark != "," else {}),
            **({} if self.quotes else {"csv_quote": "none"}),
        }


def _name(delimiter: str) -> str:
    return "tab" if delimiter == "\t" else f"\\x{ord(delimiter):02x}"


class CsvGuesser:
    """Guesses rows of several fields."""

    def guess(self, values: Values) -> Guess | None:
        """Return the guess, with a column for each field; they are named by a heading, if one is found."""
        rows = _trim(values.present)
        split = _find_split(rows)
        if split is None:
            return None
        good, misfits = dict[int, list[bytes]](), dict[int, str]()
        for row, text in zip(values.rows, rows, strict=True):
            fields = split.fields(text)
            if isinstance(fields, list) and len(fields) == split.count:
                good[row] = fields
            else:
                misfits[row] = _explain(fields, split)
        return _Table(good, split).guess(values, misfits) if is_enough(len(good), values) else None


def _trim(values: Sequence[bytes]) -> list[bytes]:
    return [bytes(row) for row in trim_rows(pa.array(values, pa.binary())).to_pylist()]


def _explain(fields: list[bytes] | str, split: _Split) -> str:
    return fields if isinstance(fields, str) else f"{len(fields)} fields, and most have {split.count}"


def _find_split(rows: Sequence[bytes]) -> _Split | None:
    """Find how most rows are split into equally many fields, two at least; None if no way is found."""
    tried = list(_spread(rows))
    if sum(_BINARY.search(row) is not None for row in tried) > (1 - ENOUGH) * len(tried):
        return None
    found = [_try(tried, mark, quotes=quotes) for quotes in (True, False) for mark in (*_STRONG, *_WEAK)]
    likely = [s for s in found if s.count > 1 and s.share >= (1 if s.delimiter in _WEAK else ENOUGH)]
    # Of several ways that fit alike the first one is taken: blanks go before colons, which times have as well.
    return max(likely, key=lambda s: (s.delimiter not in _WEAK, round(s.share, 2)), default=None)


def _spread(rows: Sequence[bytes]) -> Iterator[bytes]:
    """Yield a limited number of rows from all over them, and a limited number of bytes."""
    left = _TRIED_BYTES
    for row in rows[:: max(1, len(rows) // _TRIED_VALUES)]:
        left -= len(row)
        yield row
        if left < 0:
            return


def _try(rows: Sequence[bytes], delimiter: str, *, quotes: bool) -> _Split:
    split = _Split(delimiter, quotes)
    fields = (split.fields(row) for row in rows)
    counts = Counter(0 if isinstance(found, str) else len(found) for found in fields)
    count, times = counts.most_common(1)[0] if counts else (0, 0)
    return _Split(delimiter, quotes, count, times / max(len(rows), 1))


class _Table:
    """Rows of equally many fields, by their rows in the sample."""

    def __init__(self, rows: Mapping[int, list[bytes]], split: _Split) -> None:
        self._rows, self._split = rows, split

    def guess(self, values: Values, misfits: Mapping[int, str]) -> Guess:
        """Return the guess. `misfits`: row → reason of values that are not in the table."""
        names, rows, odd, notes = [f"c{i + 1}" for i in range(self._split.count)], self._rows, dict(misfits), []
        if heading := self._find_heading(names, values):
            row, names = heading
            rows = {other: fields for other, fields in rows.items() if other != row}
            odd[row] = "it names the columns"
            notes.append("one record names the columns: it is a dead letter of sorts by a column with a type")
        columns = self._describe(names, rows)
        settings, note = _with_columns(self._split.settings, columns, self._split.count)
        return Guess(_title(self._split), settings, columns, odd, [*notes, *filter(None, [note])])

    def _find_heading(self, names: Sequence[str], values: Values) -> tuple[int, list[str]] | None:
        """Find the row that names the columns, and return the names: the first row of a partition, as of a file."""
        partitions = values.records.column("partition").to_pylist()
        first = [row for row in self._rows if row == 0 or partitions[row - 1] != partitions[row]]
        others = dict(islice(((row, f) for row, f in self._rows.items() if row not in first), _TRIED_VALUES))
        if not others:
            return None
        types = [parse_type(column.type) for column in self._describe(names, others)]
        found = ((row, _read_heading(self._rows[row], types)) for row in first)
        return next(((row, heading) for row, heading in found if heading), None)

    def _describe(self, names: Sequence[str], rows: Mapping[int, list[bytes]]) -> list[Column]:
        shown = names[:_DESCRIBED]
        texts = (pa.array([fields[i] for fields in rows.values()], pa.binary()) for i in range(len(shown)))
        described = [describe_texts(n, t, empty_is_null=True) for n, t in zip(shown, texts, strict=True)]
        others = [Column(name, "text", len(rows), note="not looked at") for name in names[_DESCRIBED:]]
        return [*described, *others]


def _read_heading(fields: Sequence[bytes], types: Sequence[ColumnType]) -> list[str] | None:
    """Return the names that a row has for columns of these types; None if it is a row like the others."""
    names = [field.decode("utf-8", "replace") for field in fields]
    typed = [(kind, field) for kind, field in zip(types, fields, strict=False) if kind != TEXT]
    refused = [bool(key_type(kind).encode(pa.array([field]))[1]) for kind, field in typed]
    if not typed or not all(refused) or len(set(names)) < len(names) or not all(map(_is_name, names)):
        return None
    return list(map(quote, names))


def _is_name(text: str) -> bool:
    return bool(text) and text.isprintable() and text == text.strip() and not text.startswith("@")


def _title(split: _Split) -> str:
    mark = DELIMITERS.get(split.delimiter, _name(split.delimiter))
    return f"CSV, {split.count} fields" + (f", {mark} between them" if split.delimiter != "," else "")


def _with_columns(settings: Mapping[str, Any], columns: Sequence[Column], count: int) -> tuple[dict[str, Any], str]:
    """Add the names and types of a row's fields. Where a setting cannot hold all of them, no sort can name one."""
    types = {column.name: parse_type(column.type) if column.type else TEXT for column in columns}
    for known in (types, dict.fromkeys(types)):
        if len(text := format_columns(known)) <= LONGEST_SETTING and len(known) == count:
            return {**settings, "columns": text}, ""
    return {"format": "none"}, f"{count:,} fields are more than --columns can name: sort by fields of the record"


class HeaderGuesser:
    """Guesses values that are each a header line and one row."""

    def guess(self, values: Values) -> Guess | None:
        """Return the guess, with a column for each name in the header lines."""
        split = _find_header_split(list(_spread(values.present)))
        if split is None:
            return None
        found, misfits = dict[int, dict[bytes, bytes]](), dict[int, str]()
        for row, value in zip(values.rows, values.present, strict=True):
            if fields := _read_with_header(value, split):
                found[row] = fields
            else:
                misfits[row] = "no header line and one row"
        lines = {tuple(fields) for fields in found.values()}
        if not is_enough(len(found), values) or len(lines) > max(1, _HEADER_LINES * len(found)):
            return None
        columns = list(_describe_named(list(found.values())))
        types = {c.name: parse_type(c.type) for c in columns if c.is_sortable and c.type != "text"}
        text = {"columns": format_columns(types)} if types and len(format_columns(types)) <= LONGEST_SETTING else {}
        settings = {**split.settings, "csv_header": True, **text}
        return Guess("CSV, with a header line in each value", settings, columns, misfits)


def _find_header_split(tried: Sequence[bytes]) -> _Split | None:
    """Find how header line and row are split into equally many fields, two at least; None if no way is found."""
    for split in (_Split(mark, quotes) for quotes in (True, False) for mark in _STRONG):
        fitting = sum(len(_read_with_header(value, split) or ()) > 1 for value in tried)
        if tried and fitting >= ENOUGH * len(tried):
            return split
    return None


def _read_with_header(value: bytes, split: _Split) -> dict[bytes, bytes] | None:
    """Return name → field; None if the value is not a header line and one row."""
    (row,) = _trim([value])
    match = re.match(header_pattern(split.delimiter, quotes=split.quotes), row)
    if match is None:
        return None
    names, fields = split.fields(match[0].rstrip(b"\r\n")), split.fields(row[match.end() :])
    if isinstance(names, str) or isinstance(fields, str) or len(names) != len(fields):
        return None
    return dict(zip(names, fields, strict=True)) if len(set(names)) == len(names) else None


def _describe_named(rows: Sequence[Mapping[bytes, bytes]]) -> Iterator[Column]:
    for name in list(dict.fromkeys(name for row in rows for name in row))[:_DESCRIBED]:
        texts = pa.array([row.get(name) for row in rows], pa.binary())
        try:
            yield describe_texts(quote(name.decode()), texts, empty_is_null=True)
        except UnicodeDecodeError:
            yield Column(excerpt(name), "", len(rows), texts.null_count, note="its name is no UTF-8")


class TextGuesser:
    """Guesses lines of text: a value is one field."""

    def guess(self, values: Values) -> Guess | None:
        """Return the guess, with the only column `line`."""
        rows = _trim(values.present)
        good = [i for i, row in enumerate(rows) if is_line(row)]
        if not good or not is_enough(len(good), values):
            return None
        column = describe_texts("line", pa.array([rows[i] for i in good], pa.binary()))
        misfits = {values.rows[i]: "no line of text" for i in sorted(set(range(len(rows))) - set(good))}
        columns = format_columns({"line": parse_type(column.type or "text")})
        # No text has this delimiter, so that a line is one field.
        settings = {"format": "csv", "columns": columns, "delimiter": "\\x1f", "csv_quote": "none"}
        documents = len(read_documents(values)[0])
        notes = [f"{documents:,} of them are JSON"] if documents else []
        return Guess("lines of text", settings, [column], misfits, notes)


def is_line(row: bytes) -> bool:
    """Whether a value without a line break at its end is one line of UTF-8 that can be printed."""
    try:
        text = row.decode()
    except UnicodeDecodeError:
        return False
    return bool(text) and text.replace("\t", " ").isprintable()
