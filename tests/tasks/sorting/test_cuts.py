"""Cutting sorted rows into output partitions."""

import hypothesis.strategies as st
from hypothesis import given

from tasks.manifests import Key
from tasks.sorting.cuts import cut_counts, cut_rows

KEYS = st.lists(st.tuples(st.integers(0, 9)), max_size=60).map(sorted) | st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["a", "b"])), max_size=60
).map(lambda keys: sorted(keys, reverse=True))


@given(KEYS, st.integers(1, 70))
def test_ranges_cover_all_rows_in_order(keys: list[Key], partitions: int) -> None:
    """Every row is in exactly one range, and the ranges follow one another."""
    ranges = cut_rows(keys, partitions)
    assert [r.partition for r in ranges] == list(range(partitions))
    assert [row for r in ranges for row in range(r.first_row, r.end_row)] == list(range(len(keys)))


@given(KEYS, st.integers(1, 70))
def test_equal_keys_stay_together(keys: list[Key], partitions: int) -> None:
    """No key is in two ranges, even if keys are few and partitions many."""
    seen: set[Key] = set()
    for r in cut_rows(keys, partitions):
        inside = set(keys[r.first_row : r.end_row])
        assert not inside & seen
        seen |= inside


@given(KEYS, st.integers(1, 70))
def test_no_other_key_change_is_nearer_to_the_quantile(keys: list[Key], partitions: int) -> None:
    """Ranges are as even as whole keys permit: each cut is the key change nearest to its quantile."""
    changes = [0, *(i for i in range(1, len(keys)) if keys[i] != keys[i - 1]), len(keys)]
    for i, r in enumerate(cut_rows(keys, partitions)[1:], 1):
        quantile = len(keys) * i // partitions
        assert abs(r.first_row - quantile) == min(abs(change - quantile) for change in changes)


@given(KEYS, st.integers(1, 70))
def test_split_ranges_differ_by_one_row(keys: list[Key], partitions: int) -> None:
    """With `split_heavy_keys` the ranges are even whatever the keys."""
    counts = [r.count for r in cut_rows(keys, partitions, split_heavy_keys=True)]
    assert max(counts) - min(counts) <= 1


@given(KEYS, st.integers(1, 70))
def test_ranges_name_their_first_and_last_key(keys: list[Key], partitions: int) -> None:
    """The boundaries that go to the ledger are the keys at the edges."""
    for r in cut_rows(keys, partitions):
        expected = (keys[r.first_row], keys[r.end_row - 1]) if r.count else (None, None)
        assert (r.first_key, r.last_key) == expected


@given(st.lists(st.integers(0, 5), max_size=9))
def test_ranges_of_known_sizes(counts: list[int]) -> None:
    """If the partition leads the order, each range has the rows of its partition, and names its own keys."""
    keys: list[Key] = [(partition, row) for partition, count in enumerate(counts) for row in range(count)]
    ranges = cut_counts(keys, counts)
    assert [(r.partition, r.count) for r in ranges] == list(enumerate(counts))
    for r in (r for r in ranges if r.count):
        assert (r.first_key, r.last_key) == ((r.partition, 0), (r.partition, r.count - 1))
