"""Runs that end at a time: what they read, what they leave, and what the next run does."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tasks.errors import SettingsError
from tasks.observe.report import headline
from tasks.ownership import Onlooker
from tasks.preflight import check_before_lease
from tasks.publish import publish_run
from tasks.settings.job import Job
from tasks.snapshot import take_snapshot
from tests.cluster import Cluster, assert_every_run, assert_sorted, sample_values, wait_for
from tests.command import Command
from tests.stages import make_job, make_stream, owned, prepare, run_once, serve

NIGHT = datetime(2026, 2, 1, tzinfo=UTC)


def at(minutes: float) -> str:
    """Return a time so many minutes after the night."""
    return (NIGHT + timedelta(minutes=minutes)).isoformat()


def make_source(cluster: Cluster, partitions: int) -> str:
    # Records of that night are older than the retention of other topics.
    return cluster.make_topic(partitions, retention_ms="-1")


def produce_at(cluster: Cluster, topic: str, minutes: Mapping[int, Sequence[float]], *, abort: bool = False) -> None:
    """Send a record at each of these minutes after the night, in this order, by partition; or abort all of them."""
    producer = Producer(
        {"bootstrap.servers": cluster.bootstrap_servers, **({"transactional.id": topic} if abort else {})}
    )
    if abort:
        producer.init_transactions(30)
        producer.begin_transaction()
    values = iter(sample_values(sum(map(len, minutes.values())), seed=len(minutes)))
    for partition, times in minutes.items():
        for minute in times:
            millis = round((NIGHT + timedelta(minutes=minute)).timestamp() * 1000)
            producer.produce(topic, next(values), partition=partition, timestamp=millis)
    assert producer.flush(30) == 0
    if abort:
        producer.abort_transaction(30)
        wait_for(lambda: cluster.ends(topic) == cluster.ends(topic, committed=False))


def spans(cluster: Cluster, job: Job) -> dict[int, tuple[int, int]]:
    """Return partition → offsets [start, end) that the next run would read."""
    view = Onlooker(Job.model_validate(job.model_dump(exclude_unset=True)), cluster.connection, cluster.admin)
    return {r.partition: (r.start, r.end) for r in take_snapshot(view).ranges}


@pytest.mark.slow
def test_a_run_ends_before_the_first_record_at_its_time(cluster: Cluster, command: Command, tmp_path: Path) -> None:
    """Each partition ends before its first record at the time or after it; the next run takes what is left.

    A partition without such a record ends where the run without an end would, and an empty one has nothing to read.
    """
    source = make_source(cluster, 4)
    produce_at(cluster, source, {0: [-2, -1, 0, 1], 1: [-3, -2, -1], 2: [1, 2]})
    job = command.job(source, end="2026-02-01T00:00")
    record = run_once(cluster, job, tmp_path)
    assert f"5 records of {source} before 2026-02-01T00:00, sorted by" in headline(record)
    assert record.ends == {0: 2, 1: 3, 2: 0, 3: 0}
    assert record.options["end"] == record.end == "2026-02-01T00:00"
    assert_sorted(cluster, job)
    again = command.run(job)
    assert (again.status, again.out) == (0, f"{source}: nothing new in {source} before 2026-02-01T00:00\n"), again.err
    assert "offsets_behind=4" in again.err
    last = run_once(cluster, job.model_copy(update={"end": None}), tmp_path)
    assert (last.records, last.end, "end" in last.options) == (4, None, False)
    assert_sorted(cluster, job, runs=2)


@pytest.mark.slow
def test_an_end_before_what_was_read(cluster: Cluster, tmp_path: Path) -> None:
    """A partition that was read beyond the end has nothing new, and goes on where it was; others are read."""
    source = make_source(cluster, 2)
    job = make_job(source, tmp_path)
    produce_at(cluster, source, {0: [0, 10, 20]})
    run_once(cluster, job, tmp_path)
    produce_at(cluster, source, {0: [30], 1: [0, 10, 20]})
    job = job.model_copy(update={"end": at(15)})
    assert spans(cluster, job) == {0: (3, 3), 1: (0, 2)}
    with owned(cluster, job) as owner:
        snapshot = take_snapshot(owner)
        assert (snapshot.lag, snapshot.behind_end, snapshot.capped) == ({0: 1, 1: 3}, 2, "")
        assert snapshot.lag_left == {0: 1, 1: 1}
        assert publish_run(owner, prepare(owner, tmp_path)).records == 2


@pytest.mark.slow
def test_a_replacement_that_ends(cluster: Cluster, tmp_path: Path) -> None:
    """It reads all again up to its end, also where runs have read more: what is behind it is for later runs."""
    source = make_source(cluster, 2)
    job = make_job(source, tmp_path)
    produce_at(cluster, source, {0: [0, 10, 20], 1: [0]})
    run_once(cluster, job, tmp_path)
    produce_at(cluster, source, {0: [30], 1: [1, 10, 20]})
    replacing = job.model_copy(update={"mode": "replace", "end": at(15)})
    assert spans(cluster, replacing) == {0: (0, 2), 1: (0, 3)}
    view = Onlooker(replacing, cluster.connection, cluster.admin)
    snapshot = take_snapshot(view)
    assert (snapshot.lag, snapshot.lag_left, snapshot.behind_end) == ({0: 2, 1: 3}, {0: 2, 1: 1}, 3)


def test_times_out_of_order(cluster: Cluster, tmp_path: Path) -> None:
    """Records behind the first one at the time wait for a later run, though they are older; no later one is read."""
    source = make_source(cluster, 1)
    produce_at(cluster, source, {0: [-5, 3, -4, 2, -3]})
    job = make_job(source, tmp_path)
    assert spans(cluster, job.model_copy(update={"end": at(0)})) == {0: (0, 1)}
    assert spans(cluster, job.model_copy(update={"end": at(2.5)})) == {0: (0, 1)}
    assert spans(cluster, job.model_copy(update={"end": at(3.1)})) == {0: (0, 5)}
    assert spans(cluster, job.model_copy(update={"start": at(0), "end": at(0)})) == {0: (1, 1)}


def test_the_intersection(cluster: Cluster, tmp_path: Path) -> None:
    """A run takes what start, end and most records all permit; the cap counts what lies before the end alone."""
    source = make_source(cluster, 2)
    produce_at(cluster, source, {0: range(10), 1: range(20)})
    job = make_job(source, tmp_path, start=at(4), end=at(8))
    assert spans(cluster, job) == {0: (4, 8), 1: (4, 8)}
    capped = job.model_copy(update={"max_records": 4})
    assert spans(cluster, capped) == {0: (4, 6), 1: (4, 6)}
    with owned(cluster, capped) as owner:
        assert take_snapshot(owner).capped == "max_records"
        assert publish_run(owner, prepare(owner, tmp_path)).records == 4
    assert spans(cluster, job.model_copy(update={"start": None})) == {0: (6, 8), 1: (6, 8)}


def test_aborted_records_and_times_before_all(cluster: Cluster, tmp_path: Path) -> None:
    """An aborted record, or the marker of its transaction, may be the end; before all records there is nothing to read.

    A marker has the broker's time, which is later than that of these records.
    """
    source = make_source(cluster, 1)
    produce_at(cluster, source, {0: [0, 1]})
    produce_at(cluster, source, {0: [2, 3]}, abort=True)
    produce_at(cluster, source, {0: [4]})
    job = make_job(source, tmp_path)
    ends = {minute: spans(cluster, job.model_copy(update={"end": at(minute)}))[0][1] for minute in (0, 2, 3, 3.5, 9)}
    assert ends == {0: 0, 2: 2, 3: 3, 3.5: 4, 9: 4}
    for early in ("1969-12-31T23:59:59.999Z", "0001-01-01"):
        assert spans(cluster, job.model_copy(update={"end": early})) == {0: (0, 0)}
        assert spans(cluster, job.model_copy(update={"start": early})) == {0: (0, 6)}


def test_the_brokers_time(cluster: Cluster, tmp_path: Path) -> None:
    """In a topic that has the broker's time, that is the time that counts."""
    source = cluster.make_topic(1, message_timestamp_type="LogAppendTime")
    produce_at(cluster, source, {0: [0, 1]})
    job = make_job(source, tmp_path, end=at(60))
    assert spans(cluster, job) == {0: (0, 0)}
    assert spans(cluster, job.model_copy(update={"end": "9999-12-31"})) == {0: (0, 2)}


