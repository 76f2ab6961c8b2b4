"""CSV rows: turns values into the columns that sorts compare, a block at a time.

Guarantee: every value is either accepted, with all its key columns typed, or rejected with a reason, and its outcome
depends on its own bytes only: not on its neighbours, its place in the block, or the way it is parsed.
"""

import csv
import io
import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv

from tasks.arrow import one_chunk
from tasks.formats.base import EMPTY_VALUE, NULL_VALUE, RejectedError
from tasks.formats.csv_rows import are_all_plain, count_fields, find_plain, find_strict, join_rows, trim_rows
from tasks.keys import RULES, Parsed, merge_parts, type_columns
from tasks.printable import excerpt
from tasks.settings.column_types import INT, ColumnType
from tasks.settings.sorts import KeyColumn, format_columns

# The default of 128 KiB would reject long fields that Kafka carries.
csv.field_size_limit(2**31 - 1)

# A value with quotes takes a multiple of its size while it is split. The GIL lets one thread split at a time anyway;
# two side by side would only hold twice the memory.
_splitting = threading.Lock()


class CsvFormat:
    """CSV without a header: `columns` are the fields of a row in their order, `keys` the ones that are wanted.

    `quotes`: fields may be in double quotes; else a quote is text.
    """

    def __init__(
        self, columns: Mapping[str, ColumnType], keys: Sequence[KeyColumn], delimiter: str = ",", *, quotes: bool = True
    ) -> None:
        self.keys = tuple(keys)
        self._columns = columns
        # Arrow's reader of CSV reads integers as their type does; an empty field may be a null, which it would refuse.
        self._read_as = {
            key.name: pa.int64() if key.type == INT and not key.nulls else pa.binary() for key in self.keys
        }
        self._delimiter = delimiter
        self._quotes = quotes

    def facts(self) -> Mapping[str, str]:
        """Return the fields of a row, the delimiter and the rules."""
        return describe_csv(self._columns, self._delimiter, quotes=self._quotes)

    def parse(self, records: pa.Table) -> Parsed:
        """Return key columns and rejects of a block of records."""
        return self.parse_values(one_chunk(records.column("value")))

    def parse_values(self, values: pa.Array) -> Parsed:
        """Return key columns and rejects of a block of values (binary, null where a record has none)."""
        if are_all_plain(values, quotes=self._quotes):
            return self._parse_strict(values, quoted=False)
        return self.parse_rows(trim_rows(values))

    def parse_rows(self, rows: pa.Array) -> Parsed:
        """Return key columns and rejects of rows, which are values without a mark in front and a line break behind."""
        plain = are_all_plain(rows, quotes=self._quotes)
        return self._parse_strict(rows, quoted=False) if plain else self._parse_mixed(rows)

    def _parse_mixed(self, rows: pa.Array) -> Parsed:
        """Parse a block in which some rows hold quotes or line breaks, or are empty or null.

        Rows that might swallow a neighbour in a common read are split one by one.
        """
        plain = find_plain(rows, quotes=self._quotes)
        strict = plain.copy()
        if self._quotes:
            strict[~plain] = find_strict(rows.filter(pa.array(~plain)), self._delimiter)
        quoted = bool((strict & ~plain).any())
        if strict.all():
            return self._parse_strict(rows, quoted=quoted)
        parts = []
        if strict.any():
            parts.append((np.flatnonzero(strict), self._parse_strict(rows.filter(pa.array(strict)), quoted=quoted)))
        parts.append((np.flatnonzero(~strict), self._parse_one_by_one(rows.filter(pa.array(~strict)))))
        return merge_parts(self.keys, parts)

    def _parse_strict(self, rows: pa.Array, *, quoted: bool) -> Parsed:
        """Parse rows that are each one line of strict CSV; `quoted`: some have quotes."""
        try:
            return type_fields(self.keys, self._read(rows, self._read_as, quoted=quoted))
        except pa.ArrowInvalid:
            return self._parse_uneven(rows, quoted=quoted)

    def _parse_uneven(self, rows: pa.Array, *, quoted: bool) -> Parsed:
        """Parse rows of which some have a wrong number of fields, or a field that is no integer.

        Arrow's invalid_row_handler is no help: it fails on rows that are not UTF-8.
        """
        counts = count_fields(rows, self._delimiter, quoted=quoted)
        even = counts == len(self._columns)
        rejected = {
            i: wrong_count(int(counts[i]), len(self._columns), rows[i].as_py()) for i in np.flatnonzero(~even).tolist()
        }
        kept = rows if even.all() else rows.filter(pa.array(even))
        columns = self._read(kept, dict.fromkeys(self._read_as, pa.binary()), quoted=quoted)
        return type_fields(self.keys, columns).moved(np.flatnonzero(even), rejected)

    def _read(self, rows: pa.Array, types: dict[str, pa.DataType], *, quoted: bool) -> dict[str, pa.Array]:
        if not len(rows):
            return {name: pa.array([], kind) for name, kind in types.items()}
        text = join_rows(rows)
        table = pyarrow.csv.read_csv(
            text,
            pyarrow.csv.ReadOptions(use_threads=False, column_names=list(self._columns), block_size=text.size + 1),
            pyarrow.csv.ParseOptions(
                delimiter=self._delimiter,
                quote_char='"' if quoted else False,
                newlines_in_values=quoted,
                ignore_empty_lines=False,
            ),
            pyarrow.csv.ConvertOptions(
                column_types=types, include_columns=list(types), null_values=[], strings_can_be_null=False
            ),
        )
        return {name: one_chunk(table[name]) for name in types}

    def _parse_one_by_one(self, rows: pa.Array) -> Parsed:
        position = {name: i for i, name in enumerate(self._columns)}
        places = [position[key.name] for key in self.keys]

        def pick(row: bytes | None) -> list[bytes]:
            fields = split_row(row, self._delimiter, quotes=self._quotes)
            if len(fields) != len(self._columns):
                raise RejectedError(wrong_count(len(fields), len(self._columns), row or b""))
            return [fields[place] for place in places]

        return parse_one_by_one(self.keys, rows, pick)

    def split(self, value: bytes | None) -> list[bytes]:
        """Return the fields of one value; RejectedError says why there are none."""
        return split_row(trim_rows(pa.array([value], pa.binary()))[0].as_py(), self._delimiter, quotes=self._quotes)


