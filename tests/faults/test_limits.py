"""Records and topics at the limits: very large, very many, empty; each works, or ends in an error that says why."""

import re
from pathlib import Path

import pytest

from tests.cluster import Cluster, Record, sample_values
from tests.command import Command
from tests.faults.oracle import assert_exact
from tests.stages import make_job, run_once

LARGE = 10_000_000
_LIMIT = {"max_message_bytes": str(LARGE + 2_000_000)}


@pytest.mark.slow
def test_records_of_ten_megabytes(cluster: Cluster, command: Command) -> None:
    """Twenty large records among small ones are sorted within the default memory limit."""
    source = cluster.make_topic(2, **_LIMIT)
    large = [b"%d,%s,address,Asia" % (i * 31 % 61, b"x" * LARGE) for i in range(20)]
    values = [value for i, row in enumerate(large) for value in (row, *sample_values(10, seed=i))]
    cluster.produce(source, values, 2, **{"message.max.bytes": LARGE + 2_000_000})
    job = command.job(source, sorts=[f"id={source}-ids"])
    outcome = command.run(job)
    assert outcome.status == 0, outcome.err
    peak = re.search(r"peak_memory_mb=(\d+)", outcome.err)
    assert peak is not None
    assert int(peak[1]) <= 2000
    assert_exact(cluster, job)


@pytest.mark.slow
def test_empty_records(cluster: Cluster, tmp_path: Path) -> None:
    """A hundred thousand empty values are no rows: each is a dead letter, and the run is done."""
    source = cluster.make_topic()
    cluster.produce(source, [*sample_values(50), *[b""] * 100_000])
    job = make_job(source, tmp_path, allow_dead_letters=True)
    record = run_once(cluster, job, tmp_path)
    assert (record.records, record.dead_letters) == (100_050, 100_000)
    assert_exact(cluster, job)


@pytest.mark.slow
def test_empty_keys_and_fields(cluster: Cluster, tmp_path: Path) -> None:
    """A hundred thousand rows with an empty sort key are all alike, and stay in their order of arrival."""
    source = cluster.make_topic()
    cluster.produce_records(source, [Record(b"%d,,," % i, b"", (), i % 4) for i in range(100_000)])
    job = make_job(source, tmp_path, sorts=[f"name={source}-names"], split_heavy_keys=True)
    record = run_once(cluster, job, tmp_path)
    assert [w.count for w in record.sorts[0].partitions] == [25_000] * 4
    assert_exact(cluster, job)


@pytest.mark.slow
def test_512_partitions(cluster: Cluster, command: Command) -> None:
    """The source and each of three outputs have 512 partitions, most of them with a few records, some with none."""
    source = cluster.make_topic(512)
    cluster.produce(source, sample_values(5000), 500)
    job = command.job(source)
    outcome = command.run(job)
    assert outcome.status == 0, outcome.err
    last = cluster.ledger(job).last
    assert last is not None
    assert [len(sort.partitions) for sort in last.sorts] == [512, 512, 6]
    assert_exact(cluster, job)


@pytest.mark.slow
def test_memory_too_low_for_its_keys(cluster: Cluster, command: Command) -> None:
    """If DuckDB cannot hold two thousand keys at once, it says what to raise, and nothing is visible.

    With records as large, but a small key, it sees only the keys, and the run is done.
    """
    source = cluster.make_topic(1)
    values = (b"%d,%s,address,Asia" % (i * 31 % 10_007, b"%06d" % i * 25_000) for i in range(2100))
    cluster.produce(source, values, 1, **{"message.max.bytes": 2_000_000})
    small = command.job(source, job_name=f"{source}-small", memory_limit="768MB", sorts=[f"id={source}-small"])
    assert command.run(small).status == 0
    assert_exact(cluster, small)
    job = command.job(source, memory_limit="768MB", sorts=[f"name={source}-names"])
    outcome = command.run(job)
    last = outcome.err.splitlines()[-1]
    assert outcome.status == 1, last
    assert last.startswith("kafka-sort: sort ")
    assert "--memory-limit" in last
    assert cluster.count(job, committed=False) == 0
    again = command.run(job, "--memory-limit", "2GB")
    assert again.status == 0, again.err
    assert_exact(cluster, job)
