"""`sort --rewrite RUN`: the files of a committed run are written again from the source."""

import shutil
from pathlib import Path
from uuid import uuid4

import pytest

from tasks.errors import SettingsError
from tasks.failpoints import VARIABLE
from tasks.folders.base import FilesLostError
from tasks.ownership import own_job
from tasks.preflight import take_up_job
from tasks.rewriting import UnreadableRunError, rewrite_run
from tasks.runners import ThreadRunner
from tasks.settings.connection import use_connection
from tasks.settings.job import Job
from tasks.settlement import FilesNotPlacedError
from tasks.verify import verify_job
from tests.cluster import Cluster, sample_values
from tests.command import Command
from tests.files import assert_only_runs, files_of, read_rows, read_run, runs_of
from tests.stages import make_two_runs, owned, run_settled


@pytest.mark.slow
@pytest.mark.raises("FilesLostError")
def test_files_that_are_lost_are_written_again(cluster: Cluster, command: Command, tmp_path: Path) -> None:
    """The newest run's folder is gone: exit 1, which offers to write it from the source, and that works."""
    job, folder = make_two_runs(cluster, tmp_path)
    before = read_rows(folder, "run-000002")
    shutil.rmtree(folder / "run-000002")
    refused = command.run(job)
    assert refused.status == 1
    assert "kafka-sort sort --rewrite 2" in refused.err.splitlines()[-1]
    again = command.run(job, "--rewrite", "2")
    assert again.status == 0, again.err
    assert read_rows(folder, "run-000002") == before
    assert runs_of(folder) == ["run-000001", "run-000002"]
    verified = command.run(job, command="verify")
    assert verified.status == 0, verified.err
    whole = command.run(job, "--rewrite", "1")
    assert whole.status == 2
    assert "all files of the run are there" in whole.err.splitlines()[-1]


@pytest.mark.slow
def test_rewrite_mends_what_was_altered(cluster: Cluster, tmp_path: Path) -> None:
    """An older run too, also if all of the folder is gone: its marker is back, and the ledger knows the new files."""
    job, folder = make_two_runs(cluster, tmp_path)
    first, rows = files_of(folder, "run-000001")[0], read_rows(folder, "run-000001")
    first.write_bytes(first.read_bytes()[:-10])
    rewrite(cluster, job, tmp_path, 1)
    assert read_rows(folder, "run-000001") == rows
    shutil.rmtree(folder)
    rewrite(cluster, job, tmp_path, 2)
    assert runs_of(folder) == ["run-000002"]
    rewrite(cluster, job, tmp_path, 1)
    assert_whole(cluster, job)
    assert verify_job(job, cluster.connection).ok


@pytest.mark.slow
def test_what_cannot_be_written_again(cluster: Cluster, tmp_path: Path) -> None:
    """Expired records of the source, unknown runs: the line says so, and nothing changes; --append goes on without."""
    job, folder = make_two_runs(cluster, tmp_path)
    for number, words in ((7, "has runs 1 to 2"), (1, "all files of the run are there")):
        with pytest.raises(SettingsError, match=words):
            rewrite(cluster, job, tmp_path, number)
    shutil.rmtree(folder / "run-000002")
    cluster.delete_below(job.source_topic, {0: 60})
    with pytest.raises(UnreadableRunError, match="partition 0 offsets 50 to 99"):
        rewrite(cluster, job, tmp_path, 2)
    with pytest.raises(FilesLostError):
        run_settled(cluster, job, tmp_path)
    cluster.produce(job.source_topic, sample_values(10, seed=3))
    run_settled(cluster, Job.model_validate({**job.model_dump(exclude_unset=True), "append": True}), tmp_path)
    assert runs_of(folder) == ["run-000001", "run-000003"]


def assert_whole(cluster: Cluster, job: Job) -> None:
    """The folder holds just the files that the ledger names, byte for byte."""
    records = cluster.ledger(job).runs.values()
    [sort] = job.folder_sorts
    assert_only_runs(sort, records)
    assert [len(read_run(s)) for record in records for s in record.sorts if s.has_folder] == [200, 200]


def rewrite(cluster: Cluster, job: Job, tmp_path: Path, number: int) -> None:
    work = tmp_path / uuid4().hex
    work.mkdir()
    with use_connection(cluster.connection), own_job(job, cluster.connection) as owner:
        take_up_job(owner)
        rewrite_run(owner, ThreadRunner(), work, work.name, number)


@pytest.mark.slow
def test_a_rewrite_that_ends_before_it_places(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start places the files, also of a run that is not the newest."""
    job, folder = make_two_runs(cluster, tmp_path)
    shutil.rmtree(folder / "run-000001")
    monkeypatch.setenv(VARIABLE, "before-place=raise")
    with pytest.raises(FilesNotPlacedError):
        rewrite(cluster, job, tmp_path, 1)
    assert runs_of(folder) == ["run-000002"]
    with owned(cluster, job):
        assert_whole(cluster, job)
