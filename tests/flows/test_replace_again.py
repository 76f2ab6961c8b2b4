"""`--mode replace` under other settings, beside other writers, and after what expired: in this process."""

from pathlib import Path

import pytest
from confluent_kafka.admin import NewPartitions

from tasks.errors import SourceLostError
from tasks.observe.metrics import RunMetrics, use_metrics
from tasks.outputs import prepare_outputs
from tasks.ownership import Onlooker
from tasks.preflight import take_up_job
from tasks.publish import publish_run
from tasks.replacement import finish_deletion
from tasks.run import Run
from tasks.run_record import RunRecord
from tasks.runners import ThreadRunner
from tasks.settings.connection import use_connection
from tasks.settings.job import Job
from tasks.snapshot import has_work, take_snapshot
from tasks.targets.base import OutputChangedError
from tasks.verify import Verification, verify_job
from tests.cluster import Cluster, Record, sample_values, wait_for
from tests.flows.test_end import at, produce_at
from tests.stages import make_job, owned, prepare


def change(job: Job, **over: object) -> Job:
    """Return the job with other settings, checked as those that a user gives."""
    return Job.model_validate({**job.model_dump(exclude_unset=True), **over})


def replace_all(cluster: Cluster, job: Job, folder: Path) -> RunRecord | None:
    """Make a whole replacement, or find that there is nothing to replace."""
    with owned(cluster, change(job, mode="replace")) as owner:
        if not has_work(owner, take_snapshot(owner)):
            return None
        record = publish_run(owner, prepare(owner, folder))
        finish_deletion(owner)
        return record


def append(cluster: Cluster, job: Job, folder: Path) -> RunRecord:
    with owned(cluster, job) as owner:
        return publish_run(owner, prepare(owner, folder))


def verify(cluster: Cluster, job: Job) -> Verification:
    with use_connection(cluster.connection):
        return verify_job(job, cluster.connection)


def would_replace(cluster: Cluster, job: Job) -> bool:
    view = Onlooker(change(job, mode="replace"), cluster.connection, cluster.admin)
    take_up_job(view)
    return has_work(view, take_snapshot(view))


@pytest.mark.slow
def test_other_settings_are_work(cluster: Cluster, tmp_path: Path) -> None:
    """The outputs are the latest full sort only as long as the job would write the same, in as many partitions."""
    source = cluster.make_topic(2)
    cluster.produce(source, sample_values(20), 2)
    job = make_job(source, tmp_path)
    append(cluster, job, tmp_path)
    assert not would_replace(cluster, job)
    assert not would_replace(cluster, change(job, columns="id:int,name,address,continent", dump_concurrency=1))
    for over in ({"split_heavy_keys": True}, {"timestamps": "keep"}, {"dead_letter_topic": f"{source}-dead"}):
        assert would_replace(cluster, change(job, **over)), over
    output = job.sort_list[0].topic
    cluster.admin.create_partitions([NewPartitions(output, 3)])[output].result()
    wait_for(lambda: len(cluster.ends(output)) == 3)
    record = replace_all(cluster, job, tmp_path)
    assert record is not None
    assert [w.partition for w in record.sorts[0].partitions] == [0, 1, 2]
    assert not would_replace(cluster, job)


@pytest.mark.slow
def test_columns_that_were_wrong(cluster: Cluster, tmp_path: Path) -> None:
    """After a first run of dead letters alone, with wrong columns, a replacement sorts all by the right ones.

    The dead letters of the first run stay, and verification does not call them a difference.
    """
    source = cluster.make_topic(2)
    cluster.produce(source, [*(b"%d;x" % i for i in range(20)), b"bad"], 2)
    job = make_job(source, tmp_path, allow_dead_letters=True)
    assert append(cluster, job, tmp_path).dead_letters == 21
    right = change(job, columns="id:int,name", delimiter=";")
    record = replace_all(cluster, right, tmp_path)
    assert record is not None
    assert (record.placed, record.dead_letters, record.dead_letters_written) == (20, 1, 0)
    assert [r.value for r in cluster.read(right.sort_list[0].topic)] == [b"%d;x" % i for i in range(20)]
    verification = verify(cluster, right)
    assert verification.ok
    what = "whether 20 dead letters or more are all of runs that had other settings"
    assert verification.runs[0].unverifiable == (f"{job.dead_letters}: {what}",)


@pytest.mark.slow
def test_another_dead_letter_topic(cluster: Cluster, tmp_path: Path) -> None:
    """Each dead-letter topic gets every dead letter once, though an earlier run wrote it to another topic."""
    source = cluster.make_topic(1)
    first = make_job(source, tmp_path)
    second = change(first, dead_letter_topic=f"{source}-dead")
    for number, job in enumerate((first, second), 1):
        cluster.produce(source, [*sample_values(4, seed=number), b"bad"], 1)
        append(cluster, job, tmp_path)
    for job, written in ((second, 1), (first, 1), (second, 0)):
        record = replace_all(cluster, job, tmp_path)
        assert record is not None
        assert (record.dead_letters, record.new_dead_letters) == (2, written)
        assert len(cluster.read(job.dead_letters)) == 2
        assert verify(cluster, job).differences == ()


