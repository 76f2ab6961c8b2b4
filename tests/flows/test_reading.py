"""Reading sorted topics: `kafka-sort get` and `read`, and `SortedTopic`, over runs that a real job has made."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer

from kafka_sort import SortedTopic, merge_join
from tasks.kafka.clients import make_consumer
from tasks.kafka.ledger import EARLIER, LAST, read_newest
from tasks.reading import streams
from tasks.reading.runs import RunDeletedError, UnmergedRunsError
from tasks.reading.search import Prober
from tasks.run_record import EarlierRuns
from tasks.settings.job import Job
from tests.cluster import Cluster, Record, sample_values, sort_key, wait_for
from tests.command import Command, Outcome


def opened(job: Job, sort: str, command: Command, **choice: Any) -> SortedTopic:
    return SortedTopic(job.name, sort, bootstrap_servers=command.cluster.bootstrap_servers, **choice)


def flags(job: Job, number: int) -> tuple[str, ...]:
    return "--job-name", job.name, "--sort", job.sort_list[number].topic


def show(command: Command, name: str, *arguments: str) -> Outcome:
    return command.start_flags(name, *arguments).finish()


def values_of(outcome: Outcome) -> list[bytes]:
    assert outcome.status == 0, outcome.err
    return [json.loads(line)["value"].encode() for line in outcome.out.splitlines()]


def runs_of(cluster: Cluster, command: Command, job: Job, batches: Sequence[Sequence[bytes]]) -> list[list[bytes]]:
    """Make a run of each batch, with an aborted attempt in its outputs before; return what each run reads, in order."""
    read: list[list[bytes]] = []
    for values in batches:
        if read:
            for sort in job.sort_list:
                cluster.produce_aborted(sort.topic, [Record(b"9,aborted,x,Asia", partition=p) for p in range(4)])
        cluster.produce(job.source_topic, values)
        done = command.run(job)
        assert done.status == 0, done.err
        read.append([value for p in range(4) for value in values[p::4]])
    return read


def in_order(job: Job, number: int, runs: Sequence[Sequence[bytes]]) -> list[bytes]:
    """Return the records of all runs by key, run, source partition and offset."""
    return sorted((value for run in runs for value in run), key=lambda v: sort_key(job.sort_list[number], v))


@pytest.mark.slow
def test_several_runs_in_one_order(cluster: Cluster, command: Command) -> None:
    """Runs with gaps are merged by a composite key; a key, a prefix, a range, one run and a limit are found in them."""
    source = cluster.make_topic()
    job = command.job(source, sorts=[f"continent,id:desc=o-{source}", f"id=i-{source}"])
    batches = [sample_values(900, seed=1, ids=300), sample_values(300, seed=2, ids=300), [b"-7,a,b,Asia"] * 3]
    runs = runs_of(cluster, command, job, batches)
    expected = in_order(job, 0, runs)
    assert values_of(show(command, "read", *flags(job, 0))) == expected
    raw = show(command, "read", "--output", "raw", "--limit", "50", *flags(job, 0))
    assert raw.out.encode() == b"".join(value + b"\n" for value in expected[:50])
    assert values_of(show(command, "read", "--run", "2", *flags(job, 0))) == in_order(job, 0, runs[1:2])
    asia = [value for value in expected if value.endswith(b",Asia")]
    assert values_of(show(command, "get", "Asia", *flags(job, 0))) == asia
    assert values_of(show(command, "get", *flags(job, 0), "--", "Asia,-7")) == batches[2]
    assert values_of(show(command, "get", "5", *flags(job, 1))) == [v for v in in_order(job, 1, runs) if v[:2] == b"5,"]
    part = [v for v in asia if 100 <= int(v.split(b",")[0]) <= 200]
    assert values_of(show(command, "read", "--from", "Asia,200", "--to", "Asia,100", *flags(job, 0))) == part
    with opened(job, "id", command) as topic:
        assert topic.runs == (1, 2, 3)
        assert [record.value for record in topic] == in_order(job, 1, runs)
        assert [record.value for record in topic.range(10, (12,))] == [
            v for v in in_order(job, 1, runs) if 10 <= int(v.split(b",")[0]) <= 12
        ]
        assert topic.to_arrow().read_all().column("value").to_pylist() == in_order(job, 1, runs)
        assert topic.get(301) == []


@pytest.mark.slow
def test_keys_that_may_be_null(cluster: Cluster, command: Command) -> None:
    """A field without a letter is null where nulls are permitted; None is, in Python."""
    source = cluster.make_topic(1)
    job = command.job(source, sorts=[f"@key:desc:nulls-first=o-{source}"], format="none")
    for keys in ([b"b", None, b"a"], [b"", None, b"b"]):
        cluster.produce_records(source, [Record(b"%d" % i, key) for i, key in enumerate(keys)])
        assert command.run(job).status == 0
    with opened(job, f"o-{source}", command) as topic:
        assert [record.key for record in topic] == [None, None, b"b", b"b", b"a", b""]
        assert [record.run for record in topic.get(None)] == [1, 2]
    assert values_of(show(command, "get", "", '""', "a", *flags(job, 0))) == [b"1", b"1", b"0", b"2"]


@pytest.mark.slow
@pytest.mark.parametrize("partition_by", ["hash", "source"])
def test_partitions_that_are_no_ranges(cluster: Cluster, command: Command, partition_by: str) -> None:
    """Each partition is sorted for itself: the reader merges them, and finds a key wherever it is."""
    source = cluster.make_topic()
    job = command.job(source, sorts=[f"id=o-{source}"], partition_by=partition_by)
    values = sample_values(200, ids=50)
    cluster.produce_records(source, [Record(v, v[-3:], partition=i % 4) for i, v in enumerate(values)])
    assert command.run(job).status == 0
    with opened(job, "id", command) as topic:
        shown = [record.value or b"" for record in topic]
        assert [int(v.split(b",")[0]) for v in shown] == sorted(int(v.split(b",")[0]) for v in values)
        assert sorted(shown) == sorted(values)
        key = int(values[0].split(b",")[0])
        assert {r.value for r in topic.get(key)} == {v for v in values if int(v.split(b",")[0]) == key}


@pytest.mark.slow
def test_a_key_is_found_by_the_index_or_by_offsets(
    cluster: Cluster, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index takes a few reads, and without it a search does: never a scan. A replaced run has no index any more."""
    source = cluster.make_topic(2)
    job = command.job(source, sorts=[f"id=o-{source}"])
    values = sample_values(9000, ids=10**6)
    cluster.produce(source, values, 2)
    assert command.run(job).status == 0
    read: list[int] = []
    plain = Prober.read

    def counted(self: Prober, r: Any, offset: int, most: int) -> Any:
        rows = plain(self, r, offset, most)
        read.append(len(rows))
        return rows

    monkeypatch.setattr(Prober, "read", counted)
    wanted = [values[i] for i in (0, 17, 4000, 8999)]
    for index in (True, False):
        with opened(job, "id", command) as topic:
            if not index:
                monkeypatch.setattr(type(topic._reader), "_read_index", lambda _: {})
            for value in wanted:
                read.clear()
                found = [record.value for record in topic.get(int(value.split(b",")[0]))]
                assert value in found
                assert (len(read), sum(read)) <= ((4, 2000) if index else (16, 1000)), read
    monkeypatch.undo()
    assert indexed(cluster, job) == [f"run/1/o-{source}/{p}/0".encode() for p in range(2)]
    cluster.produce(source, values[:10], 2)
    assert command.run(job, "--mode", "replace").status == 0
    assert indexed(cluster, job) == [f"run/2/o-{source}/{p}/0".encode() for p in range(2)]


