"""The offsets that a run reads: caps, equal parts, limits of a transaction, lost offsets.

Without a broker; what Kafka has to do with it is in tests/flows/test_source.py.
"""

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from tasks.manifests import LostRange, OffsetRange, Snapshot
from tasks.snapshot import cap_offsets, find_lost, fit_transaction, split_evenly

SPANS = st.lists(st.integers(0, 10**6), min_size=1, max_size=8)


def make(spans: list[int], mean: float = 50.0) -> Snapshot:
    ranges = tuple(OffsetRange(p, 7 * p, 7 * p + span) for p, span in enumerate(spans))
    return Snapshot(1, "t", ranges, mean_record_bytes=mean)


@given(SPANS, st.integers(1, 10**6))
def test_a_cap_is_kept_and_used(spans: list[int], most: int) -> None:
    """All that a cap permits is taken, each partition in proportion, from the start of its range."""
    whole = make(spans)
    capped = cap_offsets(whole, most, "max_records")
    assert capped.span == min(most, whole.span)
    assert bool(capped.capped) == (whole.span > most)
    for before, after in zip(whole.ranges, capped.ranges, strict=True):
        assert before.start == after.start
        assert abs(after.span - before.span * capped.span / max(whole.span, 1)) <= 1


@given(SPANS, st.integers(1, 10**6))
def test_equal_parts(spans: list[int], most: int) -> None:
    """A partition gets less than another only if it has no more."""
    whole = make(spans)
    parts = split_evenly(whole, most)
    assert parts.span <= most or parts is whole
    largest = max(r.span for r in parts.ranges)
    for before, after in zip(whole.ranges, parts.ranges, strict=True):
        assert after.span == before.span or after.span >= largest - len(spans)


def test_a_batch_is_shared_fairly() -> None:
    """Each partition gets an equal part, and what one does not need goes to the others."""
    snapshot = Snapshot(1, "id", tuple(OffsetRange(p, 10, 10 + n) for p, n in enumerate((100_000, 5, 400, 0))))
    assert [r.span for r in split_evenly(snapshot, 1000).ranges] == [595, 5, 400, 0]
    assert [r.span for r in split_evenly(snapshot, 300).ranges] == [148, 5, 147, 0]
    assert split_evenly(snapshot, 200_000) is snapshot


def test_no_cap() -> None:
    """Without a limit, or within it, a snapshot is left as it is."""
    whole = make([5, 5])
    assert cap_offsets(whole, None, "max_records") is whole
    assert cap_offsets(whole, 10, "max_records") is whole


def test_what_fits_a_transaction() -> None:
    """The planned time of publishing is at most 70 % of the timeout; twice the sorts take half the records."""
    one = fit_transaction(make([10**9]), 1, 900.0)
    two = fit_transaction(make([10**9]), 2, 900.0)
    assert one.span == pytest.approx(900 * 0.7 * 400_000)
    assert abs(two.span - one.span // 2) <= 1
    assert one.capped == "the transaction timeout"
    # Large records are planned by their bytes: 40 MB/s.
    assert fit_transaction(make([10**9], mean=9_960.0), 1, 100.0).span == pytest.approx(100 * 0.7 * 4000)


def test_several_publishers_take_so_many_times_more() -> None:
    """The cap counts each publisher; its reason stays the same."""
    one, four = (fit_transaction(replace(make([10**9]), publishers=k), 3, 100.0) for k in (1, 4))
    assert four.span == pytest.approx(4 * one.span, rel=1e-6)
    assert four.capped == one.capped == "the transaction timeout"


def test_a_transaction_takes_an_offset_of_each_partition_at_least() -> None:
    """However short the timeout, a job goes on."""
    assert fit_transaction(make([100, 100], mean=1e9), 3, 1.0).span == 2


def test_what_was_lost() -> None:
    """Offsets are lost only if the log begins behind the position; partitions are in order."""
    assert find_lost({0: 5, 1: 9, 2: 0}, {2: 4, 0: 5, 1: 8}) == (LostRange(2, 0, 4),)
