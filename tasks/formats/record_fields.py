"""Record fields as keys: key, headers, timestamp, place. Values are never read: a tombstone is a record like any other.

The format `none` reads only these; every other format reads them besides its values.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from tasks.arrow import one_chunk
from tasks.formats.headers import find_header
from tasks.formats.key_formats import KeyFormat, TextKeys
from tasks.keys import RULES, Parsed, type_columns
from tasks.settings.sorts import KeyColumn, record_field


class RecordFields:
    """The key columns that a record has besides its value. `key_format` reads those that are in its key."""

    def __init__(self, keys: Sequence[KeyColumn], key_format: KeyFormat | None = None) -> None:
        self.keys = tuple(keys)
        self._key_format = key_format or TextKeys()
        self._of_keys = tuple(key for key in keys if record_field(key.name)[0] == "@key")
        self._of_records = tuple(key for key in keys if key not in self._of_keys)

    def parse(self, records: pa.Table) -> Parsed:
        """Accept all records, except those whose key is null where the sort does not permit it, or is malformed."""
        columns, rejected = dict[str, pa.Array](), dict[int, str]()
        if self._of_keys:
            columns, rejected = self._key_format.read(one_chunk(records.column("key")), self._of_keys)
        columns |= {key.name: read_field(records, key.name) for key in self._of_records}
        return type_columns(self.keys, columns, rejected)

    def facts(self) -> Mapping[str, str]:
        """Return name and rules: there are no options."""
        return {"name": "none", "rules": RULES}


def read_field(records: pa.Table, column: str) -> pa.Array:
    """Return a record field other than the key, null where a record has none."""
    name, path = record_field(column)
    return (
        find_header(one_chunk(records.column("headers")), str(path[0]))
        if name == "@header"
        else _READERS[name](records)
    )


def _read_timestamp(records: pa.Table) -> pa.Array:
    """Read milliseconds; in Kafka a record without a timestamp has -1."""
    times = one_chunk(records.column("timestamp"))
    return pc.if_else(pc.less(times, 0), pa.scalar(None, pa.int64()), times)


def _read_partition(records: pa.Table) -> pa.Array:
    return one_chunk(records.column("partition")).cast(pa.int64())


def _read_offset(records: pa.Table) -> pa.Array:
    return one_chunk(records.column("offset"))


_READERS: Final[dict[str, Callable[[pa.Table], pa.Array]]] = {
    "@timestamp": _read_timestamp,
    "@partition": _read_partition,
    "@offset": _read_offset,
}
