"""Reads paths from a column of JSON values, a block at a time, with DuckDB's parser.

Guarantee: equal bytes have an equal outcome. The fast parser decides about no value that it could read otherwise than
RFC 8259 says, or not exactly: those are found by a search, and read strictly, one by one.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.arrow import binary_buffers, one_chunk
from tasks.database import open_cursor
from tasks.formats.base import EMPTY_VALUE, NULL_VALUE, RejectedError
from tasks.formats.json_kinds import Kind, Tokens, kind_of, unquote_tokens
from tasks.formats.json_search import (
    BLURRED_DIGITS,
    find_broken,
    find_illegible,
    find_lenient,
    find_long_numbers,
    strip_marks,
)
from tasks.formats.json_strict import read_tokens
from tasks.printable import excerpt
from tasks.settings.paths import Path
from tasks.settings.sorts import KeyColumn

if TYPE_CHECKING:
    import duckdb

# A parsed block takes a multiple of its size.
_BLOCK_BYTES = 16_000_000
_NUMBER = rf"-?[0-9.]{{{BLURRED_DIGITS}}}"
# A double below 10^-290 may have lost digits, or be zero.
_TINY = r"\A-?0\.0\z|e-(?:29|3)[0-9]{1,2}\z"
_TINY_IN_VALUE = r"[eE]-[0-9]{3}"

_EMPTY = {None: NULL_VALUE, b"": EMPTY_VALUE}

Mask = npt.NDArray[np.bool_]


@dataclass
class Column:
    """A key that is at a path of the values."""

    key: KeyColumn
    path: Path
    kind: Kind = field(init=False)

    def __post_init__(self) -> None:
        self.kind = kind_of(self.key.type)

    @property
    def is_exact(self) -> bool:
        """Whether a number keeps all its digits."""
        return self.key.type.name == "decimal"

    @property
    def long_number(self) -> str:
        """The pattern of a number in a value that may be this key, and that a double might blur."""
        if not self.path:
            return _NUMBER
        name = self.path[-1]
        if isinstance(name, str) and re.fullmatch(r"[^\x00-\x1f\"\\]+", name):
            # A name may be written with escapes.
            return rf'"{re.escape(name)}"[ \t\r\n]*:[ \t\r\n]*{_NUMBER}|\\(?s:.)*[:\[, \t\r\n]{_NUMBER}'
        return rf"[:\[, \t\r\n]{_NUMBER}"


class JsonReader:
    """Reads key columns at paths. It holds a cursor of DuckDB, so each thread has its own.

    `subject`: what a reason begins with, where documents are not the values of records; then a null has no keys.
    """

    def __init__(self, keys: Sequence[KeyColumn], paths: Sequence[Path], subject: str = "") -> None:
        self._columns = [Column(key, path) for key, path in zip(keys, paths, strict=True)]
        self._paths = [column.path for column in self._columns]
        self._subject = subject
        # Then a document may well be neither object nor array.
        self._has_root = () in self._paths
        written = [write_path(path) for path in self._paths]
        self._written = [path for path in written if path is not None]
        # DuckDB's notation does not have all names.
        self._is_fast = len(self._written) == len(written)
        self._cursor: duckdb.DuckDBPyConnection | None = None

    def read(self, values: pa.Array) -> tuple[dict[str, pa.Array], dict[int, str]]:
        """Return a column for each key (binary: texts as its type reads them), and index → reason of each refusal.

        `values`: binary, null where a record has none. The columns have all rows, with null where there is no key.
        """
        columns, rejected = self._read_blocks(values, self._read_block)
        return {column.key.name: columns[i] for i, column in enumerate(self._columns)}, rejected

    def read_scalar(self, values: pa.Array) -> tuple[pa.Array, dict[int, str]]:
        """Return the texts at the only path (binary), and index → reason of values that are no JSON.

        Strings are without escapes, numbers as they are written; all else but true and false is null.
        """
        (column,), rejected = self._read_blocks(values, self._read_scalar_block)
        return column, rejected

    def _read_blocks(
        self, values: pa.Array, read: Callable[[pa.Array], tuple[list[pa.Array], dict[int, str]]]
    ) -> tuple[list[pa.Array], dict[int, str]]:
        parts = [read(values.slice(start, end - start)) for start, end in _split(values)]
        columns = [pa.concat_arrays(pieces) for pieces in zip(*(part[0] for part in parts), strict=True)]
        starts = np.cumsum([0, *(len(part[0][0]) for part in parts)]).tolist()
        rejected = {
            start + row: reason for start, part in zip(starts, parts, strict=False) for row, reason in part[1].items()
        }
        return columns, rejected

    def _read_scalar_block(self, values: pa.Array) -> tuple[list[pa.Array], dict[int, str]]:
        texts, rejected = self._read_tokens(values, strip_marks(values))
        tokens = Tokens(texts[0])
        # The fast parser writes these in a way of its own.
        written = tokens.are_numbers() & ~tokens.are_integers() | _match(values, tokens.are_zeros(), r"-0")
        if written.any():
            tokens = Tokens(self._patch(values, texts, [0], written, rejected)[0])
        strings, others = tokens.are_strings(), tokens.are_numbers() | tokens.are_bools()
        column = unquote_tokens(tokens.texts, strings, self._unescape)
        return [pc.if_else(pa.array(others), tokens.texts.view(pa.binary()), column)], rejected

    def _read_block(self, values: pa.Array) -> tuple[list[pa.Array], dict[int, str]]:
        rows = strip_marks(values)
        texts, rejected = self._read_tokens(values, rows)
        for i, column in enumerate(self._columns):
            if column.is_exact and (blurred := _find_blurred(rows, texts[i], column)).any():
                texts = self._patch(values, texts, [i], blurred, rejected)
        columns = [
            self._take(column, values, text, rejected) for column, text in zip(self._columns, texts, strict=True)
        ]
        return columns, rejected

    def _read_tokens(self, values: pa.Array, rows: pa.Array) -> tuple[list[pa.Array], dict[int, str]]:
        """Return the tokens at each path; `rows` are the values without marks."""
        texts, unread = self._read_fast(rows)
        rejected: dict[int, str] = {}
        return self._patch(values, texts, range(len(texts)), unread, rejected), rejected

    def _read_fast(self, rows: pa.Array) -> tuple[list[pa.Array], Mask]:
        """Return the tokens at each path (string), and the rows that must be read strictly."""
        if not self._is_fast:
            return [pa.nulls(len(rows), pa.string())] * len(self._columns), np.ones(len(rows), np.bool_)
        asked = np.asarray(rows.is_valid()) & ~find_lenient(rows)
        if not self._has_root:
            asked &= ~find_broken(rows)
        columns = [one_chunk(column) for column in self._read_asked(rows, asked).columns]
        return columns[:-1], np.asarray(columns[-1])

    def _read_asked(self, rows: pa.Array, asked: Mask) -> pa.Table:
        # Where no JSON is read, this import costs more than all else of a start.
        import duckdb

        view = _text_view(rows, asked)
        try:
            return self._query("json_extract(v, $1)", view)
        except (duckdb.Error, UnicodeDecodeError):
            # Without the values that are not UTF-8 the others may take one parse after all.
            illegible = asked & find_illegible(rows)
        if illegible.any():
            return self._read_asked(rows, asked & ~illegible)
        # Some value is not JSON. This costs a second parse, for this block alone.
        return self._query("CASE WHEN json_valid(v) THEN json_extract(v, $1) END", view)

    def _query(self, tokens: str, view: pa.Array) -> pa.Table:
        """Return a column for each path, and whether the row was not read."""
        items = ", ".join(f"t[{i + 1}]" for i in range(len(self._columns)))
        query = f"SELECT {items}, t IS NULL FROM (SELECT {tokens} AS t FROM block)"  # noqa: S608  # no text of others
        return self._run(query, view, [self._written])

    def _unescape(self, tokens: pa.Array) -> pa.Array:
        """Return the strings that JSON texts are (binary)."""
        table = self._run("SELECT json_extract_string(v, '$') FROM block", tokens.cast(pa.string()), None)
        return one_chunk(table.column(0)).view(pa.binary())

    def _run(self, query: str, view: pa.Array, parameters: list[list[str]] | None) -> pa.Table:
        if self._cursor is None:
            self._cursor = open_cursor()
        self._cursor.register("block", pa.table({"v": view}))
        try:
            return self._cursor.sql(query, params=parameters).to_arrow_table()
        finally:
            self._cursor.unregister("block")

    def _patch(
        self,
        values: pa.Array,
        texts: Sequence[pa.Array],
        columns: Sequence[int],
        rows: Mask,
        rejected: dict[int, str],
    ) -> list[pa.Array]:
        """Return the tokens with those of these rows read strictly, in some columns."""
        found: list[list[str | None]] = []
        for row in np.flatnonzero(rows).tolist():
            try:
                found.append(self._read_strictly(values[row].as_py()))
            except RejectedError as error:
                found.append([None] * len(texts))
                rejected[row] = str(error)
        patched = list(texts)
        for i in columns if found else ():
            new = pa.array([tokens[i] for tokens in found], pa.string())
            patched[i] = pc.replace_with_mask(texts[i].cast(pa.string()), pa.array(rows), new)
        return patched

    def _read_strictly(self, value: bytes | None) -> list[str | None]:
        if value is None and self._subject:
            return [None] * len(self._paths)
        if not value:
            raise RejectedError(f"{self._subject} is empty" if self._subject else _EMPTY[value])
        return self._parse(value, self._paths)

    def _parse(self, value: bytes, paths: Sequence[Path]) -> list[str | None]:
        try:
            return read_tokens(value, paths)
        except RejectedError as error:
            raise RejectedError(f"{self._subject} is {error}" if self._subject else str(error)) from None

    def _take(self, column: Column, values: pa.Array, texts: pa.Array, rejected: dict[int, str]) -> pa.Array:
        """Return the keys of a column (binary); tokens of another kind, and missing ones, are refused."""
        tokens = Tokens(texts)
        fits = tokens.fit(column.kind)
        if not fits.all():
            self._refuse(column, values, tokens, fits, rejected)
        if column.kind.name == "string":
            return unquote_tokens(texts, fits, self._unescape)
        kept = texts if fits.all() else pc.if_else(pa.array(fits), texts, pa.scalar(None, pa.string()))
        return kept.view(pa.binary())

    def _refuse(self, column: Column, values: pa.Array, tokens: Tokens, fits: Mask, rejected: dict[int, str]) -> None:
        empty = ~tokens.present | tokens.nulls
        for row in np.flatnonzero(~fits & ~empty).tolist():
            if row not in rejected:
                rejected[row] = self._explain(column, values[row].as_py())
        if column.key.nulls:
            return
        label = column.key.label
        for row in np.flatnonzero(empty).tolist():
            if row not in rejected:
                rejected[row] = f"{label} is {'null' if tokens.present[row] else 'missing'}"

    def _explain(self, column: Column, value: bytes) -> str:
        """Say what a key is in place of its type."""
        try:
            (token,) = self._parse(value, [column.path])
        except RejectedError as error:
            return str(error)
        what = {"{}": "an object", "[]": "an array"}.get(token or "", excerpt((token or "").encode()))
        return f"{column.key.label} {column.kind.refusal}: {what}"


def write_path(path: Path) -> str | None:
    """Write a path in DuckDB's notation; None if it has none."""
    if "" not in path:
        return "$" + "".join(f"[{step}]" if isinstance(step, int) else f'."{_escape(step)}"' for step in path)
    return None


