"""`--workdir s3://…`: the same promises with the files of a run in a bucket."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest.mock import patch
from uuid import uuid4

import pytest

from tasks.attempts import run_folder, storage_of
from tasks.errors import SettingsError, TransientError
from tasks.kafka.lease import LeaseLostError
from tasks.kafka.topics import cluster_id
from tasks.outputs import prepare_outputs
from tasks.ownership import Owner
from tasks.publish import publish_run
from tasks.run import Run
from tasks.runners import ThreadRunner
from tasks.settings.job import Job
from tasks.stage import Q, R, Stage
from tasks.storage.base import FilesGoneError, Storage, write_file
from tasks.storage.registry import open_storage
from tests.cluster import Cluster, assert_sorted, sample_values
from tests.command import KILLED, Command
from tests.faults.oracle import assert_exact
from tests.s3_server import S3Server, running_s3
from tests.stages import make_job, owned


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with running_s3() as server:
        yield server


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, where the local work folder is."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def fill(cluster: Cluster, count: int = 500) -> str:
    source = cluster.make_topic()
    cluster.produce(source, [*sample_values(count), b"no row", None])
    return source


def in_s3(cluster: Cluster, s3: S3Server, **over: object) -> Job:
    source = fill(cluster)
    sorts = [f"{by}=o-{source}-{i}" for i, by in enumerate(("id", "name:desc,id"))]
    workdir = f"s3://{s3.bucket}/work/{source}"
    facts = {"source_topic": source, "sorts": sorts, "workdir": workdir, "session_timeout": 1.5}
    return Job.model_validate(facts | over)


def keys_of(s3: S3Server, job: Job) -> list[str]:
    return s3.keys(f"work/{job.source_topic}")


@pytest.mark.slow
def test_a_run(cluster: Cluster, command: Command, s3: S3Server, home: Path) -> None:
    """Runs by the command are exact, and leave nothing in the bucket, nor on this machine."""
    job = in_s3(cluster, s3, workdir=f"s3://{s3.bucket}/work")
    for _ in range(2):
        outcome = command.run(job, environment=s3.environment)
        assert outcome.status == 0, outcome.err
    assert_exact(cluster, job)
    assert s3.keys("work") == []
    assert [path for path in home.rglob("*") if path.is_file() and job.name in str(path)] == []
    verified = command.run(job, command="verify", environment=s3.environment)
    assert verified.status == 0, verified.err


@pytest.mark.slow
@pytest.mark.parametrize("point", ["after-dump", "after-sort", "before-commit"])
def test_a_run_that_is_killed(cluster: Cluster, command: Command, s3: S3Server, point: str) -> None:
    """What a killed run leaves is removed by the next one, which is exact."""
    job = in_s3(cluster, s3)
    assert command.run(job, failpoint=f"{point}=kill", environment=s3.environment).status == KILLED
    assert keys_of(s3, job) != []
    outcome = command.run(job, environment=s3.environment)
    assert outcome.status == 0, outcome.err
    assert_exact(cluster, job)
    assert keys_of(s3, job) == []


def test_the_stages(cluster: Cluster, s3: S3Server) -> None:
    """Files of an attempt lie below its prefix while it works, and no others."""
    job = in_s3(cluster, s3)
    with owned(cluster, job) as owner, run_folder(owner, "one") as folder:
        run = Run(owner, ThreadRunner(), lambda _: prepare_outputs(owner), "one")
        publication = run.prepare(run.take_snapshot(), folder)
        assert {tuple(key.split("/")[:3]) for key in keys_of(s3, job)} == {(job.name, cluster_id(cluster.admin), "one")}
        assert list(folder.iterdir()) == []
        publish_run(owner, publication)
    assert_sorted(cluster, job)
    assert len(cluster.read(job.dead_letters)) == 2
    assert keys_of(s3, job) == []


def attempts_of(cluster: Cluster, job: Job) -> Storage:
    return open_storage(f"{job.workdir}/{job.name}/{cluster_id(cluster.admin)}")


def test_leftovers(cluster: Cluster, s3: S3Server) -> None:
    """Attempts in this cluster are removed by the owner of the job, and what a late task wrote after the end of one.

    Those of another cluster are left alone.
    """
    job = in_s3(cluster, s3)
    storage, foreign = attempts_of(cluster, job), open_storage(f"{job.workdir}/{job.name}/another")
    for place in (storage, foreign):
        write_file(place, "former/divided/000/chunk.parquet", b"late")
    with owned(cluster, job) as owner:
        assert "former" in storage.names("")
        with run_folder(owner, "one"):
            assert storage.names("") == ["one"]
    assert storage.names("") == []
    assert foreign.names("") == ["former"]


class _Losing(ThreadRunner):
    """Loses the files of the run before its sorts, as if another owner had removed them."""

    def __init__(self, owner: Owner, job: Job) -> None:
        super().__init__()
        self._owner = owner
        self._job = job

    def run(self, stage: Stage[Q, R], requests: Sequence[Q]) -> list[R]:
        if stage.name == "sort-part":
            open_storage(storage_of(self._owner, Path(), "one")).remove("")
        return super().run(stage, requests)


@pytest.mark.slow
def test_files_that_vanish(cluster: Cluster, s3: S3Server) -> None:
    """A run that lost its files, and nothing else, says so."""
    job = in_s3(cluster, s3)
    with owned(cluster, job) as owner, run_folder(owner, "one") as folder:
        run = Run(owner, _Losing(owner, job), lambda _: prepare_outputs(owner), "one")
        with pytest.raises(FilesGoneError, match=r"sort .* part 0, work folder s3://.*: a file is gone"):
            run.prepare(run.take_snapshot(), folder)


@pytest.mark.slow
def test_files_that_a_successor_removed(cluster: Cluster, s3: S3Server) -> None:
    """A run whose files were removed since another one was committed says that it lost the job."""
    job = in_s3(cluster, s3)
    with owned(cluster, job) as owner, run_folder(owner, "one") as folder:
        run = Run(owner, _Losing(owner, job), lambda _: prepare_outputs(owner), "one")
        snapshot = run.take_snapshot()
        lost = LeaseLostError(job.owner_group, "another run was committed")
        with patch.object(Owner, "require_current_ledger", side_effect=lost), pytest.raises(LeaseLostError):
            run.prepare(snapshot, folder)


@pytest.mark.slow
@pytest.mark.raises("FilesGoneError")
def test_sorted_files_that_vanish(cluster: Cluster, s3: S3Server) -> None:
    """A publish whose files vanished owns the job before it tries again: here another run has taken it over."""
    job = in_s3(cluster, s3)
    with owned(cluster, job) as owner, run_folder(owner, "one") as folder:
        run = Run(owner, ThreadRunner(), lambda _: prepare_outputs(owner), "one")
        publication = run.prepare(run.take_snapshot(), folder)
        attempts_of(cluster, job).remove("one")
        with pytest.raises(FilesGoneError, match="sorted file s3://.* is gone"):
            publish_run(owner, publication)
        assert cluster.count(job) == 0
        other = make_job(job.source_topic, folder, sorts=[str(sort) for sort in job.sort_list], session_timeout=1.5)
        owner.close()
        with owned(cluster, other) as successor:
            again = Run(successor, ThreadRunner(), lambda _: prepare_outputs(successor), "two")
            publish_run(successor, again.prepare(again.take_snapshot(), folder))
        with pytest.raises(LeaseLostError):
            publish_run(owner, publication)
    assert_sorted(cluster, job)


@pytest.mark.slow
def test_sorted_files_that_a_successor_removed(cluster: Cluster, s3: S3Server) -> None:
    """A run whose sorted files were removed since another one was committed says that it lost the job."""
    job = in_s3(cluster, s3)
    with owned(cluster, job) as owner, run_folder(owner, "one") as folder:
        run = Run(owner, ThreadRunner(), lambda _: prepare_outputs(owner), "one")
        publication = run.prepare(run.take_snapshot(), folder)
        attempts_of(cluster, job).remove("one")
        lost = LeaseLostError(job.owner_group, "another run was committed")
        with patch.object(Owner, "require_current_ledger", side_effect=lost), pytest.raises(LeaseLostError):
            run.publish(publication)


@pytest.mark.slow
def test_a_bucket_that_does_not_answer_while_a_run_publishes(cluster: Cluster, s3: S3Server) -> None:
    """The error permits a retry, which is exact: the rows were not altered."""
    job = in_s3(cluster, s3)
    with owned(cluster, job) as owner, run_folder(owner, "one") as folder:
        run = Run(owner, ThreadRunner(), lambda _: prepare_outputs(owner), "one")
        publication = run.prepare(run.take_snapshot(), folder)
        away = OSError("AWS Error NETWORK_CONNECTION during HeadObject")
        with (
            patch("tasks.sorting.rows.open_file", side_effect=away),
            pytest.raises(TransientError, match="sorted file s3://.* cannot be read: AWS Error NETWORK_CONNECTION"),
        ):
            run.publish(publication)
        assert cluster.count(job) == 0
        run.publish(publication)
    assert_sorted(cluster, job)


@pytest.mark.slow
def test_what_has_no_use_for_it(command: Command, cluster: Cluster, s3: S3Server) -> None:
    """Streams and merges refuse it, and so does a run whose bucket is not there: status 2, and nothing is begun."""
    job = in_s3(cluster, s3)
    for name, over, said in (
        ("stream", {}, "is for kafka-sort sort: a batch of a stream is shorter"),
        ("sort", {"workdir": f"s3://none-{uuid4().hex[:8]}/work"}, "there is no bucket none-"),
    ):
        outcome = command.run(job.model_copy(update=over), command=name, environment=s3.environment)
        assert (outcome.status, said in outcome.err) == (2, True), outcome.err
    assert job.ledger not in cluster.admin.list_topics().topics


@pytest.mark.slow
def test_a_plan(command: Command, cluster: Cluster, s3: S3Server) -> None:
    """A plan knows no bound of the space, and writes nothing."""
    job = in_s3(cluster, s3)
    outcome = command.run(job, "--dry-run", environment=s3.environment)
    assert outcome.status == 0, outcome.err
    assert "free in" not in outcome.out
    assert keys_of(s3, job) == []


def test_names(tmp_path: Path) -> None:
    """A prefix is kept as it is written, but for its slashes; one without a bucket is refused."""
    assert Job(workdir="s3://bucket/a//").workdir == "s3://bucket/a"
    assert Job(workdir=str(tmp_path)).workdir == tmp_path
    with pytest.raises(ValueError, match="needs the name of a bucket"):
        Job(workdir="s3:///a")
    with pytest.raises(ValueError, match="lie in each other"):
        Job(workdir="s3://bucket/a", sorts=["id=parquet:s3://bucket/a/b"])


@pytest.mark.raises("SettingsError")
def test_a_bucket_that_takes_nothing(cluster: Cluster, s3: S3Server) -> None:
    """A place that cannot be written is an error of the settings, before any work."""
    job = in_s3(cluster, s3)
    with (
        owned(cluster, job) as owner,
        patch("tasks.attempts.write_file", side_effect=OSError("ACCESS_DENIED")),
        pytest.raises(SettingsError, match="cannot be used: ACCESS_DENIED"),
        run_folder(owner, "one"),
    ):
        pass
