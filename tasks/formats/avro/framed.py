"""Avro in Confluent's wire format: the schema is in the registry, by its id."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from tasks.formats.avro.format import ValueReader
from tasks.formats.avro.schema import SchemaError, Type, parse_schema
from tasks.formats.avro.types import default_type, find_fields, find_leaves
from tasks.formats.base import RejectedError
from tasks.formats.framed import Part
from tasks.formats.schema_registry import RegisteredSchema
from tasks.formats.wire import Groups, Indexes, group_by_schema
from tasks.settings.column_types import ColumnType
from tasks.settings.paths import Path, format_path
from tasks.settings.sorts import KeyColumn


class AvroLanguage:
    """Reads values and keys of Avro."""

    name, kind = "avro", "AVRO"

    def split(self, values: pa.Array, headers: pa.Array) -> Groups:
        """Find the schema of each value."""
        return group_by_schema(values, headers)

    def read_schema(self, found: RegisteredSchema, _: Indexes) -> Type:
        """Read a schema; RejectedError if it is none of Avro."""
        try:
            return parse_schema(found.text, found.texts)
        except SchemaError as error:
            raise RejectedError(f"is no Avro schema: {error}") from None

    def make_reader(self, schema: Type, keys: Sequence[KeyColumn], part: Part) -> ValueReader:
        """Make the reader of a schema's values."""
        return ValueReader(schema, keys, part.label)

    def find_types(self, schema: Type, path: Path) -> list[ColumnType]:
        """Return the types of the leaves at a path."""
        return [default_type(leaf) for leaf in find_leaves([schema], path)]

    def list_columns(self, schema: Type) -> Iterator[str]:
        """Yield the fields that may be keys."""
        for path in find_fields(schema):
            if any(leaf.arrow is not None for leaf in find_leaves([schema], path)):
                yield format_path(path)
