"""`--mode replace`: the outputs are the latest full sort, whatever is killed; nothing foreign is ever deleted."""

from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from tasks.failpoints import RUN_NAMES
from tasks.generate import generate_records
from tasks.manifests import OffsetRange
from tasks.run_record import CoveredRuns, ReadRange
from tasks.settings.job import Job
from tests.cluster import Cluster, Record, expected, sample_values, wait_for
from tests.command import KILLED, Command

REPLACE = ("--mode", "replace")
# Where the new run is committed already.
COMMITTED = {"after-commit", "before-delete", "after-delete"}
POINTS = [pytest.param(name, marks=pytest.mark.slow) for name in (*RUN_NAMES, "before-delete", "after-delete")]


def assert_latest(cluster: Cluster, job: Job) -> None:
    """The outputs hold the sort of all that the source has, and nothing else; the dead letters are there once."""
    source = cluster.read(job.source_topic)
    for sort in job.sort_list:
        wait_for(lambda topic=sort.topic: cluster.ends(topic) == cluster.ends(topic, committed=False))  # type: ignore[misc]
        assert cluster.read(sort.topic) == expected(sort, source)
    last = cluster.ledger(job).last
    assert last is not None
    assert last.ends == cluster.ends(job.source_topic) == cluster.group_offsets(job)
    starts = {sort.topic: cluster.starts(sort.topic) for sort in last.sorts}
    assert all(starts[s.topic][d.partition] >= d.before for s in last.sorts for d in s.delete_before)
    letters = [dict(r.headers) for r in cluster.read(job.dead_letters)]
    places = [(h["__connect.errors.partition"], h["__connect.errors.offset"]) for h in letters]
    assert len(places) == len(set(places)) == sum(r.value in {b"no row", b"bad"} for r in source)


def fill(cluster: Cluster, command: Command) -> Job:
    """Make a job with two runs, of which one has a dead letter; then more records in the source."""
    source = cluster.make_topic()
    job = command.job(source)
    cluster.produce(source, [*sample_values(400), b"no row"])
    assert command.run(job).status == 0
    cluster.produce(source, sample_values(100, seed=2))
    assert command.run(job).status == 0
    cluster.produce(source, [*sample_values(200, seed=3), b"bad"])
    return job


def test_the_topic_is_the_latest_full_sort(cluster: Cluster, command: Command) -> None:
    """All is published again as one run, and the former records are deleted."""
    job = fill(cluster, command)
    done = command.run(job, *REPLACE)
    assert done.status == 0, done.err
    assert "in place of runs 1 to 2, 2 dead letters, 1 of them new, in" in done.out
    assert_latest(cluster, job)
    last = cluster.ledger(job).last
    assert last is not None
    assert (last.run, last.covers, last.requires) == (3, (CoveredRuns(1, 2),), ("replace",))
    assert (last.records, last.dead_letters, last.dead_letters_written) == (702, 2, 1)
    assert all(len(sort.delete_before) == 4 for sort in last.sorts)


@pytest.mark.slow
def test_runs_behind_a_replacement(cluster: Cluster, command: Command) -> None:
    """The same again is nothing new; the next run appends, in its own mode, and a further one replaces all of that."""
    job = fill(cluster, command)
    assert command.run(job, *REPLACE).status == 0
    same = command.run(job, *REPLACE)
    assert (same.status, "nothing new" in same.out) == (0, True), same.err
    cluster.produce(job.source_topic, sample_values(50, seed=4))
    appended = command.run(job)
    assert appended.status == 0, appended.err
    assert cluster.count(job) == 3 * 750
    again = command.run(job, *REPLACE)
    assert again.status == 0, again.err
    assert_latest(cluster, job)
    verified = command.run(job, command="verify")
    assert verified.status == 0, verified.out + verified.err
    assert "1 run," in verified.out


@pytest.mark.parametrize("point", POINTS)
def test_killed_and_started_again(cluster: Cluster, command: Command, point: str) -> None:
    """Whatever the instant, a reader sees the former runs or the new one; the next start, of any mode, finishes."""
    job = fill(cluster, command)
    killed = command.run(job, *REPLACE, failpoint=f"{point}=kill")
    assert killed.status == KILLED, killed.err
    if point in COMMITTED:
        wait_for(lambda: cluster.ends(job.ledger) == cluster.ends(job.ledger, committed=False))
        last = cluster.ledger(job).last
        assert last is not None
        assert last.run == 3
        # The start that finishes the deletion has nothing else to do.
        again = command.run(job)
        assert "nothing new" in again.out
    else:
        assert cluster.count(job) == 3 * 500
        again = command.run(job, *REPLACE)
    assert again.status == 0, again.err
    assert_latest(cluster, job)


