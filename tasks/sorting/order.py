"""The order of a sort: its columns, ascending or descending, then arrival; defined once for DuckDB and for Arrow.

Guarantee 1 (order): key columns are int64 or binary and never null, encoded so that their ascending order is the order
of the type. Rows of equal keys keep the order of arrival, which is that of their numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.manifests import Key
from tasks.settings.sorts import KeyColumn, Sort

# The column of row numbers.
ROW: Final = "row"


@dataclass(frozen=True)
class Term:
    """One column of an order. `is_flag`: it says whether the term behind it has a key, 1 where it has none."""

    column: str
    descending: bool = False
    is_flag: bool = False

    @property
    def sql(self) -> str:
        """The term in ORDER BY. Chunks name their columns by position, so no user's name reaches the SQL."""
        return f"{self.column} {'DESC' if self.descending else 'ASC'}"

    @property
    def arrow(self) -> tuple[str, str]:
        """The term for Arrow's sort_by."""
        return self.column, "descending" if self.descending else "ascending"

    def is_behind(self, column: pa.ChunkedArray, bound: pa.Scalar) -> pa.ChunkedArray:
        """Whether each value comes behind the bound."""
        return pc.less(column, bound) if self.descending else pc.greater(column, bound)


@dataclass(frozen=True)
class Order:
    """The terms of one sort, most significant first."""

    terms: tuple[Term, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the terms."""
        return tuple(term.column for term in self.terms)

    @property
    def sql(self) -> str:
        """The ORDER BY for DuckDB, over a relation that numbers its rows in a column `row`."""
        return ", ".join([*(term.sql for term in self.terms), Term(ROW).sql])

    def behind(self, column: str) -> "Order":
        """Return the order by this column, ascending, and by these terms behind it."""
        return Order((Term(column), *self.terms))

    def without_flags(self, key: Key) -> Key:
        """Return the key as a person knows it: None where it is null."""
        shown: list[int | str | bytes | None] = []
        is_null = False
        for term, value in zip(self.terms, key, strict=True):
            if not term.is_flag:
                shown.append(None if is_null else value)
            is_null = term.is_flag and bool(value)
        return tuple(shown)

    def sort(self, table: pa.Table) -> pa.Table:
        """Return the table with its rows in order; its column `row` has their numbers."""
        return table.sort_by([*(term.arrow for term in self.terms), Term(ROW).arrow])

    def reaches(self, table: pa.Table, first: int, bound: dict[str, Any]) -> npt.NDArray[np.bool_]:
        """Whether each row, the first of them number `first`, is the row `bound` or comes behind it."""
        reached = pa.array(np.arange(first, first + len(table)) >= bound[ROW])
        for term in reversed(self.terms):
            column = table.column(term.column)
            scalar = pa.scalar(bound[term.column], column.type)
            reached = pc.or_(term.is_behind(column, scalar), pc.and_(pc.equal(column, scalar), reached))
        return np.asarray(reached)


def order_of(keys: Sequence[KeyColumn], sort: Sort) -> Order:
    """Return the sort's terms, by the columns that `encode_keys` makes; a flag before each that may be null."""
    number = {key.name: i for i, key in enumerate(keys)}
    terms: list[Term] = []
    for key in sort.by:
        i = number[key.column]
        if keys[i].nulls:
            terms.append(Term(f"n{i}", descending=key.nulls == "first", is_flag=True))
        terms.append(Term(f"k{i}", key.descending))
    return Order(tuple(terms))
