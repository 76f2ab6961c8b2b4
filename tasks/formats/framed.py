"""Values and keys in Confluent's wire format: each is read with the schema that it was written with.

A field that a writer's schema lacks is missing in its records, whatever other schemas have. Guarantee: an id that the
registry does not know stops the run before it publishes, or makes dead letters of its records; the digests of all
schemas that were used are kept for the ledger.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.arrow import one_chunk
from tasks.formats.base import EMPTY_VALUE, RejectedError
from tasks.formats.headers import find_header
from tasks.formats.schema_registry import RegisteredSchema, SchemaRegistry, UnknownSchemaError
from tasks.formats.wire import KEY_HEADER, VALUE_HEADER, Group, Groups, Indexes, SchemaId
from tasks.keys import RULES, Parsed, merge_parts, type_columns
from tasks.settings.column_types import ColumnType
from tasks.settings.paths import Path
from tasks.settings.sorts import KeyColumn, format_columns, path_within

_Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """The part of a record that is framed: its column, the header with its id, and its name in reasons."""

    column: str
    header: str
    label: str

    def explain(self, reason: str) -> str:
        """Return the reason of a dead letter whose frame is `reason`."""
        if self is VALUE:
            return reason
        return f"{self.label} is empty" if reason == EMPTY_VALUE else f"{self.label} {reason}"


VALUE: Final = Part("value", VALUE_HEADER, "the value")
KEY: Final = Part("key", KEY_HEADER, "@key")


class GroupReader(Protocol):
    """Reads key columns out of values of one schema."""

    def parse(self, values: pa.Array, starts: _Rows) -> Parsed:
        """Return key columns and rejects of values (binary, none null), each of which begins at its start."""


class Language(Protocol):
    """A format of schemas. `name`: of the format; `kind`: of its schemas in a registry."""

    name: str
    kind: str

    def split(self, values: pa.Array, headers: pa.Array) -> Groups:
        """Find the group of each value: its schema, and the place of its message in it."""

    def read_schema(self, found: RegisteredSchema, indexes: Indexes, /) -> Any:
        """Read the schema of a group. RejectedError if there is none; its reason goes on behind the id."""

    def make_reader(self, schema: Any, keys: Sequence[KeyColumn], part: Part) -> GroupReader:
        """Make the reader of a group. RejectedError, as above, if the keys do not fit."""

    def find_types(self, schema: Any, path: Path) -> list[ColumnType]:
        """Return the types of what a path may lead to; none if the schema does not have it."""

    def list_columns(self, schema: Any) -> Iterator[str]:
        """Yield the fields that may be keys, without those of repetitions and maps; a schema may have many."""


class SchemaBook:
    """The schemas that one task uses. `source`: the topic; `stops`: whether an unknown schema stops the run.

    `digests`: schema id → SHA-256 of its text, of each that was used.
    """

    def __init__(self, registry: SchemaRegistry, source: str, *, stops: bool) -> None:
        self.digests: dict[str, str] = {}
        self._registry, self._source, self._stops = registry, source, stops

    def get(self, schema: SchemaId, kind: str, where: str) -> RegisteredSchema:
        """Return a schema. RejectedError if it is of another kind, or unknown; UnknownSchemaError if that stops."""
        found = self._registry.get(schema)
        if found is None:
            raise self._unknown(f"schema id {schema} is not in the registry", where)
        self.digests[str(schema)] = found.digest
        if found.kind != kind:
            raise RejectedError(f"schema id {schema} is {found.kind}, and not {kind}")
        return found

    def _unknown(self, what: str, where: str) -> Exception:
        if not self._stops:
            return RejectedError(what)
        return UnknownSchemaError(
            f"source {self._source} {where}: {what} {self._registry.address}, also when asked again: nothing "
            "was published; register it, or make such records dead letters with --unknown-schema dead-letter"
        )


class FramedFormat:
    """Reads a part of records. `columns`: the paths that sorts name, None where the type is not known yet."""

    def __init__(
        self,
        language: Language,
        columns: Mapping[str, ColumnType | None],
        keys: Sequence[KeyColumn],
        book: SchemaBook,
        part: Part = VALUE,
    ) -> None:
        self.keys = tuple(keys)
        self._language, self._columns, self._book, self._part = language, columns, book, part
        # A group that cannot be read has the reason: a task judges all records of a schema alike.
        self._readers: dict[Group, GroupReader | str] = {}

    @property
    def schemas(self) -> Mapping[str, str]:
        """Schema id → SHA-256 of its text, for each that was used."""
        return self._book.digests

    def facts(self) -> Mapping[str, str]:
        """Return the columns with their types."""
        return {"name": self._language.name, "columns": format_columns(self._columns, omit=None), "rules": RULES}

    def parse(self, records: pa.Table) -> Parsed:
        """Return key columns and rejects of a block of records."""
        values, frames = _split(self._language, self._part, records)
        refused = {row: self._part.explain(why) for row, why in frames.refused.items()}
        parts = []
        if self._part is KEY and values.null_count:
            rows = np.flatnonzero(np.asarray(values.is_null()))
            parts.append((rows, self._absent(len(rows))))
            refused = {row: why for row, why in refused.items() if values[row].is_valid}
        for code, group in enumerate(frames.groups):
            rows = np.flatnonzero(frames.codes == code)
            if len(rows):
                reader = self._reader(group, _place(records.slice(int(rows[0]), 1)))
                parts.append((rows, self._parse_group(reader, values, rows, frames.starts[rows])))
        return merge_parts(self.keys, parts, refused)

    def _absent(self, count: int, rejected: Mapping[int, str] | None = None) -> Parsed:
        return type_columns(self.keys, {key.name: pa.nulls(count, pa.binary()) for key in self.keys}, rejected)

    def _parse_group(self, reader: GroupReader | str, values: pa.Array, rows: _Rows, starts: _Rows) -> Parsed:
        if isinstance(reader, str):
            return self._absent(len(rows), dict.fromkeys(range(len(rows)), reader))
        return reader.parse(values if len(rows) == len(values) else values.take(pa.array(rows)), starts)

    def _reader(self, group: Group, where: str) -> GroupReader | str:
        if group not in self._readers:
            self._readers[group] = self._make_reader(group, where)
        return self._readers[group]

    def _make_reader(self, group: Group, where: str) -> GroupReader | str:
        schema, indexes = group
        try:
            found = self._book.get(schema, self._language.kind, where)
        except RejectedError as error:
            return str(error)
        try:
            read = self._language.read_schema(found, indexes)
            return self._language.make_reader(read, self.keys, self._part)
        except RejectedError as error:
            return f"schema id {schema} {error}"


def find_types(
    language: Language, registry: SchemaRegistry, part: Part, records: pa.Table, columns: Sequence[str]
) -> list[dict[str, str]]:
    """Return for each record the type of each column by its schema, empty if it has none.

    A record whose schema cannot be read has no columns. Where a schema's branches have several types, they are joined.
    """
    _, frames = _split(language, part, records)
    types = [_types_of(language, registry, group, columns) for group in frames.groups]
    return [types[code] if code >= 0 else {} for code in frames.codes.tolist()]


def _types_of(language: Language, registry: SchemaRegistry, group: Group, columns: Sequence[str]) -> dict[str, str]:
    schema, indexes = group
    found = registry.get(schema)
    if found is None or found.kind != language.kind:
        return {}
    try:
        read = language.read_schema(found, indexes)
    except RejectedError:
        return {}
    types = {name: language.find_types(read, path_within(name)) for name in columns}
    return {name: " or ".join(sorted(set(map(str, kinds)))) for name, kinds in types.items()}


def _split(language: Language, part: Part, records: pa.Table) -> tuple[pa.Array, Groups]:
    values = one_chunk(records.column(part.column))
    return values, language.split(values, find_header(one_chunk(records.column("headers")), part.header))


def _place(record: pa.Table) -> str:
    return f"partition {record['partition'][0]} offset {record['offset'][0]}"
