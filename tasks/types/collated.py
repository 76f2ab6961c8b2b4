"""The types `text(de)`, `text(sv)` and so on: UTF-8 that compares by an ICU collation, stored as ICU's sort key.

The keys are those of the ICU that DuckDB has: another version of DuckDB may order some texts in another way.
"""

import atexit
from dataclasses import dataclass, field
from functools import cache, partial

import duckdb
import pyarrow as pa

from tasks.arrow import one_chunk
from tasks.types.base import Encoded
from tasks.types.unicode_texts import unicode_reader


@dataclass(frozen=True)
class CollatedType:
    """Stores the sort keys of texts. `collation`: a name that DuckDB's ICU has."""

    collation: str
    stored: pa.DataType = field(default_factory=pa.binary)
    filler: bytes = b""

    def accepts(self, kind: pa.DataType) -> bool:
        """Take bytes alone."""
        return bool(pa.types.is_binary(kind))

    def encode(self, values: pa.Array) -> Encoded:
        """Return ICU's sort keys."""
        return unicode_reader(partial(_sort_keys, self.collation.lower())).read(values)

    def show(self, stored: bytes) -> str:
        """Return the sort key in hexadecimal digits: the text itself cannot be had from it."""
        return stored.hex()


def _sort_keys(collation: str, texts: pa.Array) -> pa.Array:
    table = pa.table({"texts": texts})
    # Threads share the database; each call has a cursor, which is a connection of its own.
    with _database().cursor() as connection:
        # ICU's keys come as hexadecimal text. A collation's name has letters and underscores only.
        keys = connection.from_arrow(table).project(f"unhex(icu_sort_key(texts, '{collation}')) AS keys")
        return one_chunk(keys.to_arrow_table().column("keys"))


@cache
def _database() -> duckdb.DuckDBPyConnection:
    """Open a database in memory, once a process: that takes 15 ms."""
    return duckdb.connect(
        config={
            # The caller's thread alone: partitions are dumped side by side.
            "threads": 1,
            "enable_external_access": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
            "lock_configuration": True,
        }
    )


# DuckDB's binding prints a line for each of its objects that outlives the process's last line.
atexit.register(_database.cache_clear)