def _escape(name: str) -> str:
    return name.replace("\\", r"\\").replace('"', r"\"")


def _split(values: pa.Array) -> Iterator[tuple[int, int]]:
    """Divide rows into blocks of at most _BLOCK_BYTES, or one row; at least one block."""
    offsets, _ = binary_buffers(values)
    edges = [0]
    while edges[-1] < len(values):
        most = int(offsets[edges[-1]]) + _BLOCK_BYTES
        edges.append(max(edges[-1] + 1, int(np.searchsorted(offsets, most, "right")) - 1))
    return pairwise(edges) if len(edges) > 1 else iter([(0, 0)])


def _text_view(rows: pa.Array, asked: Mask) -> pa.Array:
    """Return the values as text, without a copy, and null in place of those that are not asked for."""
    offsets, data = binary_buffers(rows)
    valid = None if asked.all() else pa.py_buffer(np.packbits(asked, bitorder="little"))
    return pa.Array.from_buffers(pa.string(), len(rows), [valid, pa.py_buffer(offsets), data or pa.py_buffer(b"")])


def _find_blurred(rows: pa.Array, texts: pa.Array, column: Column) -> Mask:
    """Find tokens that are doubles with fewer digits than the value may have."""
    blurred = np.zeros(len(rows), np.bool_)
    if Tokens(texts).are_digits():
        return blurred
    doubles = np.asarray(pc.match_substring_regex(texts, r"\A-?[0-9].*[.e]").fill_null(False))
    blurred |= _match(rows, doubles & find_long_numbers(rows), column.long_number)
    tiny = np.asarray(pc.match_substring_regex(texts, _TINY).fill_null(False))
    return blurred | _match(rows, tiny, _TINY_IN_VALUE)


def _match(rows: pa.Array, candidates: Mask, pattern: str) -> Mask:
    """Find which of the candidates match."""
    found = np.zeros(len(rows), np.bool_)
    if candidates.any():
        matching = pc.match_substring_regex(rows.filter(pa.array(candidates)), pattern)
        found[candidates] = np.asarray(matching.fill_null(False))
    return found
