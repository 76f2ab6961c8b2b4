"""CSV whose values are each a header line and one row: fields are found by their names, in whatever order they come.

Guarantee: the outcome of a value depends on its own bytes only, not on the header lines of its neighbours.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.arrow import one_chunk
from tasks.formats.base import EMPTY_VALUE, RejectedError
from tasks.formats.csv import CsvFormat, describe_csv, parse_one_by_one, split_row, wrong_count
from tasks.formats.csv_rows import header_pattern, trim_rows
from tasks.keys import Parsed, Part, merge_parts, reject_all
from tasks.printable import excerpt
from tasks.settings.column_types import TEXT, ColumnType
from tasks.settings.paths import unquote
from tasks.settings.sorts import KeyColumn
from tasks.types.registry import key_type

# Values with the same header line are parsed together, and a block has few such lines. Beyond so many, the other values
# are parsed one by one: time grows with the number of values, and not with its square.
_COMMON_LINES = 64
_NO_ROW = "no row behind the header line"
# Arrow takes the number of values times this one for a size, which must not overflow.
_LONGEST = 2**31 - 1

_Mask = npt.NDArray[np.bool_]


class HeaderFormat:
    """CSV with a header line in each value. `columns`: the types of the fields that sorts name, for the ledger."""

    def __init__(
        self, columns: Mapping[str, ColumnType], keys: Sequence[KeyColumn], delimiter: str = ",", *, quotes: bool = True
    ) -> None:
        self.keys = tuple(keys)
        self._columns = columns
        self._names = {unquote(key.name).encode(): key for key in keys}
        self._delimiter = delimiter
        self._quotes = quotes
        self._line = re.compile(header_pattern(delimiter, quotes=quotes))

    def facts(self) -> Mapping[str, str]:
        """Return the fields that sorts name, the delimiter and the rules."""
        return {**describe_csv(self._columns, self._delimiter, quotes=self._quotes), "header": "yes"}

    def parse(self, records: pa.Table) -> Parsed:
        """Return key columns and rejects of a block of records."""
        return self.parse_values(one_chunk(records.column("value")))

    def parse_values(self, values: pa.Array) -> Parsed:
        """Return key columns and rejects of a block of values (binary, null where a record has none)."""
        rows = trim_rows(values)
        left, parts = np.ones(len(rows), bool), list[Part]()
        for line in self._find_lines(rows, left):
            found = left & _begin_with(rows, line)
            left &= ~found
            parts.append((np.flatnonzero(found), self._parse_alike(line, _filter(rows, found))))
        if left.any() or not parts:
            parts.append((np.flatnonzero(left), parse_one_by_one(self.keys, _filter(rows, left), self._pick)))
        return merge_parts(self.keys, parts)

    def _find_lines(self, rows: pa.Array, left: _Mask) -> Iterator[bytes]:
        """Yield header lines with their line breaks, at most _COMMON_LINES. `left`: the rows without one so far."""
        found, tried = 0, np.asarray(rows.is_null())
        while found < _COMMON_LINES and (left & ~tried).any():
            row = int((left & ~tried).argmax())
            tried[row] = True
            if match := self._line.match(rows[row].as_py()):
                found += 1
                yield match[0]

    def _parse_alike(self, line: bytes, values: pa.Array) -> Parsed:
        """Parse values that all begin with this header line."""
        try:
            places, width = self._find_fields(line)
        except RejectedError as error:
            return reject_all(self.keys, dict.fromkeys(range(len(values)), str(error)))
        names = {place: name for name, place in places.items()}
        columns = {names.get(i, f"\0{i}"): TEXT for i in range(width)}
        # A reader that is asked for no column at all reads all of them.
        wanted = [key for key in self.keys if key.name in places] or [KeyColumn(next(iter(columns)), TEXT)]
        rows = pc.binary_slice(values, len(line), _LONGEST)
        part = CsvFormat(columns, wanted, self._delimiter, quotes=self._quotes).parse_rows(rows)
        rejected = {row: _NO_ROW if why == EMPTY_VALUE else why for row, why in part.rejected.items()}
        return self._make_columns(part.columns, rejected, len(values) - len(rejected))

    def _make_columns(self, found: Mapping[str, pa.Array], rejected: dict[int, str], count: int) -> Parsed:
        """Return the columns of all keys, null where the header line lacks a key that may be null."""
        absent = {key.name: pa.nulls(count, key_type(key.type).stored) for key in self.keys}
        return Parsed({**absent, **{name: found[name] for name in absent.keys() & found.keys()}}, rejected)

    def _find_fields(self, line: bytes) -> tuple[dict[str, int], int]:
        """Return the places of the keys in a header line, and its number of fields.

        RejectedError if a key is not there, unless it may be null, or is there twice.
        """
        header = line.rstrip(b"\r\n")
        names = split_row(header, self._delimiter, quotes=self._quotes) if header else []
        for name, key in self._names.items():
            if names.count(name) > 1:
                raise RejectedError(f"{key.label} is twice in the header line: {excerpt(header)}")
            if name not in names and not (key.nulls and names):
                raise RejectedError(f"{key.label} is missing: header line {excerpt(header)}")
        return {key.name: names.index(name) for name, key in self._names.items() if name in names}, len(names)

    def _pick(self, value: bytes | None) -> list[bytes | None]:
        """Return the fields of the keys of one value; RejectedError says why there are none."""
        match = self._line.match(value or b"")
        if match is None:
            # Broken quotes have the better reason.
            if self._quotes or not value:
                split_row(value, self._delimiter, quotes=self._quotes)
            raise RejectedError(_NO_ROW)
        places, width = self._find_fields(match[0])
        row = (value or b"")[match.end() :]
        if not row:
            raise RejectedError(_NO_ROW)
        fields = split_row(row, self._delimiter, quotes=self._quotes)
        if len(fields) != width:
            raise RejectedError(wrong_count(len(fields), width, row))
        return [fields[places[key.name]] if key.name in places else None for key in self.keys]


def _begin_with(values: pa.Array, line: bytes) -> _Mask:
    """Find the values that begin with this header line, its line break being whole: CR is not the start of CRLF."""
    found = pc.starts_with(values, line)
    if line.endswith(b"\r"):
        found = pc.and_not(found, pc.starts_with(values, line + b"\n"))
    return np.asarray(found.fill_null(False))


def _filter(values: pa.Array, mask: _Mask) -> pa.Array:
    return values if mask.all() else values.filter(pa.array(mask))
