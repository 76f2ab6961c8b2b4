"""Record fields as keys: `@key` and `@timestamp`. Values are never read: a tombstone is a record like any other.

The format `none` reads only these; every other format reads them besides its values.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from tasks.keys import RULES, Parsed, type_columns
from tasks.settings.sorts import KeyColumn


def _read_timestamp(records: pa.Table) -> pa.Array:
    """Read milliseconds; in Kafka a record without a timestamp has -1."""
    times = records.column("timestamp").combine_chunks()
    return pc.if_else(pc.less(times, 0), pa.scalar(None, pa.int64()), times)


def _read_key(records: pa.Table) -> pa.Array:
    return records.column("key").combine_chunks()


_READERS: Final[dict[str, Callable[[pa.Table], pa.Array]]] = {"@key": _read_key, "@timestamp": _read_timestamp}


class RecordFields:
    """The key columns that a record has besides its value."""

    def __init__(self, keys: Sequence[KeyColumn]) -> None:
        self.keys = tuple(keys)

    def parse(self, records: pa.Table) -> Parsed:
        """Accept all records, except those whose key is null where the sort does not permit it."""
        return type_columns(self.keys, {key.name: _READERS[key.name](records) for key in self.keys})

    def facts(self) -> Mapping[str, str]:
        """Return name and rules: there are no options."""
        return {"name": "none", "rules": RULES}
