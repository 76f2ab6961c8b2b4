"""The type `time` beside Python's datetimes, and the types with a unit."""

import re
from datetime import UTC, date, datetime

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from tasks.printable import excerpt
from tests.tasks.types.outcomes import (
    assert_as_expected,
    assert_equal_fate,
    blocks,
    expected_outcome,
    outcomes,
    outcomes_of,
    read,
    shown,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORM = re.compile(r"(\d{4})(-\d\d-\d\d)[Tt ](\d\d:\d\d)(:\d\d)?(\.\d{1,9})?(.*)", re.ASCII | re.DOTALL)


def expect(text: bytes) -> int:
    """Read a time; ValueError has the reason."""
    match = _FORM.fullmatch(text.decode("latin-1").strip(" \t"))
    if match is None or (match[5] and not match[4]):
        raise ValueError(f"is not a time: {excerpt(text)}")
    year, days, clock, seconds, part, zone = match.groups()
    try:
        # Python has no year 0; that of 2000 has the same days.
        moment = datetime.fromisoformat(f"{'2000' if year == '0000' else year}{days}T{clock}{seconds or ''}")
        offset = _offset(zone)
    except ValueError:
        raise ValueError(f"is not a time: {excerpt(text)}") from None
    if offset is None:
        raise ValueError(f"has no zone: {excerpt(text)}")
    since = moment.replace(tzinfo=UTC) - _EPOCH
    stored = (since.days * 86_400 + since.seconds - offset) * 10**9 + int(part[1:].ljust(9, "0") if part else 0)
    if year == "0000" or not -(2**63) <= stored < 2**63:
        raise ValueError(f"overflows a time: {excerpt(text)}")
    return stored


def _offset(zone: str) -> int | None:
    """Return the seconds of a zone; None if there is none."""
    if zone in {"Z", "z", ""}:
        return 0 if zone else None
    match = re.fullmatch(r"([+-])(\d\d)(?::?(\d\d))?", zone, re.ASCII)
    if match is None or int(match[2]) > 23 or int(match[3] or 0) > 59:
        raise ValueError
    seconds = int(match[2]) * 3600 + int(match[3] or 0) * 60
    return -seconds if match[1] == "-" else seconds


def _two(least: int, most: int) -> st.SearchStrategy[str]:
    return st.integers(least, most).map("{:02}".format)


_DATES = st.dates(date(1678, 1, 1), date(2261, 12, 31)).map(str)
_ANY_DATES = st.one_of(
    _DATES,
    st.dates().map(str),
    st.builds("{}-{}-{}".format, st.sampled_from(["2020", "1900", "0000", "1677", "2262"]), _two(0, 13), _two(0, 32)),
    st.sampled_from(["1677-09-20", "1677-09-21", "1677-09-22", "2262-04-11", "2262-04-12", "2020-02-29", "1970-01-01"]),
)
_CLOCKS = st.builds("{}:{}".format, _two(0, 23), _two(0, 59))
_ANY_CLOCKS = _CLOCKS | st.builds("{}:{}".format, _two(0, 25), _two(0, 61)) | _two(0, 23)
_PARTS = st.text("0123456789", min_size=1, max_size=9).map(".{}".format)
_SECONDS = st.just("") | _two(0, 59).map(":{}".format) | st.builds(":{}{}".format, _two(0, 59), _PARTS)
_ANY_SECONDS = _SECONDS | _two(0, 61).map(":{}".format) | st.sampled_from([":00.", ":00.1234567890", ".5", ":0"])
_BETWEEN = st.sampled_from(["T", "T", "t", " "])
_ZONES = st.sampled_from(["Z", "Z", "z", "+01:00", "-0130", "+05", "-23:59", "+00:00"])
_ANY_ZONES = _ZONES | st.sampled_from(["", "+24:00", "+23:60", "+1", "+010", "Z ", " Z", "UTC", "+01:00:00", "-"])
_USUAL = st.builds("{}{}{}{}{}".format, _DATES, _BETWEEN, _CLOCKS, _SECONDS, _ZONES).map(str.encode)
_TEXTS = st.builds("{}{}{}{}{}".format, _ANY_DATES, _BETWEEN, _ANY_CLOCKS, _ANY_SECONDS, _ANY_ZONES).map(str.encode)
_EDGES = [
    b"1677-09-21T00:12:43.145224192Z",
    b"1677-09-21T00:12:43.145224191Z",
    b"1677-09-21T00:12:44Z",
    b"2262-04-11T23:47:16.854775807Z",
    b"2262-04-11T23:47:16.854775808Z",
    b"2262-04-12T23:46:16.854775807+23:59",
    b"2262-04-11T23:47:16.854775807-00:01",
    b"1677-09-20T00:13:43.145224192-23:59",
    b"0000-02-29T00:00Z",
    b"9999-12-31T23:59:59.999999999-23:59",
]


@settings(max_examples=120, deadline=None)
@given(blocks(_USUAL) | blocks(_TEXTS | st.sampled_from(_EDGES)))
def test_times_compare_as_instants(texts: list[bytes | None]) -> None:
    """What is accepted and the nanoseconds are those of Python's datetimes; reasons are by the rule that is broken."""
    assert_as_expected("time", texts, expect)


@pytest.mark.parametrize("text", _EDGES)
def test_the_ends_of_the_range(text: bytes) -> None:
    """Nanoseconds fill 64 bits: the last one within is accepted, the next one is not, whatever the zone."""
    assert read("time", text) == expected_outcome(text, expect)


def test_no_year_wraps() -> None:
    """A year beyond the range is refused, also if its nanoseconds fit 64 bits once they are cut."""
    years = range(10_000)
    found = outcomes_of("time", [b"%04d-06-15T12:00:00Z" % year for year in years])
    assert [year for year in years if isinstance(found[year], int)] == list(range(1678, 2262))
    alone = (read("time", b"%04d-06-15T12:00:00Z" % year) for year in (1, 1500, 1677, 2262, 2300, 2555, 9999))
    assert all(str(outcome).startswith("overflows a time: ") for outcome in alone)


@settings(max_examples=30, deadline=None)
@given(blocks(_TEXTS))
def test_equal_bytes_have_an_equal_fate(texts: list[bytes | None]) -> None:
    """The outcome of a text does not depend on what is beside it."""
    companions = [b"x", b"2020-01-01T00Z", b"2020-01-01T00:00:00Z", b"2020-02-29t00:00z", b"2262-04-11T00:00Z", b"\xff"]
    assert_equal_fate("time", texts, companions)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"2026-07-01 14:00:00.500+02:00", "2026-07-01T12:00:00.5Z"),
        (b"2026-07-01T12:00z", "2026-07-01T12:00:00Z"),
        (b"1969-12-31T23:59:59.999999999Z", "1969-12-31T23:59:59.999999999Z"),
        (b"1677-09-21T00:12:43.145224192Z", "1677-09-21T00:12:43.145224192Z"),
    ],
)
def test_times_are_shown_in_utc(text: bytes, expected: str) -> None:
    """The printed form has the digits that are needed, and is the time."""
    assert shown("time", text) == expected
    assert read("time", expected.encode()) == read("time", text)


