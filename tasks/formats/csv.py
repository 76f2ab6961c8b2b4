"""CSV rows: from values to the columns that sorts compare, a block at a time.

Every value is either accepted, with all its key columns typed, or rejected with a reason: none is passed over.
Integers are what Arrow reads as int64 (blanks around them are allowed); text is its bytes, also when empty.
"""

import csv
import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

from tasks.arrow import binary_buffers
from tasks.settings.job import Job
from tasks.settings.sorts import ColumnType

# The default of 128 KiB would reject long fields that Kafka carries.
csv.field_size_limit(2**31 - 1)

# A value with quotes takes a multiple of its size while it is split. The GIL lets one thread split at a time anyway;
# two side by side would only hold twice the memory.
_splitting = threading.Lock()

# What may make a value other than one line, or a field other than its bytes.
_SPECIAL = (b'"', b"\n", b"\r")

_ARROW_TYPES = {ColumnType.INT: pa.int64(), ColumnType.TEXT: pa.binary()}


class RowError(ValueError):
    """The value is no row of the format; the message is the reason given with the dead letter."""


@dataclass(frozen=True)
class Parsed:
    """A block of values, parsed.

    `columns`: one array a key column, rows of accepted values in their order. `rejected`: index in the block → reason.
    """

    columns: dict[str, pa.Array]
    rejected: dict[int, str] = field(default_factory=dict)

    def accepted(self, count: int) -> npt.NDArray[np.int64] | None:
        """Indexes of the accepted values among `count`; None where all are."""
        if not self.rejected:
            return None
        return np.setdiff1d(np.arange(count), np.fromiter(self.rejected, np.int64, len(self.rejected)))


class CsvFormat:
    """CSV without header: `columns` are the fields of a row in their order, `keys` those that are wanted."""

    def __init__(self, columns: dict[str, ColumnType], keys: Sequence[str], delimiter: str = ",") -> None:
        self._columns = columns
        self._keys = {name: _ARROW_TYPES[columns[name]] for name in keys}
        self._delimiter = delimiter

    @property
    def schema(self) -> pa.Schema:
        """Names and Arrow types of the key columns."""
        return pa.schema(list(self._keys.items()))

    def parse(self, values: pa.Array) -> Parsed:
        """Key columns and rejects of a block of values (binary, null where a record has none)."""
        joined = _join_plain(values)
        if joined is None:
            return self._parse_mixed(values)
        try:
            return Parsed(self._read(joined, self._keys))
        except pa.ArrowInvalid:
            return self._parse_uneven(values)

    def _parse_uneven(self, values: pa.Array) -> Parsed:
        """Plain lines of which some have a wrong number of fields, or a field that is no integer.

        Not by Arrow's invalid_row_handler: it fails on rows that are not UTF-8.
        """
        fields = np.asarray(pa.compute.count_substring(values, self._delimiter)) + 1
        rows = np.flatnonzero(fields == len(self._columns))
        wrong = np.flatnonzero(fields != len(self._columns))
        rejected = {int(row): self._wrong_count(int(fields[row])) for row in wrong}
        even = _join(values.take(pa.array(rows)))
        texts = dict.fromkeys(self._keys, pa.binary())
        columns = self._read(even, texts) if len(rows) else {name: pa.array([], pa.binary()) for name in texts}
        return self._type(columns, rows, rejected)

    def _read(self, joined: pa.Buffer, types: dict[str, pa.DataType]) -> dict[str, pa.Array]:
        table = pyarrow.csv.read_csv(
            joined,
            pyarrow.csv.ReadOptions(use_threads=False, column_names=list(self._columns), block_size=joined.size + 1),
            pyarrow.csv.ParseOptions(delimiter=self._delimiter, quote_char=False, ignore_empty_lines=False),
            pyarrow.csv.ConvertOptions(
                column_types=types, include_columns=list(types), null_values=[], strings_can_be_null=False
            ),
        )
        return {name: _one_chunk(table[name]) for name in types}

    def _parse_mixed(self, values: pa.Array) -> Parsed:
        """A block in which some values hold quotes or line breaks, or are empty or null: those one by one."""
        plain = _are_plain(values)
        if not plain.any():
            return self._parse_one_by_one(values)
        parts = []
        for rows, parse in ((np.flatnonzero(plain), self.parse), (np.flatnonzero(~plain), self._parse_one_by_one)):
            parts.append((rows, parse(values.take(pa.array(rows)))))
        return self._merge(parts)

    def _merge(self, parts: Sequence[tuple[npt.NDArray[np.int64], Parsed]]) -> Parsed:
        """One block of parts; each comes with the index in the block of each of its values."""
        rejected = {int(rows[row]): reason for rows, part in parts for row, reason in part.rejected.items()}
        accepted = [np.delete(rows, list(part.rejected)) for rows, part in parts]
        order = pa.array(np.argsort(np.concatenate(accepted)))
        columns = {name: pa.concat_arrays([part.columns[name] for _, part in parts]).take(order) for name in self._keys}
        return Parsed(columns, rejected)

    def _parse_one_by_one(self, values: pa.Array) -> Parsed:
        rejected: dict[int, str] = {}
        rows, fields = [], []
        for index, value in enumerate(values):
            try:
                with _splitting:
                    fields.append(self.split(value.as_py()))
                rows.append(index)
            except RowError as error:
                rejected[index] = str(error)
        position = {name: i for i, name in enumerate(self._columns)}
        columns = {name: pa.array([row[position[name]] for row in fields], pa.binary()) for name in self._keys}
        return self._type(columns, np.array(rows, np.int64), rejected)

    def split(self, value: bytes | None) -> list[bytes]:
        """The fields of one row; RowError says why there are none."""
        if not value:
            raise RowError("null value" if value is None else "empty value")
        if any(special in value for special in _SPECIAL):
            fields = self._split_quoted(value)
        else:
            fields = value.split(self._delimiter.encode())
        if len(fields) != len(self._columns):
            raise RowError(self._wrong_count(len(fields)))
        return fields

    def _split_quoted(self, value: bytes) -> list[bytes]:
        # Latin-1 maps bytes to characters one to one, so text that is not UTF-8 comes through.
        text = io.StringIO(value.decode("latin-1"), newline="")
        rows = csv.reader(text, delimiter=self._delimiter, strict=True)
        try:
            first = next(rows)
            # Counted, not kept: a value of line breaks alone would take sixty times its size.
            others = sum(1 for _ in rows)
        except csv.Error as error:
            raise RowError(f"not a CSV row: {error}") from None
        if others:
            raise RowError(f"{1 + others} rows in one value")
        return [item.encode("latin-1") for item in first]

    def _wrong_count(self, actual: int) -> str:
        return f"{actual} fields, expected {len(self._columns)}"

    def _type(self, columns: dict[str, pa.Array], rows: npt.NDArray[np.int64], rejected: dict[int, str]) -> Parsed:
        """Cast integer columns; rows that cannot be cast are rejected. `rows`: index in the block of each row."""
        bad: dict[int, str] = {}
        for name, kind in self._keys.items():
            if pa.types.is_integer(kind):
                bad |= dict.fromkeys(_not_integers(columns[name]), f"column {name} is not an integer")
        keep = np.delete(np.arange(len(rows)), list(bad))
        kept = {name: columns[name].take(pa.array(keep)) for name in self._keys}
        typed = {name: _to_integers(c) if pa.types.is_integer(self._keys[name]) else c for name, c in kept.items()}
        return Parsed(typed, rejected | {int(rows[row]): reason for row, reason in bad.items()})


