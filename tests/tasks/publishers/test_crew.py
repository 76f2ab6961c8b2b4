"""A driver and its publishers: who counts, who is too late, and what a publisher may touch."""

import itertools
from pathlib import Path

import pytest

from tasks.kafka.clients import KafkaTransientError
from tasks.kafka.native_adopt import PlaceNotFoundError
from tasks.kafka.same_cluster import OtherClusterError
from tasks.kafka.transaction import TransactionalProducer
from tasks.publish import publish_run
from tasks.publishers import crew
from tasks.publishers.rendezvous import DoorClosedError, Message, PublisherLostError, Report
from tasks.publishers.rows import ContentError
from tasks.settings.job import Job
from tests.cluster import Cluster, sample_values
from tests.faults.oracle import Follower, assert_exact
from tests.files import flip
from tests.publishers import Threads, _Door, elsewhere, several
from tests.stages import make_job, owned, prepare

ROWS = 1000


@pytest.fixture
def job(cluster: Cluster, tmp_path: Path) -> Job:
    """A job over 1000 records in 4 partitions."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(ROWS))
    return make_job(source, tmp_path)


@pytest.fixture
def engine(cluster: Cluster) -> Threads:
    return Threads(cluster.connection)


@pytest.mark.slow
def test_each_sends_its_own_partitions(cluster: Cluster, job: Job, engine: Threads, tmp_path: Path) -> None:
    """Three publishers send what together is the run, each some of it, and one reader sees it once."""
    with Follower(cluster, job) as follower:
        with owned(cluster, job) as owner:
            publish_run(owner, prepare(owner, tmp_path), several(engine, 3))
        engine.join()
        sent = [sum(total.rows for total in report.totals.values()) for report in reports(engine)]
        assert len(sent) == 3
        assert min(sent) > 0
        assert sum(sent) == ROWS
        assert engine.outcomes == [(number, None) for number, _ in engine.outcomes]
        assert_exact(cluster, job, follower=follower)


def reports(engine: Threads) -> list[Report]:
    return [message.content for message in engine.messages if isinstance(message.content, Report)]


@pytest.mark.slow
def test_more_publishers_than_partitions(cluster: Cluster, job: Job, engine: Threads, tmp_path: Path) -> None:
    """Of seven publishers for four partitions there are four."""
    with owned(cluster, job) as owner:
        publish_run(owner, prepare(owner, tmp_path), several(engine, 7))
    engine.join()
    assert len(reports(engine)) == len(engine.threads) == 4
    assert_exact(cluster, job)


@pytest.mark.slow
def test_one_partition(cluster: Cluster, tmp_path: Path, engine: Threads) -> None:
    """The run's own process sends the rows if only one partition gets any."""
    source = cluster.make_topic(1)
    cluster.produce(source, sample_values(10), 1)
    job = make_job(source, tmp_path)
    with owned(cluster, job) as owner:
        publish_run(owner, prepare(owner, tmp_path), several(engine))
    assert engine.threads == []
    assert_exact(cluster, job)


@pytest.mark.slow
def test_run_after_run(cluster: Cluster, job: Job, engine: Threads, tmp_path: Path) -> None:
    """One owner publishes runs with several publishers and alone, in turn: each in a transaction and epoch of its own.

    I2: nothing is begun again under an epoch that publishers have.
    """
    with owned(cluster, job) as owner:
        for number in range(1, 5):
            publication = prepare(owner, tmp_path)
            publish_run(owner, publication, *([several(engine)] if number % 2 else []))
            cluster.produce(job.source_topic, sample_values(10, seed=number))
        publish_run(owner, prepare(owner, tmp_path))
    assert_exact(cluster, job, runs=5)


