"""The place of an attempt: its private folder on this machine and, for a run whose files lie in S3, its prefix there.

Guarantee: an attempt's prefix is removed by its own run, or by a later one that owns the job by then and has read the
ledger. That run has fenced, so the other one cannot publish any more. Prefixes of attempts lie below the id of the
cluster: jobs of the same name in other clusters are left alone, and what a late task writes after the end of its
attempt is found as well.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.errors import SettingsError
from tasks.kafka.topics import cluster_id
from tasks.manifests import Location
from tasks.observe.logs import get_logger
from tasks.ownership import Owner
from tasks.settings.job import Job
from tasks.storage.base import FilesGoneError, write_file
from tasks.storage.registry import open_storage
from tasks.workdir import attempt_folder, shared_folder


def storage_of(owner: Owner, folder: Path, attempt: str) -> Location:
    """Return where an attempt's tasks leave files for each other. `folder`: the attempt's own on this machine."""
    return folder if owner.job.storage_prefix is None else f"{_attempts(owner)}/{attempt}"


def _attempts(owner: Owner) -> str:
    return f"{shared_folder(owner.job)}/{cluster_id(owner.admin)}"


@contextmanager
def run_folder(owner: Owner, attempt: str) -> Iterator[Path]:
    """Make the place of an attempt, and remove it at the end; what attempts left that are over goes first.

    It is for an owner, who has read the ledger. SettingsError if the place cannot be written.
    """
    with attempt_folder(owner.job, attempt) as folder, _far_place(owner, attempt):
        yield folder


@contextmanager
def _far_place(owner: Owner, attempt: str) -> Iterator[None]:
    if owner.job.storage_prefix is None:
        yield
        return
    storage = open_storage(_attempts(owner))
    try:
        for leftover in storage.names(""):
            storage.remove(leftover)
        write_file(storage, f"{attempt}/begun", b"")
    except OSError as error:
        raise SettingsError(f"work folder {owner.job.workdir} cannot be used: {error}") from error
    try:
        yield
    finally:
        try:
            storage.remove(attempt)
        except OSError as error:
            get_logger().warning("files of the run are left in the work folder", attempt=attempt, error=str(error))


def check_storage(job: Job) -> None:
    """Raise SettingsError if the bucket of the work folder cannot be looked into, without writing to it."""
    if job.storage_prefix is None:
        return
    try:
        open_storage(job.storage_prefix).check()
    except OSError as error:
        raise SettingsError(f"work folder {job.workdir} cannot be used: {error}") from error


@contextmanager
def explaining_loss(owner: Owner) -> Iterator[None]:
    """Look at the lease and the ledger if the run's files vanish: a later run may have taken the job over.

    LeaseLostError then; otherwise the error is what it was.
    """
    try:
        yield
    except FilesGoneError:
        owner.require_ownership()
        raise


def refuse_storage(job: Job, what: str) -> None:
    """Raise SettingsError if the job's files would lie in S3. `what`: the command that has no use for it."""
    if job.storage_prefix is not None:
        raise SettingsError(f"--workdir {job.workdir} is for kafka-sort sort: give {what} a folder")
