"""Shares: which publisher sends which output partitions. Invariant I4: each partition has one publisher."""

import heapq
from collections.abc import Iterable, Sequence

from tasks.manifests import SortedRows

# The output partitions of one publisher: the name of a sort, and a partition, in the order of sorts and partitions.
Share = tuple[tuple[str, int], ...]


def count_partitions(sorts: Iterable[SortedRows]) -> int:
    """Return how many output partitions get rows: more publishers would have nothing to send."""
    return sum(1 for rows in sorts for key_range in rows.ranges if key_range.count)


def divide_partitions(sorts: Sequence[SortedRows], count: int) -> list[Share]:
    """Divide all partitions that get rows among so many publishers, so that these send about as many rows each.

    The largest partition comes first, to the publisher that has the fewest rows so far: none gets more than 4/3 of the
    least possible (R. L. Graham, Bounds on Multiprocessing Timing Anomalies, 1969).
    """
    places = [(rows.sort, r.partition, r.count) for rows in sorts for r in rows.ranges if r.count]
    loads, given = [(0, number) for number in range(count)], [set[int]() for _ in range(count)]
    for index in sorted(range(len(places)), key=lambda i: (-places[i][2], i)):
        load, number = heapq.heappop(loads)
        given[number].add(index)
        heapq.heappush(loads, (load + places[index][2], number))
    return [tuple(places[index][:2] for index in sorted(indices)) for indices in given]
