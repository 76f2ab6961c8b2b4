"""Kinds of source: empty, with gaps, shrinking, replaced, skewed; and where runs start and end in it."""

import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from click.testing import CliRunner
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import NewPartitions

from kafka_sort.main import cli
from tasks.errors import SourceLostError
from tasks.manifests import LostRange
from tasks.publish import publish_run
from tasks.settings.job import Job
from tasks.snapshot import records_start, take_snapshot
from tasks.source import SourceRecreatedError
from tests.cluster import Cluster, Record, assert_sorted, sample_values, wait_for
from tests.command import Command
from tests.stages import make_job, owned, prepare, run_once


def add_partitions(cluster: Cluster, topic: str, count: int) -> None:
    cluster.admin.create_partitions([NewPartitions(topic, count)])[topic].result()
    wait_for(lambda: len(cluster.ends(topic)) == count)


def test_an_empty_source(cluster: Cluster, command: Command) -> None:
    """Nothing to sort is no failure, and no run."""
    job = command.job(cluster.make_topic())
    outcome = command.run(job)
    assert outcome.status == 0, outcome.err
    assert "nothing new" in outcome.out
    assert cluster.ledger(job).last is None


@pytest.mark.slow
def test_a_source_that_comes_later(cluster: Cluster, command: Command) -> None:
    """With --wait-for-topic the run begins when the topic is there; a signal meanwhile ends the command at once."""
    source = f"late-{uuid4().hex[:8]}"
    waiting = command.start(command.job(source), "--wait-for-topic", "600")
    wait_for(lambda: "waiting for the source" in waiting.err)
    waiting.send(signal.SIGTERM)
    assert waiting.finish().status == 128 + signal.SIGTERM
    job = command.job(source)
    waiting = command.start(job, "--wait-for-topic", "600")
    wait_for(lambda: "waiting for the source" in waiting.err)
    cluster.make_topic(name=source)
    outcome = waiting.finish()
    assert (outcome.status, "nothing new" in outcome.out) == (0, True), outcome.err


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "soon"])
def test_a_wait_that_is_none(seconds: str) -> None:
    """A time that nobody can wait is refused."""
    done = CliRunner().invoke(cli, ["sort", "--wait-for-topic", seconds])
    assert done.exit_code == 2
    assert "--wait-for-topic" in done.output


def test_lost_records(cluster: Cluster, command: Command) -> None:
    """Records that retention took before they were read stop the run, by name; --skip-lost goes on and records them."""
    source = cluster.make_topic()
    job = command.job(source)
    cluster.produce(source, sample_values(400))
    assert command.run(job).status == 0
    cluster.produce(source, sample_values(400, seed=2))
    cluster.delete_below(source, {1: 130, 3: 200})
    refused = command.run(job)
    assert refused.status == 1
    line = refused.err.splitlines()[-1]
    assert "partition 1 offsets 100 to 129; partition 3 offsets 100 to 199 were removed" in line
    assert "--skip-lost" in line
    assert list(cluster.ledger(job).runs) == [1]
    assert cluster.count(job, committed=False) == 3 * 400
    skipped = command.run(job, "--skip-lost")
    assert skipped.status == 0, skipped.err
    last = cluster.ledger(job).last
    assert last is not None
    assert last.lost == (LostRange(1, 100, 130), LostRange(3, 100, 200))
    assert last.records == 400 - 130
    assert_sorted(cluster, job, runs=2)


def test_a_source_that_was_made_again(cluster: Cluster, command: Command) -> None:
    """Another topic of the same name is refused; nothing of it is published."""
    source = cluster.make_topic()
    job = command.job(source)
    cluster.produce(source, sample_values(40))
    assert command.run(job).status == 0
    cluster.delete_topic(source)
    cluster.make_topic(4, source)
    cluster.produce(source, sample_values(400, seed=2))
    refused = command.run(job)
    assert refused.status == 1
    assert "deleted and recreated" in refused.err.splitlines()[-1]
    assert cluster.count(job, committed=False) == 3 * 40


def test_a_source_that_is_made_again_between_ledger_and_snapshot(cluster: Cluster, tmp_path: Path) -> None:
    """The topic's id counts, even if the offsets would fit."""
    source = cluster.make_topic()
    job = make_job(source, tmp_path)
    cluster.produce(source, sample_values(40))
    run_once(cluster, job, tmp_path)
    with owned(cluster, job) as owner:
        cluster.delete_topic(source)
        cluster.make_topic(4, source)
        with pytest.raises(SourceRecreatedError):
            take_snapshot(owner)


def test_gaps(cluster: Cluster, tmp_path: Path) -> None:
    """Aborted and control records, in the middle and at the tail, are neither published nor waited for."""
    source = cluster.make_topic(2)
    rows = [Record(v, partition=i % 2) for i, v in enumerate(sample_values(60))]
    cluster.produce_records(source, rows[:20])
    cluster.produce_aborted(source, rows[20:30])
    cluster.produce_records(source, rows[30:50], **{"transactional.id": source})
    cluster.produce_aborted(source, rows[50:])
    job = make_job(source, tmp_path)
    record = run_once(cluster, job, tmp_path)
    assert record.records == 40
    assert_sorted(cluster, job)
    with owned(cluster, job) as owner:
        assert not take_snapshot(owner).span


