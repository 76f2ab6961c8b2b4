"""Times encode to bytes that compare as instants do."""

from datetime import UTC, date, datetime, timedelta, timezone

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tasks.verification.terms import Kind
from tasks.verification.types.registry import make_type
from tests.ranks import assert_same_order, encode_all, refused

OFFSETS = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(datetime(1678, 1, 1), datetime(2261, 12, 31), timezones=OFFSETS)  # noqa: DTZ001  # bounds


@settings(deadline=None)
@given(st.lists(st.tuples(MOMENTS, st.integers(0, 999), st.sampled_from("Tt ")), min_size=2, max_size=6))
def test_times_compare_as_instants(drawn: list[tuple[datetime, int, str]]) -> None:
    """Zones do not matter, only the instant does, to the nanosecond."""
    texts = [
        moment.strftime("%Y-%m-%d").zfill(10)
        + mark
        + moment.strftime("%H:%M:%S.%f")
        + f"{nanoseconds:03}"
        + moment.isoformat()[-6:]
        for moment, nanoseconds, mark in drawn
    ]
    assert_same_order(encode_all("time", texts), [(moment, nanoseconds) for moment, nanoseconds, _ in drawn])


@given(st.lists(MOMENTS, min_size=1, max_size=5))
def test_times_of_other_formats(moments: list[datetime]) -> None:
    """Python's datetimes encode like their texts; a date is its midnight."""
    times = make_type(Kind("time"))
    assert times.encode(moments)[0] == encode_all("time", [moment.isoformat() for moment in moments])
    days = [moment.date() for moment in moments]
    assert times.encode(days)[0] == encode_all("time", [f"{day.isoformat()}T00:00Z" for day in days])
    bare = [moment.replace(tzinfo=None) for moment in moments]
    assert times.encode(bare) == times.encode([moment.replace(tzinfo=UTC) for moment in bare])
    assert times.encode([date(1600, 1, 1), 7, b"2020-01-01T00:00Z"])[1] == [0, 1]


def test_forms_of_one_time() -> None:
    """All that ISO 8601 permits here is the same instant."""
    forms = ["2024-02-29T12:00:00Z", "2024-02-29t12:00z", "2024-02-29 12:00:00.000Z", " 2024-02-29T13:30+01:30\t"]
    forms += [
        "2024-02-29T13:30+0130",
        "2024-02-29T13+01"[:13] + ":00+01",
        "2024-03-01T11:59+23:59",
        "2024-02-29T12:00-00",
    ]
    assert len(set(encode_all("time", forms))) == 1


def test_the_limits_of_times() -> None:
    """64 bits of nanoseconds, and not one more."""
    good = ["1677-09-21T00:12:43.145224192Z", "2262-04-11T23:47:16.854775807Z", "2262-04-12T00:47:16.8547758+01:00"]
    assert_same_order(encode_all("time", good), [-(2**63), 2**63 - 1, 2**63 - 8])
    bad = [
        "1677-09-21T00:12:43.145224191Z",
        "2262-04-11T23:47:16.854775808Z",
        "0001-01-01T00:00+23:59",
        "9999-12-31T23:59Z",
    ]
    assert refused("time", bad) == bad


BAD = [
    "",
    "2024-02-29",
    "2024-02-29T12:00",
    "2023-02-29T12:00Z",
    "2024-13-01T12:00Z",
    "2024-02-29T24:00Z",
    "2024-02-29T23:59:60Z",
    "2024-02-29T12:00:00.Z",
    "2024-02-29T12:00:00.1234567890Z",
    "2024-02-29T12:00:00,5Z",
    "2024-02-29T12Z",
    "2024-02-29T12:00.5Z",
    "2024-02-29  12:00Z",
    "2024-02-29\t12:00Z",
    "2024-02-29T12:00+24:00",
    "2024-02-29T12:00+01:60",
    "2024-02-29T12:00+1",
    "2024-02-29T12:00 Z",
    "24-02-29T12:00Z",
    "20240229T1200Z",
    "2024-02-29T12:00UTC",
    "0000-01-01T00:00Z",
    "\u0662024-02-29T12:00Z",
    "1709208000",
]


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_time(text: str) -> None:
    """Without zone, without clock, beyond the calendar, or in another notation."""
    assert refused("time", [text]) == [text]


@pytest.mark.parametrize(("unit", "size"), [("s", 10**9), ("ms", 10**6), ("us", 1000), ("ns", 1)])
@given(numbers=st.lists(st.integers(-(2**64), 2**64) | st.integers(-(10**10), 10**10), max_size=6))
def test_counts_of_a_unit(unit: str, size: int, numbers: list[int]) -> None:
    """They share one scale with times, and overflow where that ends; text and numbers encode alike."""
    times = make_type(Kind("time", unit))
    keys, bad = times.encode(numbers)
    assert (keys, bad) == times.encode([b" 00%d" % n if n >= 0 else b"%d" % n for n in numbers])
    assert bad == [i for i, n in enumerate(numbers) if not -(2**63) <= n * size < 2**63]
    good = [i for i in range(len(numbers)) if i not in bad]
    assert_same_order([keys[i] for i in good], [numbers[i] for i in good])
    assert times.encode([10**18 // size])[0] == encode_all("time", ["2001-09-09T01:46:40Z"])


def test_what_is_no_count() -> None:
    """There is no hexadecimal, no fraction, no plus."""
    bad = ["", "0x1f", "1.0", "1e3", "+1", "- 1", "2024-02-29T12:00Z", "9" * 5000]
    assert refused("time", bad, "ms") == bad
