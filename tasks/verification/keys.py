"""The keys of whole records: fields of their values, and record fields, joined in the order of each sort."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tasks.verification.formats.base import Columns, Request, Wanted
from tasks.verification.formats.record_fields import RecordFields
from tasks.verification.formats.registry import make_reader
from tasks.verification.formats.schemas import NO_SCHEMAS, Schemas
from tasks.verification.reading import Block
from tasks.verification.terms import Column, KeyColumn, Kind, SortKey, format_name
from tasks.verification.types.base import INVERT, Keys, KeyType, scatter
from tasks.verification.types.registry import make_type

T = TypeVar("T")
# The keys of one column, null where a record has none.
_ColumnKeys = Sequence[bytes | None]


@dataclass(frozen=True)
class Encoded:
    """`keys`: for each sort, one key a record that can be sorted; `rejected`: indexes of those that cannot.

    `columns`: the keys of each column that a sort names, before its direction; `values`: what they were made of. Both
    are None where a record has none.
    """

    keys: list[Keys]
    rejected: list[int]
    columns: Mapping[Column, _ColumnKeys] = field(default_factory=dict)
    values: Mapping[Column, Sequence[Any]] = field(default_factory=dict)


class RecordKeys:
    """Encodes the keys of blocks of records. `sorts`: those wanted; `all_sorts`: those of the job.

    `schemas`: where the schemas of values and keys are.

    A record that one sort of the job cannot place is in none of the outputs. ValueError if this version does not know
    a format or a type.
    """

    def __init__(
        self,
        facts: Mapping[str, str],
        sorts: Sequence[SortKey],
        all_sorts: Sequence[SortKey],
        schemas: Schemas = NO_SCHEMAS,
    ) -> None:
        self._sorts = sorts
        used = {key.column for sort in sorts for key in sort}
        wanted = merge_columns(key for sort in all_sorts for key in sort)
        of_values = [w for w in wanted if not w.column.field]
        of_records = [w for w in wanted if w.column.field]
        self._of_values, self._of_records = (
            [_ColumnEncoder(w, make_type(w.kind), w.column in used) for w in part] for part in (of_values, of_records)
        )
        # Values are parsed only if a sort of the job names a field of them.
        request = Request(facts, of_values, schemas=schemas)
        self._values = make_reader(format_name(facts), request) if of_values else None
        self._records = RecordFields(Request(facts, of_records, schemas=schemas), make_reader) if of_records else None

    def encode(self, block: Block) -> Encoded:
        """Keys of the block, a list a sort. 1. Values. 2. Record fields, of records with such values. 3. Keys."""
        # Step 1.
        values = self._values.read(block.values, block.headers) if self._values else Columns([])
        # Step 2.
        records = self._records.read(block.without(sorted(values.refused))) if self._records else Columns([])
        values_left = [_without(column, records.refused) for column in values.columns]
        kept = _without(_without(range(len(block)), values.refused), records.refused)
        # Step 3.
        refused: set[int] = set()
        columns = _encode(self._of_values, values_left, refused, complete=values.complete)
        columns |= _encode(self._of_records, records.columns, refused, complete=records.complete)
        columns = {column: _without(keys, refused) for column, keys in columns.items()}
        encoders = (
            *zip(self._of_values, values_left, strict=True),
            *zip(self._of_records, records.columns, strict=True),
        )
        raw = {encoder.wanted.column: _without(items, refused) for encoder, items in encoders}
        kept = _without(kept, refused)
        parts = [[_place(key, columns[key.column]) for key in sort] for sort in self._sorts]
        rejected = sorted(set(range(len(block))).difference(kept)) if len(kept) < len(block) else []
        return Encoded([_join(part, len(kept)) for part in parts], rejected, columns, raw)


class ColumnKeys:
    """Encodes the keys that the columns of files have. `sort`: the sort of the files."""

    def __init__(self, sort: SortKey) -> None:
        self._sort = sort
        # In files all times are instants.
        self._encoders = [
            _ColumnEncoder(
                Wanted(key.column, key.kind, bool(key.nulls)),
                make_type(Kind("time") if key.kind.name == "time" else key.kind),
                is_used=True,
            )
            for key in sort
        ]

    def encode(self, block: Block) -> Encoded:
        """Keys of a block of files, whose messages are rows."""
        rows: Sequence[Any] = block.messages
        refused: set[int] = set()
        values = [[row.keys[i] for row in rows] for i in range(len(self._sort))]
        columns = [e.encode(items, refused, complete=False) for e, items in zip(self._encoders, values, strict=True)]
        kept = [_without(column, refused) for column in columns]
        parts = [_place(key, column) for key, column in zip(self._sort, kept, strict=True)]
        return Encoded([_join(parts, len(block) - len(refused))], sorted(refused))


def _without(items: Sequence[T], indexes: Collection[int]) -> Sequence[T]:
    return [item for i, item in enumerate(items) if i not in indexes] if indexes else items


def merge_columns(keys: Iterable[KeyColumn]) -> list[Wanted]:
    """Return each column once. A record without it is placed only if each sort that names it says where."""
    nullable: dict[tuple[object, object], Wanted] = {}
    for key in keys:
        known = nullable.get((key.column, key.kind))
        permitted = bool(key.nulls) and (known is None or known.nullable)
        nullable[key.column, key.kind] = Wanted(key.column, key.kind, permitted)
    return list(nullable.values())


@dataclass(frozen=True)
class _ColumnEncoder:
    """Encodes one column. `is_used`: a wanted sort names it; of another column only refusals count."""

    wanted: Wanted
    type: KeyType
    is_used: bool

    def encode(self, values: Sequence[object], refused: set[int], *, complete: bool) -> _ColumnKeys:
        """Return the keys, and add the indexes of records that cannot be sorted."""
        if complete and self.type.is_total and not self.is_used:
            return [None] * len(values)
        if complete or None not in values:
            return self._encode_present(values, range(len(values)), refused)
        present = [i for i, value in enumerate(values) if value is not None]
        if not self.wanted.nullable:
            refused.update(set(range(len(values))).difference(present))
        keys = self._encode_present([values[i] for i in present], present, refused)
        return scatter(len(values), present, keys, None)

    def _encode_present(self, values: Sequence[object], indexes: Sequence[int], refused: set[int]) -> _ColumnKeys:
        keys, bad = self.type.encode(values)
        refused.update(indexes[i] for i in bad)
        return keys


def _encode(
    encoders: Sequence[_ColumnEncoder], columns: Sequence[Sequence[object]], refused: set[int], *, complete: bool
) -> dict[Column, _ColumnKeys]:
    pairs = zip(encoders, columns, strict=True)
    return {e.wanted.column: e.encode(column, refused, complete=complete) for e, column in pairs}


def _place(key: KeyColumn, keys: _ColumnKeys) -> Keys:
    """Return the keys in the direction of the sort, and those that are null at their place."""
    if not key.nulls:
        return [item.translate(INVERT) for item in keys] if key.descending else keys  # type: ignore[union-attr, return-value]  # none is null
    null, other = (b"\0", b"\1") if key.nulls == "first" else (b"\1", b"\0")
    if key.descending:
        return [null if item is None else other + item.translate(INVERT) for item in keys]
    return [null if item is None else other + item for item in keys]


def _join(parts: Sequence[Keys], count: int) -> Keys:
    if not parts:
        return [b""] * count
    return parts[0] if len(parts) == 1 else list(map(b"".join, zip(*parts, strict=True)))