def test_a_source_of_nothing_but_aborted_records(cluster: Cluster, tmp_path: Path) -> None:
    """A range without records is a run of none."""
    source = cluster.make_topic(1)
    cluster.produce_aborted(source, [Record(v) for v in sample_values(10)])
    record = run_once(cluster, make_job(source, tmp_path), tmp_path)
    assert (record.records, record.ends) == (0, {0: 11})


@pytest.mark.slow
def test_a_compacted_source(cluster: Cluster, tmp_path: Path) -> None:
    """Compaction leaves gaps, even at the start of a range; the records that are left are sorted."""
    source = cluster.make_topic(
        1,
        cleanup_policy="compact",
        min_cleanable_dirty_ratio="0.001",
        segment_ms="100",
        max_compaction_lag_ms="100",
        delete_retention_ms="100",
    )
    rows = [Record(v, b"k%d" % (i % 5)) for i, v in enumerate(sample_values(50))]
    cluster.produce_records(source, rows)
    # Only closed segments are compacted: a later record closes the one before.
    deadline = time.monotonic() + 60
    while len(cluster.read(source)) > 30 and time.monotonic() < deadline:
        time.sleep(1)
        cluster.produce_records(source, [Record(sample_values(1, seed=9)[0], b"tick")])
    left = cluster.read(source)
    assert left[-1].offset - left[0].offset >= len(left), "the broker did not compact"
    job = make_job(source, tmp_path)
    record = run_once(cluster, job, tmp_path)
    assert record.ends[0] >= left[-1].offset + 1
    assert record.records < record.ends[0]
    assert_sorted(cluster, job)


def test_an_open_transaction_of_somebody_else(cluster: Cluster, tmp_path: Path) -> None:
    """It only holds the snapshot back: the records it commits, and those behind it, are the next run's."""
    source = cluster.make_topic(1)
    job = make_job(source, tmp_path)
    cluster.produce(source, sample_values(10), 1)
    other = Producer({"bootstrap.servers": cluster.bootstrap_servers, "transactional.id": source})
    other.init_transactions(30)
    other.begin_transaction()
    other.produce(source, sample_values(1, seed=2)[0])
    other.flush(30)
    cluster.produce(source, sample_values(10, seed=3), 1)
    assert run_once(cluster, job, tmp_path).ends == {0: 10}
    other.commit_transaction(30)
    wait_for(lambda: cluster.ends(source)[0] == 22)
    record = run_once(cluster, job, tmp_path)
    assert (record.records, record.ends) == (11, {0: 22})
    assert_sorted(cluster, job, runs=2)


def test_new_partitions(cluster: Cluster, tmp_path: Path) -> None:
    """A source partition that the ledger does not know is read from its start; outputs may get partitions, too."""
    source = cluster.make_topic(2)
    job = make_job(source, tmp_path)
    cluster.produce(source, sample_values(20), 2)
    run_once(cluster, job, tmp_path)
    add_partitions(cluster, source, 3)
    add_partitions(cluster, job.sort_list[0].topic, 5)
    cluster.produce(source, sample_values(60, seed=2), 3)
    record = run_once(cluster, job, tmp_path)
    assert [(r.partition, r.start, r.end) for r in record.read] == [(0, 10, 30), (1, 10, 30), (2, 0, 20)]
    assert [w.count for w in record.sorts[0].partitions] == [12] * 5
    assert_sorted(cluster, job, runs=2)


def test_max_records(cluster: Cluster, tmp_path: Path) -> None:
    """A run takes no more than its limit, from each partition in proportion; the following runs take the rest."""
    source = cluster.make_topic(3)
    job = make_job(source, tmp_path, max_records=100)
    counts = (200, 40, 10)
    rows = [Record(v, partition=p) for p in range(3) for v in sample_values(counts[p], seed=p)]
    cluster.produce_records(source, rows)
    spans = []
    for number in (1, 2, 3):
        record = run_once(cluster, job, tmp_path)
        assert_sorted(cluster, job, runs=number)
        spans.append([r.end - r.start for r in record.read])
    assert spans == [[80, 16, 4], [80, 16, 4], [40, 8, 2]]
    assert cluster.count(job) == 250


@pytest.mark.parametrize(("start", "expected"), [("latest", 0), ("earliest", 30), ("group", 22), ("time", 10)])
def test_where_the_first_run_starts(cluster: Cluster, tmp_path: Path, start: str, expected: int) -> None:
    """The first run starts at the beginning, the end, the group's offsets, or the first record as young as a time."""
    source = cluster.make_topic(1)
    cluster.produce(source, sample_values(20), 1)
    time.sleep(0.05)
    moment = datetime.now(UTC).isoformat()
    time.sleep(0.05)
    cluster.produce(source, sample_values(10, seed=2), 1)
    job = make_job(source, tmp_path, start=moment if start == "time" else start)
    if start == "group":
        commit_group(cluster, job, 8)
    with owned(cluster, job) as owner:
        assert take_snapshot(owner).span == expected
        if expected:
            assert publish_run(owner, prepare(owner, tmp_path)).records == expected