def test_an_end_that_nothing_can_be_before(cluster: Cluster, tmp_path: Path) -> None:
    """A first run that starts at the end of the log, and ends before today, is refused; with `now` it is not."""
    job = make_job(make_source(cluster, 1), tmp_path, start="latest", end=at(0))
    with pytest.raises(SettingsError, match="--end .* is in the past, and --start latest"):
        check_before_lease(job, cluster.connection, cluster.admin)
    for end in ("now", "9999-12-31"):
        check_before_lease(job.model_copy(update={"end": end}), cluster.connection, cluster.admin)


def test_end_now(cluster: Cluster, tmp_path: Path) -> None:
    """`now` is the end that a run has by itself: a job file's end is taken back by it. The ledger has the word."""
    source = make_source(cluster, 1)
    cluster.produce(source, sample_values(5), 1)
    record = run_once(cluster, make_job(source, tmp_path, end="now"), tmp_path)
    assert (record.records, record.options["end"], record.end) == (5, "now", None)


@pytest.mark.slow
def test_a_stream_ends_at_its_end(cluster: Cluster, tmp_path: Path) -> None:
    """A stream whose end has passed sorts all that lies before it, in batches, and ends; later records stay."""
    source = make_source(cluster, 2)
    produce_at(cluster, source, {0: [0, 1, 2, 30], 1: [0, 1, 2, 3, 4, 5]})
    job = make_job(source, tmp_path, end=at(20))
    stream = make_stream(cluster, job, batch_size=2)
    serve(cluster, stream)
    assert stream.stats.batches > 1
    last = cluster.ledger(job).last
    assert last is not None
    assert last.ends == {0: 3, 1: 6}
    serve(cluster, again := make_stream(cluster, job))
    assert again.stats.batches == 0
    serve(cluster, rest := make_stream(cluster, job.model_copy(update={"end": None}), max_batches=1))
    assert rest.stats.status().records == 1
    assert_every_run(cluster, job)


@pytest.mark.slow
def test_a_stream_whose_end_is_to_come(cluster: Cluster, tmp_path: Path) -> None:
    """Until its end a stream goes on; it ends by itself once that has passed."""
    job = make_job(make_source(cluster, 1), tmp_path, end=(datetime.now(UTC) + timedelta(seconds=1.5)).isoformat())
    cluster.produce(job.source_topic, sample_values(5), 1)
    stream = make_stream(cluster, job)
    serve(cluster, stream)
    assert stream.stats.status().records == 5
    assert datetime.now(UTC) >= (job.end_moment or NIGHT + timedelta(days=9999))