def test_a_writer_that_comes_during_the_run(cluster: Cluster, tmp_path: Path) -> None:
    """A record that something else writes once the run has begun is not deleted: the run publishes nothing."""
    source = cluster.make_topic(1)
    job = make_job(source, tmp_path)
    cluster.produce(source, sample_values(10), 1)
    append(cluster, job, tmp_path)
    cluster.produce(source, sample_values(10, seed=2), 1)
    output = job.sort_list[0].topic
    with owned(cluster, change(job, mode="replace")) as owner:
        publication = prepare(owner, tmp_path)
        # What was aborted is nobody's.
        cluster.produce_aborted(output, [Record(b"aborted")])
        cluster.produce_records(output, [Record(b"theirs")])
        with pytest.raises(OutputChangedError, match=f"output {output} got records during the run"):
            publish_run(owner, publication)
    assert cluster.ledger(job).runs.keys() == {1}
    wait_for(lambda: cluster.ends(output) == cluster.ends(output, committed=False))
    assert [r.value for r in cluster.read(output)].count(b"theirs") == 1
    assert len(cluster.read(output)) == 11


@pytest.mark.slow
def test_a_publish_that_is_tried_again(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The records of the run's own aborted attempt are not another writer's."""
    source = cluster.make_topic(1)
    job = make_job(source, tmp_path)
    cluster.produce(source, sample_values(10), 1)
    append(cluster, job, tmp_path)
    cluster.produce(source, sample_values(10, seed=2), 1)
    with owned(cluster, change(job, mode="replace")) as owner:
        publication = prepare(owner, tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr("tasks.publish._send_record", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                publish_run(owner, publication)
        assert publish_run(owner, publication).records == 20


@pytest.mark.slow
def test_what_was_read_and_expired_behind_an_end(cluster: Cluster, tmp_path: Path) -> None:
    """Offsets that a run had read before a replacement ended earlier are no loss; those that none has read are."""
    source = cluster.make_topic(1)
    job = make_job(source, tmp_path)
    cluster.produce(source, sample_values(10), 1)
    append(cluster, job, tmp_path)
    ended = replace_all(cluster, change(job, end="2020-01-01"), tmp_path)
    assert ended is not None
    assert ended.ends == {0: 0}
    cluster.delete_below(source, {0: 4})
    record = replace_all(cluster, job, tmp_path)
    assert record is not None
    assert (record.records, record.lost) == (6, ())


@pytest.mark.slow
def test_a_start_behind_what_expired(cluster: Cluster, tmp_path: Path) -> None:
    """Records before the start are not part of the run, so it does not matter that they expired unread."""
    source = cluster.make_topic(1, retention_ms="-1")
    job = make_job(source, tmp_path)
    produce_at(cluster, source, {0: [0, 1]})
    append(cluster, job, tmp_path)
    produce_at(cluster, source, {0: [2, 3, 4, 5]})
    cluster.delete_below(source, {0: 4})
    with pytest.raises(SourceLostError, match="offsets 2 to 3 were removed"):
        replace_all(cluster, change(job, start=at(1)), tmp_path)
    record = replace_all(cluster, change(job, start=at(5)), tmp_path)
    assert record is not None
    assert (record.records, record.lost) == (1, ())


def test_nothing_unread_is_no_success_of_a_replacement(cluster: Cluster, tmp_path: Path) -> None:
    """A replacement of what was read before has succeeded once it is committed, and not when it has looked."""
    source = cluster.make_topic(1)
    job = make_job(source, tmp_path)
    cluster.produce(source, sample_values(5), 1)
    append(cluster, job, tmp_path)
    again = change(job, mode="replace", split_heavy_keys=True)
    metrics = RunMetrics(job.name)
    with use_metrics(metrics), owned(cluster, again) as owner:
        run = Run(owner, ThreadRunner(), lambda _: prepare_outputs(owner), "again")
        assert run.has_work(run.take_snapshot())
    assert not [
        m for m in metrics.registry.collect() if m.name.endswith("last_success_timestamp_seconds") and m.samples
    ]


@pytest.mark.slow
def test_the_lag_of_a_recreated_source(cluster: Cluster, tmp_path: Path) -> None:
    """All of a recreated source is unread, whatever the offsets that were read of the former one."""
    source = cluster.make_topic(2)
    job = make_job(source, tmp_path)
    cluster.produce(source, sample_values(20), 2)
    append(cluster, job, tmp_path)
    cluster.delete_topic(source)
    cluster.make_topic(1, name=source)
    cluster.produce(source, sample_values(6), 1)
    view = Onlooker(change(job, mode="replace"), cluster.connection, cluster.admin)
    snapshot = take_snapshot(view)
    assert (snapshot.lag, snapshot.lag_left) == ({0: 6}, {0: 0})
