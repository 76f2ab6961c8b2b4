"""The interface of a format's reader, and what it gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tasks.verification.content import Headers
from tasks.verification.formats.schemas import NO_SCHEMAS, Schemas
from tasks.verification.terms import Column, Kind

# The values, or the keys, of records; None where one has none.
Values = Sequence[bytes | None]


@dataclass(frozen=True)
class Wanted:
    """A column that a sort of the job compares. `nullable`: whether records without it have a place in each."""

    column: Column
    kind: Kind
    nullable: bool = False


@dataclass(frozen=True)
class Request:
    """The columns to read. `facts`: of the format, by the run's record. `part`: `value` or `key` of a record.

    `schemas`: where the schemas of values and keys are.
    """

    facts: Mapping[str, str]
    columns: Sequence[Wanted]
    part: str = "value"
    schemas: Schemas = NO_SCHEMAS

    @property
    def is_bare(self) -> bool:
        """Whether the part is without framing, since one schema is that of all; keys never are."""
        return self.part == "value" and "schema" in self.facts


@dataclass(frozen=True)
class Columns:
    """A list for each wanted column, with an item for each record that is not refused.

    An item is text (bytes), another value that the type takes, or None for null and missing. `refused`: indexes of the
    records that the format refuses. `complete`: no item is None.
    """

    columns: Sequence[Sequence[Any]]
    refused: set[int] = field(default_factory=set)
    complete: bool = False


class FormatReader(Protocol):
    """Reads one format. The outcome of a value depends on its own bytes, and on its record's headers, only."""

    def read(self, values: Values, headers: Sequence[Headers]) -> Columns:
        """Read a block; both have an item a record. A value that is None is refused."""
