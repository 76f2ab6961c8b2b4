"""Merges of what is not as its run left it: expired, recreated, altered, folded, foreign; and what is refused."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from kafka_sort import SortedTopic
from tasks.dump import DUMP
from tasks.errors import SettingsError, TerminalError
from tasks.kafka.lease import LeaseTakenError
from tasks.kafka.ledger import EARLIER, LAST, run_key
from tasks.merging.merge import UnfitRecordError
from tasks.publication import Publication
from tasks.publishers.rows import ContentError
from tasks.run_record import CoveredRuns, EarlierRuns, RunRecord
from tasks.runners import ThreadRunner
from tasks.settings.job import Job
from tasks.snapshot import take_snapshot
from tasks.sorting.newest import Newest
from tasks.source import SourceRecreatedError
from tasks.stage import Q, R, Stage
from tasks.targets.base import OutputChangedError
from tests.cluster import Cluster, Record, sample_values, sort_key
from tests.flows.test_replace_again import replace_all
from tests.merges import assert_outputs, by_sort, fill, merge, must_merge, records_of
from tests.stages import make_job, owned, run_settled


def one_sort(cluster: Cluster, folder: Path, **over: object) -> Job:
    source = cluster.make_topic(1)
    return make_job(source, folder, **{"sorts": [f"id=o-{source}"], **over})


def batches(count: int, size: int = 20) -> list[list[bytes | None]]:
    return [[*sample_values(size, seed=seed, ids=10)] for seed in range(count)]


def values_of(cluster: Cluster, topic: str) -> list[bytes | None]:
    return [r.value for r in records_of(cluster, topic)]


def rewrite(cluster: Cluster, job: Job, record: RunRecord, *, is_last: bool = False) -> None:
    """Put another record of a run into the ledger."""
    keys = [run_key(record.run), *([LAST] if is_last else [])]
    cluster.produce_records(job.ledger, [Record(record.to_json(), key) for key in keys])


def assert_unchanged(cluster: Cluster, job: Job, runs: list[list[Record]]) -> None:
    assert not any(record.covers for record in cluster.ledger(job).runs.values())
    assert_outputs(cluster, job, *([run] for run in runs))


@pytest.mark.slow
def test_what_has_expired(cluster: Cluster, tmp_path: Path) -> None:
    """What retention has removed is counted for each output, also by later merges; the rest is there in order."""
    source = cluster.make_topic(1)
    job = make_job(source, tmp_path, sorts=[f"id=o-{source}", f"name=p-{source}"])
    read = fill(cluster, job, tmp_path, batches(3))
    topic = job.sort_list[0].topic
    second = cluster.ledger(job).runs[2].sorts[0].partitions[0]
    cluster.delete_below(topic, {0: second.first + 5})
    record = must_merge(cluster, job, tmp_path)
    assert [sort.expired for sort in record.sorts] == [25, 0]
    assert record.records == 60
    left = [*by_sort(job, 0, read[1])[5:], *read[2]]
    assert records_of(cluster, topic) == by_sort(job, 0, left)
    assert records_of(cluster, job.sort_list[1].topic) == by_sort(job, 1, [r for run in read for r in run])
    [later] = fill(cluster, job, tmp_path, batches(1))
    first = record.sorts[0].partitions[0]
    cluster.delete_below(topic, {0: first.first + 2})
    again = must_merge(cluster, job, tmp_path)
    assert [sort.expired for sort in again.sorts] == [27, 0]
    assert records_of(cluster, topic) == by_sort(job, 0, [*by_sort(job, 0, left)[2:], *later])


@pytest.mark.slow
def test_outputs_that_are_empty_by_now(cluster: Cluster, tmp_path: Path) -> None:
    """Runs of which nothing is left are nothing to merge; beside an output that has records, all of one expired."""
    source = cluster.make_topic(1)
    job = make_job(source, tmp_path, sorts=[f"id=o-{source}", f"name=p-{source}"])
    fill(cluster, job, tmp_path, batches(2))
    first, second = (sort.topic for sort in job.sort_list)
    cluster.delete_below(first, cluster.ends(first))
    record = must_merge(cluster, job, tmp_path)
    assert [(sort.expired, sort.count) for sort in record.sorts] == [(40, 0), (0, 40)]
    fill(cluster, job, tmp_path, batches(1))
    for topic in (first, second):
        cluster.delete_below(topic, cluster.ends(topic))
    assert merge(cluster, job, tmp_path) is None
    assert merge(cluster, job, tmp_path, Newest()) is None


@pytest.mark.slow
def test_retention_beside_it(cluster: Cluster, tmp_path: Path) -> None:
    """What expires while an output is read is counted as well: the source has lost nothing."""
    job = one_sort(cluster, tmp_path)
    read = fill(cluster, job, tmp_path, batches(2))
    topic = job.sort_list[0].topic

    class Expiring(ThreadRunner):
        def run(self, stage: Stage[Q, R], requests: Sequence[Q]) -> list[R]:
            if stage.name == DUMP.name:
                cluster.delete_below(topic, {0: 7})
            return super().run(stage, requests)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.merges.ThreadRunner", Expiring)
        record = must_merge(cluster, job, tmp_path)
    assert (record.sorts[0].expired, record.lost) == (7, ())
    assert records_of(cluster, topic) == by_sort(job, 0, [*by_sort(job, 0, read[0])[7:], *read[1]])


@pytest.mark.slow
def test_a_recreated_output(cluster: Cluster, tmp_path: Path) -> None:
    """What was in the topic that is gone is expired; runs go on in the new one, and a later merge deletes there."""
    source = cluster.make_topic(1)
    job = make_job(source, tmp_path, sorts=[f"id=o-{source}", f"name=p-{source}"])
    read = fill(cluster, job, tmp_path, batches(2))
    topic = job.sort_list[0].topic
    cluster.delete_topic(topic)
    cluster.make_topic(1, name=topic)
    record = must_merge(cluster, job, tmp_path)
    assert [sort.expired for sort in record.sorts] == [40, 0]
    assert records_of(cluster, topic) == []
    [later] = fill(cluster, job, tmp_path, batches(1))
    assert [sort.expired for sort in must_merge(cluster, job, tmp_path).sorts] == [40, 0]
    assert records_of(cluster, topic) == by_sort(job, 0, later)
    assert records_of(cluster, job.sort_list[1].topic) == by_sort(job, 1, [r for run in (*read, later) for r in run])


@pytest.mark.slow
def test_runs_that_stay_in_a_topic_that_is_gone(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offsets of a deleted topic say nothing of what may be deleted in the one of the same name."""
    source = cluster.make_topic(1)
    job = make_job(source, tmp_path, sorts=[f"id=o-{source}", f"name=p-{source}"])
    read = fill(cluster, job, tmp_path, batches(3))
    topic = job.sort_list[0].topic
    cluster.delete_topic(topic)
    cluster.make_topic(2, name=topic)
    monkeypatch.setattr("tasks.merging.plan.most_records", lambda *_: 40)
    record = must_merge(cluster, job, tmp_path)
    assert record.covers == (CoveredRuns(1, 2),)
    assert [d.before for d in record.sorts[0].delete_before] == [0, 0]
    merged = [r for run in read[:2] for r in run]
    output = job.sort_list[1]
    assert records_of(cluster, output.topic) == [*by_sort(job, 1, read[2]), *by_sort(job, 1, merged)]


