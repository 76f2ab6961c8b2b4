"""`parquet:s3://…`: the same promises on objects, which are copied after the commit, and marked by `_SUCCESS`."""

from collections.abc import Iterator

import pyarrow.parquet as pq
import pytest

from tasks.errors import SettingsError
from tasks.folders.base import FilesLostError
from tasks.folders.s3 import S3Folder
from tasks.output_folders import check_output_folders
from tasks.settings.job import Job
from tasks.verify import verify_job
from tests.cluster import Cluster, Record, expected, sample_values
from tests.command import KILLED, Command
from tests.files import places, records_of
from tests.s3_server import S3Server, running_s3
from tests.stages import make_job, owned, run_settled

COMMITTED = ("after-commit", "before-copy", "after-copy", "before-success", "after-success")
POINTS = [
    pytest.param(name, marks=pytest.mark.slow) for name in ("before-stage", "after-stage", "before-commit", *COMMITTED)
]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with running_s3() as server:
        yield server


def read_rows(s3: S3Server, prefix: str, run: str) -> list[Record]:
    names = [name for name in s3.keys(f"{prefix}/{run}") if name != "_SUCCESS"]
    tables = [pq.read_table(f"{s3.bucket}/{prefix}/{run}/{name}", filesystem=s3.files) for name in names]
    return [record for table in tables for record in records_of(table.to_pylist())]


def assert_run(cluster: Cluster, s3: S3Server, job: Job, prefix: str) -> None:
    """The last run's objects are the expected sequence, and the prefix holds the runs, the marker, and nothing else."""
    ledger = cluster.ledger(job)
    last = ledger.last
    assert last is not None
    read = {r.partition: (r.start, r.end) for r in last.read}
    source = [r for r in cluster.read(job.source_topic) if read[r.partition][0] <= r.offset < read[r.partition][1]]
    [sort] = job.folder_sorts
    found, wanted = read_rows(s3, prefix, f"run-{last.run:06}"), expected(sort, source)
    assert (places(found), found) == (places(wanted), wanted)
    written = [s for record in ledger.runs.values() for s in record.sorts if s.topic == sort.topic]
    objects = [f"{s.folder}/{file.name}" for s in written for file in s.files]
    assert s3.keys(prefix) == sorted([".kafka-sort.json", *objects, *(f"{s.folder}/_SUCCESS" for s in written)])


@pytest.mark.slow
def test_objects_of_runs(cluster: Cluster, tmp_path: object, s3: S3Server, command: Command) -> None:
    """Two runs have a prefix each with `_SUCCESS`; verify reads them back; a replacement leaves one."""
    source = cluster.make_topic()
    job = command.job(source, sorts=[f"id:desc=parquet:s3://{s3.bucket}/a/b"])
    for seed in (1, 2):
        cluster.produce(source, [*sample_values(100, seed=seed), b"no row"])
        run_settled(cluster, job, command.workdir.parent)
        assert_run(cluster, s3, job, "a/b")
    assert verify_job(job, cluster.connection).ok
    replacing = Job.model_validate({**job.model_dump(exclude_unset=True), "mode": "replace"})
    run_settled(cluster, replacing, command.workdir.parent)
    assert {key.partition("/")[0] for key in s3.keys("a/b")} == {".kafka-sort.json", "run-000003"}
    assert verify_job(job, cluster.connection).ok
    other = Job.model_validate({**job.model_dump(exclude_unset=True), "job_name": "other"})
    with pytest.raises(SettingsError, match=f"belongs to job {source}"):
        check_output_folders(other, cluster.admin)


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_killed_and_started_again(cluster: Cluster, command: Command, s3: S3Server, point: str) -> None:
    """Whatever the instant, `_SUCCESS` tells a whole run; the next start finishes, and leaves nothing else."""
    source = cluster.make_topic()
    job = command.job(source, sorts=[f"id=parquet:s3://{s3.bucket}/{source}"])
    cluster.produce(source, sample_values(100))
    killed = command.run(job, failpoint=f"{point}=kill", environment=s3.environment)
    assert killed.status == KILLED, killed.err
    assert ("run-000001/_SUCCESS" in s3.keys(source)) == (point == "after-success")
    again = command.run(job, environment=s3.environment)
    assert again.status == 0, again.err
    assert ("nothing new" in again.out) == (point in COMMITTED)
    assert "secret-of-the-test" not in killed.err + again.err + again.out
    assert_run(cluster, s3, job, source)


@pytest.mark.slow
@pytest.mark.raises("FilesLostError")
def test_objects_that_are_lost(cluster: Cluster, command: Command, s3: S3Server) -> None:
    """A run that is committed, but neither staged nor whole, stops the next start; --rewrite brings it back."""
    source = cluster.make_topic()
    job = make_job(source, command.workdir, sorts=[f"id=parquet:s3://{s3.bucket}/{source}"])
    cluster.produce(source, sample_values(100))
    run_settled(cluster, job, command.workdir.parent)
    s3.files.delete_dir(f"{s3.bucket}/{source}/run-000001")
    with pytest.raises(FilesLostError, match="--rewrite 1"), owned(cluster, job):
        pass
    again = command.run(job, "--rewrite", "1", environment=s3.environment)
    assert again.status == 0, again.err
    assert_run(cluster, s3, job, source)


def test_a_bucket_that_is_not_there(s3: S3Server) -> None:
    """It is found before any work."""
    with pytest.raises(SettingsError, match="there is no bucket no-such-bucket"):
        S3Folder("parquet:s3://no-such-bucket/x").check()
