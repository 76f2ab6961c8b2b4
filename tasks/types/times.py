"""The types `time`, `time(s)`, `time(ms)`, `time(us)` and `time(ns)`: nanoseconds since 1970 in UTC, stored as int64.

They reach from 1677-09-21 to 2262-04-11. A text is ISO 8601 with a zone or, for the types with a unit, an integer.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.printable import excerpt
from tasks.types.base import Encoded
from tasks.types.columns import TextReader, characters, matches, restore_nulls, trim
from tasks.types.integers import LARGEST, read_integers

_FACTORS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_DAY: Final = 86_400 * 10**9
_EPOCH: Final = date(1970, 1, 1).toordinal()
# Days of 400 years: the calendar repeats.
_CYCLE: Final = 146_097
# Years that are whole within the range, also with an offset.
_YEARS: Final = "(?:167[89]|16[89][0-9]|1[7-9][0-9]{2}|2[01][0-9]{2}|22[0-5][0-9]|226[01])"
# February 29 may be no date.
_DAYS: Final = (
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_CLOCK: Final = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_ZONE: Final = "(?:[Zz]|[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?)"
_USUAL: Final = rf"{_YEARS}-{_DAYS}[Tt ]{_CLOCK}(?::[0-5][0-9](?:\.[0-9]{{1,9}})?)?{_ZONE}"
_TIME: Final = re.compile(
    rb"[ \t]*([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([01][0-9]|2[0-3]):([0-5][0-9])"
    rb"(?::([0-5][0-9])(?:\.([0-9]{1,9}))?)?"
    rb"(?:(?P<utc>[Zz])|([+-])([01][0-9]|2[0-3])(?::?([0-5][0-9]))?)?[ \t]*"
)
_INTEGER: Final = re.compile(rb"[ \t]*-?[0-9]+[ \t]*")


@dataclass(frozen=True)
class TimeType:
    """Reads times. `unit`: that of integers; empty if texts are ISO 8601."""

    unit: str = ""
    stored: pa.DataType = field(default_factory=pa.int64)
    filler: int = 0
    column: pa.DataType = field(default_factory=lambda: pa.timestamp("ns", "UTC"))
    compares_as_column: bool = True
    is_json: bool = False

    def accepts(self, kind: pa.DataType) -> bool:
        """Take timestamps and dates beside text, or int64 if there is a unit."""
        if self.unit:
            return bool(pa.types.is_int64(kind) or pa.types.is_binary(kind))
        return bool(pa.types.is_timestamp(kind) or pa.types.is_date32(kind) or pa.types.is_binary(kind))

    def encode(self, values: pa.Array) -> Encoded:
        """Return nanoseconds."""
        if pa.types.is_binary(values.type):
            return _read_epochs(values, _FACTORS[self.unit]) if self.unit else _READER.read(values)
        return _scale_epochs(values, _FACTORS[self.unit]) if self.unit else _scale_instants(values)

    def show(self, stored: int) -> str:
        """Return ISO 8601 in UTC, with the digits of a second that are needed: `2026-07-01T12:00:00.5Z`."""
        seconds, rest = divmod(stored, 10**9)
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
        part = f"{rest:09}".rstrip("0")
        return f"{moment:%Y-%m-%dT%H:%M:%S}{'.' * bool(part)}{part}Z"

    def print_all(self, stored: pa.Array) -> pa.Array:
        """Return the same for all."""
        numbers = np.asarray(stored.fill_null(0))
        seconds = pa.array(numbers // 10**9).cast(pa.timestamp("s")).cast(pa.string())
        seconds = pc.binary_replace_slice(seconds, len("YYYY-MM-DD"), len("YYYY-MM-DDT"), "T")
        # The digit in front keeps the zeros behind it; what is left of it becomes the point.
        parts = pc.utf8_rtrim(pa.array(numbers % 10**9 + 10**9).cast(pa.string()), "0")
        parts = pc.if_else(pc.equal(parts, "1"), "", pc.binary_replace_slice(parts, 0, 1, "."))
        printed = pc.binary_join_element_wise(seconds, parts, "Z", "").cast(pa.binary())
        return pc.if_else(stored.is_valid(), printed, None)

    def to_column(self, stored: pa.Array) -> pa.Array:
        """Return timestamps in UTC."""
        return stored.cast(self.column)


def _scale(numbers: pa.Array, factor: int) -> tuple[pa.Array, list[int]]:
    """Multiply int64; return the products, null where one overflows, and the indexes of these."""
    values = np.asarray(numbers.fill_null(0))
    beyond = (values > LARGEST // factor) | (values < -((LARGEST + 1) // factor))
    if not beyond.any():
        return restore_nulls(values * factor, numbers), []
    absent = beyond | np.asarray(numbers.is_null())
    return pa.array(np.where(beyond, 0, values) * factor, mask=absent), np.flatnonzero(beyond).tolist()


def _scale_instants(values: pa.Array) -> Encoded:
    """Turn timestamps, and dates at midnight UTC, into nanoseconds."""
    if pa.types.is_date32(values.type):
        unit, factor, numbers = "D", _DAY, values.cast(pa.int32()).cast(pa.int64())
    else:
        unit, factor, numbers = values.type.unit, _FACTORS[values.type.unit], values.cast(pa.int64())
    scaled, beyond = _scale(numbers, factor)
    return scaled, {
        i: _overflow(str(np.int64(numbers[i].as_py()).view(f"datetime64[{unit}]")).encode()) for i in beyond
    }


def _scale_epochs(numbers: pa.Array, factor: int) -> Encoded:
    scaled, beyond = _scale(numbers, factor)
    return scaled, {i: _overflow(b"%d" % numbers[i].as_py()) for i in beyond}


def _overflow(text: bytes) -> str:
    return f"overflows a time: {excerpt(text)}"


def _read_epochs(texts: pa.Array, factor: int) -> Encoded:
    """Read integers as `int` does, except hexadecimal ones."""
    numbers, _ = read_integers(texts)
    if characters(texts).max(initial=0) > ord("9"):
        numbers = pc.if_else(pc.match_substring_regex(texts, "[xX]").fill_null(False), None, numbers)
    scaled, _ = _scale(numbers, factor)
    refused = np.flatnonzero(np.asarray(pc.and_(scaled.is_null(), texts.is_valid()))).tolist()
    return scaled, {row: _explain_epoch(texts[row].as_py()) for row in refused}


def _explain_epoch(text: bytes) -> str:
    return _overflow(text) if _INTEGER.fullmatch(text) else f"is not an integer: {excerpt(text)}"


def _encode_all(texts: pa.Array) -> pa.Array:
    """Encode texts; pa.ArrowInvalid if one is refused, or in the first second of the range.

    Arrow checks the calendar, the clock, the zone and the range. Beside what the type accepts, it takes hours without
    minutes.
    """
    trimmed = pc.ascii_upper(trim(texts))
    times = trimmed.cast(pa.timestamp("ns", "UTC"))
    if not _have_minutes(trimmed.drop_null()):
        raise pa.ArrowInvalid("an hour without minutes")
    return times.cast(pa.int64())


def _have_minutes(texts: pa.Array) -> bool:
    lengths = np.asarray(pc.binary_length(texts))
    return bool((characters(texts)[np.cumsum(lengths) - lengths + len("YYYY-MM-DDTHH")] == ord(":")).all())


def _encode_one(text: bytes) -> int:
    """Encode a text of any form; ValueError says why it is refused."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"is not a time: {excerpt(text)}")
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    try:
        days = date(2000 + year % 400, month, day).toordinal() - _EPOCH + (year // 400 - 5) * _CYCLE
    except ValueError:
        raise ValueError(f"is not a time: {excerpt(text)}") from None
    part, utc, sign, hours, minutes = match.groups()[6:]
    if not utc and not sign:
        raise ValueError(f"has no zone: {excerpt(text)}")
    offset = (int(hours or 0) * 60 + int(minutes or 0)) * (-1 if sign == b"-" else 1)
    stored = ((days * 24 + hour) * 60 + minute - offset) * 60 + second
    stored = stored * 10**9 + int((part or b"").ljust(9, b"0"))
    if not -LARGEST - 1 <= stored <= LARGEST:
        raise ValueError(_overflow(text))
    return stored


_READER: Final = TextReader(pa.int64(), _encode_all, matches(_USUAL), _encode_one)