@pytest.mark.slow
def test_an_output_that_is_gone(cluster: Cluster, tmp_path: Path) -> None:
    """Nothing is created in its place."""
    job = one_sort(cluster, tmp_path)
    fill(cluster, job, tmp_path, batches(2))
    cluster.delete_topic(job.sort_list[0].topic)
    with pytest.raises(TerminalError, match=f"output {job.sort_list[0].topic} is gone"):
        merge(cluster, job, tmp_path)
    assert cluster.ends(job.sort_list[0].topic) == {}


@pytest.mark.slow
def test_a_recreated_source(cluster: Cluster, tmp_path: Path) -> None:
    """A merge reads the outputs alone, so a source with fewer partitions than the runs read does not matter to it."""
    source = cluster.make_topic(3)
    job = make_job(source, tmp_path)
    read = fill(cluster, job, tmp_path, batches(2))
    cluster.delete_topic(source)
    cluster.make_topic(1, name=source)
    record = must_merge(cluster, job, tmp_path)
    assert records_of(cluster, job.sort_list[0].topic) == by_sort(job, 0, [r for run in read for r in run])
    with pytest.raises(SourceRecreatedError), owned(cluster, job) as owner:
        take_snapshot(owner)
    replaced = replace_all(cluster, job, tmp_path)
    assert replaced is not None
    assert replaced.covers == (CoveredRuns(1, record.run),)


