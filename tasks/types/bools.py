"""The type `bool`: false before true, stored as 0 and 1."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.printable import excerpt
from tasks.types.base import Encoded
from tasks.types.columns import trim

# By their places, the even ones are false.
_TEXTS: Final = pa.array(["false", "true", "0", "1"])


@dataclass(frozen=True)
class BoolType:
    """Reads `true`, `false`, `1` and `0`, and Arrow's booleans."""

    stored: pa.DataType = field(default_factory=pa.int64)
    filler: int = 0
    column: pa.DataType = field(default_factory=pa.bool_)
    compares_as_column: bool = True
    is_json: bool = True

    def accepts(self, kind: pa.DataType) -> bool:
        """Take booleans beside text."""
        return bool(pa.types.is_boolean(kind) or pa.types.is_binary(kind))

    def encode(self, values: pa.Array) -> Encoded:
        """Return int64, 0 and 1."""
        return (values.cast(pa.int64()), {}) if pa.types.is_boolean(values.type) else _read(values)

    def show(self, stored: int) -> str:
        """Return `true` or `false`."""
        return "true" if stored else "false"

    def print_all(self, stored: pa.Array) -> pa.Array:
        """Return `true` and `false`."""
        return self.to_column(stored).cast(pa.string()).cast(pa.binary())

    def to_column(self, stored: pa.Array) -> pa.Array:
        """Return booleans."""
        return stored.cast(pa.bool_())


def _read(texts: pa.Array) -> Encoded:
    places = pc.index_in(pc.ascii_lower(trim(texts)), _TEXTS)
    refused = np.flatnonzero(np.asarray(pc.and_(places.is_null(), texts.is_valid()))).tolist()
    reasons = {row: f"is not a bool: {excerpt(texts[row].as_py())}" for row in refused}
    return pc.bit_wise_and(places.cast(pa.int64()), 1), reasons
