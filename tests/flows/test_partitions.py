"""Partitions and record keys of the outputs, through the whole command: the outputs, and the answer of verify."""

import random

import pytest

from tasks.settings.job import Job
from tests.cluster import Cluster, Record, sample_values
from tests.command import Command
from tests.faults.oracle import assert_exact

SORTS = ("id", "continent,id:desc")


def records(count: int, seed: int = 1, partitions: int = 4) -> list[Record]:
    """Make rows with keys that come again, empty and null ones among them."""
    chance = random.Random(seed)
    keys = [None, b"", *(b"key-%d" % i * (i % 5) for i in range(50))]
    values = sample_values(count, seed=seed, ids=500)
    return [Record(value, chance.choice(keys), partition=i % partitions) for i, value in enumerate(values)]


def make_job(command: Command, source: str, **over: object) -> Job:
    sorts = [f"{columns}={source}-{i}" for i, columns in enumerate(SORTS)]
    return command.job(source, sorts=sorts, **over)


def assert_done(cluster: Cluster, command: Command, job: Job, runs: int = 1) -> None:
    assert_exact(cluster, job, runs)
    checked = command.run(job, command="verify")
    assert checked.status == 0, checked.err
    assert "no difference" in checked.out
    assert "not verifiable:" not in checked.out


@pytest.mark.parametrize(
    ("partition_by", "output_key", "partitions"),
    [
        ("hash", "sort", 5),
        ("source", "none", 6),
        pytest.param("hash", "keep", 3, marks=pytest.mark.slow),
        pytest.param("range", "sort", 3, marks=pytest.mark.slow),
        pytest.param("source", "keep", None, marks=pytest.mark.slow),
    ],
)
def test_two_runs(
    cluster: Cluster, command: Command, partition_by: str, output_key: str, partitions: int | None
) -> None:
    """Each record has its key and its partition, each partition its order; a second run goes on so; verify agrees."""
    source = cluster.make_topic()
    job = make_job(command, source, partition_by=partition_by, output_key=output_key, output_partitions=partitions)
    for number in (1, 2):
        cluster.produce_records(source, [*records(300, seed=number), Record(b"no row", b"key")])
        done = command.run(job)
        assert done.status == 0, done.err
    assert_done(cluster, command, job, runs=2)
    record = cluster.ledger(job).runs[2]
    assert (record.partition_by, record.output_key) == (partition_by, output_key)
    required = {"partition-by"} * (partition_by != "range") if False else set()
    assert all(sort.partition_count == (partitions or 4) for sort in record.sorts), required
