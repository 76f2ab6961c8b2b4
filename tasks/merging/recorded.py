"""The job of a merge: what its runs recorded, within the limits that are given."""

from tasks.errors import SettingsError
from tasks.kafka.clients import Admin
from tasks.kafka.ledger import Ledger, read_settled_ledger
from tasks.kafka.reach import require_broker
from tasks.kafka.topics import describe_topic
from tasks.reading.keys import find_uncarried
from tasks.reading.recorded import recorded_job
from tasks.settings.connection import Connection
from tasks.settings.job import Job
from tasks.settings.names import JobNames
from tasks.settings.options import LIMITS, JobOptions


def merging_job(given: JobOptions, connection: Connection, admin: Admin) -> Job:
    """Return the job of a merge. SettingsError if there is no such job, or it cannot be merged."""
    names = JobNames(given.job_name or given.source_topic)
    require_broker(admin, connection, given.start_timeout)
    ledger = _read_ledger(names, given, connection, admin)
    if ledger.last is None:
        raise SettingsError(f"job {names.job} has no run yet, so nothing to merge: sort first")
    limits = {name: getattr(given, name) for name in LIMITS}
    # As a replacement it needs the permission to delete, and outputs that hold nothing of others.
    job = recorded_job(given, ledger.last, mode="replace", **limits)
    _require_mergeable(job)
    return job


def _read_ledger(names: JobNames, given: JobOptions, connection: Connection, admin: Admin) -> Ledger:
    if describe_topic(admin, names.ledger) is None:
        raise SettingsError(
            f"job {names.job} has no ledger {names.ledger}, so nothing to merge: sort first, or name a job with "
            "--job-name"
        )
    return read_settled_ledger(connection, admin, names.ledger, names.job, given.request_timeout)


def _require_mergeable(job: Job) -> None:
    """Raise SettingsError if the outputs do not hold all by which they are sorted."""
    if job.folder_sorts:
        raise SettingsError(
            f"job {job.name} writes files into {job.folder_sorts[0].topic}, which merge does not read: make one run of "
            "all with kafka-sort sort --mode replace"
        )
    for sort in job.sort_list:
        for column in find_uncarried(job, sort):
            raise SettingsError(
                f"the records of output {sort.topic} do not hold {column}, by which they are sorted, so they cannot be "
                "merged: make one run of all with kafka-sort sort --mode replace"
            )
