"""Times in settings: ISO 8601, as `--start` and `--end` have them. Without a zone, a time is UTC."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_moment(text: str) -> datetime:
    """Read a time, which has a zone then; ValueError if it is none."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def epoch_millis(moment: datetime) -> int:
    """Return the first millisecond since 1970 that is not before the moment; 0 for times before 1970.

    Kafka reads a negative number as another question: -1 is the end of a log.
    """
    return max(0, -((_EPOCH - moment) // timedelta(milliseconds=1)))


def write_moment(value: Any) -> Any:
    """Return the text of a time that a job file (TOML) has without quotes; other values as they are."""
    return value.isoformat() if isinstance(value, date) else value
