"""Reads columns out of blocks of messages: the usual ones side by side, others by ptars, or a message at a time.

Guarantee: a record's outcome depends on its own bytes only. What no way proves to be a message, google.protobuf
decides, and all ways find the same values.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.formats.protobuf.columnar import ColumnarReader, is_columnar
from tasks.formats.protobuf.native import to_native
from tasks.formats.protobuf.paths import Column
from tasks.formats.protobuf.rows import MessageChecker, RowReader
from tasks.formats.protobuf.usual import UsualReader
from tasks.settings.column_types import ColumnType

# Of a block that the fast way cannot read, so many records are tried at a time.
_TRIED_ROWS: Final = 256


class MessageReader:
    """Reads columns of one type of message (Descriptor). `columns`: with the types that they are read for.

    `label`: begins the reason of what is no message.
    """

    def __init__(self, message: Any, columns: Sequence[tuple[Column, ColumnType]], label: str = "") -> None:
        self._label = label
        self._columns = tuple(columns)
        places = [part for column, _ in columns for part in column.parts]
        self._checker = MessageChecker(message)
        self._usual = UsualReader(message, places)
        self._rows = RowReader(message, places)
        self._columnar = ColumnarReader(places) if places and all(map(is_columnar, places)) else None

    def read(self, values: pa.Array) -> tuple[dict[str, pa.Array], dict[int, str]]:
        """Return the columns of a block of values (binary, none null), and index → reason of what has no key.

        Columns are aligned with the block: text (binary) or an Arrow type that the column's type takes, null where a
        message lacks it, where its value is refused, or where the value is no message.
        """
        arrays, refused = self._read_all(values)
        places = iter(arrays)
        found: dict[str, pa.Array] = {}
        for column, kind in self._columns:
            parts = [next(places) for _ in column.parts]
            found[column.name], reasons = to_native(column, parts, kind)
            refused = {i: f"{column.label} {why}" for i, why in reasons.items()} | refused
        return found, refused

    def _read_all(self, values: pa.Array) -> tuple[list[pa.Array], dict[int, str]]:
        """Return one array for each place, and index → reason of what is no message."""
        usual, found = self._usual.read(values)
        others = np.flatnonzero(~usual)
        if not len(others):
            return found if self._usual.reads_places else self._read_places(values), {}
        rest = values.take(pa.array(others)) if usual.any() else values
        refused = {i: f"{self._label}{why}" for i, why in self._checker.check(rest).items()}
        by_index = {int(others[i]): why for i, why in refused.items()}
        if not self._usual.reads_places:
            return self._read_places(_emptied(values, by_index)), by_index
        # An empty value is a message of nothing but defaults; its outcome is not looked at.
        read = self._read_places(_emptied(rest, refused))
        mask = pa.array(~usual)
        return [pc.replace_with_mask(array, mask, other) for array, other in zip(found, read, strict=True)], by_index

    def _read_places(self, values: pa.Array) -> list[pa.Array]:
        if self._columnar is None:
            return self._rows.read(values)
        found = self._columnar.read(values)
        if found is not None:
            return self._complete(values, *found)
        if len(values) <= _TRIED_ROWS:
            return self._rows.read(values)
        parts = [self._read_places(values.slice(i, _TRIED_ROWS)) for i in range(0, len(values), _TRIED_ROWS)]
        return [pa.concat_arrays(arrays) for arrays in zip(*parts, strict=True)]

    def _complete(self, values: pa.Array, found: Sequence[pa.Array], unknown: npt.NDArray[np.bool_]) -> list[pa.Array]:
        """Read again the records that the fast way does not know."""
        if not unknown.any():
            return list(found)
        mask = pa.array(unknown)
        others = self._rows.read(values.filter(mask))
        return [pc.replace_with_mask(array, mask, other) for array, other in zip(found, others, strict=True)]


def _emptied(values: pa.Array, refused: dict[int, str]) -> pa.Array:
    """Return the values with nothing in place of those that are refused."""
    if not refused:
        return values
    bad = np.zeros(len(values), np.bool_)
    bad[list(refused)] = True
    return pc.if_else(pa.array(bad), b"", values)
