"""Folders that cannot be outputs: one line that names the folder and what to do; exit 2; before any work."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kafka_sort.main import cli
from tasks.errors import SettingsError
from tasks.folders.base import MARKER, Marker
from tasks.kafka.topics import cluster_id, describe_topic
from tasks.manifests import OffsetRange, Snapshot
from tasks.output_folders import check_folder_space, check_output_folders
from tasks.settings.job import Job, load_job
from tasks.settings.patterns import SORT_PATTERN
from tasks.settings.streaming import check_streamable
from tests.cluster import Cluster, sample_values
from tests.stages import make_job, owned, run_settled

# Sorts, and words that the line must have.
SORTS = {
    "no folder": (["id=parquet:"], ["parquet:DIR"]),
    "another scheme": (["id=parquet:gs://bucket/x"], ["gs://", "s3://BUCKET/PREFIX"]),
    "a bucket without prefix": (["id=parquet:s3://bucket"], ["needs a prefix"]),
    "no name of a bucket": (["id=parquet:s3://B_/x"], ["name of a bucket"]),
    "the root": (["id=parquet:/"], ["root"]),
    "no home of that name": (["id=parquet:~nobody-of-this-name/x"], ["~nobody"]),
    "a control character": (["id=parquet:/a\nb"], ["printed"]),
    "one folder twice": (["id=parquet:/a/b", "name=parquet:/a/./b/"], ["two sorts go to one folder"]),
    "one within the other": (["id=parquet:/a/b", "name=parquet:/a/b/c"], ["lie in each other"]),
    "one sort to two folders": (["id=parquet:/a", "id=parquet:/b"], ["'id'", "twice"]),
    "within the work folder": (["id=parquet:/chunks/x"], ["'/chunks'", "lie in each other"]),
    "around the work folder": (["id=parquet:/ch/../chunks/.."], ["root"]),
}


@pytest.mark.parametrize("case", SORTS)
def test_wrong_sorts(case: str) -> None:
    """They are found without a broker; credentials that somebody wrote into an address are not repeated."""
    sorts, words = SORTS[case]
    with pytest.raises(SettingsError) as refused:
        load_job({"sorts": sorts, "workdir": "/chunks"}, {})
    assert all(word in str(refused.value) for word in ("sorts", *words)), refused.value
    with pytest.raises(SettingsError) as refused:
        load_job({"sorts": ["id=parquet:s3://key:secret@bucket/x"]}, {})
    assert "secret" not in str(refused.value)


def test_the_form_takes_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect's form takes them as the command does; a relative path is one of the folder where it is given."""
    import re

    texts = ["id=parquet:/a b/x=1,y", "id:desc,name=parquet:s3://bucket/a/b", "id=parquet:~/x", "id=parquet:rel"]
    assert all(re.search(SORT_PATTERN, text) for text in texts)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    [one] = Job(sorts=[texts[0]]).sort_list
    assert (one.topic, one.has_folder) == ("parquet:/a b/x=1,y", True)
    [home] = Job(sorts=[texts[2]]).sort_list
    assert home.topic == f"parquet:{tmp_path}/home/x"
    # `~` is the home of whom the run belongs to, so parameters keep it.
    assert Job(sorts=texts[2:3]).sorts == texts[2:3]
    assert Job(sorts=texts[3:]).sorts == [f"id=parquet:{tmp_path}/rel"]


def test_a_stream_refuses_folders() -> None:
    """It would make thousands of small files; it says so before any work."""
    with pytest.raises(SettingsError, match="parquet:/a is for kafka-sort sort"):
        check_streamable(Job(sorts=["id=t", "name=parquet:/a"]))


def a_file(folder: Path, _: Cluster) -> None:
    folder.write_text("")


def below_a_file(folder: Path, _: Cluster) -> None:
    folder.parent.joinpath("file").write_text("")
    folder.symlink_to(folder.parent / "file" / "x")


def foreign(folder: Path, _: Cluster) -> None:
    folder.mkdir()
    for name in ("data.csv", "more.csv", ".hidden", "_delta"):
        (folder / name).write_text("")


def of_another_job(folder: Path, cluster: Cluster) -> None:
    folder.mkdir()
    (folder / MARKER).write_bytes(Marker("other", cluster_id(cluster.admin), "id").to_json())


def of_another_cluster(folder: Path, _: Cluster) -> None:
    folder.mkdir()
    (folder / MARKER).write_bytes(Marker("job", "other-cluster", "id").to_json())


def with_a_broken_marker(folder: Path, _: Cluster) -> None:
    folder.mkdir()
    (folder / MARKER).write_text("{}")


def runs_without_a_marker(folder: Path, _: Cluster) -> None:
    (folder / "run-000001").mkdir(parents=True)


def into_the_work_folder(folder: Path, _: Cluster) -> None:
    (folder.parent / "work").mkdir(0o700)
    folder.symlink_to(folder.parent / "work" / "x")


