"""Windows of offsets: how much of each range is read."""

from tasks.kafka.windows import plan_windows
from tasks.manifests import OffsetRange


def test_what_is_sampled() -> None:
    """The sample has a bounded number of records over all ranges; a small range is read once, and whole."""
    small, large = OffsetRange(0, 5, 15), OffsetRange(3, 1000, 2001)
    assert list(plan_windows([small, large], 600, thorough=True)) == [
        {0: (5, 15), 3: (1000, 1100)},
        {3: (1450, 1550)},
        {3: (1901, 2001)},
    ]
    assert list(plan_windows([large], 600, thorough=False)) == [{3: (1000, 1600)}]
    many = [OffsetRange(p, 0, 10**9) for p in range(1000)]
    turns = list(plan_windows(many, 600, thorough=True))
    assert [sum(end - start for start, end in turn.values()) for turn in turns] == [1000, 1000, 1000]
