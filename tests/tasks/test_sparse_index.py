"""The sparse index: what a run writes to it, and what a reader finds in it."""

from bisect import bisect_left
from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import given

from tasks.kafka.ledger import KEPT_RUNS, Ledger
from tasks.run_record import CoveredRuns, EarlierRuns, RunRecord, WrittenRange, WrittenSort
from tasks.sparse_index import EVERY, IndexPart, index_changes, index_lines, part_keys, sampled_rows

RECORD = RunRecord(
    job="j",
    run=1,
    attempt="a",
    source_topic="s",
    source_topic_id="",
    format={},
    read=(),
    lost=(),
    records=1,
    dead_letter_topic="d",
    dead_letters=0,
    checksum={},
    sorts=(),
    started="",
    published="",
)


def record_of(run: int, count: int, **facts: object) -> RunRecord:
    sorts = (WrittenSort("t", "id", "c", (WrittenRange(0, 500, 499 + count, count),)),)
    return replace(RECORD, run=run, sorts=sorts, **facts)  # type: ignore[arg-type]  # named by the test


def parts_of(record: RunRecord, keys: list[bytes]) -> list[IndexPart]:
    changes = list(index_changes(Ledger(None, {}), record, {"t": {0: index_lines(keys)}}))
    parts = [IndexPart.parse(value) for _, value in changes if value is not None]
    return [part for part in parts if part is not None]


@given(st.lists(st.binary(max_size=70), min_size=2, max_size=20), st.binary(max_size=70))
def test_the_entry_before_a_key(keys: list[bytes], wanted: bytes) -> None:
    """The entry found comes before the key, and of those that are not cut it is the last one."""
    keys.sort()
    [part] = parts_of(record_of(1, len(keys) * EVERY), keys)
    found = part.find(wanted)
    place = 0 if found is None else (found - 500) // EVERY + 1
    exact = bisect_left(keys, wanted)
    assert place <= exact
    assert all(len(key) > 64 for key in keys[place:exact])


def test_small_partitions_have_none() -> None:
    """Where a search takes no more reads there is nothing to write."""
    assert parts_of(record_of(1, 2 * EVERY - 1), []) == []
    assert sampled_rows(10, 10 + 2 * EVERY) == range(10, 10 + 2 * EVERY, EVERY)


def test_large_partitions_have_several_records() -> None:
    """Each record stays small, and says where it begins."""
    rows = 12_000 * EVERY
    keys = [b"%07d" % i for i in range(12_000)]
    parts = parts_of(record_of(1, rows), keys)
    assert [(part.first, len(part.entries)) for part in parts] == [
        (500, 5000),
        (500 + 5000 * EVERY, 5000),
        (500 + 10_000 * EVERY, 2000),
    ]
    assert all(part.attempt == "a" for part in parts)
    assert parts[1].find(keys[7000]) == 500 + 6999 * EVERY


def test_a_later_version_is_left_alone() -> None:
    """A reader that does not know it searches without."""
    assert IndexPart.parse(b'{"version": 2}\n?') is None


def test_runs_that_are_gone_have_none() -> None:
    """A run deletes what the index has of the runs that it covers, once, and of those that it folds."""
    written = {run: record_of(run, 2 * EVERY) for run in (1, 2, 3)}
    footprints = {run: EarlierRuns.of(record).to_json() for run, record in written.items()}
    lines = {"t": {0: index_lines([b"a", b"b"])}}

    def deleted(ledger: Ledger, record: RunRecord) -> list[bytes]:
        return [key for key, value in index_changes(ledger, record, lines) if value is None]

    ledger = Ledger(written[3], written, footprints=footprints)
    covering = record_of(4, 2 * EVERY, covers=(CoveredRuns(1, 3),))
    assert deleted(ledger, covering) == [part_keys(run, "t", 0, 2 * EVERY)[0] for run in (1, 2, 3)]
    assert deleted(ledger.followed_by(covering), record_of(5, 2 * EVERY)) == []
    again = record_of(5, 2 * EVERY, covers=(CoveredRuns(1, 4),))
    assert deleted(ledger.followed_by(covering), again) == list(part_keys(4, "t", 0, 2 * EVERY))
    assert deleted(ledger, record_of(KEPT_RUNS + 2, 2 * EVERY)) == [
        part_keys(run, "t", 0, 2 * EVERY)[0] for run in (1, 2)
    ]
