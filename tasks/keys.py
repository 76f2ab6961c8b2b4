"""Key columns: turns the values of a block's keys into columns of a chunk, int64 or binary, and rejects.

Their ascending order is the order of their types, which end at the dump: sort, split and cuts do not know types. A key
column of a chunk is never null; if nulls are permitted, a flag column says which rows have none. The direction stays
with the order.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.arrow import RECORD
from tasks.settings.sorts import KeyColumn
from tasks.types.registry import key_type

# The version of the parse rules, for the ledger: under other rules a record may have another key, or none.
RULES: Final = "2"


@dataclass(frozen=True)
class Parsed:
    """Key columns of a block of records.

    `columns`: one array a key column, rows of accepted records in their order, null where a record has no such key.
    `rejected`: index in the block → reason.
    """

    columns: dict[str, pa.Array]
    rejected: dict[int, str] = field(default_factory=dict)

    def take(self, rows: pa.Array) -> "Parsed":
        """Return the key columns with these rows alone, and all rejects."""
        return Parsed({name: column.take(rows) for name, column in self.columns.items()}, self.rejected)

    def moved(self, indexes: npt.NDArray[np.int64], rejected: Mapping[int, str]) -> "Parsed":
        """Return this part of a block as rows of the block, at `indexes`. `rejected`: those outside of the part."""
        return Parsed(self.columns, {**rejected, **{int(indexes[row]): why for row, why in self.rejected.items()}})

    def accepted(self, count: int) -> npt.NDArray[np.int64] | None:
        """Return the indexes of the accepted records among `count`; None if all are accepted."""
        if not self.rejected:
            return None
        kept = np.ones(count, np.bool_)
        kept[list(self.rejected)] = False
        return np.flatnonzero(kept)


# A part of a block: the indexes of its records in the block, ascending, and what they were parsed into.
Part = tuple[npt.NDArray[np.int64], Parsed]


def reject_all(keys: Sequence[KeyColumn], rejected: Mapping[int, str]) -> Parsed:
    """Return the key columns of a block that has no accepted record."""
    return Parsed({key.name: pa.array([], key_type(key.type).stored) for key in keys}, dict(rejected))


def merge_parts(keys: Sequence[KeyColumn], parts: Sequence[Part], rejected: Mapping[int, str] | None = None) -> Parsed:
    """Merge the parts of a block. `rejected`: the records of the block that are in none of them."""
    if not parts:
        return reject_all(keys, rejected or {})
    moved = [part.moved(rows, {}) for rows, part in parts]
    reasons = dict(rejected or {}) | {row: why for part in moved for row, why in part.rejected.items()}
    if len(parts) == 1:
        return Parsed(moved[0].columns, reasons)
    order = pa.array(np.argsort(np.concatenate([np.delete(rows, list(part.rejected)) for rows, part in parts])))
    columns = {key.name: pa.concat_arrays([part.columns[key.name] for part in moved]).take(order) for key in keys}
    return Parsed(columns, reasons)


def type_columns(
    keys: Sequence[KeyColumn], columns: Mapping[str, pa.Array], rejected: Mapping[int, str] | None = None
) -> Parsed:
    """Encode the key columns of a block, and reject the records whose keys cannot be encoded.

    `columns`: values as text (binary), or of an Arrow type that the key's type accepts; all rows of the block, null
    where a record has no such key. `rejected`: rows that the format itself refuses; their keys are not looked at.
    """
    encoded, refused = dict[str, pa.Array](), dict(rejected or {})
    for key in keys:
        encoded[key.name], reasons = key_type(key.type).encode(columns[key.name])
        if columns[key.name].null_count and not key.nulls:
            absent = np.flatnonzero(np.asarray(columns[key.name].is_null())).tolist()
            reasons = dict.fromkeys(absent, "is null") | reasons
        label = key.label if reasons else ""
        # The first column that refuses a record gives the reason.
        refused |= {row: f"{label} {reason}" for row, reason in reasons.items() if row not in refused}
    parsed = Parsed(encoded, refused)
    rows = parsed.accepted(max(map(len, encoded.values()), default=0))
    return parsed if rows is None else parsed.take(pa.array(rows))


def chunk_schema(keys: Sequence[KeyColumn], place: Iterable[pa.Field] = ()) -> pa.Schema:
    """Make a chunk's schema: the record, then for each key its column and, if nulls are permitted, its flag.

    `place`: columns of RECORD besides, that say where the record is in the source.
    """
    record = [(name, RECORD.field(name).type) for name in ("value", "key", "headers", "timestamp")]
    columns = [(f"k{i}", key_type(key.type).stored) for i, key in enumerate(keys)]
    flags = [(f"n{i}", pa.int64()) for i, key in enumerate(keys) if key.nulls]
    return pa.schema([*record, *place, *columns, *flags])


def encode_keys(keys: Sequence[KeyColumn], columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """Encode the key columns for a chunk: never null; a flag is 1 where a key is null."""
    encoded: dict[str, pa.Array] = {}
    for i, key in enumerate(keys):
        column = columns[key.name]
        if key.nulls:
            encoded[f"n{i}"] = column.is_null().cast(pa.int64())
        encoded[f"k{i}"] = pc.fill_null(column, key_type(key.type).filler) if column.null_count else column
    return encoded
