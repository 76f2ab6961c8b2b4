"""The type `time`: nanoseconds since 1970 UTC, from ISO 8601 with a zone, or from numbers of a unit."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

from tasks.verification.types.base import RefusedError, encode_number
from tasks.verification.types.numbers import read_int

_TIME = re.compile(
    rb"[ \t]*([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?"
    rb"(?:[Zz]|([+-])([0-9]{2})(?::?([0-9]{2}))?)[ \t]*"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_COUNT = re.compile(rb"[ \t]*(-?)0*([0-9]{1,19})[ \t]*")


class Instant(int):
    """Nanoseconds since 1970 UTC, of any size."""

    __slots__ = ()


def encode_time(value: Any) -> bytes:
    """Encode a time of ISO 8601, an instant, a datetime (in UTC if it has no zone) or a date (its midnight in UTC)."""
    if isinstance(value, Instant):
        return encode_number(value)
    if isinstance(value, bytes):
        return encode_number(_read_time(value))
    if not isinstance(value, date):
        raise RefusedError
    moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day, tzinfo=UTC)
    return encode_number(_since_epoch(moment if moment.tzinfo else moment.replace(tzinfo=UTC)))


def _read_time(text: bytes) -> int:
    match = _TIME.fullmatch(text)
    if match is None:
        raise RefusedError
    *clock, fraction, sign, hours, minutes = match.groups(b"0")
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    try:
        moment = datetime(*map(int, clock), tzinfo=UTC)  # type: ignore[arg-type, misc]  # six numbers
    except ValueError:
        raise RefusedError from None
    if int(minutes) > 59 or offset >= timedelta(days=1):
        raise RefusedError
    # The offset is taken away as a number: at the first and the last year a datetime would overflow.
    away = offset // timedelta(microseconds=1) * (-1000 if sign == b"-" else 1000)
    return _since_epoch(moment) + int(fraction.ljust(9, b"0")) - away


def _since_epoch(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def encode_count(unit: str) -> Callable[[Any], bytes]:
    """Return the encoder for counts of a unit since 1970; KeyError for another unit."""
    size = _NANOSECONDS[unit]
    return lambda value: encode_number(_read_count(value) * size)


def _read_count(value: Any) -> int:
    if not isinstance(value, bytes):
        return read_int(value)
    match = _COUNT.fullmatch(value)
    if match is None:
        raise RefusedError
    return int(match[1] + match[2])
