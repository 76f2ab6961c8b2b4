"""Topics that change during a run or between runs; transactions that take too long; data that the broker forgets."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import NewPartitions
from structlog.testing import capture_logs

from tasks.errors import SettingsError
from tasks.manifests import LostRange
from tasks.publish import TransactionTimeoutError, publish_run
from tasks.snapshot import fit_transaction, snapshot_source
from tests.cluster import Cluster, sample_values, wait_for
from tests.command import Command
from tests.faults.oracle import Follower, assert_exact
from tests.stages import make_job, owned, prepare, run_once


@pytest.mark.slow
@pytest.mark.parametrize("skip_lost", [False, True])
def test_records_removed_during_the_dump(cluster: Cluster, command: Command, *, skip_lost: bool) -> None:
    """Records removed before they are read are named, by offsets, before a publication; --skip-lost goes on."""
    source = cluster.make_topic(2)
    cluster.produce(source, sample_values(2000), 2)
    job = command.job(source, skip_lost=skip_lost)
    running = command.start(job, failpoint="before-dump=stop").wait_until_stopped()
    removed = [TopicPartition(source, 1, 300)]
    for future in cluster.admin.delete_records(removed).values():
        future.result()
    outcome = running.finish_awake()
    if not skip_lost:
        assert outcome.status == 1, outcome.err
        assert "partition 1 offsets 0 to 299 were removed before they were read" in outcome.err.splitlines()[-1]
        assert cluster.count(job, committed=False) == 0
        return
    assert outcome.status == 0, outcome.err
    last = cluster.ledger(job).last
    assert last is not None
    assert (last.records, last.lost) == (1700, (LostRange(1, 0, 300),))
    assert_exact(cluster, job)


def test_partitions_added_during_the_run(cluster: Cluster, tmp_path: Path) -> None:
    """The run keeps the partitions it began with, of source and output; the next run takes the new ones."""
    source = cluster.make_topic(2)
    cluster.produce(source, sample_values(200), 2)
    job = make_job(source, tmp_path)
    output = job.sort_list[0].topic
    with Follower(cluster, job):
        with owned(cluster, job) as owner:
            publication = prepare(owner, tmp_path)
            for topic in (source, output):
                cluster.admin.create_partitions([NewPartitions(topic, 3)])[topic].result()
                wait_for(lambda topic=topic: len(cluster.ends(topic)) == 3)  # type: ignore[misc]
            cluster.produce(source, sample_values(30, seed=2), 3)
            first = publish_run(owner, publication)
        assert [w.partition for w in first.sorts[0].partitions] == [0, 1]
        assert first.ends == {0: 100, 1: 100}
    second = run_once(cluster, job, tmp_path)
    assert [w.partition for w in second.sorts[0].partitions] == [0, 1, 2]
    assert_exact(cluster, job, runs=2)


@pytest.mark.parametrize("again", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["recreated", "gone"])
def test_an_output_that_was_deleted_between_runs(cluster: Cluster, tmp_path: Path, *, again: bool) -> None:
    """Former runs are gone with the output: the next run is refused before work; --append goes on in a new topic."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(100))
    job = make_job(source, tmp_path)
    run_once(cluster, job, tmp_path)
    output = job.sort_list[0].topic
    cluster.delete_topic(output)
    if again:
        cluster.make_topic(4, output)
    cluster.produce(source, sample_values(20, seed=2))
    with (
        pytest.raises(SettingsError, match=f"output {output} was deleted.* since run 1 .*--append"),
        owned(cluster, job),
    ):
        pass
    assert cluster.count(job, committed=False) == 0
    record = run_once(cluster, job.model_copy(update={"append": True}), tmp_path)
    assert (record.run, record.records, cluster.count(job)) == (2, 20, 20)
    # The topic is the job's again.
    with owned(cluster, job):
        pass


@pytest.mark.slow
def test_a_publish_longer_than_its_transaction_may_take(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker aborts the transaction, nothing is visible, and the error says what to raise and what to lower."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(500))
    job = make_job(source, tmp_path, transaction_timeout=1.5)
    output = job.sort_list[0].topic

    def dawdle(name: str) -> None:
        if name == "before-commit":
            # This waits until the broker has written the markers of the abort.
            wait_for(lambda: cluster.ends(output) == cluster.ends(output, committed=False))

    with Follower(cluster, job) as follower:
        with owned(cluster, job) as owner:
            publication = prepare(owner, tmp_path)
            with monkeypatch.context() as patch:
                patch.setattr("tasks.publish.reach", dawdle)
                told = "up to 4.* transaction.max.timeout.ms .*--max-records"
                with pytest.raises(TransactionTimeoutError, match=told):
                    publish_run(owner, publication)
            assert cluster.count(job, committed=False) == 500
            assert cluster.count(job) == 0
            # With enough time, the same files are published.
            publish_run(owner, publication)
        assert_exact(cluster, job, follower=follower)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["after-flush", "before-commit"])
