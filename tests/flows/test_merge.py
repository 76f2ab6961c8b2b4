"""`kafka-sort merge`: several runs become one, whatever is killed, and all that follows goes on as before."""

import json
from pathlib import Path

import pytest
from confluent_kafka.admin import NewPartitions

from flows.merge_topic import newest_of
from kafka_sort import SortedTopic
from tasks.errors import SettingsError
from tasks.failpoints import RUN_NAMES
from tasks.kafka.ledger import read_newest
from tasks.run_record import CoveredRuns, ReadRange, RunRecord
from tasks.settings.job import Job
from tasks.snapshot import has_work, take_snapshot
from tasks.sorting.newest import Newest
from tasks.stream import Stream
from tasks.verify import verify_job
from tests.cluster import Cluster, Record, sample_values, sort_key, wait_for
from tests.command import KILLED, Command
from tests.flows.test_replace_again import replace_all
from tests.merges import assert_outputs, by_sort, fill, merge, must_merge, read_by, records_of
from tests.stages import make_job, make_stream, owned, run_settled, serving

# Where the merge is committed already.
COMMITTED = {"after-commit", "before-delete", "after-delete"}
# A merge takes no snapshot of the source.
POINTS = [*(name for name in RUN_NAMES if "snapshot" not in name), "before-delete", "after-delete"]


def batches(count: int, size: int = 60) -> list[list[bytes | None]]:
    """Rows of which many have the same id."""
    return [[*sample_values(size, seed=seed, ids=20)] for seed in range(count)]


def two_sorts(cluster: Cluster, folder: Path, **over: object) -> Job:
    source = cluster.make_topic(2)
    return make_job(source, folder, **{"sorts": [f"id=o-{source}", f"continent,id:desc=p-{source}"], **over})


