"""The interface of a key type."""

from typing import Any, Protocol

import pyarrow as pa

# Encoded values, null where a value is null or was refused, and index → reason of each refusal.
Encoded = tuple[pa.Array, dict[int, str]]


class KeyType(Protocol):
    """One type of key column. The outcome of a value depends on its own bytes only."""

    @property
    def stored(self) -> pa.DataType:
        """The column's Arrow type in chunks, int64 or binary, whose ascending order is the order of the type."""

    @property
    def filler(self) -> Any:
        """The stored value in a row that has no key; its flag orders it."""

    @property
    def is_json(self) -> bool:
        """Whether a printed form is a JSON value as it is; else it stands there as a string."""

    def accepts(self, kind: pa.DataType) -> bool:
        """Whether `encode` takes values of this Arrow type; it always takes binary, the values as text."""

    def encode(self, values: pa.Array) -> Encoded:
        """Encode values, nulls among them, which stay null. A reason goes on after the column's name."""

    def show(self, stored: Any) -> int | str:
        """Return a stored value as a person knows it: its printed form."""

    def print_all(self, stored: pa.Array) -> pa.Array:
        """Return the printed forms of stored values (binary), null where null."""

    @property
    def column(self) -> pa.DataType:
        """The Arrow type that a key has in files for readers."""

    @property
    def compares_as_column(self) -> bool:
        """Whether readers of files compare such a column as the type compares keys."""

    def to_column(self, stored: pa.Array) -> pa.Array:
        """Return stored values as a column for readers, null where null; of texts that lost something, the originals.

        `ColumnType.prints_equals_alike` tells which texts are meant.
        """
