"""Protobuf in Confluent's wire format: each record's message is that of its schema id and message indexes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.errors import SettingsError
from tasks.formats.base import RejectedError
from tasks.formats.framed import VALUE, Part
from tasks.formats.protobuf.format import find_missing
from tasks.formats.protobuf.messages import MessageReader
from tasks.formats.protobuf.native import check_type
from tasks.formats.protobuf.paths import Column, NoSuchFieldError, find_fields, resolve
from tasks.formats.protobuf.schema import compile_once, find_message, require_compiler
from tasks.formats.schema_registry import RegisteredSchema
from tasks.formats.wire import Groups, Indexes, cut_values, group_by_message
from tasks.keys import Parsed, type_columns
from tasks.settings.column_types import ColumnType
from tasks.settings.paths import Path, format_path
from tasks.settings.sorts import KeyColumn, path_within


class ProtobufLanguage:
    """Reads values and keys of Protobuf. SettingsError if the compiler of their schemas is not installed."""

    name, kind = "protobuf", "PROTOBUF"

    def __init__(self) -> None:
        require_compiler()

    def split(self, values: pa.Array, headers: pa.Array) -> Groups:
        """Find the schema of each value, and its message in it."""
        return group_by_message(values, headers)

    def read_schema(self, found: RegisteredSchema, indexes: Indexes) -> Any:
        """Return the descriptor of the message at these indexes; RejectedError if there is none."""
        try:
            return find_message(compile_once(found.text, found.references), indexes, "schema")
        except SettingsError as error:
            raise RejectedError(f"is no Protobuf schema: {error}") from None
        except LookupError:
            raise RejectedError(f"has no message at the indexes {list(indexes)}") from None

    def make_reader(self, schema: Any, keys: Sequence[KeyColumn], part: Part) -> "_PayloadReader":
        """Make the reader of a message's values; RejectedError if a column is not of its type."""
        return _PayloadReader(schema, keys, part)

    def find_types(self, schema: Any, path: Path) -> list[ColumnType]:
        """Return the type of the field at a path, if there is one."""
        try:
            return [resolve(schema, path).default_type]
        except SettingsError:
            return []

    def list_columns(self, schema: Any) -> Iterator[str]:
        """Yield the fields that may be keys."""
        return map(format_path, find_fields(schema))


class _PayloadReader:
    def __init__(self, message: Any, keys: Sequence[KeyColumn], part: Part) -> None:
        self._keys = tuple(keys)
        found = [(column, key.type) for key in keys if (column := _find_column(message, key)) is not None]
        self._reader = MessageReader(message, found, "" if part is VALUE else f"{part.label} ")

    def parse(self, values: pa.Array, starts: npt.NDArray[np.int64]) -> Parsed:
        """Return key columns and rejects of values, each of which begins at its start."""
        columns, refused = self._reader.read(cut_values(values, starts))
        absent = {key.name: pa.nulls(len(values), pa.binary()) for key in self._keys if key.name not in columns}
        columns |= absent
        return type_columns(self._keys, columns, find_missing(self._keys, columns) | refused)


def _find_column(message: Any, key: KeyColumn) -> Column | None:
    """Return the column of a key; None if the message does not have it."""
    try:
        column = replace(resolve(message, path_within(key.name)), name=key.name)
        check_type(column, key.type)
    except NoSuchFieldError:
        return None
    except SettingsError as error:
        raise RejectedError(f"does not fit: {error}") from None
    return column