@pytest.mark.slow
def test_one_that_did_not_adopt(
    cluster: Cluster, job: Job, engine: Threads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the write into librdkafka is left out, Kafka refuses the first request, and nothing of it is written."""
    with owned(cluster, job) as owner:
        publication = prepare(owner, tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(TransactionalProducer, "adopt", lambda *_: None)
            with pytest.raises(KafkaTransientError):
                publish_run(owner, publication, several(engine))
        engine.join()
        assert cluster.count(job, committed=False) == 0
        assert reports(engine) == []
        publish_run(owner, publication, several(engine))
    assert_exact(cluster, job)


@pytest.mark.slow
@pytest.mark.parametrize("unable", [1, 2], ids=["one of two", "both"])
def test_who_cannot_adopt_sends_nothing(
    cluster: Cluster, job: Job, engine: Threads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unable: int
) -> None:
    """Where the place is not found, the others send all; where nobody finds it, the run's own process does."""
    calls = itertools.count()

    def require_adoptable(_: TransactionalProducer) -> None:
        if next(calls) < unable:
            raise PlaceNotFoundError("no place")

    monkeypatch.setattr(TransactionalProducer, "require_adoptable", require_adoptable)
    with owned(cluster, job) as owner:
        publish_run(owner, prepare(owner, tmp_path), several(engine))
    engine.join()
    assert sum(isinstance(error, PlaceNotFoundError) for _, error in engine.outcomes) == unable
    assert [total.rows for report in reports(engine) for total in report.totals.values()] == [ROWS] * (2 - unable)
    assert_exact(cluster, job)


@pytest.mark.parametrize("reason", [PlaceNotFoundError("no place"), DoorClosedError("late")], ids=["no place", "late"])
def test_the_end_of_a_process_hides_no_reason(cluster: Cluster, reason: Exception) -> None:
    """The process of a publisher that failed ends as well: the driver keeps why it failed."""
    door = _Door(Threads(cluster.connection))
    lost = PublisherLostError("ended")
    for number, token, error in ((1, "a", reason), (1, "", lost), (2, "", lost)):
        door.tell(Message("attempt", number, token, error))
    gathering = crew._Gathering(door, "attempt", 2)
    if isinstance(reason, PlaceNotFoundError):
        assert gathering.gather() == {}
    else:
        with pytest.raises(DoorClosedError):
            gathering.gather()
    assert gathering.failed == {1: reason, 2: lost}


@pytest.mark.slow
@pytest.mark.raises("DoorClosedError")
def test_one_that_comes_too_late(cluster: Cluster, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver goes on with those that came; one that comes later fences nobody, and sends nothing."""
    engine = Threads(cluster.connection, delay=lambda number: 3.0 * (number == 2))
    monkeypatch.setattr(crew, "_GATHER_SECONDS", 1.0)
    with owned(cluster, job) as owner:
        record = publish_run(owner, prepare(owner, tmp_path), several(engine))
    engine.join()
    outcomes = dict(engine.outcomes)
    assert isinstance(outcomes[2], DoorClosedError)
    assert outcomes[1] is None
    assert record == cluster.ledger(job).last
    assert cluster.count(job, committed=False) == ROWS
    assert_exact(cluster, job)


@pytest.mark.slow
def test_twins(cluster: Cluster, job: Job, tmp_path: Path) -> None:
    """Publishers that their engine runs twice: one of each two sends, and the other one nothing."""
    engine = Threads(cluster.connection, copies=2)
    with owned(cluster, job) as owner:
        publish_run(owner, prepare(owner, tmp_path), several(engine))
    engine.join()
    assert len(engine.outcomes) == 4
    assert len(reports(engine)) == 2
    assert cluster.count(job, committed=False) == ROWS
    assert_exact(cluster, job)


@pytest.mark.slow
def test_another_cluster(cluster: Cluster, job: Job, tmp_path: Path) -> None:
    """A publisher whose environment leads to another cluster touches no transactional id there."""
    engine = Threads(cluster.connection, change=elsewhere)
    with owned(cluster, job) as owner:
        producer = owner.healthy_producer()
        publication = prepare(owner, tmp_path)
        with pytest.raises(OtherClusterError, match="the run reads another: nothing was fenced"):
            publish_run(owner, publication, several(engine))
        # The producer from before commits: nobody has fenced it.
        assert owner.healthy_producer() is producer
        publish_run(owner, publication)
    assert_exact(cluster, job)


@pytest.mark.slow
def test_rows_that_were_altered(cluster: Cluster, job: Job, engine: Threads, tmp_path: Path) -> None:
    """A flipped bit is found by the sum over all publishers, before the commit."""
    value = next(r.value for r in cluster.read(job.source_topic) if r.value)
    with owned(cluster, job) as owner:
        publication = prepare(owner, tmp_path)
        flip(publication.sorts[0].parts[0].files, value)
        with pytest.raises(ContentError, match="1000 rows to publish are not the 1000 that were read"):
            publish_run(owner, publication, several(engine))
    assert cluster.count(job) == 0