def format_of(job: Job) -> CsvFormat:
    """The job's record format."""
    return CsvFormat(job.column_types, job.key_columns(), job.delimiter)


def _join_plain(values: pa.Array) -> pa.Buffer | None:
    """The values as one CSV text, or None unless each is for sure one line of it.

    A value with a newline and an empty value in one block would leave the number of lines as it was, and every record
    between them would get its neighbour's key.
    """
    offsets, data = binary_buffers(values)
    if values.null_count or data is None or not np.diff(offsets).all():
        return None
    text = data.slice(int(offsets[0]), int(offsets[-1] - offsets[0])).to_pybytes()
    return None if any(special in text for special in _SPECIAL) else _join(values)


def _join(values: pa.Array) -> pa.Buffer:
    """One line a value."""
    lines = pa.compute.binary_join_element_wise(values, b"", b"\n")
    offsets, data = binary_buffers(lines)
    return data.slice(int(offsets[0]), int(offsets[-1] - offsets[0])) if data is not None else pa.py_buffer(b"")


def _are_plain(values: pa.Array) -> npt.NDArray[np.bool_]:
    """Whether each value is for sure one line of CSV, its fields as they stand."""
    plain = pa.compute.greater(pa.compute.binary_length(values), 0).fill_null(False)
    for special in _SPECIAL:
        plain = pa.compute.and_not(plain, pa.compute.match_substring(values, special).fill_null(True))
    return np.asarray(plain)


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _to_integers(column: pa.Array) -> pa.Array:
    """Binary to int64, with blanks around the number allowed as Arrow's CSV reader allows them."""
    return pa.compute.utf8_trim(column.cast(pa.string()), " \t").cast(pa.int64())


def _not_integers(column: pa.Array, first: int = 0) -> list[int]:
    """Indexes of the entries that are no integers, found by halving."""
    try:
        _to_integers(column)
    except pa.ArrowInvalid:
        if len(column) == 1:
            return [first]
        half = len(column) // 2
        return _not_integers(column.slice(0, half), first) + _not_integers(column.slice(half), first + half)
    return []