def indexed(cluster: Cluster, job: Job) -> list[bytes]:
    return sorted(read_newest(cluster.connection, cluster.admin, job.index, job.name, 30, committed=True))


@pytest.mark.slow
def test_a_reader_that_is_left_early(cluster: Cluster, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that stops in the middle leaves no thread behind, and no consumer, of which each run has one."""
    source = cluster.make_topic(1)
    job = command.job(source, sorts=[f"id=o-{source}"])
    for seed in range(3):
        cluster.produce(source, sample_values(2000, seed=seed), 1)
        assert command.run(job).status == 0
    with opened(job, "id", command) as topic:
        before = threads()
        consumers: list[Consumer] = []

        def make_kept(*given: Any, **over: Any) -> Consumer:
            # A consumer that nothing refers to is closed in any case.
            consumers.append(make_consumer(*given, **over))
            return consumers[-1]

        monkeypatch.setattr(streams, "make_consumer", make_kept)
        batches = topic.batches()
        assert next(batches).num_rows > 0
        assert len(consumers) == 3
        assert threads() > before
        batches.close()  # type: ignore[attr-defined]
        wait_for(lambda: threads() <= before)


def threads() -> int:
    """Count the threads of this process, also those of librdkafka."""
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.raises("RunDeletedError")
@pytest.mark.slow
def test_a_run_that_is_replaced(cluster: Cluster, command: Command) -> None:
    """A reader that was open says so, or goes on with the new run; a new one shows the new run alone."""
    source = cluster.make_topic()
    job = command.job(source, sorts=[f"id=o-{source}"])
    values = sample_values(40)
    cluster.produce(source, values[:20])
    assert command.run(job).status == 0
    with opened(job, "id", command) as topic, opened(job, "id", command) as looking:
        cluster.produce(source, values[20:])
        assert command.run(job, "--mode", "replace").status == 0
        with pytest.raises(RunDeletedError, match=r"records of run 1 in .* were deleted"):
            list(topic)
        assert [r.run for r in looking.get(int(values[0].split(b",")[0]))] == [2]
        assert [r.run for r in looking] == [2] * 40
    assert len(values_of(show(command, "read", *flags(job, 0)))) == 40
    gone = show(command, "read", "--run", "1", *flags(job, 0))
    assert (gone.status, "a later run took its place" in gone.err) == (2, True)


@pytest.mark.slow
def test_a_run_that_is_cut(cluster: Cluster, command: Command) -> None:
    """What retention has removed is told in a line; the rest is shown."""
    source = cluster.make_topic(1)
    job = command.job(source, sorts=[f"id=o-{source}"])
    cluster.produce(source, [b"%d,a,b,Asia" % i for i in range(20)], 1)
    assert command.run(job).status == 0
    cluster.delete_below(f"o-{source}", {0: 5})
    shown = show(command, "read", *flags(job, 0))
    assert values_of(shown) == [b"%d,a,b,Asia" % i for i in range(5, 20)]
    assert "run 1 is cut: retention removed its first 5 records" in shown.err


@pytest.mark.slow
@pytest.mark.raises("UnmergedRunsError")
def test_runs_that_cannot_be_read_together(cluster: Cluster, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folded runs, other parse rules and too many runs stop a reader, which names the way out."""
    source = cluster.make_topic(1)
    job = command.job(source, sorts=[f"id=o-{source}"])
    for i in range(2):
        cluster.produce(source, [b"%d,a,b,Asia" % i], 1)
        assert command.run(job).status == 0
    with opened(job, "id", command) as topic, monkeypatch.context() as patch:
        patch.setattr("tasks.reading.reader.MOST_RUNS", 1)
        with pytest.raises(UnmergedRunsError, match="kafka-sort merge"):
            list(topic)
        assert len(topic.get(1)) == 1
    ledger = cluster.ledger(job)
    older = ledger.runs[1].to_json().replace(b'"rules":"2"', b'"rules":"0"')
    cluster.produce_records(job.ledger, [Record(older, b"run/1")])
    refused = show(command, "read", *flags(job, 0))
    assert (refused.status, "runs 1 of job" in refused.err, "kafka-sort merge" in refused.err) == (1, True, True)
    assert values_of(show(command, "read", "--newest", *flags(job, 0))) == [b"1,a,b,Asia"]
    earlier = EarlierRuns.of(ledger.runs[1]).to_json()
    cluster.produce_records(job.ledger, [Record(None, b"run/1"), Record(earlier, EARLIER)])
    refused = show(command, "get", "0", *flags(job, 0))
    assert (refused.status, "one record in the ledger" in refused.err) == (1, True)
    assert values_of(show(command, "get", "1", "--newest", *flags(job, 0))) == [b"1,a,b,Asia"]


@pytest.mark.slow
@pytest.mark.raises("ForeignRecordError")
def test_a_record_of_no_run(cluster: Cluster, command: Command) -> None:
    """A record without a key where a run's must be is an error that names its place."""
    source = cluster.make_topic(1)
    job = command.job(source, sorts=[f"id=o-{source}"])
    cluster.produce(source, [b"1,a,b,Asia"], 1)
    assert command.run(job).status == 0
    last = cluster.ledger(job).last
    assert last is not None
    cluster.produce(f"o-{source}", [b"no row"], 1)
    end = cluster.ends(f"o-{source}")[0]
    stretched = last.to_json().replace(b'"last":0,"count":1', b'"last":%d,"count":%d' % (end - 1, end))
    assert stretched != last.to_json()
    cluster.produce_records(job.ledger, [Record(stretched, b"run/1"), Record(stretched, LAST)])
    failed = show(command, "read", "--from", "0", *flags(job, 0))
    assert failed.status == 1
    assert f"output o-{source} partition 0 offset {end - 1}:" in failed.err


@pytest.mark.slow
def test_two_topics_are_joined(cluster: Cluster, command: Command) -> None:
    """Orders and customers by one key, each of them of several runs; orders without a customer are kept if wanted."""
    jobs = []
    for count in (2, 3):
        source = cluster.make_topic(1)
        jobs.append(command.job(source, sorts=[f"customer=o-{source}"], columns="customer:int,what"))
        for run in range(2):
            rows = [b"%d,%d-%d" % (i, run, count) for i in range(0, 12, count)]
            cluster.produce(source, rows, 1)
            assert command.run(jobs[-1]).status == 0
    with opened(jobs[0], "customer", command) as left, opened(jobs[1], "customer", command) as right:
        inner = merge_join(left, right).read_all().select(["left_value", "right_value"]).to_pylist()
        kept = merge_join(left, right, "left").read_all()
    assert [tuple(row.values()) for row in inner] == [
        (b"%d,%d-2" % (i, one), b"%d,%d-3" % (i, other)) for i in (0, 6) for one in (0, 1) for other in (0, 1)
    ]
    assert kept.column("right_value").null_count == 2 * 4


BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "no sort named": (("read",), "name one with --sort"),
    "unknown sort": (("read", "--sort", "x"), "has no single sort 'x'"),
    "unknown run": (("read", "--sort", "id", "--run", "9"), "the ledger does not have it"),
    "wrong type": (("get", "--sort", "id", "x"), "id is not an integer"),
    "too many columns": (("get", "--sort", "id", "1,2"), "has 2 columns, and the sort id has 1"),
    "broken quotes": (("get", "--sort", "name", 'a"b'), "is no CSV row"),
    "null": (("get", "--sort", "id", ""), "id "),
    "wrong order": (("read", "--sort", "id", "--from", "5", "--to", "1"), "comes behind --to"),
    "not in the output": (("get", "--sort", "@offset", "1"), "do not hold @offset"),
    "not in the output, a range": (("read", "--sort", "@offset", "--from", "1"), "do not hold @offset"),
}


def test_bad_input(cluster: Cluster, command: Command) -> None:
    """Each wrong flag is one line with exit status 2; nothing found is no error, unless --fail asks for one."""
    source = cluster.make_topic(1)
    sorts = [f"id=i-{source}", f"name=n-{source}", f"@offset=f-{source}"]
    job = command.job(source, sorts=sorts)
    cluster.produce(source, [b"1,a,b,Asia"], 1)
    assert command.run(job).status == 0
    for name, (arguments, told) in BAD.items():
        refused = show(command, *arguments, "--job-name", job.name)
        assert (refused.status, refused.out, told in refused.err) == (2, "", True), (name, refused)
        assert len(refused.err.splitlines()) == 1, name
    unknown = show(command, "read", "--job-name", f"no-{source}")
    assert (unknown.status, "has no ledger" in unknown.err) == (2, True)
    nothing = ("get", "2", "--sort", "id", "--job-name", job.name)
    assert (show(command, *nothing).status, show(command, *nothing, "--fail").status) == (0, 1)
    assert values_of(show(command, "read", "--sort", "@offset", "--job-name", job.name)) == [b"1,a,b,Asia"]
