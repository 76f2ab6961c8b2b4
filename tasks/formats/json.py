"""JSON values: turns paths into the columns that sorts compare, a block at a time.

Guarantee: every value is either accepted, with all its key columns typed, or rejected with a reason, and its outcome
depends on its own bytes only.
"""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from tasks.arrow import one_chunk
from tasks.formats.json_reader import JsonReader
from tasks.keys import RULES, Parsed, type_columns
from tasks.settings.column_types import ColumnType
from tasks.settings.paths import parse_path
from tasks.settings.sorts import KeyColumn, format_columns


class JsonFormat:
    """One JSON document a value. `columns`: the paths that sorts name, with their types, None where it is not known."""

    def __init__(self, columns: Mapping[str, ColumnType | None], keys: Sequence[KeyColumn]) -> None:
        self.keys = tuple(keys)
        self._columns = columns
        self._reader = JsonReader(self.keys, [parse_path(key.name) for key in self.keys])

    def facts(self) -> Mapping[str, str]:
        """Return the paths with their types, and the rules."""
        return {"name": "json", "columns": format_columns(self._columns, omit=None), "rules": RULES}

    def parse(self, records: pa.Table) -> Parsed:
        """Return key columns and rejects of a block of records."""
        return self.parse_values(one_chunk(records.column("value")))

    def parse_values(self, values: pa.Array) -> Parsed:
        """Return key columns and rejects of a block of values (binary, null where a record has none)."""
        return type_columns(self.keys, *self._reader.read(values))
