"""The one transaction of a run: its failures, the effect of another holder of the id, and what a retry finds."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import KafkaError
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from tasks.errors import StoppedError, TerminalError, TransientError
from tasks.failpoints import VARIABLE, InjectedError
from tasks.kafka import native_produce
from tasks.kafka.clients import CommitUnknownError, KafkaTerminalError, KafkaTransientError
from tasks.kafka.ledger import LAST, read_ledger, run_key
from tasks.kafka.transaction import TransactionalProducer
from tasks.outputs import prepare_outputs
from tasks.publish import SupersededError, publish_run
from tasks.run_context import Stop, run_context
from tasks.settings.job import Job
from tasks.snapshot import take_snapshot
from tasks.source import SourceRecreatedError, SourceTruncatedError
from tasks.targets.base import OutputChangedError
from tests.cluster import Cluster, Record, assert_sorted, sample_values, wait_for
from tests.faults.oracle import Follower, assert_exact
from tests.stages import make_job, owned, prepare, run_once


@pytest.fixture
def job(cluster: Cluster, tmp_path: Path) -> Job:
    """A job over 1000 records in 4 partitions."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(1000))
    return make_job(source, tmp_path)


def make_transactional(cluster: Cluster, job: Job) -> TransactionalProducer:
    """Make a producer with the job's transactional id, and fence with it."""
    producer = TransactionalProducer(cluster.connection, job.group, 60, 16_000_000, 1_000_000, 30)
    producer.init(job.source_topic)
    return producer


def uncommitted(cluster: Cluster, job: Job) -> int:
    return cluster.count(job, committed=False)


# Failpoint, and the least number of copies of the rows that an uncommitted reader sees in the end.
RETRIED = [
    pytest.param("before-begin", 1, marks=pytest.mark.slow),
    ("after-begin", 1),
    pytest.param("after-publish-batch", 1, marks=pytest.mark.slow),
    ("after-flush", 2),
    pytest.param("after-ledger-record", 2, marks=pytest.mark.slow),
    ("before-commit", 2),
]


@pytest.mark.parametrize(("point", "copies"), RETRIED)
def test_a_retry_publishes_from_the_same_orders(
    cluster: Cluster, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, copies: int
) -> None:
    """After a failure before the commit, the next attempt finds no run in the ledger and publishes all, once."""
    with owned(cluster, job) as owner:
        publication = prepare(owner, tmp_path)
        monkeypatch.setenv(VARIABLE, f"{point}=raise")
        with pytest.raises(InjectedError):
            publish_run(owner, publication)
        assert cluster.count(job) == 0
        assert owner.ledger.last is None
        record = publish_run(owner, publication)
    assert (record.run, record.records) == (1, 1000)
    assert_sorted(cluster, job)
    assert uncommitted(cluster, job) >= copies * 1000


