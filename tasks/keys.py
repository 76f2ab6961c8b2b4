"""Key types: encode a key column's values as int64 or binary, whose ascending order is the order of the type.

Types end at the dump. A key column of a chunk is never null; if nulls are permitted, a flag column says which rows have
none. The direction stays with the order. Sort, split and cuts do not know types.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.arrow import RECORD
from tasks.integers import read_integers
from tasks.settings.sorts import ColumnType, KeyColumn

# The version of the parse rules, for the ledger: under other rules a record may have another key, or none.
RULES: Final = "2"


# A key column, null where a value was refused, and index → reason of each refusal.
Encoded = tuple[pa.Array, dict[int, str]]


class KeyType(Protocol):
    """One type of key column."""

    @property
    def stored(self) -> pa.DataType:
        """The column's Arrow type in chunks: int64 or binary."""

    @property
    def filler(self) -> Any:
        """The value in a row that has no key; its flag orders it."""

    def encode(self, texts: pa.Array) -> Encoded:
        """Encode values as text (binary without nulls); a reason goes on after the column's name."""


@dataclass(frozen=True)
class _Integer:
    """Signed 64-bit integers, stored as they are."""

    stored: pa.DataType = field(default_factory=pa.int64)
    filler: int = 0

    def encode(self, texts: pa.Array) -> Encoded:
        return read_integers(texts)


@dataclass(frozen=True)
class _Text:
    """Bytes, whose own order is the order of the type."""

    stored: pa.DataType = field(default_factory=pa.binary)
    filler: bytes = b""

    def encode(self, texts: pa.Array) -> Encoded:
        return texts, {}


_TYPES: Final[dict[ColumnType, KeyType]] = {ColumnType.INT: _Integer(), ColumnType.TEXT: _Text()}


def key_type(column: KeyColumn) -> KeyType:
    """Return the type of a key column."""
    return _TYPES[column.type]


@dataclass(frozen=True)
class Parsed:
    """Key columns of a block of records.

    `columns`: one array a key column, rows of accepted records in their order, null where a record has no such key.
    `rejected`: index in the block → reason.
    """

    columns: dict[str, pa.Array]
    rejected: dict[int, str] = field(default_factory=dict)

    def accepted(self, count: int) -> npt.NDArray[np.int64] | None:
        """Return the indexes of the accepted records among `count`; None if all are accepted."""
        if not self.rejected:
            return None
        return np.setdiff1d(np.arange(count), np.fromiter(self.rejected, np.int64, len(self.rejected)))


def chunk_schema(keys: Sequence[KeyColumn]) -> pa.Schema:
    """Make a chunk's schema: the record, then for each key its column and, if nulls are permitted, its flag."""
    record = [(name, RECORD.field(name).type) for name in ("value", "key", "headers", "timestamp")]
    columns = [(f"k{i}", key_type(key).stored) for i, key in enumerate(keys)]
    flags = [(f"n{i}", pa.int64()) for i, key in enumerate(keys) if key.nulls]
    return pa.schema([*record, *columns, *flags])


def encode_keys(keys: Sequence[KeyColumn], columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """Encode the key columns for a chunk: never null; a flag is 1 where a key is null."""
    encoded: dict[str, pa.Array] = {}
    for i, key in enumerate(keys):
        column = columns[key.name]
        if key.nulls:
            encoded[f"n{i}"] = column.is_null().cast(pa.int64())
        encoded[f"k{i}"] = pc.fill_null(column, key_type(key).filler) if column.null_count else column
    return encoded