def limit(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Let a transaction hold so many records."""
    monkeypatch.setattr("tasks.merging.plan.most_records", lambda *_: most)


def test_several_runs_become_one(cluster: Cluster, tmp_path: Path) -> None:
    """The one run has all records, equal keys in the order of the source; the former are deleted; then all is done."""
    job = two_sorts(cluster, tmp_path)
    read = fill(cluster, job, tmp_path, batches(3))
    before, former = cluster.ledger(job), {sort.topic: cluster.ends(sort.topic) for sort in job.sort_list}
    record = must_merge(cluster, job, tmp_path)
    assert_outputs(cluster, job, read)
    assert (record.run, record.covers, record.is_merge) == (4, (CoveredRuns(1, 3),), True)
    assert (record.records, record.dead_letters, record.lost) == (180, 0, ())
    assert before.last is not None
    assert record.read == tuple(ReadRange(p, end, end) for p, end in before.last.ends.items())
    sums = sum(int(run.checksum["sum"], 16) for run in before.runs.values()) % 2**64
    assert record.checksum["sum"] == f"{sums:016x}"
    assert [(sort.expired, sort.superseded) for sort in record.sorts] == [(0, 0), (0, 0)]
    assert {sort.topic: cluster.starts(sort.topic) for sort in job.sort_list} == former
    assert merge(cluster, job, tmp_path) is None


@pytest.mark.slow
def test_what_follows_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    """A run, a stream, a merge of merged and later runs, and a replacement follow one another."""
    job = two_sorts(cluster, tmp_path)
    read = fill(cluster, job, tmp_path, batches(2))
    must_merge(cluster, job, tmp_path)
    [later] = fill(cluster, job, tmp_path, batches(1))
    assert_outputs(cluster, job, read, [later])
    stream = make_stream(cluster, job)
    with serving(cluster, stream):
        cluster.produce(job.source_topic, sample_values(30, seed=9), 2)
        wait_for(lambda: published(cluster, stream))
    runs = cluster.ledger(job).runs
    source = cluster.read(job.source_topic)
    streamed = [read_by(source, runs[number]) for number in sorted(runs) if number > 4]
    assert_outputs(cluster, job, read, [later], *([one] for one in streamed))
    record = must_merge(cluster, job, tmp_path)
    assert record.covers == (CoveredRuns(1, record.run - 1),)
    assert_outputs(cluster, job, [*read, later, *streamed])
    assert verify_job(job, cluster.connection).lines() == []
    assert is_idle(cluster, job)
    replaced = replace_all(cluster, job, tmp_path)
    assert replaced is not None
    assert_outputs(cluster, job, [read_by(source, replaced)])
    assert merge(cluster, job, tmp_path) is None


def published(cluster: Cluster, stream: Stream) -> bool:
    last = cluster.ledger(stream.job).last
    return last is not None and last.ends == cluster.ends(stream.job.source_topic)


def is_idle(cluster: Cluster, job: Job) -> bool:
    """Whether a run finds nothing new."""
    with owned(cluster, job) as owner:
        return not has_work(owner, take_snapshot(owner))


@pytest.mark.slow
def test_the_first_runs_that_fit(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs beyond one transaction stay; they are younger than what was merged, though they lie before it."""
    job = two_sorts(cluster, tmp_path)
    read = fill(cluster, job, tmp_path, batches(5))
    kept = cluster.ledger(job).runs[4].sorts
    limit(monkeypatch, 190)
    record = must_merge(cluster, job, tmp_path)
    assert record.covers == (CoveredRuns(1, 3),)
    for sort, written in zip(record.sorts, kept, strict=True):
        firsts = {w.partition: w.first for w in written.partitions}
        assert {d.partition: d.before for d in sort.delete_before} == firsts == cluster.starts(sort.topic)
    assert [run.run for run in cluster.ledger(job).current] == [4, 5, 6]
    assert_outputs(cluster, job, read[3:4], read[4:5], read[:3])
    with SortedTopic(job.name, "id", bootstrap_servers=cluster.bootstrap_servers) as topic:
        assert topic.runs == (6, 4, 5)
        key = sort_key(job.sort_list[0], read[0][0].value or b"")
        wanted = [r.value for of_run in read for r in of_run if sort_key(job.sort_list[0], r.value or b"") == key]
        assert [found.value for found in topic.get(*key)] == wanted
    # Runs 4 and 5 fit; with run 6, which is older, they do not.
    limit(monkeypatch, 130)
    second = must_merge(cluster, job, tmp_path)
    assert second.covers == (CoveredRuns(4, 5),)
    assert_outputs(cluster, job, read[:3], read[3:])
    limit(monkeypatch, 10_000)
    last = must_merge(cluster, job, tmp_path)
    assert last.covers == (CoveredRuns(1, 3), CoveredRuns(6, 6), CoveredRuns(4, 5), CoveredRuns(7, 7))
    assert_outputs(cluster, job, read)


@pytest.mark.slow
def test_the_index_of_the_merged_run(cluster: Cluster, tmp_path: Path) -> None:
    """The merged run has an index of its own, by which each key is found, and those of former runs are deleted."""
    job = two_sorts(cluster, tmp_path)
    rows = [sample_values(5000, seed=seed, ids=10**6) for seed in (1, 2)]
    read = fill(cluster, job, tmp_path, rows)
    record = must_merge(cluster, job, tmp_path)
    index = read_newest(cluster.connection, cluster.admin, job.index, job.name, 20, committed=True)
    assert {key.split(b"/")[1] for key in index} == {b"3"}
    assert {key.split(b"/")[2].decode() for key in index} == {sort.topic for sort in job.sort_list}
    expected = by_sort(job, 0, [r for of_run in read for r in of_run])
    with SortedTopic(job.name, "id", bootstrap_servers=cluster.bootstrap_servers) as topic:
        assert topic.runs == (record.run,)
        for r in expected[::997]:
            key = sort_key(job.sort_list[0], r.value or b"")
            wanted = [e.value for e in expected if sort_key(job.sort_list[0], e.value or b"") == key]
            assert [found.value for found in topic.get(*key)] == wanted


@pytest.mark.slow
def test_more_partitions_since(cluster: Cluster, tmp_path: Path) -> None:
    """The merged run takes all partitions that the output has by now."""
    job = two_sorts(cluster, tmp_path)
    read = fill(cluster, job, tmp_path, batches(2, 200))
    output = job.sort_list[0].topic
    cluster.admin.create_partitions([NewPartitions(output, 4)])[output].result()
    wait_for(lambda: len(cluster.ends(output)) == 4)
    record = must_merge(cluster, job, tmp_path)
    assert [w.partition for w in record.sorts[0].partitions] == [0, 1, 2, 3]
    assert_outputs(cluster, job, read)


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_killed_and_started_again(cluster: Cluster, command: Command, tmp_path: Path, point: str) -> None:
    """Whatever the instant, a reader sees the former runs or the merged one; the next start, of any kind, finishes."""
    source = cluster.make_topic()
    job = command.job(source)
    read = fill(cluster, job, tmp_path, batches(3, 100))
    killed = command.run(job, command="merge", failpoint=f"{point}=kill")
    assert killed.status == KILLED, killed.err
    if point in COMMITTED:
        wait_for(lambda: cluster.ends(job.ledger) == cluster.ends(job.ledger, committed=False))
        assert [run.run for run in cluster.ledger(job).current] == [4]
    else:
        assert cluster.count(job) == 3 * 300
    # A start of each kind, in turns.
    if POINTS.index(point) % 2:
        cluster.produce(source, sample_values(50, seed=7))
        again = command.run(job)
        assert again.status == 0, again.err
        read.append(read_by(cluster.read(source), last_run(cluster, job)))
    again = command.run(job, command="merge")
    assert again.status == 0, again.err
    assert_outputs(cluster, job, read)
    last = last_run(cluster, job)
    starts = {sort.topic: cluster.starts(sort.topic) for sort in last.sorts}
    assert all(starts[s.topic][d.partition] == d.before for s in last.sorts for d in s.delete_before)


def last_run(cluster: Cluster, job: Job) -> RunRecord:
    last = cluster.ledger(job).last
    assert last is not None
    return last


@pytest.mark.slow
def test_by_the_command(cluster: Cluster, command: Command, tmp_path: Path) -> None:
    """The job's name is enough; flags of `sort` fit as well; nothing to merge is a success that says so."""
    source = cluster.make_topic()
    job = command.job(source, max_records=1000)
    read = fill(cluster, job, tmp_path, batches(2))
    done = command.start_flags("merge", "--job-name", job.name, "--workdir", str(command.workdir)).finish()
    assert done.status == 0, done.err
    assert "merged runs 1 to 2, 120 records" in done.out
    assert_outputs(cluster, job, read)
    again = command.run(job, command="merge")
    assert (again.status, again.out) == (0, f"{job.name}: nothing to merge\n"), again.err
    shown = command.run(job, "--output", "json", command="merge")
    assert (shown.status, json.loads(shown.out)["state"]) == (0, "nothing to merge")
    followed = command.run(job)
    assert (followed.status, "nothing new" in followed.out) == (0, True), followed.err


@pytest.mark.slow
def test_beside_a_living_stream(cluster: Cluster, command: Command, tmp_path: Path) -> None:
    """A merge does not disturb what owns the job: exit status 1, and the line names it."""
    job = two_sorts(cluster, command.workdir)
    read = fill(cluster, job, tmp_path, batches(2))
    stream = make_stream(cluster, job)
    with serving(cluster, stream):
        cluster.produce(job.source_topic, sample_values(10, seed=5), 2)
        wait_for(lambda: published(cluster, stream))
        refused = command.run(job, command="merge")
        assert refused.status == 1
        assert f"another run of job {job.name} is alive" in refused.err.splitlines()[-1]
        assert merged_none(cluster, job)
    assert read
    assert merge(cluster, job, tmp_path) is not None


def merged_none(cluster: Cluster, job: Job) -> bool:
    return not any(record.is_merge for record in cluster.ledger(job).runs.values())


def test_what_a_form_asks_for() -> None:
    """Tombstones are not kept in silence where the flow is asked to drop them, and nothing else."""
    assert newest_of(latest=False, drop_tombstones=False) is None
    assert newest_of(latest=True, drop_tombstones=True) == Newest(drop_tombstones=True)
    with pytest.raises(SettingsError, match="drop_tombstones is for latest"):
        newest_of(latest=False, drop_tombstones=True)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--drop-tombstones",)], ids=["kept", "dropped"])
def test_flags_of_the_newest(cluster: Cluster, command: Command, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """--latest by the command counts what was superseded; --drop-tombstones alone is a mistake."""
    source = cluster.make_topic(1)
    job = command.job(source, sorts=[f"@key=o-{source}"], format="none")
    for value in (b"old", None):
        cluster.produce_records(source, [Record(value, b"a"), Record(b"only", b"b")])
        run_settled(cluster, job, tmp_path)
    wrong = command.run(job, "--drop-tombstones", command="merge")
    assert (wrong.status, "--latest" in wrong.err) == (2, True)
    done = command.run(job, "--latest", *flags, command="merge")
    assert done.status == 0, done.err
    assert f"superseded: {3 if flags else 2} in o-{source}" in done.out
    kept = [(r.key, r.value) for r in records_of(cluster, f"o-{source}")]
    assert kept == [*([] if flags else [(b"a", None)]), (b"b", b"only")]


@pytest.mark.slow
@pytest.mark.parametrize("point", ["after-dump-chunk", "after-sort", "after-ledger-record", "before-commit"])
def test_a_stage_that_is_tried_again(cluster: Cluster, command: Command, tmp_path: Path, point: str) -> None:
    """A transient error within a stage is overcome by its retries: nothing is there twice."""
    job = command.job(cluster.make_topic(), retry_delay=0.1)
    read = fill(cluster, job, tmp_path, batches(2))
    done = command.run(job, command="merge", failpoint=f"{point}=raise")
    assert done.status == 0, done.err
    assert f"failpoint {point}" in done.err
    assert_outputs(cluster, job, read)
