"""Shares of publishers: each partition once, none for nobody, balanced by rows."""

import pytest
from hypothesis import given, strategies as st

from tasks.manifests import KeyRange, SortedRows
from tasks.publishers.shares import count_partitions, divide_partitions


def make(name: str, counts: list[int]) -> SortedRows:
    """A sort whose partitions have so many rows."""
    ranges, row = [], 0
    for partition, count in enumerate(counts):
        ranges.append(KeyRange(partition, row, row + count))
        row += count
    return SortedRows(name, row, (), ("value",), 1000, tuple(ranges))


@given(st.lists(st.lists(st.integers(0, 1000), max_size=8), min_size=1, max_size=4), st.integers(1, 9))
def test_each_partition_with_rows_has_one_publisher(counts: list[list[int]], publishers: int) -> None:
    """I4: no partition has two publishers, and none that gets rows is left out."""
    sorts = [make(f"sort-{number}", of_sort) for number, of_sort in enumerate(counts)]
    shares = divide_partitions(sorts, publishers)
    given_out = [place for share in shares for place in share]
    wanted = [(f"sort-{n}", p) for n, of_sort in enumerate(counts) for p, count in enumerate(of_sort) if count]
    assert sorted(given_out) == sorted(wanted)
    assert len(wanted) == count_partitions(sorts)
    assert len(shares) == publishers
    if publishers <= len(wanted):
        assert all(shares)
    rows = {(f"sort-{n}", p): count for n, of_sort in enumerate(counts) for p, count in enumerate(of_sort)}
    loads = [sum(rows[place] for place in share) for share in shares]
    # No publisher has more than its part by more than one partition.
    assert max(loads) <= sum(loads) / publishers + max(rows.values(), default=0)


@pytest.mark.parametrize(
    ("counts", "publishers", "loads"),
    [([[100] * 4, [100] * 4, [100] * 4], 4, [300] * 4), ([[900, 100, 100, 100]], 2, [900, 300])],
    ids=["equal", "one heavy"],
)
def test_publishers_send_about_as_much(counts: list[list[int]], publishers: int, loads: list[int]) -> None:
    """Equal partitions are divided evenly, and a heavy one goes to a publisher of its own."""
    sorts = [make(f"sort-{number}", of_sort) for number, of_sort in enumerate(counts)]
    rows = {rows.sort: {r.partition: r.count for r in rows.ranges} for rows in sorts}
    shares = divide_partitions(sorts, publishers)
    assert [sum(rows[sort][partition] for sort, partition in share) for share in shares] == loads
