"""The work folder: each attempt has a folder of its own, so that a run which wakes up late meets nobody's files."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tasks.settings.job import Job


@contextmanager
def attempt_folder(job: Job, attempt: str) -> Iterator[Path]:
    """A private folder, removed at the end; folders of the job that no living process holds go first."""
    jobs = job.workdir / job.name
    jobs.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = jobs / attempt
    with _locked(jobs, fcntl.LOCK_EX):
        for leftover in jobs.iterdir():
            _remove_if_dead(leftover)
        folder.mkdir(mode=0o700)
        held = os.open(folder, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def _remove_if_dead(folder: Path) -> None:
    """A lock ends with the process that holds it, however it ends."""
    with suppress(OSError), _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
