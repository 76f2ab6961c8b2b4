"""The flow `verify-topic`: reads the outputs of a job's runs back and compares them with the source, run by run."""

import contextlib
from typing import Annotated, Any

from prefect import State, flow
from prefect.artifacts import create_table_artifact
from prefect.states import Completed
from pydantic import Field

from tasks.errors import VerificationError
from tasks.observe.flow_states import observe_run
from tasks.observe.logs import get_logger, log_context
from tasks.observe.report import artifact_key
from tasks.run_context import RunContext
from tasks.settings.connection import ProfileName, current_connection, use_profile
from tasks.settings.job import Job
from tasks.task_runs import with_retries
from tasks.verify import Verification, plan_verification, verify_recorded_run

# The form shows its defaults.
_SAMPLE = Job()


@flow(name="verify-topic", flow_run_name="{job.source_topic}", persist_result=False)
def verify_topic(
    job: Job = _SAMPLE, runs: Annotated[int, Field(ge=1)] | None = None, connection: ProfileName = None
) -> Verification:
    """Verify the newest runs of a job. VerificationError says what differs first.

    Args:
        job: The job to verify.
        runs: How many of the newest runs to verify; empty: all in the ledger.
        connection: Name of the connection to Kafka; empty: the connection of the process that runs the flow.
    """

    def work(context: RunContext) -> State[Any]:
        with log_context(job=job.name), use_profile(connection):
            return verify_runs(job, runs, context)

    verification: Verification = observe_run("verification", job.name, work, job.run_timeout)
    return verification


def verify_runs(job: Job, runs: int | None, context: RunContext) -> State[Any]:
    """Read back and compare, one task a run; then report what was found."""
    with context.progress.stage("verify"):
        plans = plan_verification(job, current_connection(), runs)
        verify = with_retries(verify_recorded_run, job)
        verification = Verification(job.name, tuple(verify(job, plan) for plan in plans))
    headline = verification.headline()
    # A report that cannot be shown must not hide what was found.
    with contextlib.suppress(Exception):
        create_table_artifact(verification.table(), key=artifact_key("verification", job.name), description=headline)
    log = get_logger()
    for line in verification.lines():
        log.warning(line)
    if not verification.ok:
        error = VerificationError(headline)
        error.found = verification
        raise error
    return Completed(message=headline, data=verification)


if __name__ == "__main__":
    verify_topic()
