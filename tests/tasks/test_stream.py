"""A stream in this process, on the real broker: when batches close, how they grow, errors, and its end."""

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions

from tasks.errors import SettingsError, TransientError
from tasks.failpoints import VARIABLE
from tasks.kafka.clients import KafkaTerminalError
from tasks.kafka.topics import Topic, describe_topic
from tasks.ownership import Owner
from tasks.publish import publish_run
from tasks.settings.job import Job
from tasks.source import SourceRecreatedError
from tasks.streaming import trigger
from tasks.streaming.trigger import Pace
from tasks.targets.base import OutputChangedError
from tests.cluster import Cluster, Record, assert_every_run, sample_values, wait_for
from tests.stages import make_job, make_stream, owned, serve, serving


@pytest.fixture
def job(cluster: Cluster, tmp_path: Path) -> Job:
    """A job over an empty source with 4 partitions."""
    return make_job(cluster.make_topic(), tmp_path)


def sizes(cluster: Cluster, job: Job) -> list[int]:
    runs = cluster.ledger(job).runs
    return [runs[number].records for number in sorted(runs)]


def test_a_partial_batch_closes_at_its_latency(cluster: Cluster, job: Job) -> None:
    """Few records do not wait for more; later ones are the next batch."""
    stream = make_stream(cluster, job)
    with serving(cluster, stream):
        for number in (1, 2):
            cluster.produce(job.source_topic, sample_values(10, seed=number))
            wait_for(lambda count=number: stream.stats.batches >= count)  # type: ignore[misc]
    assert assert_every_run(cluster, job) >= 2


@pytest.mark.slow
def test_a_batch_closes_when_it_is_full(cluster: Cluster, job: Job) -> None:
    """With its records there, or its bytes, a batch does not wait for its latency."""
    cluster.produce(job.source_topic, sample_values(200))
    serve(cluster, make_stream(cluster, job, batch_size=100, max_latency=3000, max_batches=2))
    assert sizes(cluster, job) == [100, 100]
    # About 38 records have 2 kB; the size of records is known once the first batch of a stream was read.
    cluster.produce(job.source_topic, sample_values(100, seed=2))
    serve(cluster, make_stream(cluster, job, max_bytes="2kB", batch_size=90, max_latency=3000, max_batches=2))
    assert all(30 < size < 50 for size in sizes(cluster, job)[2:])


def test_batches_grow_under_backlog_and_shrink_again(cluster: Cluster, job: Job) -> None:
    """The first batch takes the size that was set, the next ones twice as much each, the last what is left."""
    cluster.produce(job.source_topic, sample_values(1000))
    stream = make_stream(cluster, job, batch_size=100)
    with serving(cluster, stream):
        wait_for(lambda: sum(sizes(cluster, job)) == 1000)
    assert assert_every_run(cluster, job) == len(sizes(cluster, job))
    assert sizes(cluster, job)[:3] == [100, 200, 400]


def test_pace() -> None:
    """Batches double after each that left more behind than it took, up to a bound, and shrink once caught up."""
    pace = Pace(100)
    grown = []
    for waiting in (500, 500, 500, 10_000, 10_000, 10_000, 50, 50, 50, 50, 50):
        pace.note_waiting(waiting)
        grown.append(pace.records)
    assert grown == [200, 400, 800, 1600, 1600, 1600, 800, 400, 200, 100, 100]


@pytest.mark.slow
def test_a_hot_partition_does_not_starve_the_others(cluster: Cluster, job: Job) -> None:
    """The records of a quiet partition are in the first batch, however many wait in the others."""
    hot = [Record(v, partition=0) for v in sample_values(1000)]
    cluster.produce_records(job.source_topic, [*hot, *(Record(v, partition=3) for v in sample_values(20, seed=2))])
    serve(cluster, make_stream(cluster, job, batch_size=100, max_batches=1))
    last = cluster.ledger(job).last
    assert last is not None
    assert last.ends == {0: 80, 1: 0, 2: 0, 3: 20}


@pytest.mark.parametrize("partition_by", [pytest.param("range", marks=pytest.mark.slow), "source"])
def test_partitions_that_are_added(
    cluster: Cluster, job: Job, monkeypatch: pytest.MonkeyPatch, partition_by: str
) -> None:
    """They are read while the stream works, from their beginning; outputs partitioned by source get them as well."""
    monkeypatch.setattr(trigger, "_DESCRIBE_SECONDS", 0.2)
    job = job.model_copy(update={"partition_by": partition_by})
    cluster.produce(job.source_topic, sample_values(20))
    stream = make_stream(cluster, job)
    with serving(cluster, stream):
        wait_for(lambda: stream.stats.batches >= 1)
        cluster.admin.create_partitions([NewPartitions(job.source_topic, 6)])[job.source_topic].result()
        wait_for(lambda: len((describe_topic(cluster.admin, job.source_topic) or Topic("", "", ())).partitions) == 6)
        cluster.produce_records(job.source_topic, [Record(v, partition=5) for v in sample_values(5, seed=2)])
        wait_for(lambda: stream.stats.status().records == 25)
    assert_every_run(cluster, job)
    if partition_by == "source":
        assert {r.partition for r in cluster.read(job.sort_list[0].topic)} == {0, 1, 2, 3, 5}


