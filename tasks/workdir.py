"""The work folder: private to the user of the process; each attempt has a folder of its own in it.

Guarantees: folders are 0700 and files 0600, whatever the umask; a folder that belongs to another user, or that another
user could replace, is refused; an attempt's files are removed at its end, or, if it was killed, at the job's next
start; a run that wakes up late meets no other run's files.
"""

import errno
import fcntl
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from tempfile import mkdtemp

from tasks.errors import SettingsError
from tasks.manifests import Location
from tasks.settings.job import Job

_mask_lock = threading.Lock()
# The masks that the blocks found: that of the process, then those of blocks within it or beside it.
_masks: list[int] = []


def job_folder(job: Job) -> Path:
    """Return the job's part of the work folder, created if absent. SettingsError unless records are safe there."""
    folder = job.local_workdir / job.name
    with private_files():
        _claim(job.local_workdir)
        _claim(folder)
    return folder


def check_folder(job: Job) -> None:
    """Raise the SettingsError of `job_folder`, without creating a folder."""
    for folder in (job.local_workdir, job.local_workdir / job.name):
        _refuse(folder, _why_unusable(folder))


def free_bytes(job: Job) -> int | None:
    """Return the free space of the work folder, or of the place where it will be made; None if it has no limit."""
    return None if job.storage_prefix is not None else shutil.disk_usage(_nearest(job.local_workdir)).free


def shared_folder(job: Job) -> Location:
    """Return the job's part of what its tasks share, created if absent."""
    prefix = job.storage_prefix
    return job_folder(job) if prefix is None else f"{prefix}/{job.name}"


@contextmanager
def attempt_folder(job: Job, attempt: str) -> Iterator[Path]:
    """Create a private folder, removed at the end; folders of the job that no living process holds go first."""
    attempts = job_folder(job)
    folder = attempts / attempt
    with private_files():
        with _locked(attempts, fcntl.LOCK_EX):
            for leftover in attempts.iterdir():
                _remove_if_dead(leftover)
            folder.mkdir(mode=0o700)
            held = _open(folder)
            fcntl.flock(held, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)


def _claim(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        unsafe = _why_unsafe(folder)
    except OSError as error:
        unsafe = _cannot_be_used(error)
    _refuse(folder, unsafe)


def _refuse(folder: Path, unsafe: str) -> None:
    if unsafe:
        raise SettingsError(f"work folder {folder} {unsafe}, or choose another with --workdir")


def _why_unusable(folder: Path) -> str:
    """Return why the folder is not safe or cannot be made; empty if it is, or can."""
    try:
        above = _nearest(folder)
        if not above.is_dir():
            number = errno.EEXIST if above == folder else errno.ENOTDIR
        elif above == folder:
            return _why_unsafe(folder)
        else:
            number = 0 if os.access(above, os.W_OK | os.X_OK) else errno.EACCES
    except OSError as error:
        return _cannot_be_used(error)
    return _cannot_be_used(OSError(number, os.strerror(number))) if number else ""


def _nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if os.path.lexists(path))


def _cannot_be_used(error: OSError) -> str:
    return f"cannot be used ({error.strerror}): make it usable"


def _why_unsafe(folder: Path) -> str:
    """Return why records are not safe there, and what to do; empty if they are."""
    found = folder.lstat()
    if stat.S_ISLNK(found.st_mode):
        return f"is a symbolic link: give the folder that it points to, {folder.resolve()}"
    if found.st_uid != os.geteuid():
        return f"belongs to another user (uid {found.st_uid}): take a folder of your own"
    # In a sticky folder, such as /tmp, nobody can replace what is ours.
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        return f"can be written by others: chmod 700 {folder}"
    return "" if os.access(folder, os.W_OK | os.X_OK) else "cannot be written: make it writable"


@contextmanager
def private_files() -> Iterator[None]:
    """Make files that the process creates in the block private to its user, including those of Arrow and DuckDB.

    The mask is that of the process, so of several threads the last one to leave gives it back.
    """
    with _mask_lock:
        _masks.append(os.umask(0o077))
    try:
        yield
    finally:
        with _mask_lock:
            # The first of them is the one that the process had.
            former = _masks.pop()
            if not _masks:
                os.umask(former)


_scratch: ContextVar[Path | None] = ContextVar("scratch", default=None)


@contextmanager
def use_scratch(folder: Path) -> Iterator[None]:
    """Make it the folder of this machine for what only one task needs, in place of the run's own."""
    token = _scratch.set(folder)
    try:
        yield
    finally:
        _scratch.reset(token)


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """Create a private folder for one task, removed at its end. `folder`: the run's own, on the driver's machine."""
    own = Path(mkdtemp(prefix="scratch-", dir=_scratch.get() or folder))
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _remove_if_dead(folder: Path) -> None:
    """Remove the folder if nothing locks it: a lock ends with its process, in whatever way that ends."""
    with suppress(OSError), _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    descriptor = _open(folder)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