@pytest.mark.slow
def test_every_partition_is_emptied(cluster: Cluster, command: Command) -> None:
    """Partitions that the new run leaves empty lose their former records as well; so does an output of no records."""
    source = cluster.make_topic()
    job = command.job(source, sorts=["id=o-empty-" + source])
    cluster.produce(source, sample_values(400))
    assert command.run(job).status == 0
    ends = cluster.ends(source)
    cluster.delete_below(source, {p: end if p else end - 2 for p, end in ends.items()})
    assert command.run(job, *REPLACE).status == 0
    assert_latest(cluster, job)
    assert len(cluster.read(job.sort_list[0].topic)) == 2
    cluster.delete_below(source, {0: ends[0]})
    assert command.run(job, *REPLACE).status == 0
    assert_latest(cluster, job)
    assert cluster.read(job.sort_list[0].topic) == []


@pytest.mark.slow
def test_what_expired_unread_is_lost_and_what_was_read_is_not(cluster: Cluster, command: Command) -> None:
    """Records that were read and have expired since are no loss; those that no run has read stop the run."""
    source = cluster.make_topic(1)
    job = command.job(source)
    cluster.produce(source, sample_values(100), 1)
    assert command.run(job).status == 0
    cluster.produce(source, sample_values(100, seed=2), 1)
    cluster.delete_below(source, {0: 100})
    done = command.run(job, *REPLACE)
    assert done.status == 0, done.err
    assert_latest(cluster, job)
    cluster.produce(source, sample_values(100, seed=3), 1)
    cluster.delete_below(source, {0: 220})
    refused = command.run(job, *REPLACE)
    assert refused.status == 1
    assert "partition 0 offsets 200 to 219 were removed" in refused.err
    skipped = command.run(job, *REPLACE, "--skip-lost")
    assert skipped.status == 0, skipped.err
    assert len(cluster.read(job.sort_list[0].topic)) == 80


@pytest.mark.slow
def test_a_recreated_source(cluster: Cluster, command: Command) -> None:
    """It is accepted, with its new id; its dead letters are its own, though the old topic had the same offsets."""
    source = cluster.make_topic()
    job = command.job(source)
    cluster.produce(source, [*sample_values(100), b"no row"])
    assert command.run(job).status == 0
    cluster.delete_topic(source)
    cluster.make_topic(name=source)
    cluster.produce(source, [*sample_values(60, seed=5), b"bad"])
    refused = command.run(job)
    assert refused.status == 1
    assert "recreated" in refused.err
    done = command.run(job, *REPLACE)
    assert done.status == 0, done.err
    last = cluster.ledger(job).last
    assert last is not None
    assert (last.records, last.dead_letters, last.dead_letters_written) == (61, 1, None)
    assert len(cluster.read(job.dead_letters)) == 2
    assert all(len(cluster.read(sort.topic)) == 60 for sort in job.sort_list)
    verified = command.run(job, command="verify")
    assert verified.status == 0, verified.out + verified.err
    cluster.produce(source, sample_values(10, seed=6))
    assert command.run(job).status == 0


@pytest.mark.slow
def test_foreign_records_refuse_it(cluster: Cluster, command: Command) -> None:
    """A committed record that no run of the job wrote would be deleted: the run is refused, also with --append."""
    job = fill(cluster, command)
    topic = job.sort_list[1].topic
    cluster.produce_aborted(topic, [Record(b"aborted", partition=2)] * 5)
    # Aborted records are nobody's.
    assert command.run(job, *REPLACE).status == 0
    cluster.produce_records(topic, [Record(b"theirs", partition=2)])
    cluster.produce(job.source_topic, sample_values(10, seed=7))
    for flags in (REPLACE, (*REPLACE, "--append")):
        refused = command.run(job, *flags)
        assert refused.status == 2
        assert f"output {topic} holds records that no run of job {job.name} wrote" in refused.err.splitlines()[-1]
    assert Record(b"theirs") in cluster.read(topic)


