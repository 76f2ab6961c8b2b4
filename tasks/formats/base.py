"""The interface between a run and a record format, whichever it is."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Protocol

import numpy as np
import pyarrow as pa

from tasks.errors import SettingsError
from tasks.keys import Parsed
from tasks.settings.sorts import KeyColumn

# The reasons of values without a byte.
NULL_VALUE: Final = "null value"
EMPTY_VALUE: Final = "empty value"


class RejectedError(ValueError):
    """A record has no key by its format; the message is the reason that its dead letter gives."""


class RecordFormat(Protocol):
    """Reads the key columns of whole records. Each task makes it once, since a format may hold a cache.

    A record without a key, or with one that is not of the column's type, is rejected with a reason: it becomes a dead
    letter. The outcome of a record depends on its own bytes only.
    """

    @property
    def keys(self) -> tuple[KeyColumn, ...]:
        """The key columns that `parse` returns, with their types, in no particular order."""

    def parse(self, records: pa.Table) -> Parsed:
        """Parse records, a table of the schema RECORD, into key columns and rejects."""

    def facts(self) -> Mapping[str, str]:
        """Return what the ledger records: the options that decide keys, and the version of the parse rules."""


@contextmanager
def needing_extra(setting: str, extra: str) -> Iterator[None]:
    """Turn a missing package into a SettingsError that says which extra of the project has it."""
    try:
        yield
    except ModuleNotFoundError as error:
        way = f"pip install 'kafka-sorting-pipeline[{extra}]'"
        raise SettingsError(f"{setting} needs the package {error.name}: {way}") from None


def parse_present(values: pa.Array, parse: Callable[[pa.Array], Parsed]) -> Parsed:
    """Parse the values that are there; a null value is rejected."""
    if not values.null_count:
        return parse(values)
    present = np.asarray(values.is_valid())
    rejected = dict.fromkeys(np.flatnonzero(~present).tolist(), NULL_VALUE)
    return parse(values.drop_null()).moved(np.flatnonzero(present), rejected)


def used_schemas(fmt: RecordFormat) -> tuple[tuple[str, str], ...]:
    """Return the ids of a schema registry that a format has used, each with the SHA-256 of its text."""
    schemas: Mapping[str, str] = getattr(fmt, "schemas", {})
    return tuple(sorted(schemas.items()))