def describe_csv(columns: Mapping[str, ColumnType], delimiter: str, *, quotes: bool) -> dict[str, str]:
    """Return the facts of CSV: the columns, the delimiter, the rules, and quotes if they are not those of the rules."""
    # Of values with a header line, sorts may name no field at all.
    facts = {"columns": format_columns(columns)} if columns else {}
    facts |= {"name": "csv", "delimiter": delimiter, "rules": RULES}
    return facts if quotes else {**facts, "quote": "none"}


def wrong_count(actual: int, expected: int, row: bytes) -> str:
    """Return the reason of a row with another number of fields than expected."""
    return f"{actual} fields, expected {expected}: {excerpt(row)}"


def split_row(row: bytes | None, delimiter: str, *, quotes: bool) -> list[bytes]:
    """Return the fields of one row; RejectedError says why there are none."""
    if not row:
        raise RejectedError(NULL_VALUE if row is None else EMPTY_VALUE)
    # Latin-1 maps bytes to characters one to one, so text that is not UTF-8 comes through. A line break behind the
    # row's own counts as a second one, whichever it is.
    text = io.StringIO(row.decode("latin-1") + "\r", newline="")
    rows = csv.reader(text, delimiter=delimiter, strict=True, quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE)
    try:
        first = next(rows)
        # Rows are counted, not kept: a value of line breaks alone would take sixty times its size.
        others = sum(1 for _ in rows)
    except csv.Error as error:
        raise RejectedError(f"not a CSV row ({error}): {excerpt(row)}") from None
    if others:
        raise RejectedError(f"{1 + others} rows in one value: {excerpt(row)}")
    return [item.encode("latin-1") for item in first]


def parse_one_by_one(
    keys: Sequence[KeyColumn], rows: pa.Array, pick: Callable[[bytes | None], Sequence[bytes | None]]
) -> Parsed:
    """Parse rows one after the other. `pick` returns the fields of the keys; its RejectedError has the reason."""
    rejected: dict[int, str] = {}
    accepted, fields = [], []
    for index, row in enumerate(rows):
        try:
            with _splitting:
                fields.append(pick(row.as_py()))
            accepted.append(index)
        except RejectedError as error:
            rejected[index] = str(error)
    columns = {key.name: pa.array([row[i] for row in fields], pa.binary()) for i, key in enumerate(keys)}
    return type_fields(keys, columns).moved(np.array(accepted, np.int64), rejected)


def type_fields(keys: Sequence[KeyColumn], columns: dict[str, pa.Array]) -> Parsed:
    """Encode the key columns of rows. An empty field of a type other than text is null where that is permitted."""
    for key in keys:
        if key.nulls and key.type.name != "text":
            empty = pa.compute.equal(pa.compute.binary_length(columns[key.name]), 0)
            columns[key.name] = pa.compute.if_else(empty, None, columns[key.name])
    return type_columns(keys, columns)