def test_a_partial_snapshot_is_refused(cluster: Cluster, command: Command) -> None:
    """What would leave records out is refused in one line, before any work."""
    job = command.job(cluster.make_topic())
    refused = command.run(job, *REPLACE, "--max-records", "10")
    assert refused.status == 2
    [line] = refused.err.splitlines()
    assert "--max-records" in line
    assert "--mode replace" in line


@pytest.mark.slow
def test_a_snapshot_beyond_one_transaction_is_refused(cluster: Cluster, command: Command) -> None:
    """A cap of the transaction is no cap here: the line says what to raise."""
    source = cluster.make_topic()
    job = command.job(source)
    generate_records(cluster.connection, source, 150_000, 1, 4)
    refused = command.run(job, *REPLACE, "--transaction-timeout", "1")
    assert refused.status == 2, refused.err
    assert "transaction.max.timeout.ms" in refused.err.splitlines()[-1]
    assert cluster.count(job, committed=False) == 0


@pytest.mark.slow
def test_from_a_time(cluster: Cluster, command: Command) -> None:
    """`--start` with a time bounds the replacement, run by run; records before it are in no output then."""
    job = fill(cluster, command)
    done = command.run(job, *REPLACE, "--start", "2100-01-01T00:00:00Z")
    assert done.status == 0, done.err
    assert cluster.count(job) == 0
    done = command.run(job, *REPLACE)
    assert done.status == 0, done.err
    last = cluster.ledger(job).last
    assert last is not None
    # Offsets that a start behind them passed over were read by no run: their dead letter is written now.
    assert last.dead_letters_written == 1
    assert_latest(cluster, job)
    ranges = [OffsetRange(p, 0, end + 5) for p, end in last.ends.items()]
    known = cluster.ledger(job).read_before((last.source_topic_id, last.rules, job.dead_letters), ranges)
    assert known == tuple(ReadRange(p, 0, end) for p, end in sorted(last.ends.items()))


@pytest.mark.slow
def test_to_an_end_before_what_was_read(cluster: Cluster, command: Command) -> None:
    """The outputs are the sort of what is before the end; later runs read the rest again, and no dead letter twice."""
    job = fill(cluster, command)
    assert command.run(job).status == 0
    done = command.run(job, *REPLACE, "--end", "2020-01-01T00:00:00Z")
    assert done.status == 0, done.err
    assert cluster.count(job) == 0
    appended = command.run(job)
    assert appended.status == 0, appended.err
    assert_latest(cluster, job)
    verified = command.run(job, command="verify")
    assert verified.status == 0, verified.out + verified.err


@pytest.mark.slow
def test_a_reader_within_the_former_run(cluster: Cluster, command: Command) -> None:
    """A plain consumer whose position was deleted gets OFFSET_OUT_OF_RANGE, and not another record in silence."""
    job = fill(cluster, command)
    topic = job.sort_list[0].topic
    settings = {"group.id": "reader", "isolation.level": "read_committed", "auto.offset.reset": "error"}
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap_servers, **settings})
    consumer.assign([TopicPartition(topic, 0, 0)])
    wait_for(lambda: any(not m.error() for m in consumer.consume(1, 1.0)))
    assert command.run(job, *REPLACE).status == 0
    consumer.assign([TopicPartition(topic, 0, 1)])
    errors: list[KafkaError] = []
    while not errors:
        errors += [error for message in consumer.consume(1, 1.0) if (error := message.error())]
    consumer.close()
    assert errors[0].code() == KafkaError._AUTO_OFFSET_RESET


@pytest.mark.raises("DeletionError")
@pytest.mark.slow
def test_a_deletion_that_fails(cluster: Cluster, command: Command, tmp_path: Path) -> None:
    """The run is committed, the line says so with exit status 1, and the next start deletes the former records."""
    del tmp_path
    job = fill(cluster, command)
    failed = command.run(job, *REPLACE, failpoint="before-delete=raise")
    assert failed.status == 1
    assert "run 3 of job" in failed.err.splitlines()[-1]
    assert "is committed; the next start deletes the former records" in failed.err.splitlines()[-1]
    assert cluster.count(job) == 3 * 1200
    again = command.run(job)
    assert again.status == 0, again.err
    assert "nothing new" in again.out
    assert_latest(cluster, job)
