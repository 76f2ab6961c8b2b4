"""Rows and keys as verification understands them, by code of its own, which the sorter does not share.

A key becomes bytes that compare as the sort does (memcomparable encoding): integers as 8 bytes big-endian with the sign
bit flipped, text with NUL escaped and a terminator, descending columns with all bits inverted.
"""

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

# A field may be as long as a record.
csv.field_size_limit(2**31 - 1)

# The version of the parse rules below. Under other rules a value may have had another key, or been a dead letter.
RULES = "2"
# The rules of runs whose records do not name theirs.
OLDEST_RULES = "1"

_RECORD_FIELDS = {"@key": "text", "@timestamp": "int"}
_BOM = b"\xef\xbb\xbf"
_SPECIAL = (b'"', b"\n", b"\r")
INVERT = bytes(255 - byte for byte in range(256))
_SIGN = np.uint64(1 << 63)
_INTEGER = re.compile(rb"[ \t]*(?:(-?)0*(\d{1,19})|0[xX]([0-9a-fA-F]{1,16}))[ \t]*")
_DIGITS = b"0123456789-"

Values = Sequence[bytes | None]
Keys = list[bytes]
Columns = dict[str, list[bytes]]


class _NoRowError(ValueError):
    """The value is no row that can be sorted."""


@dataclass(frozen=True)
class KeyColumn:
    """One column of a sort's key. `nulls`: where records without it are, `first` or `last`; empty: nowhere."""

    name: str
    is_int: bool
    descending: bool
    nulls: str = ""


@dataclass(frozen=True)
class Encoded:
    """`keys`: for each sort, one key a record that can be sorted; `rejected`: indexes of those that cannot."""

    keys: list[Keys]
    rejected: list[int]


def read_key(columns: str, kinds: dict[str, str]) -> tuple[KeyColumn, ...]:
    """Read `continent,id:desc` of a run record, with the kinds of `read_kinds`."""
    return tuple(_read_term(item.strip().split(":"), kinds) for item in columns.split(","))


def _read_term(words: list[str], kinds: dict[str, str]) -> KeyColumn:
    nulls = next((word.removeprefix("nulls-") for word in words if word.startswith("nulls-")), "")
    return KeyColumn(words[0], (kinds | _RECORD_FIELDS)[words[0]] == "int", "desc" in words[1:], nulls)


def read_kinds(columns: str) -> dict[str, str]:
    """Turn `id:int,name` of a run record into {"id": "int", "name": "text"}; empty for a format without columns."""
    split = (item.strip().partition(":") for item in columns.split(",") if item)
    return {name: kind or "text" for name, _, kind in split}


class KeyEncoder:
    """Encodes the keys of blocks of values. `sorts`: the wanted ones; `checked`: columns that must be integers.

    `checked` are those of all sorts of the job: a record that one sort cannot place is in none of the outputs.
    """

    def __init__(
        self, kinds: dict[str, str], delimiter: str, sorts: Sequence[tuple[KeyColumn, ...]], checked: frozenset[str]
    ) -> None:
        self._names = tuple(kinds)
        self._delimiter = delimiter
        self._sorts = sorts
        self._used = checked | {column.name for sort in sorts for column in sort}
        self._checked = checked
        self._splitter = _Splitter(delimiter)

    def encode(self, values: Values) -> Encoded:
        """Return the keys of the block; by one split if all values are plain rows, else row by row."""
        if keys := self._encode_plain(values):
            return Encoded(keys, [])
        rows = _strip_all(values)
        if rows != values and (keys := self._encode_plain(rows)):
            return Encoded(keys, [])
        return self._encode_mixed(rows)

    def _encode_plain(self, rows: Values) -> list[Keys]:
        """Encode plain rows; return nothing if one is no plain row, or has no integer where one is wanted."""
        try:
            return self._encode_columns(self._split_plain(rows))
        except ValueError:
            return []

    def _split_plain(self, rows: Values) -> Columns:
        """Split values that are each one plain row into columns, by one split: 0.3 µs a record in place of 0.7.

        Between two values stands a field that is a line break, which no plain row has. If these come at the same
        distance throughout, each value has the right number of fields.
        """
        if not all(rows):
            raise _NoRowError
        delimiter, width = self._delimiter.encode(), len(self._names) + 1
        joined = (delimiter + b"\n" + delimiter).join(rows)  # type: ignore[arg-type]  # all() has excluded None
        if b'"' in joined or b"\r" in joined or joined.count(b"\n") != len(rows) - 1:
            raise _NoRowError
        # One byte is found ten times as fast as three.
        if _BOM[:1] in joined and _BOM in joined:
            raise _NoRowError
        fields = joined.split(delimiter)
        if len(fields) != width * len(rows) - 1 or fields[width - 1 :: width].count(b"\n") != len(rows) - 1:
            raise _NoRowError
        return {name: fields[i::width] for i, name in enumerate(self._names) if name in self._used}

    def _encode_columns(self, columns: Columns) -> list[Keys]:
        """Encode columns; ValueError if an integer column holds anything else."""
        encoded = {name: _encode_integers(columns[name]) for name in self._checked}
        parts = [[self._part(column, columns, encoded) for column in sort] for sort in self._sorts]
        return [part[0] if len(part) == 1 else list(map(b"".join, zip(*part, strict=True))) for part in parts]

    def _part(self, column: KeyColumn, columns: Columns, encoded: dict[str, Keys]) -> Keys:
        keys = encoded[column.name] if column.is_int else encode_texts(columns[column.name])
        return [key.translate(INVERT) for key in keys] if column.descending else keys

    def _encode_mixed(self, rows: list[bytes]) -> Encoded:
        """Encode each row for itself; those that cannot be sorted are left out before the others are encoded."""
        width = len(self._names)
        fields = self._split_each(rows)
        good = [i for i, items in enumerate(fields) if len(items) == width and rows[i]]
        columns = list(zip(*(fields[i] for i in good), strict=True)) or [()] * width
        used = {name: list(column) for name, column in zip(self._names, columns, strict=True) if name in self._used}
        if bad := {at for name in self._checked for at in _no_integers(used[name])}:
            good = [i for at, i in enumerate(good) if at not in bad]
            used = {name: [item for at, item in enumerate(column) if at not in bad] for name, column in used.items()}
        return Encoded(self._encode_columns(used), sorted(set(range(len(rows))).difference(good)))

    def _split_each(self, rows: list[bytes]) -> list[list[bytes]]:
        delimiter, whole = self._delimiter.encode(), b"".join(rows)
        fields = [row.split(delimiter) for row in rows]
        present = [special for special in _SPECIAL if special in whole]
        for index in {i for special in present for i, row in enumerate(rows) if special in row}:
            fields[index] = self._splitter.split(rows[index])
        return fields


