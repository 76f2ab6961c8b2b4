"""The keys of records in the text of rows: a field of CSV, or what a path leads to in JSON."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from tasks.formats.base import RejectedError
from tasks.formats.csv import CsvFormat, wrong_count
from tasks.formats.guess import DELIMITERS
from tasks.formats.json_reader import JsonReader
from tasks.formats.json_strict import read_tokens
from tasks.settings.column_types import TEXT
from tasks.settings.load import nearest
from tasks.settings.paths import parse_path
from tasks.settings.sorts import KeyColumn


class KeyFinder(Protocol):
    """Finds the key of each row."""

    def find(self, rows: pa.Array) -> pa.Array:
        """Return the key of each row (binary), null where it has none."""

    def explain(self, row: bytes) -> str:
        """Say why a row has no key."""


class FieldKeys:
    """Takes a field of CSV: its text, without quotes. A row with another number of fields has no key."""

    def __init__(self, fields: int, place: int, delimiter: str, *, quotes: bool) -> None:
        # Names of a file may be equal, or none at all: places are not.
        self._key = KeyColumn(str(place), TEXT)
        self._fields = fields
        self._csv = CsvFormat({str(i): TEXT for i in range(fields)}, [self._key], delimiter, quotes=quotes)

    def find(self, rows: pa.Array) -> pa.Array:
        """Return the field of each row."""
        parsed = self._csv.parse_values(rows)
        column = parsed.columns[self._key.name]
        accepted = parsed.accepted(len(rows))
        return column if accepted is None else _spread(column, accepted, len(rows))

    def explain(self, row: bytes) -> str:
        """Name the fields of a row, or its quotes."""
        try:
            return wrong_count(len(self._csv.split(row)), self._fields, row)
        except RejectedError as error:
            return str(error)


class PathKeys:
    """Takes what a path leads to in JSON: a string without escapes, a number as it is written, true or false."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._reader = JsonReader([KeyColumn(path, TEXT)], [parse_path(path)])

    def find(self, rows: pa.Array) -> pa.Array:
        """Return the text at the path in each row."""
        return self._reader.read_scalar(rows)[0]

    def explain(self, row: bytes) -> str:
        """Say what is at the path."""
        try:
            (token,) = read_tokens(row, [parse_path(self._path)])
        except RejectedError as error:
            return str(error)
        kinds = {None: "missing", "null": "null", "{}": "an object", "[]": "an array"}
        return f"{self._path} is {kinds.get(token, 'no text')}"


def field_names(header: bytes, delimiter: str, *, quotes: bool) -> list[str]:
    """Return the names in a header line; RejectedError if its quotes are broken."""
    fields = CsvFormat({}, [], delimiter, quotes=quotes).split(header)
    return [field.decode("utf-8", "backslashreplace") for field in fields]


def find_place(names: Sequence[str], name: str) -> int:
    """Return the place of the one field of this name; ValueError if there is none, or more than one."""
    if name in names:
        if names.count(name) == 1:
            return names.index(name)
        raise ValueError(f"{names.count(name)} columns are called {name!r}: give names of your own by --columns")
    raise ValueError(f"no column is called {name!r}: there are {', '.join(names)}{_hint(name, names)}")


def _hint(name: str, names: Sequence[str]) -> str:
    """Guess what was meant: another delimiter where there is one name alone, or another name."""
    fitting = (shown for mark, shown in DELIMITERS.items() if len(names) == 1 and name in names[0].split(mark))
    shown = next(fitting, "")
    return f"; the delimiter seems to be {shown}: give it by --delimiter" if shown else nearest(name, list(names))


def _spread(column: pa.Array, rows: np.ndarray[tuple[int], np.dtype[np.int64]], count: int) -> pa.Array:
    """Return a column of so many rows that has its values in these, and null in the others."""
    places = np.full(count, -1)
    places[rows] = np.arange(len(rows))
    return column.take(pa.array(places, mask=places < 0))
