"""Dead letters that come back: corrected ones in the source, and a dead-letter topic that is a source itself."""

from dataclasses import replace
from pathlib import Path

import pytest

from tasks.settings.job import Job
from tasks.verify import verify_job
from tests.cluster import Cluster, Record
from tests.stages import run_once

TOPIC, OFFSET = (f"__connect.errors.{name}" for name in ("topic", "offset"))


@pytest.fixture
def job(cluster: Cluster, tmp_path: Path) -> Job:
    """A job that has made one run, with two dead letters, at the offsets 1 and 2."""
    source = cluster.make_topic(1)
    cluster.produce_records(source, [Record(b"1,2.50"), Record(b"2,n/a", b"k"), Record(b"no row"), Record(b"3,7")])
    made = make_job(source, tmp_path)
    run_once(cluster, made, tmp_path)
    return made


def make_job(source: str, workdir: Path, columns: str = "sale:int,total:decimal") -> Job:
    settings = {"source_topic": source, "columns": columns, "sorts": ["total"], "workdir": workdir}
    return Job.model_validate({**settings, "session_timeout": 1.5, "allow_dead_letters": True})


def differences(cluster: Cluster, job: Job) -> list[str]:
    return verify_job(job, cluster.connection).lines()


def places(record: Record) -> list[tuple[str, bytes | None]]:
    return [header for header in record.headers if header[0] in {TOPIC, OFFSET}]


def test_a_value_that_is_corrected(cluster: Cluster, job: Job, tmp_path: Path) -> None:
    """It is sorted with what is new, headers and all; one that is as bad as before gets a new dead letter."""
    first, second = cluster.read(job.dead_letters)
    cluster.produce_records(job.source_topic, [replace(first, value=b"2,8.25"), second, Record(b"4,n/a")])
    record = run_once(cluster, job, tmp_path)
    assert (record.records, record.dead_letters) == (3, 2)
    (output,) = job.sort_list
    corrected = next(found for found in cluster.read(output.topic) if found.value == b"2,8.25")
    assert (corrected.key, corrected.headers) == (b"k", first.headers)
    again = next(found for found in cluster.read(job.dead_letters)[2:] if found.value == second.value)
    assert again.headers[: len(second.headers)] == second.headers
    source = job.source_topic.encode()
    assert places(again) == [(TOPIC, source), (OFFSET, b"2"), (TOPIC, source), (OFFSET, b"5")]
    assert differences(cluster, job) == []


@pytest.mark.slow
def test_a_job_over_dead_letters(cluster: Cluster, job: Job, tmp_path: Path) -> None:
    """It sorts by columns that fit; its own dead letters keep their first origin, and both jobs are verified."""
    other = make_job(job.dead_letters, tmp_path, "sale:int,total")
    record = run_once(cluster, other, tmp_path)
    assert (record.records, record.dead_letters) == (2, 1)
    (output,) = other.sort_list
    letters = cluster.read(job.dead_letters)
    (found,) = cluster.read(output.topic)
    assert (found.value, found.key, found.headers) == (b"2,n/a", b"k", letters[0].headers)
    (left,) = cluster.read(other.dead_letters)
    assert (left.value, left.headers) == (b"no row", letters[1].headers)
    assert places(left) == [(TOPIC, job.source_topic.encode()), (OFFSET, b"2")]
    assert differences(cluster, other) == []
    assert differences(cluster, job) == []
