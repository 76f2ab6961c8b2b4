"""Avro in Confluent's wire format: each value is read with the schema that it was written with.

A field that a writer's schema lacks is missing in its values, whatever other schemas have.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.arrow import one_chunk
from tasks.formats.avro.format import ValueReader
from tasks.formats.avro.schema import SchemaError, Type, parse_schema
from tasks.formats.avro.types import default_type, find_leaves
from tasks.formats.base import RejectedError
from tasks.formats.headers import find_header
from tasks.formats.schema_registry import RegisteredSchema, SchemaRegistry, UnknownSchemaError
from tasks.formats.wire import VALUE_HEADER, Frames, SchemaId, split_frames
from tasks.keys import RULES, Parsed, merge_parts, reject_all
from tasks.settings.column_types import ColumnType
from tasks.settings.sorts import KeyColumn, format_columns

_Rows = npt.NDArray[np.int64]


class FramedAvro:
    """Reads values that name their schemas. `columns`: the paths that sorts name, None where the type is not known yet.

    `stops`: whether a schema that the registry does not know stops the run; `source`: the topic.
    """

    def __init__(
        self,
        columns: Mapping[str, ColumnType | None],
        keys: Sequence[KeyColumn],
        registry: SchemaRegistry,
        source: str,
        *,
        stops: bool,
    ) -> None:
        self.keys = tuple(keys)
        self._columns = columns
        self._registry, self._source, self._stops = registry, source, stops
        self._readers: dict[SchemaId, ValueReader] = {}
        # Schema id → SHA-256 of its text, for each that was used.
        self.schemas: dict[str, str] = {}

    def parse(self, records: pa.Table) -> Parsed:
        """Return key columns and rejects of a block of records."""
        values = one_chunk(records.column("value"))
        frames = split_frames(values, find_header(one_chunk(records.column("headers")), VALUE_HEADER))
        parts = []
        for code, schema in enumerate(frames.schemas):
            rows = np.flatnonzero(frames.codes == code)
            if len(rows):
                where = _place(records.slice(int(rows[0]), 1))
                parts.append((rows, self._parse_group(schema, values, rows, frames, where)))
        return merge_parts(self.keys, parts, frames.refused)

    def _parse_group(self, schema: SchemaId, values: pa.Array, rows: _Rows, frames: Frames, where: str) -> Parsed:
        try:
            reader = self._reader(schema, where)
        except RejectedError as error:
            return reject_all(self.keys, dict.fromkeys(range(len(rows)), str(error)))
        group = values if len(rows) == len(values) else values.take(pa.array(rows))
        return reader.parse(group, frames.starts[rows])

    def _reader(self, schema: SchemaId, where: str) -> ValueReader:
        if schema not in self._readers:
            found = self._registry.get(schema)
            if found is None:
                raise self._unknown(schema, where)
            self._readers[schema] = ValueReader(read_registered(found, schema), self.keys)
            self.schemas[str(schema)] = found.digest
        return self._readers[schema]

    def _unknown(self, schema: SchemaId, where: str) -> Exception:
        what = f"schema id {schema} is not in the registry"
        if not self._stops:
            return RejectedError(what)
        return UnknownSchemaError(
            f"source {self._source} {where}: {what} {self._registry.address}, also when asked again: nothing "
            "was published; register it, or make such records dead letters with --unknown-schema dead-letter"
        )

    def facts(self) -> Mapping[str, str]:
        """Return the columns with their types."""
        return {"name": "avro", "columns": format_columns(self._columns, omit=None), "rules": RULES}


def _place(record: pa.Table) -> str:
    return f"partition {record['partition'][0]} offset {record['offset'][0]}"


def find_types(registry: SchemaRegistry, records: pa.Table, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return for each record the type of each column by its schema, empty if it has none.

    A record whose schema cannot be read has no columns. Where a schema's branches have several types, they are joined.
    """
    headers = find_header(one_chunk(records.column("headers")), VALUE_HEADER)
    frames = split_frames(one_chunk(records.column("value")), headers)
    types = [_types_of(registry, schema, columns) for schema in frames.schemas]
    return [types[code] if code >= 0 else {} for code in frames.codes.tolist()]


def _types_of(registry: SchemaRegistry, schema: SchemaId, columns: Sequence[str]) -> dict[str, str]:
    found = registry.get(schema)
    try:
        kind = None if found is None else read_registered(found, schema)
    except RejectedError:
        kind = None
    if kind is None:
        return {}
    leaves = {name: find_leaves([kind], name) for name in columns}
    return {name: " or ".join(sorted({str(default_type(leaf)) for leaf in found})) for name, found in leaves.items()}


def read_registered(found: RegisteredSchema, schema: SchemaId) -> Type:
    """Read a schema of the registry; RejectedError if it is none of Avro."""
    if found.kind != "AVRO":
        raise RejectedError(f"schema id {schema} is {found.kind}, and not AVRO")
    try:
        return parse_schema(found.text, found.references)
    except SchemaError as error:
        raise RejectedError(f"schema id {schema} is no Avro schema: {error}") from None