def test_an_unknown_outcome_is_looked_up(
    cluster: Cluster, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit succeeded and its answer was an error: the retry finds the run, and publishes nothing more."""
    with Follower(cluster, job) as follower:
        with owned(cluster, job) as owner:
            publication = prepare(owner, tmp_path)
            monkeypatch.setenv(VARIABLE, "after-commit=raise")
            with pytest.raises(InjectedError):
                publish_run(owner, publication)
            record = publish_run(owner, publication)
        assert record == cluster.ledger(job).last
        assert_exact(cluster, job, follower=follower)
    assert uncommitted(cluster, job) == 1000


def test_a_publish_that_is_repeated_after_its_commit_finds_the_run(cluster: Cluster, job: Job, tmp_path: Path) -> None:
    """Without an error the producer does not fence again: the committed run is known, nothing is doubled."""
    with owned(cluster, job) as owner:
        publication = prepare(owner, tmp_path)
        first = publish_run(owner, publication)
        assert publish_run(owner, publication) == first
    assert_sorted(cluster, job)


def test_a_committed_run_is_found_behind_later_ones(cluster: Cluster, job: Job, tmp_path: Path) -> None:
    """A run that lost sight of its commit finds itself behind a successor's run: it is done, not superseded."""
    with owned(cluster, job) as owner:
        publication = prepare(owner, tmp_path)
        first = publish_run(owner, publication)
        cluster.produce(job.source_topic, sample_values(8, seed=2))
        publish_run(owner, prepare(owner, tmp_path))
        owner.fence()
        assert publish_run(owner, publication) == first
    assert_sorted(cluster, job, runs=2)


def test_one_producer_serves_run_after_run(cluster: Cluster, tmp_path: Path) -> None:
    """Runs back to back on one owner: each starts where the last ended, and the markers of the last are no growth."""
    source = cluster.make_topic()
    job = make_job(source, tmp_path)
    with owned(cluster, job) as owner:
        for number in range(1, 9):
            cluster.produce(source, sample_values(8, seed=number))
            record = publish_run(owner, prepare(owner, tmp_path))
            assert (record.run, record.records) == (number, 8)
    assert_sorted(cluster, job, runs=8)
    assert cluster.count(job) == 64


def test_a_producer_that_is_fenced_cannot_commit(cluster: Cluster, job: Job, tmp_path: Path) -> None:
    """The rule behind everything: a commit succeeds for the newest holder of the id only."""
    with owned(cluster, job) as owner:
        prepare_outputs(owner)
        old = make_transactional(cluster, job)
        old.begin()
        old.sender.send_one(job.sort_list[0].topic, None, b"of the old", 0)
        old.flush()
        new = make_transactional(cluster, job)
        with pytest.raises(KafkaTransientError) as refused:
            old.commit()
        assert refused.value.code in {KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH}
        old.close()
        new.close()
    assert cluster.count(job) == 0
    assert uncommitted(cluster, job) == 1


@pytest.mark.parametrize(
    "point", [*(pytest.param(p, marks=pytest.mark.slow) for p in ("begin", "flush", "send_offsets")), "commit"]
)
def test_who_was_fenced_fences_anew_while_the_lease_is_held(
    cluster: Cluster, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """A fence without a successor is a transient error; then the retry becomes the newest holder and publishes."""
    step = getattr(TransactionalProducer, point)

    def fence_and_do(self: TransactionalProducer, *arguments: object) -> None:
        make_transactional(cluster, job).close()
        step(self, *arguments)

    with Follower(cluster, job) as follower:
        with owned(cluster, job) as owner:
            publication = prepare(owner, tmp_path)
            with monkeypatch.context() as patch:
                patch.setattr(TransactionalProducer, point, fence_and_do)
                with pytest.raises(KafkaTransientError):
                    publish_run(owner, publication)
            assert cluster.count(job) == 0
            assert publish_run(owner, publication).run == 1
        assert_exact(cluster, job, follower=follower)


def test_without_fencing_first_the_ledger_misses_a_run(cluster: Cluster, job: Job) -> None:
    """A read before the fence may miss a run: an open transaction commits behind the reader's back."""
    payload = b"{}"
    with owned(cluster, job) as owner:
        prepare_outputs(owner)
        old = make_transactional(cluster, job)
        old.begin()
        old.sender.send_one(job.ledger, LAST, payload, 0)
        old.flush()
        # The transaction is open, so a reader of the committed has nothing, and cannot even reach the end.
        with pytest.raises(TransientError, match="could be read to offset 0 of 1 only"):
            read_ledger(cluster.connection, cluster.admin, job.ledger, job.name, 0.5)
        assert cluster.read(job.ledger) == []
        old.commit()
        wait_for(lambda: len(cluster.read(job.ledger)) == 1)
        old.close()


def test_another_attempts_run_supersedes(cluster: Cluster, job: Job, tmp_path: Path) -> None:
    """Another attempt published a run of the same number meanwhile: this one stops, and publishes nothing."""
    with owned(cluster, job) as owner:
        publication = prepare(owner, tmp_path)
        publish_run(owner, prepare(owner, tmp_path))
        owner.fence()
        with pytest.raises(SupersededError, match="run 1 of job .* superseded"):
            publish_run(owner, publication)
    assert_sorted(cluster, job)
    assert uncommitted(cluster, job) == 1000


def test_a_record_above_the_outputs_limit(cluster: Cluster, job: Job, tmp_path: Path) -> None:
    """The limit was lowered during the run: a terminal error has the cause and the way out, and nothing is visible."""
    with owned(cluster, job) as owner:
        publication = prepare(owner, tmp_path)
        set_topic(cluster, job.sort_list[0].topic, "max.message.bytes", "100")
        with pytest.raises(KafkaTerminalError, match="max.message.bytes") as failed:
            publish_run(owner, publication)
        assert failed.value.code == KafkaError.MSG_SIZE_TOO_LARGE
        assert cluster.count(job) == 0
        # With the setting corrected, the same orders are published.
        set_topic(cluster, job.sort_list[0].topic, "max.message.bytes", "1048588")
        publish_run(owner, publication)
    assert_sorted(cluster, job)


def set_topic(cluster: Cluster, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    cluster.admin.incremental_alter_configs([resource])[resource].result()


def test_another_writer_in_an_output(
    cluster: Cluster, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An output that grew by more than was sent has another writer: nothing is committed."""
    output = job.sort_list[0].topic
    with owned(cluster, job) as owner:
        publication = prepare(owner, tmp_path)
        flush = TransactionalProducer.flush

        def write_and_flush(self: TransactionalProducer) -> None:
            cluster.produce_records(output, [Record(b"of somebody else", partition=2)])
            flush(self)

        with monkeypatch.context() as patch:
            patch.setattr(TransactionalProducer, "flush", write_and_flush)
            with pytest.raises(OutputChangedError, match=f"{output} partition 2 grew by .* something else writes"):
                publish_run(owner, publication)
    assert [r.value for r in cluster.read(output)] == [b"of somebody else"]
    assert cluster.ledger(job).last is None


def test_an_output_that_is_made_again_during_the_run(cluster: Cluster, job: Job, tmp_path: Path) -> None:
    """A topic of the same name is not the same topic."""
    output = job.sort_list[0].topic
    with owned(cluster, job) as owner:
        publication = prepare(owner, tmp_path)
        cluster.delete_topic(output)
        with pytest.raises(OutputChangedError, match=f"{output} is gone"):
            publish_run(owner, publication)
        cluster.make_topic(4, output)
        with pytest.raises(OutputChangedError, match=f"{output} was deleted and recreated"):
            publish_run(owner, publication)
    assert uncommitted(cluster, job) == 0


def test_a_source_that_is_made_again_during_the_run(cluster: Cluster, job: Job, tmp_path: Path) -> None:
    """Records read from another topic of the same name are not published."""
    with owned(cluster, job) as owner:
        publication = prepare(owner, tmp_path)
        cluster.delete_topic(job.source_topic)
        cluster.make_topic(4, job.source_topic)
        cluster.produce(job.source_topic, sample_values(1000, seed=2))
        with pytest.raises(SourceRecreatedError, match="deleted and recreated"):
            publish_run(owner, publication)
    assert uncommitted(cluster, job) == 0


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["connection", "stop"])
def test_a_call_that_is_never_answered(
    cluster: Cluster, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """librdkafka may not come back from a call: the attempt ends all the same; the next one fences, and publishes."""
    with never_answered("offsets", trouble, monkeypatch) as stop, owned(cluster, job) as owner:
        publication = prepare(owner, tmp_path)
        with run_context(stop), pytest.raises(KafkaTransientError, match="offsets of transaction .* got no answer"):
            publish_run(owner, publication)
        assert uncommitted(cluster, job) == 1000
        record = publish_run(owner, publication)
    assert (record.run, record.records) == (1, 1000)
    assert_sorted(cluster, job)


def test_a_commit_that_is_never_answered(
    cluster: Cluster, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit was done all the same: a stopped run does not deny it, and the next attempt finds it."""
    with never_answered("commit", "stop", monkeypatch) as stop, owned(cluster, job) as owner:
        publication = prepare(owner, tmp_path)
        with run_context(stop), pytest.raises(CommitUnknownError, match="the ledger has the outcome") as unknown:
            publish_run(owner, publication)
        assert stop.cause_of(unknown.value) is unknown.value
        assert cluster.count(job) == 1000
        assert publish_run(owner, publication).run == 1
    assert_sorted(cluster, job)
    assert uncommitted(cluster, job) == 1000


@contextmanager
def never_answered(deaf: str, trouble: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stop]:
    """Make the first call of this name, but keep its answer back; the run may not wait for long either.

    The error callback reports a broken connection. The stop is of the run that meets it.
    """
    bounded, stop, met = TransactionalProducer._within_time, Stop(), list[str]()

    def without_answer(self: TransactionalProducer, what: str, call: Callable[[], object]) -> None:
        if what != deaf or met:
            bounded(self, what, call)
            return
        met.append(what)
        if trouble == "connection":
            self._on_error(KafkaError(KafkaError._TRANSPORT))
        else:
            stop.ask(StoppedError())
        bounded(self, what, lambda: (call(), threading.Event().wait()))

    with monkeypatch.context() as patch:
        patch.setattr("tasks.kafka.transaction._LOST_SECONDS", 1.0)
        patch.setattr(TransactionalProducer, "_within_time", without_answer)
        yield stop
    assert met == [deaf]


def test_both_ways_of_sending_give_the_same_outputs(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """librdkafka's batch call and one call a record: the same records in order, null and empty keys included."""
    assert native_produce.AVAILABLE
    source = cluster.make_topic()
    rows = [Record(v, [None, b"", b"k%d" % i][i % 3], (), i % 4) for i, v in enumerate(sample_values(500, ids=20))]
    cluster.produce_records(source, rows)
    written = []
    for available in (True, False):
        monkeypatch.setattr(native_produce, "AVAILABLE", available)
        job = make_job(source, tmp_path, job_name=f"{source}-{available}")
        run_once(cluster, job, tmp_path)
        assert_sorted(cluster, job)
        written.append(cluster.read(job.sort_list[0].topic))
    assert written[0] == written[1]
    assert [(r.partition, r.offset) for r in written[0]] == [(r.partition, r.offset) for r in written[1]]


def test_a_large_record(cluster: Cluster, tmp_path: Path) -> None:
    """A default broker's largest records come out: one just below its limit among tiny ones."""
    source = cluster.make_topic(2)
    large = b"7,%s,address,Asia" % (b"x" * 1_045_000)
    values = [*sample_values(50), large, *sample_values(50, seed=2)]
    cluster.produce(source, values, 2, **{"message.max.bytes": 2_000_000})
    job = make_job(source, tmp_path)
    run_once(cluster, job, tmp_path)
    assert_sorted(cluster, job)


def test_large_keys(cluster: Cluster, tmp_path: Path) -> None:
    """Keys of hundreds of kilobytes do not make the run's record too large for the ledger."""
    source = cluster.make_topic()
    cluster.produce(source, [b"%d,%s,address,Asia" % (i, b"abcdefgh"[i % 8 : i % 8 + 1] * 300_000) for i in range(8)])
    job = make_job(source, tmp_path, sorts=[f"name={source}-names"])
    record = run_once(cluster, job, tmp_path)
    assert len(record.to_json()) < 100_000
    assert_sorted(cluster, job)


def test_the_owner_publishes_only_its_own_snapshot(cluster: Cluster, job: Job, tmp_path: Path) -> None:
    """A publication for another state of the ledger than the present one is refused."""
    with owned(cluster, job) as owner:
        publication = prepare(owner, tmp_path)
        ahead = replace(publication, snapshot=replace(publication.snapshot, run=3))
        with pytest.raises(TerminalError):
            publish_run(owner, ahead)
    assert uncommitted(cluster, job) == 0


def test_a_source_that_was_truncated(cluster: Cluster, job: Job, tmp_path: Path) -> None:
    """A source that ends before offsets which the ledger has as read has lost acknowledged records."""
    record = run_once(cluster, job, tmp_path)
    read = tuple(replace(r, end=r.end + 10) for r in record.read)
    ahead = replace(record, run=2, read=read).to_json()
    records = [Record(ahead, run_key(2)), Record(ahead, LAST)]
    cluster.produce_records(job.ledger, records, **{"transactional.id": job.group})
    with owned(cluster, job) as owner, pytest.raises(SourceTruncatedError, match="before .* where the last run ended"):
        take_snapshot(owner)
