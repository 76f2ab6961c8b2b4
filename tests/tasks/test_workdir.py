"""The work folder: it is private, and nobody's files are left in it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.errors import SettingsError
from tasks.settings.job import Job
from tasks.workdir import attempt_folder, check_folder, free_bytes, job_folder


@pytest.fixture(params=[0o000, 0o022, 0o277], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Set the process's umask, from lax to senseless."""
    former = os.umask(request.param)
    yield request.param
    os.umask(former)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_dead_attempts_are_removed_and_living_ones_are_not(tmp_path: Path) -> None:
    """Files of a killed process are removed; those of a living one stay, whoever believes it dead."""
    job = Job(workdir=tmp_path)
    dead = tmp_path / job.name / "dead"
    dead.mkdir(parents=True)
    (dead / "chunk").write_text("left over")
    with attempt_folder(job, "one") as living, attempt_folder(job, "two") as later:
        assert not dead.exists()
        assert living.exists()
        assert later.exists()
    assert list(job_folder(job).iterdir()) == []


def test_nobody_else_can_read(tmp_path: Path, umask: int) -> None:
    """Folders are 0700 and files 0600 whatever the umask, which is restored afterwards."""
    job = Job(workdir=tmp_path / "made" / "work")
    with attempt_folder(job, "one") as folder:
        (folder / "chunk").touch()
        (folder / "spill").mkdir()
        assert mode(folder / "chunk") == 0o600
        folders = (folder, folder / "spill", *list(folder.parents)[:3])
        assert {path.name: mode(path) for path in folders} == {path.name: 0o700 for path in folders}
    assert os.umask(umask) == umask


def symbolic_link(workdir: Path) -> str:
    elsewhere = workdir.parent / "elsewhere"
    elsewhere.mkdir()
    workdir.symlink_to(elsewhere)
    return f"is a symbolic link: give the folder that it points to, {elsewhere}"


def link_to_nowhere(workdir: Path) -> str:
    workdir.symlink_to(workdir.parent / "nowhere")
    return "cannot be used (File exists)"


def somebody_elses(workdir: Path) -> str:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    workdir.mkdir(0o700)
    os.chown(workdir, 12345, 12345)
    return "belongs to another user (uid 12345)"


def writable_by_others(workdir: Path) -> str:
    workdir.mkdir()
    workdir.chmod(0o775)
    return f"can be written by others: chmod 700 {workdir}"


def a_file(workdir: Path) -> str:
    workdir.touch()
    return "cannot be used (File exists)"


UNSAFE = [symbolic_link, link_to_nowhere, somebody_elses, writable_by_others, a_file]


@pytest.mark.parametrize("place", ["work folder", "job's folder"])
@pytest.mark.parametrize("make", UNSAFE)
def test_an_unsafe_folder_is_refused(tmp_path: Path, make: Callable[[Path], str], place: str) -> None:
    """In a work or job folder that is not ours alone, nothing is created and nothing removed."""
    workdir = tmp_path / "work"
    job = Job(workdir=workdir, job_name="orders")
    workdir.mkdir(0o700) if place == "job's folder" else None
    reason = make(workdir if place == "work folder" else workdir / job.name)
    for found in tmp_path.rglob("elsewhere"):
        for folder in (found / "orders", found):
            (folder / "precious").mkdir(parents=True)
    with pytest.raises(SettingsError) as checked:
        check_folder(job)
    with pytest.raises(SettingsError) as raised, attempt_folder(job, "one"):
        pass
    assert str(checked.value) == str(raised.value)
    assert reason in str(raised.value)
    assert "--workdir" in str(raised.value)
    for found in tmp_path.rglob("elsewhere"):
        assert len(list(found.rglob("precious"))) == 2


def test_a_check_makes_no_folder(tmp_path: Path) -> None:
    """A folder that could be made is fine, and is not made; below a file none can be."""
    job = Job(workdir=tmp_path / "above" / "work")
    check_folder(job)
    assert (free_bytes(job) or 0) > 0
    assert not list(tmp_path.iterdir())
    (tmp_path / "above").touch()
    for use in (check_folder, job_folder):
        with pytest.raises(SettingsError, match="cannot be used \\(Not a directory\\)"):
            use(job)


def test_a_shared_folder_that_is_sticky_is_fine(tmp_path: Path) -> None:
    """The job's own folder is safe in a folder like root's /tmp: nobody can put another in its place."""
    tmp_path.chmod(0o1777)
    with attempt_folder(Job(workdir=tmp_path), "one") as folder:
        assert mode(folder.parent) == 0o700


def test_a_link_among_the_leftovers_leads_nowhere(tmp_path: Path) -> None:
    """The target of a link, or a stray file, is not removed with the dead folders."""
    job, precious = Job(workdir=tmp_path / "work"), tmp_path / "precious"
    precious.mkdir()
    (job_folder(job) / "dead").symlink_to(precious)
    (job_folder(job) / "stray").touch()
    with attempt_folder(job, "one"):
        pass
    assert precious.exists()