def commit_group(cluster: Cluster, job: Job, offset: int) -> None:
    position = [TopicPartition(job.source_topic, 0, offset)]
    cluster.admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(job.group, position)])[job.group].result()


def test_start_latest_reads_what_comes_later(cluster: Cluster, tmp_path: Path) -> None:
    """A job that starts at the end, with nothing new, records that: later records are its first."""
    source = cluster.make_topic(1)
    cluster.produce(source, sample_values(20), 1)
    job = make_job(source, tmp_path, start="latest")
    with owned(cluster, job) as owner:
        assert records_start(job, owner.ledger)
        assert publish_run(owner, prepare(owner, tmp_path)).records == 0
        assert not records_start(job, owner.ledger)
        cluster.produce(source, sample_values(5, seed=2), 1)
        assert take_snapshot(owner).span == 5


def test_odd_values(cluster: Cluster, tmp_path: Path) -> None:
    """Quotes, line ends, blanks and bytes that are no text: each comes out as it went in, in its place."""
    source = cluster.make_topic(1)
    values = [
        b'3,"a ""quoted"", name",address,Asia',
        b'1,"two\nlines",address,Asia',
        b'2,"two\r\nlines",address,Asia',
        b" 4 ,name,address,Asia",
        b"-5,\xff\xfe,\x00,\x80",
        b"+6,name,address,Asia",
        b"7,,,",
        b"",
        None,
        b"8,a\nb,address,Asia",
        b'9,"open,address,Asia',
        b"10,name,address,Asia\n",
        b"9223372036854775808,too,large,Asia",
        b"0x10,hex,address,Asia",
    ]
    cluster.produce_records(source, [Record(v) for v in values])
    job = make_job(source, tmp_path)
    record = run_once(cluster, job, tmp_path)
    output = [r.value for r in cluster.read(job.sort_list[0].topic)]
    letters = [r.value for r in cluster.read(job.dead_letters)]
    assert len(output) + len(letters) == len(values) == record.records
    assert sorted(map(repr, output + letters)) == sorted(map(repr, values))
    assert output[:5] == [values[4], values[1], values[2], values[0], values[3]]


def test_large_records_among_tiny_ones(cluster: Cluster, tmp_path: Path) -> None:
    """One partition has sizes from a few bytes to nearly a megabyte."""
    source = cluster.make_topic(1)
    values = [b"%d,%s,a,b" % (i * 7919 % 101, b"x" * (900_000 if i % 10 == 0 else i)) for i in range(40)]
    cluster.produce(source, values, 1, **{"message.max.bytes": 2_000_000})
    job = make_job(source, tmp_path)
    run_once(cluster, job, tmp_path)
    assert_sorted(cluster, job)


def test_mostly_empty_partitions(cluster: Cluster, tmp_path: Path) -> None:
    """Only two of sixteen partitions hold records, which go into more partitions than there are records."""
    source = cluster.make_topic(16)
    cluster.produce_records(source, [Record(v, partition=(3, 15)[i % 2]) for i, v in enumerate(sample_values(9))])
    job = make_job(source, tmp_path, output_partitions=20)
    record = run_once(cluster, job, tmp_path)
    assert sum(w.count for w in record.sorts[0].partitions) == 9
    assert len(record.read) == 16
    assert_sorted(cluster, job)


def test_kept_timestamps(cluster: Cluster, tmp_path: Path) -> None:
    """Outputs that are created for records with old timestamps keep them: no retention takes them at once."""
    source = cluster.make_topic(1, retention_ms="-1")
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers})
    for i, value in enumerate(sample_values(10)):
        producer.produce(source, value, partition=0, timestamp=1_000_000_000_000 + i)
    producer.flush(30)
    job = make_job(source, tmp_path, timestamps="keep")
    run_once(cluster, job, tmp_path)
    assert_sorted(cluster, job)
    cluster.produce(source, sample_values(10, seed=2), 1)
    run_once(cluster, job, tmp_path)
    # The broker looks every second for segments to delete.
    time.sleep(3)
    assert cluster.count(job) == 20


def test_what_is_lost_before_the_snapshot_is_refused_in_process(cluster: Cluster, tmp_path: Path) -> None:
    """The error names every range as data, for callers."""
    source = cluster.make_topic(1)
    job = make_job(source, tmp_path)
    cluster.produce(source, sample_values(10), 1)
    run_once(cluster, job, tmp_path)
    cluster.produce(source, sample_values(10, seed=2), 1)
    cluster.delete_below(source, {0: 15})
    with owned(cluster, job) as owner, pytest.raises(SourceLostError) as refused:
        take_snapshot(owner)
    assert refused.value.lost == (LostRange(0, 10, 15),)
