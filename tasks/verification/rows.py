"""Rows and keys as verification understands them, by code of its own: nothing here is shared with the sorter.

A key becomes bytes that compare as the sort does (memcomparable encoding): integers as 8 bytes big-endian with the sign
bit flipped, text with NUL escaped and a terminator, descending columns with all bits inverted.
"""

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

# A field may be as long as a record.
csv.field_size_limit(2**31 - 1)

_INVERT = bytes(255 - byte for byte in range(256))
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
    """One column of a sort's key."""

    name: str
    is_int: bool
    descending: bool


@dataclass(frozen=True)
class Encoded:
    """`keys`: for each sort, one a record that can be sorted; `rejected`: indexes of those that cannot."""

    keys: list[Keys]
    rejected: list[int]


def read_key(columns: str, kinds: dict[str, str]) -> tuple[KeyColumn, ...]:
    """`continent,id:desc` of a run record, with the kinds of `read_kinds`."""
    split = (item.strip().partition(":") for item in columns.split(","))
    return tuple(KeyColumn(name, kinds[name] == "int", direction == "desc") for name, _, direction in split)


def read_kinds(columns: str) -> dict[str, str]:
    """`id:int,name` of a run record → {"id": "int", "name": "text"}."""
    split = (item.strip().partition(":") for item in columns.split(","))
    return {name: kind or "text" for name, _, kind in split}


class KeyEncoder:
    """Encodes the keys of blocks of values. `sorts`: those wanted; `checked`: columns that have to be integers.

    `checked` are those of all sorts of the job: what one sort cannot place is in none of the outputs.
    """

    def __init__(
        self, kinds: dict[str, str], delimiter: str, sorts: Sequence[tuple[KeyColumn, ...]], checked: frozenset[str]
    ) -> None:
        self._names = tuple(kinds)
        self._delimiter = delimiter
        self._sorts = sorts
        self._used = checked | {column.name for sort in sorts for column in sort}
        self._checked = checked

    def encode(self, values: Values) -> Encoded:
        """Keys of the block; by columns where all values are plain rows, else value by value."""
        try:
            return Encoded(self._encode_columns(self._split_plain(values)), [])
        except ValueError:
            return self._encode_singly(values)

    def _split_plain(self, values: Values) -> Columns:
        """Columns of values that are each one plain row, by one split: 0.3 µs a record in place of 0.7.

        Between two values stands a field that is a line break, which no plain row has: where these come at the same
        distance throughout, each value has as many fields as it should.
        """
        if not all(values):
            raise _NoRowError
        delimiter, width = self._delimiter.encode(), len(self._names) + 1
        joined = (delimiter + b"\n" + delimiter).join(values)  # type: ignore[arg-type]  # all() has excluded None
        if b'"' in joined or b"\r" in joined or joined.count(b"\n") != len(values) - 1:
            raise _NoRowError
        fields = joined.split(delimiter)
        if len(fields) != width * len(values) - 1 or fields[width - 1 :: width].count(b"\n") != len(values) - 1:
            raise _NoRowError
        return {name: fields[i::width] for i, name in enumerate(self._names) if name in self._used}

    def _to_columns(self, row: list[bytes]) -> Columns:
        if len(row) != len(self._names):
            raise _NoRowError
        return {name: [item] for name, item in zip(self._names, row, strict=True) if name in self._used}

    def _encode_columns(self, columns: Columns) -> list[Keys]:
        """ValueError where an integer column holds anything else."""
        encoded = {name: _encode_integers(columns[name]) for name in self._checked}
        parts = [[self._part(column, columns, encoded) for column in sort] for sort in self._sorts]
        return [part[0] if len(part) == 1 else list(map(b"".join, zip(*part, strict=True))) for part in parts]

    def _part(self, column: KeyColumn, columns: Columns, encoded: dict[str, Keys]) -> Keys:
        keys = encoded[column.name] if column.is_int else _encode_texts(columns[column.name])
        return [key.translate(_INVERT) for key in keys] if column.descending else keys

    def _encode_singly(self, values: Values) -> Encoded:
        keys: list[Keys] = [[] for _ in self._sorts]
        rejected = []
        for index, value in enumerate(values):
            try:
                one = self._encode_columns(self._to_columns(self._split(value)))
            except ValueError:
                rejected.append(index)
                continue
            for collected, key in zip(keys, one, strict=True):
                collected.extend(key)
        return Encoded(keys, rejected)

    def _split(self, value: bytes | None) -> list[bytes]:
        if not value:
            raise _NoRowError
        if not any(special in value for special in (b'"', b"\n", b"\r")):
            return value.split(self._delimiter.encode())
        # Latin-1 maps bytes to characters one to one.
        text = io.StringIO(value.decode("latin-1"), newline="")
        try:
            rows = list(csv.reader(text, delimiter=self._delimiter, strict=True))
        except csv.Error:
            raise _NoRowError from None
        if len(rows) != 1:
            raise _NoRowError
        return [item.encode("latin-1") for item in rows[0]]


def _encode_integers(texts: list[bytes]) -> Keys:
    plain = not b"".join(texts).translate(None, _DIGITS)
    read: Callable[[bytes], int] = int if plain else _read_integer
    try:
        numbers = np.array(list(map(read, texts)), np.int64)
    except (ValueError, OverflowError):
        # Also digits of a number beyond what int() takes: zeros before it.
        numbers = np.array(list(map(_read_integer, texts)), np.int64)
    encoded: Keys = (numbers.view(np.uint64) ^ _SIGN).astype(">u8").view("V8").tolist()
    return encoded


def _read_integer(text: bytes) -> int:
    """A 64-bit integer as the sorter's format defines it: no plus, no underscores; hexadecimal by its bits."""
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


def _encode_texts(texts: list[bytes]) -> Keys:
    if b"\0" in b"".join(texts):
        texts = [text.replace(b"\0", b"\0\xff") for text in texts]
    return [text + b"\0\0" for text in texts]