FOLDERS: dict[str, tuple[Callable[[Path, Cluster], None], str]] = {
    "a file": (a_file, "cannot be used .Not a directory"),
    "a link to nothing": (below_a_file, "cannot be used"),
    "foreign files": (foreign, "holds 'data.csv' and 1 more, which job job did not write"),
    "another job's": (of_another_job, "belongs to job other: choose another folder"),
    "another cluster's": (of_another_cluster, "belongs to job job of the cluster other-cluster"),
    "a broken marker": (with_a_broken_marker, "marker .* was altered"),
    "runs without a marker": (runs_without_a_marker, "holds 'run-000001'"),
    "a link into the work folder": (into_the_work_folder, "lie in each other"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_unfit_folders(cluster: Cluster, tmp_path: Path, case: str) -> None:
    """They are found before any work, and nothing in them is changed."""
    prepare, said = FOLDERS[case]
    folder = tmp_path / "out"
    prepare(folder, cluster)
    before = sorted(tmp_path.rglob("*"))
    job = make_job("source", tmp_path / "work", sorts=[f"id=parquet:{folder}"], job_name="job")
    with pytest.raises(SettingsError, match=said):
        check_output_folders(job, cluster.admin)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_cannot_be_written(cluster: Cluster, tmp_path: Path) -> None:
    """Neither it nor the one that it would be made in."""
    tmp_path.chmod(0o500)
    job = make_job("source", tmp_path / "work", sorts=[f"id=parquet:{tmp_path}/out"])
    with pytest.raises(SettingsError, match="Permission denied"):
        check_output_folders(job, cluster.admin)


@pytest.mark.slow
def test_append_permits_what_others_wrote(cluster: Cluster, tmp_path: Path) -> None:
    """Foreign files are permitted by `--append`, another job's folder is not; runs of a lost ledger stay there."""
    source, folder = cluster.make_topic(), tmp_path / "out"
    foreign(folder, cluster)
    job = make_job(source, tmp_path / "work", sorts=[f"id=parquet:{folder}"], append=True)
    cluster.produce(source, sample_values(50))
    run_settled(cluster, job, tmp_path)
    again = Job.model_validate({**job.model_dump(exclude_unset=True), "append": False})
    with pytest.raises(SettingsError, match="holds 'data.csv'"), owned(cluster, again):
        pass
    for name in ("data.csv", "more.csv"):
        (folder / name).unlink()
    cluster.delete_topic(job.ledger)
    with pytest.raises(SettingsError, match="ledger was lost"), owned(cluster, again):
        pass
    kept = (folder / "run-000001" / "part-00000.parquet").read_bytes()
    run_settled(cluster, job, tmp_path)
    assert sorted(path.name for path in folder.glob("run-*")) == ["run-000001", "run-000001-2"]
    assert (folder / "run-000001" / "part-00000.parquet").read_bytes() == kept
    of_another = Job.model_validate({**job.model_dump(exclude_unset=True), "job_name": "another"})
    with pytest.raises(SettingsError, match="belongs to job"):
        check_output_folders(of_another, cluster.admin)


@pytest.mark.slow
def test_a_folder_that_was_replaced(cluster: Cluster, tmp_path: Path) -> None:
    """A folder that is not the one of the last run any more is refused, unless --append permits it."""
    source, folder = cluster.make_topic(), tmp_path / "out"
    job = make_job(source, tmp_path / "work", sorts=[f"id=parquet:{folder}"])
    cluster.produce(source, sample_values(50))
    run_settled(cluster, job, tmp_path)
    (folder / MARKER).unlink()
    with pytest.raises(SettingsError, match="'run-000001', which job"), owned(cluster, job):
        pass
    marker = Marker(job.name, cluster_id(cluster.admin), "another id")
    (folder / MARKER).write_bytes(marker.to_json())
    with pytest.raises(SettingsError, match="was removed or replaced since the last run"), owned(cluster, job):
        pass


def test_a_disk_that_is_too_small(tmp_path: Path) -> None:
    """The folders' disks are asked before any work, two folders on one disk together."""
    job = make_job("s", tmp_path / "work", sorts=[f"{c}=parquet:{tmp_path}/{c}" for c in ("id", "name")])
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    mean = 0.7 * free / 1000
    snapshot = Snapshot(1, "id", (OffsetRange(0, 0, 1000),), mean_record_bytes=mean)
    with pytest.raises(SettingsError, match=f"the disk of output parquet:{tmp_path}/name has .* GB free"):
        check_folder_space(job, snapshot)
    check_folder_space(job, Snapshot(1, "id", (OffsetRange(0, 0, 10),), mean_record_bytes=mean))


@pytest.mark.slow
def test_nothing_is_made_before_it_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    """A run that refuses what it would read leaves neither a folder nor a topic."""
    source, folder = cluster.make_topic(), tmp_path / "out"
    job = make_job(source, tmp_path / "work", sorts=[f"id=parquet:{folder}", f"name=o-{source}"])
    cluster.produce(source, [b"no row"] * 50)
    with pytest.raises(SettingsError, match="dead letters"):
        run_settled(cluster, job, tmp_path)
    assert not folder.exists()
    assert describe_topic(cluster.admin, f"o-{source}") is None


@pytest.mark.slow
def test_permissions_are_those_of_the_folder(cluster: Cluster, tmp_path: Path) -> None:
    """A folder that others may read has files that they may read; one that the run makes is private."""
    source, shared, own = cluster.make_topic(), tmp_path / "shared", tmp_path / "own"
    shared.mkdir()
    shared.chmod(0o755)
    job = make_job(source, tmp_path / "work", sorts=[f"id=parquet:{shared}", f"name=parquet:{own}"])
    cluster.produce(source, sample_values(20))
    run_settled(cluster, job, tmp_path)
    modes = {path.stat().st_mode & 0o777 for path in (shared / "run-000001", *shared.glob("run-*/*"))}
    assert modes == {0o755, 0o644}
    assert {path.stat().st_mode & 0o777 for path in (own, *own.rglob("*"))} == {0o700, 0o600}
    assert "--rewrite" in str([param.opts for param in cli.commands["sort"].params])