_FACTORS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_INTEGERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-9_223_372_038, 9_223_372_038),
    st.integers(9_223_372_036_853, 9_223_372_036_856),
    st.integers(-9_223_372_036_856, -9_223_372_036_853),
    st.sampled_from([-(2**63) - 1, 2**63, 10**30]),
).map(lambda n: b"%d" % n) | st.sampled_from([b"0x1F", b"-0", b"0" * 30 + b"1", b"1.0", b"1e3"])


@pytest.mark.parametrize("unit", _FACTORS)
@settings(max_examples=20, deadline=None)
@given(texts=blocks(_INTEGERS))
def test_epochs(unit: str, texts: list[bytes | None]) -> None:
    """A time with a unit is an integer without hexadecimal digits, and overflows where its nanoseconds do."""

    def expect(text: bytes) -> int:
        bare = text.strip(b" \t")
        if not re.fullmatch(rb"-?[0-9]+", bare):
            raise ValueError(f"is not an integer: {excerpt(text)}")
        if not -(2**63) <= int(bare) * _FACTORS[unit] < 2**63:
            raise ValueError(f"overflows a time: {excerpt(text)}")
        return int(bare)

    assert_as_expected(f"time({unit})", texts, expect)
    assert_equal_fate(f"time({unit})", texts, [b"x", b"0x1F", b"9" * 30, b"9" * 19])


def test_all_times_have_one_scale() -> None:
    """A job may have times of each kind: the same instant is the same stored value."""
    assert read("time", b"1970-01-01T00:00:01Z") == 10**9
    assert [read(f"time({unit})", b"%d" % (10**9 // factor)) for unit, factor in _FACTORS.items()] == [10**9] * 4


@pytest.mark.parametrize("unit", _FACTORS)
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_native_timestamps(unit: str, zone: str | None) -> None:
    """Arrow's timestamps of any unit, checked for overflow."""
    most = (2**63 - 1) // _FACTORS[unit]
    column = pa.array([0, None, most, -most], pa.int64()).cast(pa.timestamp(unit, zone))
    assert outcomes("time", column) == [0, None, most * _FACTORS[unit], -most * _FACTORS[unit]]
    assert outcomes(f"time({unit})", column.cast(pa.int64())) == outcomes("time", column)


def test_native_overflow() -> None:
    """The reason names the time, or the integer."""
    far = pa.array([None, datetime(9999, 12, 31, tzinfo=UTC)], pa.timestamp("ms", "UTC"))
    assert outcomes("time", far) == [None, "overflows a time: '9999-12-31T00:00:00.000'"]
    assert outcomes("time(s)", pa.array([10**12])) == ["overflows a time: '1000000000000'"]
    assert outcomes("time", pa.array([date(9999, 12, 31)])) == ["overflows a time: '9999-12-31'"]


def test_native_dates() -> None:
    """A date is its midnight in UTC."""
    column = pa.array([date(2026, 7, 1), None, date(1969, 12, 31)])
    expected = outcomes_of("time", [b"2026-07-01T00:00Z", None, b"1969-12-31T00:00Z"])
    assert outcomes("time", column) == expected
