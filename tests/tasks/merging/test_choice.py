"""Which runs a merge takes, in which order they are, and what its record says of them."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from tasks.kafka.ledger import Ledger
from tasks.merging.choice import FormerRun, by_age, choose_runs, current_runs, join_checksums, join_covers
from tasks.run_record import MERGE, CoveredRuns, EarlierRuns, RunRecord, WrittenRange, WrittenSort

MADE = RunRecord("j", 1, "a", "s", "i", {}, (), (), 5, "d", 1, {"sum": "05"}, (), "", "", ledger=2)


def run(number: int, records: int = 5, *covers: tuple[int, int]) -> RunRecord:
    return replace(
        MADE,
        run=number,
        records=records,
        dead_letters=0,
        covers=tuple(CoveredRuns(*c) for c in covers),
        requires=(MERGE,),
    )


def runs(*records: RunRecord) -> tuple[FormerRun, ...]:
    return tuple(map(FormerRun.of, records))


def sizes(*counts: int) -> dict[int, int]:
    return dict(enumerate(counts, 1))


@pytest.mark.parametrize(
    ("most", "taken"),
    [(100, [1, 2, 3, 4]), (30, [1, 2, 3, 4]), (29, [1, 2, 3]), (15, [1, 2]), (14, []), (0, [])],
    ids=["all", "exactly-all", "three", "two", "one", "none"],
)
def test_the_first_that_fit(most: int, taken: list[int]) -> None:
    """As many of the first runs as fit are taken; one alone is no merge."""
    chosen = choose_runs(runs(*(run(n) for n in (1, 2, 3, 4))), sizes(10, 5, 5, 10), most)
    assert [one.number for one in chosen] == taken


def test_runs_without_records_are_no_merge() -> None:
    """Of runs that fit, two must have records; those without come along."""
    current = runs(*(run(n) for n in (1, 2, 3)))
    assert choose_runs(current, sizes(0, 5, 0), 100) == ()
    assert choose_runs(current, sizes(0, 5, 1), 100) == current


def test_no_run_that_stays_lies_between() -> None:
    """Run 9 has the records of runs 1 and 2, which are older than 4, so it is not left alone between 4 and 8."""
    current = runs(run(4), run(8, 5, (3, 3)), run(9, 5, (1, 2)))
    few = {4: 1, 8: 1, 9: 100}
    assert [one.number for one in choose_runs(current, few, 50)] == [4, 8]
    torn = runs(run(4), run(8, 5, (1, 1), (2, 2)), run(9, 5, (3, 3)))
    assert choose_runs(torn, {4: 1, 8: 1, 9: 100}, 50) == ()
    assert [one.number for one in by_age(torn)] == [8, 9, 4]


@given(st.integers(0, 2**32))
def test_merge_after_merge_keeps_the_order(seed: int) -> None:
    """Whatever fits each time, runs of the source are covered once, in their order, and none of a merge is torn."""
    chance, ledger = random.Random(seed), dict[int, RunRecord]()
    # Run → the runs of the source that went into it.
    contents: dict[int, list[int]] = {}
    for number in range(1, 25):
        current = current_runs(Ledger(ledger.get(number - 1), ledger))
        counts = {one.number: one.records for one in current}
        chosen = choose_runs(current, counts, chance.choice([20, 40, 100])) if chance.random() < 0.5 else ()
        if not chosen:
            ledger[number], contents[number] = run(number, chance.randint(1, 20)), [number]
            continue
        aged = by_age(chosen)
        ledger[number] = replace(run(number, sum(one.records for one in aged)), covers=join_covers(aged))
        contents[number] = [source for one in aged for source in contents.pop(one.number)]
        covered = [n for c in ledger[number].covers for n in range(c.first, c.last + 1)]
        assert len(covered) == len(set(covered))
        assert not set(covered) & contents.keys()
    current = by_age(current_runs(Ledger(ledger[24], ledger)))
    assert [one.number for one in current] == sorted(contents, key=lambda n: contents[n])
    flat = [source for one in current for source in contents[one.number]]
    assert flat == sorted(flat)


def test_checksums_are_added() -> None:
    """They are sums, modulo 2⁶⁴; one that is not known makes the sum unknown."""
    first, second = runs(replace(MADE, checksum={"sum": "f" * 16}), replace(MADE, run=2, checksum={"sum": "03"}))
    assert join_checksums([first, second]) == f"{2:016x}"
    assert join_checksums([first, replace(second, checksum="")]) == ""


def written(topic_id: str, count: int, superseded: int = 0) -> WrittenSort:
    ranges = (WrittenRange(0, 0, count - 1, count),)
    left_out = f"{superseded:016x}" if superseded else ""
    return WrittenSort("o", topic_id, "id", ranges, "01", superseded=superseded, superseded_checksum=left_out)


def test_folded_runs_come_first() -> None:
    """What is folded is one run of which the order is not known; once a merge has covered it, it is none."""
    folded = EarlierRuns("j", 1, 7, 20, 2, (written("t", 18),))
    ledger = Ledger(run(9), {8: run(8), 9: run(9)}, folded)
    first, *others = current_runs(ledger)
    assert (first.number, first.records, first.is_known, first.is_ordered) == (7, 18, False, False)
    assert (first.covers, first.ages, [one.number for one in others]) == ((CoveredRuns(1, 7),), (1, 7), [8, 9])
    covering = run(10, 5, (1, 9))
    assert [one.number for one in current_runs(Ledger(covering, {**ledger.runs, 10: covering}, folded))] == [10]


def test_folding_counts_no_record_twice() -> None:
    """A merge that left runs behind is folded beside them, and what it covers is not counted any more."""
    records = {n: replace(run(n), sorts=(written("t", 5),)) for n in (1, 2, 3, 4)}
    records[5] = replace(run(5, 10, (1, 2)), sorts=(written("t", 7, 3),))
    ledger = Ledger(records[4], {n: records[n] for n in (1, 2, 3, 4)}, footprints=feet(records, 1, 2, 3, 4))
    ledger = ledger.followed_by(records[5])
    for number in (1003, 1004, 1005):
        ledger = ledger.followed_by(replace(run(number), sorts=(written("t", 5),)))
        assert ledger.earlier is not None
        assert ledger.earlier.last_run == number - 1000
    assert ledger.earlier is not None
    assert (ledger.earlier.placed, ledger.earlier.sorts[0].count) == (20, 17)
    assert (ledger.earlier.sorts[0].superseded, ledger.earlier.sorts[0].superseded_checksum) == (3, f"{3:016x}")


def feet(records: dict[int, RunRecord], *numbers: int) -> dict[int, bytes]:
    return {n: EarlierRuns.of(records[n]).to_json() for n in numbers}