def test_a_run_that_was_away_for_longer_than_its_transaction(cluster: Cluster, command: Command, point: str) -> None:
    """The broker aborts its transaction, a successor finishes, and the run that comes back is fenced: no change."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(2000))
    job = command.job(source, transaction_timeout=2.0)
    output = job.sort_list[0].topic
    with Follower(cluster, job) as follower:
        old = command.start(job, failpoint=f"{point}=stop").wait_until_stopped()
        wait_for(lambda: cluster.ends(output) == cluster.ends(output, committed=False))
        assert cluster.count(job, committed=False) == 6000
        assert command.run(job).status == 0
        late = old.finish_awake()
        assert late.status == 1, late.err
        assert_exact(cluster, job, follower=follower)


def test_a_snapshot_that_would_take_too_long_is_capped(cluster: Cluster, tmp_path: Path) -> None:
    """A run takes no more than what can be published within its transaction; the rest is the next run's."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(1000))
    job = make_job(source, tmp_path)
    with owned(cluster, job) as owner:
        # The plan assumes 400,000 records a second, in 0.7 of the timeout.
        owner.transaction_seconds = 0.001
        publication = prepare(owner, tmp_path)
        assert publication.snapshot.capped == "the transaction timeout"
        owner.transaction_seconds = 900
        first = publish_run(owner, publication).records
        assert 270 < first <= 280
        assert publish_run(owner, prepare(owner, tmp_path)).records == 1000 - first
        whole = replace(publication.snapshot, capped="")
        assert fit_transaction(whole, 1, 900) == whole
    assert_exact(cluster, job, runs=2)


def test_what_holds_a_snapshot_back_is_told(cluster: Cluster, tmp_path: Path) -> None:
    """An open transaction in the source is reported: how many offsets wait behind it, and in which partitions."""
    source = cluster.make_topic(2)
    cluster.produce(source, sample_values(20), 2)
    other = Producer({"bootstrap.servers": cluster.bootstrap_servers, "transactional.id": source})
    other.init_transactions(30)
    other.begin_transaction()
    other.produce(source, sample_values(1)[0], partition=1)
    assert other.flush(30) == 0
    cluster.produce(source, sample_values(6), 2)
    job = make_job(source, tmp_path)
    with owned(cluster, job) as owner, capture_logs() as lines:
        assert snapshot_source.fn(owner).ends == {0: 13, 1: 10}
    (told,) = [line for line in lines if "open transaction" in line["event"]]
    assert (told["offsets"], told["partitions"]) == (4, "1")


@pytest.mark.slow
def test_group_offsets_that_are_not_the_ledgers_are_told(cluster: Cluster, tmp_path: Path) -> None:
    """If the group's offsets expired or were reset, the ledger decides and a line says so; the commit corrects them."""
    source = cluster.make_topic(1)
    cluster.produce(source, sample_values(20), 1)
    job = make_job(source, tmp_path)
    run_once(cluster, job, tmp_path)
    for change in ("reset", "expired"):
        if change == "reset":
            asked = [ConsumerGroupTopicPartitions(job.group, [TopicPartition(source, 0, 3)])]
            cluster.admin.alter_consumer_group_offsets(asked)[job.group].result()
        else:
            cluster.admin.delete_consumer_groups([job.group])[job.group].result()
        cluster.produce(source, sample_values(5, seed=2), 1)
        with owned(cluster, job) as owner:
            with capture_logs() as lines:
                assert snapshot_source.fn(owner).span == 5
            assert any("the ledger decides" in line["event"] for line in lines)
            record = publish_run(owner, prepare(owner, tmp_path))
            wait_for(lambda ends=record.ends: cluster.group_offsets(job) == ends)  # type: ignore[misc]
            with capture_logs() as lines:
                snapshot_source.fn(owner)
            assert not any("the ledger decides" in line["event"] for line in lines)
    assert_exact(cluster, job, runs=3)


@pytest.mark.slow
def test_a_signal_in_the_middle_of_a_publish(cluster: Cluster, command: Command) -> None:
    """SIGTERM during the transaction aborts it at once, so that no reader waits for its timeout."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(5000))
    job = command.job(source)
    with Follower(cluster, job) as follower:
        running = command.start(job, failpoint="after-publish-batch=stop").wait_until_stopped()
        running.send(signal.SIGTERM)
        running.send(signal.SIGCONT)
        assert running.finish_awake().status == 128 + signal.SIGTERM
        for sort in job.sort_list:
            assert cluster.ends(sort.topic) == cluster.ends(sort.topic, committed=False)
        assert command.run(job).status == 0
        assert_exact(cluster, job, follower=follower)