@pytest.mark.slow
def test_folded_runs(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that the ledger has folded are merged with the others; which of two is newer is not known from then on."""
    monkeypatch.setattr("tasks.kafka.ledger.KEPT_RUNS", 2)
    job = one_sort(cluster, tmp_path)
    read = fill(cluster, job, tmp_path, batches(4))
    earlier = cluster.ledger(job).earlier
    assert earlier is not None
    assert earlier.last_run == 2
    with pytest.raises(SettingsError, match="--mode replace"):
        merge(cluster, job, tmp_path, Newest())
    record = must_merge(cluster, job, tmp_path)
    assert (record.covers, record.records, record.sorts[0].expired) == ((CoveredRuns(1, 4),), 80, 0)
    found = records_of(cluster, job.sort_list[0].topic)
    keys = [sort_key(job.sort_list[0], r.value or b"") for r in found]
    assert keys == sorted(keys)
    assert sorted(r.value or b"" for r in found) == sorted(r.value or b"" for run in read for r in run)
    # Of each key, the records of runs that were known follow in their order.
    known = [r for run in read[2:] for r in run]
    assert [r for r in found if r in known] == by_sort(job, 0, known)
    with pytest.raises(SettingsError, match="--mode replace"):
        merge(cluster, job, tmp_path, Newest())
    fill(cluster, job, tmp_path, batches(2))
    must_merge(cluster, job, tmp_path)
    with pytest.raises(SettingsError, match="--mode replace"):
        merge(cluster, job, tmp_path, Newest())
    replaced = replace_all(cluster, job, tmp_path)
    assert replaced is not None
    assert must_merge(cluster, job, tmp_path, Newest()).sorts[0].superseded > 0


@pytest.mark.slow
def test_a_merge_that_is_folded(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A merge that left runs behind is folded with them, and no record counts twice."""
    monkeypatch.setattr("tasks.kafka.ledger.KEPT_RUNS", 3)
    job = one_sort(cluster, tmp_path)
    read = fill(cluster, job, tmp_path, batches(3))
    with monkeypatch.context() as patch:
        patch.setattr("tasks.merging.plan.most_records", lambda *_: 40)
        assert must_merge(cluster, job, tmp_path).covers == (CoveredRuns(1, 2),)
    read += fill(cluster, job, tmp_path, batches(4))
    earlier = cluster.ledger(job).current_earlier
    assert earlier is not None
    assert (earlier.last_run, earlier.placed, earlier.sorts[0].count) == (5, 80, 80)
    record = must_merge(cluster, job, tmp_path)
    assert (record.records, record.sorts[0].expired) == (140, 0)
    wanted = sorted(r.value or b"" for run in read for r in run)
    assert sorted(v or b"" for v in values_of(cluster, job.sort_list[0].topic)) == wanted
    assert merge(cluster, job, tmp_path) is None


def test_runs_of_other_rules(cluster: Cluster, tmp_path: Path) -> None:
    """They are read by the rules of this version, and are of these from then on: readers read all again."""
    job = one_sort(cluster, tmp_path)
    read = fill(cluster, job, tmp_path, batches(2))
    first = cluster.ledger(job).runs[1]
    rewrite(cluster, job, replace(first, format={**first.format, "rules": "1"}))
    record = must_merge(cluster, job, tmp_path)
    assert record.rules == cluster.ledger(job).runs[2].rules
    assert_outputs(cluster, job, read)
    with SortedTopic(job.name, "id", bootstrap_servers=cluster.bootstrap_servers) as topic:
        assert topic.runs == (3,)


def stretch(cluster: Cluster, job: Job, value: bytes) -> None:
    """Let the last run's record say that what follows the run in its output is its own."""
    output = job.sort_list[0].topic
    cluster.produce_records(output, [Record(value)])
    last = cluster.ledger(job).last
    assert last is not None
    end = cluster.ends(output)[0]
    [sort], [written] = last.sorts, last.sorts[0].partitions
    longer = replace(sort, partitions=(replace(written, last=end - 1, count=written.count + 1),))
    rewrite(cluster, job, replace(last, sorts=(longer,)), is_last=True)


@pytest.mark.slow
def test_a_record_without_a_key(cluster: Cluster, tmp_path: Path) -> None:
    """A record that the rules of this version refuse stops the merge, which names it and changes nothing."""
    job = one_sort(cluster, tmp_path)
    fill(cluster, job, tmp_path, batches(2))
    stretch(cluster, job, b"no row")
    topic = job.sort_list[0].topic
    before = records_of(cluster, topic)
    with pytest.raises(UnfitRecordError, match=f"output {topic} partition 0 offset {before[-1].offset}: "):
        merge(cluster, job, tmp_path)
    assert records_of(cluster, topic) == before
    assert cluster.ledger(job).runs.keys() == {1, 2}
    assert cluster.read(job.dead_letters) == []


@pytest.mark.slow
def test_an_altered_output(cluster: Cluster, tmp_path: Path) -> None:
    """What is not what a run wrote, by count or by checksum, is not published again."""
    job = one_sort(cluster, tmp_path)
    fill(cluster, job, tmp_path, batches(2))
    stretch(cluster, job, b"1,a,b,Asia")
    before = values_of(cluster, job.sort_list[0].topic)
    with pytest.raises(ContentError, match="of run 2"):
        merge(cluster, job, tmp_path)
    first = cluster.ledger(job).runs[1]
    rewrite(cluster, job, replace(first, sorts=(replace(first.sorts[0], checksum="0" * 16),)))
    with pytest.raises(ContentError, match="of run 1"):
        merge(cluster, job, tmp_path)
    assert values_of(cluster, job.sort_list[0].topic) == before


@pytest.mark.slow
def test_ledgers_of_former_versions(cluster: Cluster, tmp_path: Path) -> None:
    """Records without checksums of their sorts, versions and coverage are merged, and so are such folded ones."""
    job = one_sort(cluster, tmp_path)
    read = fill(cluster, job, tmp_path, batches(3))
    runs = cluster.ledger(job).runs
    for number in (1, 2):
        plain = replace(runs[number], sorts=(replace(runs[number].sorts[0], checksum="", partition_count=0),), ledger=1)
        raw = plain.to_json()
        for name in (b',"expired":0', b',"superseded":0', b',"superseded_checksum":""', b',"covers":[]'):
            assert name in raw
            raw = raw.replace(name, b"")
        assert RunRecord.from_json(raw) == plain
        cluster.produce_records(job.ledger, [Record(raw, run_key(number))])
    assert must_merge(cluster, job, tmp_path).records == 60
    assert_outputs(cluster, job, read)


@pytest.mark.slow
def test_a_foreign_record(cluster: Cluster, tmp_path: Path) -> None:
    """A record that no run wrote would be deleted: the merge is refused, whether it was there or comes meanwhile."""
    job = one_sort(cluster, tmp_path)
    read = fill(cluster, job, tmp_path, batches(2))
    topic = job.sort_list[0].topic

    def write(_: Publication) -> None:
        cluster.produce_records(topic, [Record(b"5,theirs,x,Asia")])

    with pytest.raises(OutputChangedError, match=f"output {topic} got records during the run"):
        merge(cluster, job, tmp_path, between=write)
    with pytest.raises(SettingsError, match=f"output {topic} holds records that no run"):
        merge(cluster, job, tmp_path)
    assert cluster.ledger(job).runs.keys() == {1, 2}
    assert len(records_of(cluster, topic)) == sum(map(len, read)) + 1


@pytest.mark.slow
def test_a_run_that_lives(cluster: Cluster, tmp_path: Path) -> None:
    """A merge does not disturb the run that owns the job, and names it."""
    job = one_sort(cluster, tmp_path)
    read = fill(cluster, job, tmp_path, batches(2))
    with owned(cluster, job), pytest.raises(LeaseTakenError, match="pid"):
        merge(cluster, job, tmp_path)
    assert_unchanged(cluster, job, read)


def test_without_anything_to_read(cluster: Cluster, tmp_path: Path) -> None:
    """No ledger, no run, one run, or no record at all: each is told before any work."""
    job = one_sort(cluster, tmp_path)
    with pytest.raises(SettingsError, match="has no ledger"):
        merge(cluster, job, tmp_path)
    with owned(cluster, job):
        pass
    with pytest.raises(SettingsError, match="has no run yet"):
        merge(cluster, job, tmp_path)
    cluster.produce(job.source_topic, [b"bad"], 1)
    run_settled(
        cluster, Job.model_validate({**job.model_dump(exclude_unset=True), "allow_dead_letters": True}), tmp_path
    )
    assert merge(cluster, job, tmp_path) is None
    fill(cluster, job, tmp_path, batches(1))
    assert merge(cluster, job, tmp_path) is None
    assert merge(cluster, job, tmp_path, Newest()) is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("over", "told"),
    [
        ({"sorts": ["id=o-{}", "id=parquet:{}"]}, "which merge does not read"),
        ({"sorts": ["@partition,@offset=o-{}"]}, "do not hold @partition"),
        ({"sorts": ["id,@offset=o-{}"]}, "do not hold @offset"),
        ({"sorts": ["@key:nulls-last=o-{}"], "format": "none", "output_key": "none"}, "do not hold @key"),
        ({"sorts": ["@key:nulls-last,id=o-{}"], "output_key": "sort"}, "do not hold @key"),
    ],
    ids=["folder", "place", "offset", "key-none", "key-sort"],
)
def test_outputs_without_their_keys(cluster: Cluster, tmp_path: Path, over: dict[str, object], told: str) -> None:
    """Outputs that do not hold all by which they are sorted are refused before any work."""
    source = cluster.make_topic(1)
    sorts = [text.format(f"{tmp_path}/out" if "parquet" in text else source) for text in over["sorts"]]  # type: ignore[attr-defined]
    job = make_job(source, tmp_path / "work", **{**over, "sorts": sorts})
    for seed in (1, 2):
        cluster.produce_records(source, [Record(v, b"k") for v in sample_values(5, seed=seed)])
        run_settled(cluster, job, tmp_path)
    with pytest.raises(SettingsError, match=told):
        merge(cluster, job, tmp_path)


def test_earlier_runs_that_are_gone_count_nothing() -> None:
    """Once others have taken the place of folded runs, these placed nothing."""
    earlier = EarlierRuns("j", 1, 4, 20, 3, ())
    assert (earlier.emptied().placed, earlier.emptied().dead_letters, EARLIER) == (0, 3, b"earlier")
