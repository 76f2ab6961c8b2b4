"""Verify: reads the outputs of a job's runs back and compares them with the source, by code the sorter does not use.

Guarantee: all that is reported as verified was read back record by record: counts, order within and across partitions,
tie order, content of value, key and headers, dead letters. What cannot be read any more is named, never ignored.
"""

from uuid import uuid4

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.kafka.clients import make_admin
from tasks.kafka.reach import require_broker, require_leaders
from tasks.kafka.topics import describe_topics
from tasks.permissions import check_reading
from tasks.run_context import current_run
from tasks.settings.connection import Connection, current_connection
from tasks.settings.job import Job
from tasks.verification.fetched import FetchedReader
from tasks.verification.formats.schemas import Schemas
from tasks.verification.plan import RunPlan, plan_runs
from tasks.verification.reading import TopicReader
from tasks.verification.report import Difference, RunVerification, Verification
from tasks.verification.run import RunCheck
from tasks.workdir import attempt_folder

__all__ = ["Difference", "RunPlan", "RunVerification", "Verification", "plan_verification", "verify_job", "verify_run"]


def plan_verification(job: Job, connection: Connection, runs: int | None = None) -> tuple[RunPlan, ...]:
    """Plan what to read for the newest `runs` runs (None: all in the ledger). SettingsError if there is no such job.

    The ledger is read without fencing: the job may go on meanwhile.
    """
    admin = make_admin(connection)
    require_broker(admin, connection, job.start_timeout)
    check_reading(job, admin, [job.ledger])
    require_leaders(admin, connection, describe_topics(admin, [job.ledger]).values(), job.start_timeout)
    plans = plan_runs(job, connection, admin, runs)
    records = [plan.record for plan in plans]
    check_reading(job, admin, {topic for record in records for topic in record.topics})
    current_run().progress.meter("verify", sum(plan.total for plan in plans))
    return plans


def verify_run(job: Job, connection: Connection, plan: RunPlan) -> RunVerification:
    """Verify one run. TransientError if a topic cannot be read just now."""
    admin, patience = make_admin(connection), job.request_timeout
    with (
        attempt_folder(job, f"verify-{uuid4().hex}") as folder,
        TopicReader(connection, job.group, patience) as reader,
        FetchedReader(connection, admin, reader, job.group, patience) as fetched,
    ):
        schemas = Schemas(job.schema_content, job.schema_registry)
        return RunCheck(plan, admin, reader, fetched, patience, folder, schemas).verify()


def verify_job(job: Job, connection: Connection, runs: int | None = None) -> Verification:
    """Verify the newest `runs` runs of a job (None: all in the ledger); only the job's name needs to be known.

    Sorts and format are the recorded ones of each run. SettingsError if there is no such job.
    """
    plans = plan_verification(job, connection, runs)
    return Verification(job.name, tuple(verify_run(job, connection, plan) for plan in plans))


@task(
    task_run_name="verify run {plan.record.run}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def verify_recorded_run(job: Job, plan: RunPlan) -> RunVerification:
    """Verify one run."""
    return verify_run(job, current_connection(), plan)