class _Splitter:
    """Splits rows with quotes one at a time, by one CSV reader: to make a reader for each would take most of the time.

    The reader asks this object for lines. It gets the row as one line; if it asks for another, the row ends within
    quotes.
    """

    def __init__(self, delimiter: str) -> None:
        self._line: str | None = None
        self._reader = csv.reader(self, delimiter=delimiter, strict=True)

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
        if row.endswith((b"\n", b"\r")):
            return []
        # Latin-1 maps bytes to characters one to one.
        self._line = row.decode("latin-1")
        try:
            return [item.encode("latin-1") for item in next(self._reader)]
        except (csv.Error, _NoRowError):
            return []


def _strip_all(values: Values) -> list[bytes]:
    """Strip the values: a byte order mark before a row and a line break behind it are no part of it."""
    rows = [value or b"" for value in values]
    whole = b"".join(rows)
    if _BOM in whole:
        rows = [row.removeprefix(_BOM) for row in rows]
    if b"\n" in whole or b"\r" in whole:
        rows = [row.removesuffix(b"\n").removesuffix(b"\r") for row in rows]
    return rows


def _no_integers(texts: list[bytes]) -> list[int]:
    try:
        _encode_integers(texts)
    except ValueError:
        return [i for i, text in enumerate(texts) if not _is_integer(text)]
    return []


def _is_integer(text: bytes) -> bool:
    # This recognizes most integers at a tenth of the time.
    if text.isdigit() and len(text) < len(str(2**63)):
        return True
    try:
        _read_integer(text)
    except _NoRowError:
        return False
    return True


def _encode_integers(texts: list[bytes]) -> Keys:
    plain = not b"".join(texts).translate(None, _DIGITS)
    read: Callable[[bytes], int] = int if plain else _read_integer
    try:
        numbers = np.array(list(map(read, texts)), np.int64)
    except (ValueError, OverflowError):
        # A number may have more digits than int() takes: zeros in front of it.
        numbers = np.array(list(map(_read_integer, texts)), np.int64)
    return encode_numbers(numbers)


def encode_numbers(numbers: npt.NDArray[np.int64]) -> Keys:
    """Return 8 bytes each that compare as the numbers do."""
    encoded: Keys = (numbers.view(np.uint64) ^ _SIGN).astype(">u8").view("V8").tolist()
    return encoded


def _read_integer(text: bytes) -> int:
    """Read a 64-bit integer as the sorter's format defines it: no plus, no underscores; hexadecimal by its bits."""
    match = _INTEGER.fullmatch(text)
    if match is None:
        raise _NoRowError
    sign, digits, hexadecimal = match.groups()
    number = int((sign or b"") + digits) if digits else _from_bits(int(hexadecimal, 16))
    if not -(2**63) <= number < 2**63:
        raise _NoRowError
    return number


def _from_bits(bits: int) -> int:
    return bits - 2**64 if bits >= 2**63 else bits


def encode_texts(texts: list[bytes]) -> Keys:
    """Return bytes that compare as the texts do, even with another column behind them."""
    if b"\0" in b"".join(texts):
        texts = [text.replace(b"\0", b"\0\xff") for text in texts]
    return [text + b"\0\0" for text in texts]
