"""DuckDB as a library of functions over Arrow columns: one database in memory, which all threads of a process share."""

import atexit
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb


def open_cursor() -> "duckdb.DuckDBPyConnection":
    """Return a connection for one thread at a time; a query runs in the thread that asks."""
    return _database().cursor()


@cache
def _database() -> "duckdb.DuckDBPyConnection":
    """Open it once a process: that takes 15 ms, and the import 70, which a reader of other formats does without."""
    import duckdb

    # DuckDB's binding prints a line for each of its objects that outlives the process's last line.
    atexit.register(_database.cache_clear)
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
