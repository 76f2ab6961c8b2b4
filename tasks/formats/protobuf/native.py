"""From what a place of a message holds to an Arrow array that the column's type encodes."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.errors import SettingsError
from tasks.formats.protobuf.paths import DECIMAL, Column, raw_type
from tasks.settings.column_types import INT, ColumnType
from tasks.types.base import Encoded
from tasks.types.registry import key_type

_TIME: Final = pa.timestamp("ns", "UTC")
# The least and the largest time that 64 bits of nanoseconds hold: seconds, and nanoseconds on top.
_LEAST, _LARGEST = divmod(-(2**63), 10**9), divmod(2**63 - 1, 10**9)
# Those of 0001-01-01 and 9999-12-31, beyond which a Timestamp has no meaning.
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799


def native_type(column: Column, kind: ColumnType) -> pa.DataType:
    """Return the Arrow type of the array that `to_native` makes for this type."""
    if column.is_time:
        return _TIME
    raw = raw_type(column.parts[0])
    if column.leaf.enum_type is not None:
        return pa.int64() if kind == INT else pa.binary()
    if pa.types.is_uint64(raw):
        return pa.decimal128(20, 0) if kind == DECIMAL else pa.int64()
    return pa.int64() if pa.types.is_integer(raw) else raw


def check_type(column: Column, kind: ColumnType) -> None:
    """Raise SettingsError if values of the column's field cannot be compared as `kind`."""
    native = native_type(column, kind)
    # The name of an enum's symbol is a text, and a text that is no name was never meant.
    fits = kind.name == "text" if column.kind == "enum" and kind != INT else key_type(kind).accepts(native)
    if not fits:
        raise SettingsError(
            f"column {column.name!r} is of type {column.kind} in the schema, which does not compare as {kind}: leave "
            f"out its type to compare it as {column.default_type}"
        )


def to_native(column: Column, parts: Sequence[pa.Array], kind: ColumnType) -> Encoded:
    """Return the array, null where a part is null or is refused, and index → reason of each refusal."""
    if column.is_time:
        return _make_times(*parts)
    (values,) = parts
    if column.leaf.enum_type is not None:
        return (values.cast(pa.int64()) if kind == INT else _name_symbols(column.leaf.enum_type, values)), {}
    if pa.types.is_uint64(values.type) and kind != DECIMAL:
        return _fit_signed(values)
    native = native_type(column, kind)
    return (values if values.type == native else values.cast(native)), {}


def _name_symbols(enum: Any, numbers: pa.Array) -> pa.Array:
    """Return the names of an enum's numbers; digits for those that the schema does not have.

    Of names with one number the first in the schema is taken.
    """
    names = {value.number: value.name for value in reversed(enum.values)}
    index = pc.index_in(numbers, pa.array(list(names), numbers.type))
    found = pa.array(list(names.values()), pa.binary()).take(index)
    return pc.coalesce(found, numbers.cast(pa.string()).cast(pa.binary())) if found.null_count else found


def _fit_signed(values: pa.Array) -> Encoded:
    fits = pc.less_equal(values, pa.scalar(2**63 - 1, pa.uint64()))
    refused = np.flatnonzero(np.asarray(fits.fill_null(True)) == 0).tolist()
    reasons = {i: f"overflows 64 bits: '{values[i].as_py()}'" for i in refused}
    return (pc.if_else(fits, values, None) if refused else values).cast(pa.int64()), reasons


def _make_times(seconds: pa.Array, nanos: pa.Array) -> Encoded:
    """Return times in nanoseconds; those that are none or overflow are refused."""
    present = np.asarray(seconds.is_valid())
    whole = _numbers(seconds)
    rest = _numbers(nanos.cast(pa.int64()))
    valid = (rest >= 0) & (rest < 10**9) & (whole >= _FIRST_SECOND) & (whole <= _LAST_SECOND)
    late = (whole > _LARGEST[0]) | ((whole == _LARGEST[0]) & (rest > _LARGEST[1]))
    early = (whole < _LEAST[0]) | ((whole == _LEAST[0]) & (rest < _LEAST[1]))
    fits = valid & ~late & ~early
    reasons = {
        i: f"{'overflows a time' if valid[i] else 'is not a time'}: '{whole[i]} s, {rest[i]} ns'"
        for i in np.flatnonzero(present & ~fits).tolist()
    }
    # The least second alone does not fit, but its sum with what is left does: 64 bits wrap around, twice.
    total = whole * 10**9 + rest
    return pa.array(total, pa.int64(), mask=~(present & fits)).cast(_TIME), reasons


def _numbers(values: pa.Array) -> npt.NDArray[np.int64]:
    return np.asarray(pc.fill_null(values, 0))
