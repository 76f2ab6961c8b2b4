"""What a run asks of a record format, whatever it is."""

from collections.abc import Mapping
from typing import Protocol

import pyarrow as pa

from tasks.keys import Parsed
from tasks.settings.sorts import KeyColumn


class RejectedError(ValueError):
    """A record has no key by its format; the message is the reason that its dead letter gives."""


class RecordFormat(Protocol):
    """Reads the key columns of whole records. Made once a task, since a format may hold a cache.

    A record that has no key in it, or none of the column's type, is rejected with a reason: it becomes a dead letter.
    The outcome of a record depends on its own bytes only.
    """

    @property
    def keys(self) -> tuple[KeyColumn, ...]:
        """The key columns that `parse` gives."""

    def parse(self, records: pa.Table) -> Parsed:
        """Key columns and rejects of records, a table of the schema RECORD."""

    def facts(self) -> Mapping[str, str]:
        """What the ledger records of the format: the options that decide keys, and the version of the parse rules."""
