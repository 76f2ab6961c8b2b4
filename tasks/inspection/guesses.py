"""The guess what the values of a sample are: the interface of those who guess, each of a format of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import pyarrow as pa

from tasks.arrow import one_chunk
from tasks.inspection.columns import Column

# A guess holds for so many of the values; with less there is none, since a job would make dead letters of the others.
ENOUGH: Final = 0.8


@dataclass(frozen=True)
class Guess:
    """A format that values have, as a guess.

    `name`: for a person. `settings`: of a job that reads them. `columns`: what its sorts may name. `misfits`: row of
    the sample → reason, of values that are something else; null values are not among them. `notes`: what a person
    should know besides.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    columns: Sequence[Column] = ()
    misfits: Mapping[int, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


class Values:
    """The values of a sample. `records`: schema RECORD. `rows`: of those that are no null and not empty."""

    def __init__(self, records: pa.Table) -> None:
        self.records = records
        self.column: pa.Array = one_chunk(records.column("value"))
        self.all: list[bytes | None] = self.column.to_pylist()
        self.rows = [row for row, value in enumerate(self.all) if value]
        self.present: list[bytes] = [value for value in self.all if value]

    @property
    def nulls(self) -> int:
        """The number of tombstones."""
        return int(self.column.null_count)


class Guesser(Protocol):
    """Tells whether the values of a sample are of one format."""

    def guess(self, values: Values) -> Guess | None:
        """Return what the values are; None if most of them are something else."""


def is_enough(fitting: int, values: Values) -> bool:
    """Whether so many values of a format make it that of the sample."""
    return fitting >= ENOUGH * len(values.present)
