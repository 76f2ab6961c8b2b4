"""CSV rows: turns values into the columns that sorts compare, a block at a time.

Guarantee: every value is either accepted, with all its key columns typed, or rejected with a reason, and its outcome
depends on its own bytes only: not on its neighbours, its place in the block, or the way it is parsed.
"""

import csv
import io
import threading
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from tasks.formats.base import RejectedError
from tasks.formats.csv_rows import are_all_plain, count_fields, find_plain, find_strict, join_rows, trim_rows
from tasks.keys import RULES, Parsed, type_columns
from tasks.printable import excerpt
from tasks.settings.column_types import INT, ColumnType
from tasks.settings.sorts import KeyColumn, format_columns

# The default of 128 KiB would reject long fields that Kafka carries.
csv.field_size_limit(2**31 - 1)

# A value with quotes takes a multiple of its size while it is split. The GIL lets one thread split at a time anyway;
# two side by side would only hold twice the memory.
_splitting = threading.Lock()


class CsvFormat:
    """CSV without a header: `columns` are the fields of a row in their order, `keys` the ones that are wanted."""

    def __init__(self, columns: Mapping[str, ColumnType], keys: Sequence[KeyColumn], delimiter: str = ",") -> None:
        self.keys = tuple(keys)
        self._columns = columns
        # Arrow's reader of CSV reads integers as their type does; an empty field may be a null, which it would refuse.
        self._read_as = {
            key.name: pa.int64() if key.type == INT and not key.nulls else pa.binary() for key in self.keys
        }
        self._delimiter = delimiter

    def facts(self) -> Mapping[str, str]:
        """Return the fields of a row, the delimiter and the rules."""
        return {"name": "csv", "columns": format_columns(self._columns), "delimiter": self._delimiter, "rules": RULES}

    def parse(self, records: pa.Table) -> Parsed:
        """Return key columns and rejects of a block of records."""
        return self.parse_values(records.column("value").combine_chunks())

    def parse_values(self, values: pa.Array) -> Parsed:
        """Return key columns and rejects of a block of values (binary, null where a record has none)."""
        if are_all_plain(values):
            return self._parse_strict(values, quoted=False)
        rows = trim_rows(values)
        return self._parse_strict(rows, quoted=False) if are_all_plain(rows) else self._parse_mixed(rows)

    def _parse_mixed(self, rows: pa.Array) -> Parsed:
        """Parse a block in which some rows hold quotes or line breaks, or are empty or null.

        Rows that might swallow a neighbour in a common read are split one by one.
        """
        plain = find_plain(rows)
        strict = plain.copy()
        strict[~plain] = find_strict(rows.filter(pa.array(~plain)), self._delimiter)
        quoted = bool((strict & ~plain).any())
        if strict.all():
            return self._parse_strict(rows, quoted=quoted)
        parts = []
        if strict.any():
            parts.append((np.flatnonzero(strict), self._parse_strict(rows.filter(pa.array(strict)), quoted=quoted)))
        parts.append((np.flatnonzero(~strict), self._parse_one_by_one(rows.filter(pa.array(~strict)))))
        return self._merge(parts)

    def _merge(self, parts: Sequence[tuple[npt.NDArray[np.int64], Parsed]]) -> Parsed:
        """Merge parts into one block; each comes with its values' indexes in the block."""
        rejected = {int(rows[row]): reason for rows, part in parts for row, reason in part.rejected.items()}
        accepted = [np.delete(rows, list(part.rejected)) for rows, part in parts]
        order = pa.array(np.argsort(np.concatenate(accepted)))
        columns = {
            key.name: pa.concat_arrays([part.columns[key.name] for _, part in parts]).take(order) for key in self.keys
        }
        return Parsed(columns, rejected)

    def _parse_strict(self, rows: pa.Array, *, quoted: bool) -> Parsed:
        """Parse rows that are each one line of strict CSV; `quoted`: some have quotes."""
        try:
            return self._type(self._read(rows, self._read_as, quoted=quoted))
        except pa.ArrowInvalid:
            return self._parse_uneven(rows, quoted=quoted)

    def _parse_uneven(self, rows: pa.Array, *, quoted: bool) -> Parsed:
        """Parse rows of which some have a wrong number of fields, or a field that is no integer.

        Arrow's invalid_row_handler is no help: it fails on rows that are not UTF-8.
        """
        counts = count_fields(rows, self._delimiter, quoted=quoted)
        even = counts == len(self._columns)
        rejected = {i: self._wrong_count(int(counts[i]), rows[i].as_py()) for i in np.flatnonzero(~even).tolist()}
        kept = rows if even.all() else rows.filter(pa.array(even))
        columns = self._read(kept, dict.fromkeys(self._read_as, pa.binary()), quoted=quoted)
        return self._type(columns).moved(np.flatnonzero(even), rejected)

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
        return {name: _one_chunk(table[name]) for name in types}

    def _parse_one_by_one(self, rows: pa.Array) -> Parsed:
        rejected: dict[int, str] = {}
        accepted, fields = [], []
        for index, row in enumerate(rows):
            try:
                with _splitting:
                    fields.append(self._split_row(row.as_py()))
                accepted.append(index)
            except RejectedError as error:
                rejected[index] = str(error)
        position = {name: i for i, name in enumerate(self._columns)}
        columns = {name: pa.array([row[position[name]] for row in fields], pa.binary()) for name in self._read_as}
        return self._type(columns).moved(np.array(accepted, np.int64), rejected)

    def split(self, value: bytes | None) -> list[bytes]:
        """Return the fields of one value; RejectedError says why there are none."""
        return self._split_row(trim_rows(pa.array([value], pa.binary()))[0].as_py())

    def _split_row(self, row: bytes | None) -> list[bytes]:
        if not row:
            raise RejectedError("null value" if row is None else "empty value")
        # Latin-1 maps bytes to characters one to one, so text that is not UTF-8 comes through. A line break behind the
        # row's own counts as a second one, whichever it is.
        text = io.StringIO(row.decode("latin-1") + "\r", newline="")
        rows = csv.reader(text, delimiter=self._delimiter, strict=True)
        try:
            first = next(rows)
            # Rows are counted, not kept: a value of line breaks alone would take sixty times its size.
            others = sum(1 for _ in rows)
        except csv.Error as error:
            raise RejectedError(f"not a CSV row ({error}): {excerpt(row)}") from None
        if others:
            raise RejectedError(f"{1 + others} rows in one value: {excerpt(row)}")
        if len(first) != len(self._columns):
            raise RejectedError(self._wrong_count(len(first), row))
        return [item.encode("latin-1") for item in first]

    def _wrong_count(self, actual: int, row: bytes) -> str:
        return f"{actual} fields, expected {len(self._columns)}: {excerpt(row)}"

    def _type(self, columns: dict[str, pa.Array]) -> Parsed:
        """Encode the key columns of rows. An empty field of a type other than text is null where that is permitted."""
        for key in self.keys:
            if key.nulls and key.type.name != "text":
                empty = pa.compute.equal(pa.compute.binary_length(columns[key.name]), 0)
                columns[key.name] = pa.compute.if_else(empty, None, columns[key.name])
        return type_columns(self.keys, columns)


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
