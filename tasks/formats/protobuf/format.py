"""The format `protobuf`: bare messages by a descriptor that the job names."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from tasks.arrow import one_chunk
from tasks.formats.base import parse_present
from tasks.formats.protobuf.messages import MessageReader
from tasks.formats.protobuf.native import check_type
from tasks.formats.protobuf.paths import resolve
from tasks.formats.protobuf.schema import load_message
from tasks.keys import RULES, Parsed, type_columns
from tasks.settings.column_types import ColumnType
from tasks.settings.paths import parse_path
from tasks.settings.sorts import KeyColumn, format_columns


class ProtobufFormat:
    """Reads the messages `message` of a serialized FileDescriptorSet, without framing.

    `given`: the types that the job gives; other columns have those of their fields. SettingsError if the schema does
    not have what the job names.
    """

    def __init__(
        self, schema: bytes, message: str, keys: Sequence[KeyColumn], given: Mapping[str, ColumnType], where: str
    ) -> None:
        descriptor = load_message(schema, message, where)
        columns = [resolve(descriptor, parse_path(key.name)) for key in keys]
        self.keys = tuple(
            replace(key, type=given.get(key.name, column.default_type))
            for key, column in zip(keys, columns, strict=True)
        )
        typed = [(column, key.type) for key, column in zip(self.keys, columns, strict=True)]
        for column, kind in typed:
            check_type(column, kind)
        self._reader = MessageReader(descriptor, typed)
        self._message = message
        self._digest = hashlib.sha256(schema).hexdigest()

    def parse(self, records: pa.Table) -> Parsed:
        """Return key columns and rejects of a block of records."""
        return parse_present(one_chunk(records.column("value")), self._parse_values)

    def _parse_values(self, values: pa.Array) -> Parsed:
        columns, refused = self._reader.read(values)
        return type_columns(self.keys, columns, find_missing(self.keys, columns) | refused)

    def facts(self) -> Mapping[str, str]:
        """Return the columns with their types, the message and the digest of its schema."""
        columns = format_columns({key.name: key.type for key in self.keys}, omit=None)
        return {
            "name": "protobuf",
            "columns": columns,
            "message": self._message,
            "schema": self._digest,
            "rules": RULES,
        }


def find_missing(keys: Sequence[KeyColumn], columns: Mapping[str, pa.Array]) -> dict[int, str]:
    """Return index → reason of the records that lack a key which has to be there."""
    missing: dict[int, str] = {}
    for key in reversed(keys):
        if columns[key.name].null_count and not key.nulls:
            absent = np.flatnonzero(np.asarray(columns[key.name].is_null())).tolist()
            missing |= dict.fromkeys(absent, f"{key.label} is missing")
    return missing