@pytest.mark.slow
def test_an_output_of_hashes_that_gets_partitions_ends_the_stream(cluster: Cluster, job: Job) -> None:
    """Equal keys would be in two partitions: the next batch is not published."""
    job = job.model_copy(update={"partition_by": "hash"})
    output = job.sort_list[0].topic
    cluster.produce(job.source_topic, sample_values(20))
    stream = make_stream(cluster, job)
    ends = pytest.raises(OutputChangedError, match="has 5 partitions, and had 4 when the run began")
    with ends, serving(cluster, stream):
        wait_for(lambda: stream.stats.batches >= 1)
        cluster.admin.create_partitions([NewPartitions(output, 5)])[output].result()
        wait_for(lambda: len((describe_topic(cluster.admin, output) or Topic("", "", ())).partitions) == 5)
        cluster.produce(job.source_topic, sample_values(20, seed=2))
        wait_for(lambda: stream._owned is None)
    assert cluster.count(job, committed=False) == 20


@pytest.mark.slow
def test_a_partition_without_a_leader_waits(cluster: Cluster, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others go on; once it has a leader, its records are read. The broker is told to have lost it."""
    lost = {2}

    def describe(admin: AdminClient, name: str) -> Topic | None:
        topic = describe_topic(admin, name)
        return topic and replace(topic, leaderless=tuple(lost))

    monkeypatch.setattr("tasks.source.describe_topic", describe)
    monkeypatch.setattr(trigger, "_DESCRIBE_SECONDS", 0.1)
    cluster.produce(job.source_topic, sample_values(40))
    stream = make_stream(cluster, job.model_copy(update={"on_partition_failure": "skip"}))
    with serving(cluster, stream):
        wait_for(lambda: stream.stats.status().records == 30)
        assert stream.stats.status().skipped == (2,)
        lost.clear()
        wait_for(lambda: stream.stats.status().records == 40)
        assert stream.stats.status().skipped == ()
    assert_every_run(cluster, job)


@pytest.fixture
def fences(monkeypatch: pytest.MonkeyPatch) -> list[Owner]:
    """Note the owner at each of its fences."""
    seen: list[Owner] = []
    fence = Owner._fence

    def noted(owner: Owner) -> None:
        seen.append(owner)
        fence(owner)

    monkeypatch.setattr(Owner, "_fence", noted)
    return seen


@pytest.mark.slow
def test_the_producer_lives_on(cluster: Cluster, job: Job, fences: list[Owner]) -> None:
    """While all goes well the job is fenced once, however many batches there are."""
    cluster.produce(job.source_topic, sample_values(500))
    serve(cluster, make_stream(cluster, job, batch_size=20, max_batches=5))
    assert len(cluster.ledger(job).runs) == 5
    assert len(fences) == 1


@pytest.mark.parametrize(
    "point",
    [
        "after-commit",
        pytest.param("after-flush", marks=pytest.mark.slow),
        pytest.param("before-dump-chunk", marks=pytest.mark.slow),
        pytest.param("before-sort", marks=pytest.mark.slow),
        pytest.param("before-begin", marks=pytest.mark.slow),
        pytest.param("before-commit", marks=pytest.mark.slow),
    ],
)
def test_trouble_ends_in_owning_the_job_anew(
    cluster: Cluster, job: Job, point: str, fences: list[Owner], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed batch is retried; one with an unanswered commit is found: fence, then read."""
    cluster.produce(job.source_topic, sample_values(200))
    job = job.model_copy(update={"retry_delay": 0.1})
    monkeypatch.setenv(VARIABLE, f"{point}=raise")
    stream = make_stream(cluster, job, batch_size=200)
    with serving(cluster, stream):
        wait_for(lambda: stream.stats.status().records == 200)
    assert len(fences) == 2
    assert assert_every_run(cluster, job) == 1
    aborted = cluster.count(job, committed=False) - cluster.count(job)
    assert aborted == (200 if point in {"after-flush", "before-commit"} else 0)


@pytest.mark.slow
def test_trouble_comes_to_an_end(cluster: Cluster, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no batch succeeds in between, the stream ends after the job's retries."""
    cluster.produce(job.source_topic, sample_values(20))
    job = job.model_copy(update={"retries": 1, "retry_delay": 0.1})

    def fail(*_: object, **__: object) -> None:
        raise TransientError("a disk that is full")

    monkeypatch.setattr("tasks.runners.sort_chunks", fail)
    with pytest.raises(TransientError, match="disk that is full"):
        serve(cluster, make_stream(cluster, job))
    assert cluster.count(job, committed=False) == 0


@pytest.mark.parametrize(("drain", "records"), [pytest.param("finish", 200, marks=pytest.mark.slow), ("abort", 0)])
def test_a_stop_while_a_batch_is_under_way(
    cluster: Cluster, job: Job, drain: str, records: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is finished, or abandoned without a trace, as the stream's setting says; then the stream ends."""
    cluster.produce(job.source_topic, sample_values(200))
    stream = make_stream(cluster, job, batch_size=200, drain=drain)

    def stopped(*arguments: object) -> object:
        stream.drain.set()
        # The hard stop, if it comes, comes from another thread.
        time.sleep(0.3)
        return publish_run(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("tasks.runners.publish_run", stopped)
    serve(cluster, stream)
    assert stream.ended
    assert cluster.count(job) == records
    if drain == "abort":
        assert cluster.ledger(job).last is None


@pytest.mark.slow
def test_a_drain_has_its_time(cluster: Cluster, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that does not end within the drain time is abandoned, even if its transaction has begun."""
    cluster.produce(job.source_topic, sample_values(200))
    stream = make_stream(cluster, job, batch_size=200, drain_timeout=1.0)
    stalled = []

    def stall(name: str) -> None:
        if name == "after-begin":
            stalled.append(name)
            stream.drain.set()
            time.sleep(1.5)

    monkeypatch.setattr("tasks.publish.reach", stall)
    serve(cluster, stream)
    assert stalled
    assert stream.ended
    assert cluster.count(job) == 0


@pytest.mark.slow
def test_what_waits_is_flushed_at_the_end(cluster: Cluster, job: Job) -> None:
    """A partial batch whose latency is not over yet is flushed, too."""
    stream = make_stream(cluster, job, max_latency=3000)
    with serving(cluster, stream):
        wait_for(lambda: stream.drain._at_work)
        cluster.produce(job.source_topic, sample_values(40))
        wait_for(lambda: sum(stream.stats.status().lag.values()) == 40)
    assert assert_every_run(cluster, job) == 1


@pytest.mark.slow
def test_a_stream_ends_by_itself(cluster: Cluster, job: Job) -> None:
    """It ends after its longest time, with the waiting records flushed."""
    cluster.produce(job.source_topic, sample_values(40))
    serve(cluster, make_stream(cluster, job, max_latency=3000, max_runtime=2.0))
    assert assert_every_run(cluster, job) == 1


@pytest.mark.slow
def test_a_first_run_at_latest_is_anchored(cluster: Cluster, job: Job) -> None:
    """`start=latest` means the end as it was when the stream began, even if nothing comes for long."""
    cluster.produce(job.source_topic, sample_values(40))
    stream = make_stream(cluster, job.model_copy(update={"start": "latest"}), max_latency=0.2)
    with serving(cluster, stream):
        wait_for(lambda: stream.stats.batches == 1)
        cluster.produce(job.source_topic, sample_values(8, seed=2))
        wait_for(lambda: stream.stats.batches >= 2)
    assert sizes(cluster, job)[0] == 0
    assert sum(sizes(cluster, job)) == 8


@pytest.mark.slow
def test_a_standby_waits_and_takes_over(cluster: Cluster, job: Job) -> None:
    """It waits while another stream owns the job, then goes on at once; a waiting one can also end in order."""
    cluster.produce(job.source_topic, sample_values(40))
    idle = make_stream(cluster, job, standby=True)
    stream, later = make_stream(cluster, job, standby=True), ExitStack()
    with owned(cluster, job):
        with serving(cluster, idle):
            time.sleep(0.5)
        assert idle.ended
        later.enter_context(serving(cluster, stream))
        time.sleep(0.5)
        assert stream.stats.batches == 0
    with later:
        wait_for(lambda: stream.stats.status().records == 40)
    assert_every_run(cluster, job)


@pytest.mark.slow
def test_the_source_made_again_under_a_stream(cluster: Cluster, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiting stream notices that its source is gone or recreated, even if it is empty, and stops."""
    monkeypatch.setattr(trigger, "_DESCRIBE_SECONDS", 0.1)
    cluster.produce(job.source_topic, sample_values(40))
    stream = make_stream(cluster, job)
    # Raised at the block's end; which one it is depends on when the stream looked: before, between or after.
    ends = (SourceRecreatedError, KafkaTerminalError, SettingsError)
    with pytest.raises(ends), serving(cluster, stream):  # noqa: PT012
        wait_for(lambda: stream.stats.batches >= 1)
        cluster.delete_topic(job.source_topic)
        cluster.make_topic(name=job.source_topic)
        wait_for(lambda: stream._owned is None)
