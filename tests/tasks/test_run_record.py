"""The run record: what it keeps over versions, and how old runs are folded into one record."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from tasks.run_record import CoveredRuns, DeletedRange, EarlierRuns, ReadRange, RunRecord, WrittenRange, WrittenSort

# The bytes of a ledger of format 1.
FORMAT_1 = (
    b'{"job":"orders","run":2,"attempt":"9f1c","source_topic":"orders","source_topic_id":"Zk1w","format":{"columns":'
    b'"id:int,name","delimiter":","},"read":[{"partition":0,"start":10,"end":25},{"partition":1,"start":0,"end":7}],'
    b'"lost":[{"partition":1,"start":0,"end":2}],"records":20,"dead_letter_topic":"orders-dead-letters",'
    b'"dead_letters":1,"checksum":{"name":"multilinear64-fmix64-sum","sum":"00000000000000ff"},"sorts":[{"topic":'
    b'"orders-by-id","topic_id":"b3Jk","columns":"id","partitions":[{"partition":0,"first":4,"last":13,"count":10,'
    b'"first_key":[3],"last_key":[71]},{"partition":1,"first":2,"last":10,"count":9,"first_key":[72],"last_key":[99]}]}'
    b'],"started":"2026-11-01T10:00:00.000+00:00","published":"2026-11-01T10:00:02.000+00:00","seconds":{"dump":0.5,'
    b'"sort":0.1,"publish":0.2},"options":{"append":false},"version":"0.1.0","skipped":[]}'
)
MADE = RunRecord("j", 1, "a", "s", "i", {}, (), (), 5, "d", 1, {}, (), "", "", ledger=2)


def sort(first: int, count: int, checksum: int, partition: int = 0, topic_id: str = "t") -> WrittenSort:
    written = WrittenRange(partition, first, first + count - 1, count, ("a",), ("b",), "YQ==", "Yg==")
    return WrittenSort("o", topic_id, "name", (written,), f"{checksum:016x}")


def test_a_record_of_format_1_is_read_as_it_is() -> None:
    """A record from before formats had a version: all it says is there, and nothing is made up."""
    record = RunRecord.from_json(FORMAT_1)
    assert (record.run, record.records, record.ends) == (2, 20, {0: 25, 1: 7})
    assert record.sorts[0].partitions[1] == WrittenRange(1, 2, 10, 9, (72,), (99,))
    assert (record.ledger, record.requires, record.sorts[0].checksum) == (1, (), "")


# The bytes of a ledger of format 2, from before outputs had partitions by hash and record keys of their own.
FORMAT_2 = (
    b'{"job":"orders","run":3,"attempt":"0b65","source_topic":"orders","source_topic_id":"Zk1w","format":{"columns":'
    b'"id:int,name","name":"csv","delimiter":",","rules":"2"},"read":[{"partition":0,"start":25,"end":30}],"lost":[],'
    b'"records":5,"dead_letter_topic":"orders-dead-letters","dead_letters":0,"checksum":{"name":'
    b'"multilinear64-fmix64-sum","sum":"00000000000000ff"},"sorts":[{"topic":"orders-by-id","topic_id":"b3Jk",'
    b'"columns":"id","partitions":[{"partition":0,"first":15,"last":19,"count":5,"first_key":[3],"last_key":[71],'
    b'"first_bound":"gAAAAAAAAAM=","last_bound":"gAAAAAAAAEc="}],"checksum":"00000000000000ff"}],"started":'
    b'"2026-11-20T10:00:00.000+00:00","published":"2026-11-20T10:00:02.000+00:00","seconds":{"dump":0.5},"options":'
    b'{"append":false,"split_heavy_keys":false,"timestamps":"new"},"version":"0.1.0","skipped":[],"ledger":2,'
    b'"requires":[]}'
)


@pytest.mark.parametrize("data", [FORMAT_1, FORMAT_2])
def test_former_records_are_of_ranges_with_the_sources_keys(data: bytes) -> None:
    """A record that says nothing of partitions and record keys is one of what there was then."""
    record = RunRecord.from_json(data)
    assert (record.partition_by, record.output_key, record.requires) == ("range", "keep", ())
    assert record.sorts[0].partition_count == 0


def test_a_record_comes_back() -> None:
    """A record is read as it was written, nested parts and empty ones included."""
    record = replace(MADE, sorts=(sort(0, 5, 7), WrittenSort("p", "u", "id", ())), requires=("merge",))
    assert RunRecord.from_json(record.to_json()) == record


def test_a_record_that_covers_others_comes_back_as_it_was() -> None:
    """What a run covers, what may be deleted, and how many dead letters it wrote, are read as they were written."""
    output = replace(sort(0, 5, 7), delete_before=(DeletedRange(0, 12), DeletedRange(1, 0)))
    record = replace(
        MADE, run=9, sorts=(output,), covers=(CoveredRuns(1, 5), CoveredRuns(7, 8)), dead_letters_written=0
    )
    assert RunRecord.from_json(record.to_json()) == record
    covered = [n for n in range(1, 12) if replace(MADE, run=n).is_covered_by([record])]
    assert covered == [1, 2, 3, 4, 5, 7, 8]


def test_folded_runs_know_what_they_read() -> None:
    """Folded runs know what was read of the newest topic by the newest rules, and nothing of others."""

    def run(number: int, start: int, end: int, topic: str = "i", rules: str = "2") -> EarlierRuns:
        read = (ReadRange(0, start, end),)
        return EarlierRuns.of(replace(MADE, run=number, read=read, source_topic_id=topic, format={"rules": rules}))

    joined = run(1, 0, 5).joined(run(2, 5, 9)).joined(run(3, 12, 15))
    assert EarlierRuns.from_json(joined.to_json()) == joined
    assert (joined.reading, joined.read) == (("i", "2", "d"), (ReadRange(0, 0, 9), ReadRange(0, 12, 15)))
    others = [run(4, 0, 3, topic="new"), run(4, 0, 3, rules="3"), replace(run(4, 0, 3), dead_letter_topic="new")]
    assert [joined.joined(other).read for other in others] == [(ReadRange(0, 0, 3),)] * 3
    of_an_older_version = replace(joined, dead_letter_topic="")
    assert of_an_older_version.joined(run(4, 15, 20)) == joined.joined(run(4, 15, 20))


def test_fields_of_a_later_version_are_passed_over() -> None:
    """At every level, a later version may add fields that this one does not need."""
    raw = json.loads(replace(MADE, sorts=(sort(0, 5, 7),), ledger=3).to_json())
    raw["mirrors"] = [1]
    raw["sorts"][0]["kind"] = "topic"
    raw["sorts"][0]["partitions"][0]["index"] = {"every": 1000}
    record = RunRecord.from_json(json.dumps(raw).encode())
    assert record == replace(MADE, sorts=(sort(0, 5, 7),), ledger=3)


def test_runs_are_folded_by_output_partition() -> None:
    """Offsets, counts and checksums are folded; a recreated topic is another output; no run is forgotten."""
    runs = [
        replace(MADE, run=1, sorts=(sort(0, 5, 2**64 - 1),)),
        replace(MADE, run=2, sorts=(sort(7, 3, 2), sort(0, 1, 4, topic_id="recreated"))),
        replace(MADE, run=3, sorts=(sort(3, 2, 5, partition=1),)),
    ]
    first, *others = map(EarlierRuns.of, runs)
    folded = first.joined(others[0]).joined(others[1])
    assert (folded.first_run, folded.last_run, folded.records, folded.dead_letters) == (1, 3, 15, 3)
    old, recreated = folded.sorts
    assert old.partitions == (WrittenRange(0, 0, 9, 8), WrittenRange(1, 3, 4, 2))
    assert old.checksum == f"{6:016x}"
    assert recreated.partitions == (WrittenRange(0, 0, 0, 1),)
    assert EarlierRuns.from_json(folded.to_json()) == folded


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 2**64 - 1)), min_size=2, max_size=6), st.data())
def test_it_does_not_matter_when_runs_are_folded(runs: list[tuple[int, int]], data: st.DataObject) -> None:
    """One fold at a time or several at once give the same record."""
    ends = [0]
    for count, _ in runs:
        ends.append(ends[-1] + count + 1)
    made = [
        EarlierRuns.of(replace(MADE, run=i + 1, sorts=(sort(ends[i], count, checksum),)))
        for i, (count, checksum) in enumerate(runs)
    ]
    cut = data.draw(st.integers(1, len(made) - 1))
    whole, left, right = made[0], made[0], made[cut]
    for run in made[1:]:
        whole = whole.joined(run)
    for run in made[1:cut]:
        left = left.joined(run)
    for run in made[cut + 1 :]:
        right = right.joined(run)
    assert left.joined(right) == whole


def test_a_sum_with_a_run_of_format_1_is_unknown() -> None:
    """Its sorts have no checksum of their own, so a record that folds it has none either."""
    old = EarlierRuns.of(RunRecord.from_json(FORMAT_1))
    assert old.joined(replace(old, first_run=3, last_run=3)).sorts[0].checksum == ""
