"""Partitions and record keys of the outputs, through the whole command: the outputs, and the answer of verify."""

import random
import struct

import pytest
from confluent_kafka.admin import NewPartitions

from tasks.kafka.topics import describe_topic
from tasks.settings.job import Job
from tests.cluster import Cluster, Record, sample_values, wait_for
from tests.command import KILLED, Command
from tests.faults.oracle import Follower, assert_exact

SORTS = ("id", "continent,id:desc")


def records(count: int, seed: int = 1, partitions: int = 4) -> list[Record]:
    """Make rows with keys that come again, empty and null ones among them."""
    chance = random.Random(seed)
    keys = [None, b"", *(b"key-%d" % i * (i % 5) for i in range(50))]
    values = sample_values(count, seed=seed, ids=500)
    return [Record(value, chance.choice(keys), partition=i % partitions) for i, value in enumerate(values)]


def make_job(command: Command, source: str, **over: object) -> Job:
    sorts = [f"{columns}={source}-{i}" for i, columns in enumerate(SORTS)]
    return command.job(source, **{"sorts": sorts, **over})


def assert_verified(command: Command, job: Job) -> None:
    checked = command.run(job, command="verify")
    assert checked.status == 0, checked.err
    assert "no difference" in checked.out
    assert "not verifiable:" not in checked.out


def add_partitions(cluster: Cluster, topic: str, count: int) -> None:
    cluster.admin.create_partitions([NewPartitions(topic, count)])[topic].result()
    wait_for(lambda: partitions_of(cluster, topic) == count)


def partitions_of(cluster: Cluster, topic: str) -> int:
    found = describe_topic(cluster.admin, topic)
    return len(found.partitions) if found else 0


@pytest.mark.parametrize(
    ("partition_by", "output_key", "partitions"),
    [
        ("hash", "sort", 5),
        pytest.param("source", "none", 6, marks=pytest.mark.slow),
        pytest.param("hash", "keep", 3, marks=pytest.mark.slow),
        pytest.param("range", "sort", 3, marks=pytest.mark.slow),
        pytest.param("source", "keep", None, marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_two_runs(
    cluster: Cluster, command: Command, partition_by: str, output_key: str, partitions: int | None
) -> None:
    """Each record has its key and its partition, each partition its order; a second run goes on so; verify agrees."""
    source = cluster.make_topic()
    settings = {"partition_by": partition_by, "output_key": output_key, "output_partitions": partitions}
    job = make_job(command, source, **settings)
    for number in (1, 2):
        cluster.produce_records(source, [*records(300, seed=number), Record(b"no row", b"key")])
        done = command.run(job)
        assert done.status == 0, done.err
    assert_exact(cluster, job, runs=2)
    assert_verified(command, job)
    record = cluster.ledger(job).runs[2]
    required = {"partition-by": partition_by != "range", "output-key": output_key != "keep"}
    assert set(record.requires) == {feature for feature, is_required in required.items() if is_required}
    assert [sort.partition_count for sort in record.sorts] == [partitions or 4] * 2


@pytest.mark.slow
@pytest.mark.parametrize("point", ["before-publish-batch", "before-commit", "after-commit"])
def test_killed_and_started_again(cluster: Cluster, command: Command, point: str) -> None:
    """With hashed sort keys, too, no kill loses a record, doubles one, or places one elsewhere."""
    source = cluster.make_topic()
    job = make_job(command, source, partition_by="hash", output_key="sort", output_partitions=5)
    cluster.produce_records(source, records(1000))
    with Follower(cluster, job) as follower:
        killed = command.run(job, failpoint=f"{point}=kill")
        assert killed.status == KILLED, killed.err
        again = command.run(job)
        assert again.status == 0, again.err
        assert_exact(cluster, job, follower=follower)
    assert_verified(command, job)


@pytest.mark.slow
def test_the_source_gets_partitions(cluster: Cluster, command: Command) -> None:
    """A partition that the source got has its own in each output; an output that has more keeps them."""
    source = cluster.make_topic(2)
    job = make_job(command, source, partition_by="source")
    cluster.make_topic(6, job.sort_list[1].topic)
    for partitions in (2, 5):
        if partitions > 2:
            add_partitions(cluster, source, partitions)
        cluster.produce_records(source, records(200, seed=partitions, partitions=partitions))
        done = command.run(job)
        assert done.status == 0, done.err
    assert_exact(cluster, job, runs=2)
    assert [partitions_of(cluster, sort.topic) for sort in job.sort_list] == [5, 6]
    assert_verified(command, job)
    refused = command.run(job, "--output-partitions", "4")
    assert refused.status == 2, refused.err
    assert "--output-partitions 4 is below the 5 partitions of source" in refused.err


@pytest.mark.slow
def test_an_output_of_hashes_that_got_partitions(cluster: Cluster, command: Command) -> None:
    """Equal keys would be in two partitions: the next run is refused before any work; its settings are fixed, too."""
    source = cluster.make_topic()
    job = make_job(command, source, partition_by="hash")
    cluster.produce_records(source, records(100))
    assert command.run(job).status == 0
    for name, other in (("partition_by", "range"), ("output_key", "sort")):
        refused = command.run(job.model_copy(update={name: other}))
        assert refused.status == 2, refused.err
        flag = name.replace("_", "-")
        assert f"has {flag} '{getattr(job, name)}' by its ledger, and was started with '{other}'" in refused.err
    cluster.produce_records(source, records(100, seed=2))
    add_partitions(cluster, job.sort_list[1].topic, 5)
    for flags in ((), ("--append",)):
        refused = command.run(job, *flags)
        assert refused.status == 2, refused.err
        assert f"output {job.sort_list[1].topic} has 5 partitions, and had 4 in run 1" in refused.err
    assert cluster.count(job, committed=False) == 200


@pytest.mark.slow
def test_integers_that_kafka_wrote_stay_as_they_are(cluster: Cluster, command: Command) -> None:
    """A sort by such a key has its bytes as the record key, so that it is where Java's producer puts it."""
    source = cluster.make_topic()
    numbers = [random.Random(5).randrange(-(2**63), 2**63) for _ in range(200)]
    cluster.produce_records(
        source, [Record(b"x", struct.pack(">q", n), partition=i % 4) for i, n in enumerate(numbers)]
    )
    settings = {"partition_by": "hash", "output_key": "sort", "format": "none", "key_format": "int64"}
    job = make_job(command, source, sorts=[f"@key:desc={source}-0"], **settings)
    done = command.run(job)
    assert done.status == 0, done.err
    assert {r.key for r in cluster.read(f"{source}-0")} == {struct.pack(">q", n) for n in numbers}
    checked = command.run(job, command="verify")
    assert checked.status == 0, checked.err
    assert "its order by @key, which its records do not have; their contents were compared" in checked.out
