"""The work folder of an attempt."""

from pathlib import Path

from tasks.settings.job import Job
from tasks.workdir import attempt_folder


def test_dead_attempts_are_removed_and_living_ones_are_not(tmp_path: Path) -> None:
    """What a killed process left goes; what a living one works in stays, whoever believes it dead."""
    job = Job(workdir=tmp_path)
    dead = tmp_path / job.name / "dead"
    dead.mkdir(parents=True)
    (dead / "chunk").write_text("left over")
    with attempt_folder(job, "one") as living, attempt_folder(job, "two") as later:
        assert not dead.exists()
        assert living.exists()
        assert later.stat().st_mode & 0o777 == 0o700
    assert not living.exists()
