"""What no run wrote is looked for in the gaps between the runs, and current outputs are known as such."""

from itertools import pairwise

from hypothesis import given, strategies as st

from tasks.replacement import find_gaps
from tasks.run_record import ReadRange, join_ranges

# Lengths of a gap and of a run, in turns.
STEPS = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5)), max_size=6)


@given(STEPS, st.integers(0, 30), st.integers(0, 40))
def test_gaps_are_all_that_is_not_a_runs(steps: list[tuple[int, int]], start: int, span: int) -> None:
    """The gaps are the offsets that belong to no run and are no marker of a run's commit, each once."""
    ranges, end, known = [], 0, set[int]()
    for gap, length in steps:
        ranges.append((end + gap, end + gap + length))
        known |= set(range(end + gap, end + gap + length + 1))
        # The marker of the run comes before all that follows.
        end += gap + length + 1
    found = [offset for first, stop in find_gaps(ranges, start, start + span) for offset in range(first, stop)]
    assert found == [offset for offset in range(start, start + span) if offset not in known]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 20), st.integers(0, 6)), max_size=12))
def test_joined_ranges_hold_the_same_offsets(items: list[tuple[int, int, int]]) -> None:
    """Joined ranges hold each offset of the given ones once, in order, and no two of them touch."""
    ranges = [ReadRange(partition, start, start + span) for partition, start, span in items]
    joined = join_ranges(ranges)
    places = [(r.partition, offset) for r in joined for offset in range(r.start, r.end)]
    assert places == sorted({(r.partition, offset) for r in ranges for offset in range(r.start, r.end)})
    assert all(a.partition < b.partition or a.end < b.start for a, b in pairwise(joined))
