"""The flow `verify-topic`: reads the outputs of a job's runs back and compares them with the source, run by run."""

import contextlib

from prefect import flow
from prefect.artifacts import create_table_artifact

from tasks.errors import VerificationError
from tasks.observe.context import run_context
from tasks.observe.logs import configure_logging, get_logger, log_context
from tasks.observe.report import artifact_key, report_progress
from tasks.observe.signals import stop_on_signals
from tasks.settings.connection import current_connection
from tasks.settings.job import Job
from tasks.verify import Verification, plan_verification, verify_recorded_run
from tasks.workers import with_retries


@flow(name="verify-topic", flow_run_name="{job.source_topic}", persist_result=False)
def verify_topic(job: Job = Job(), runs: int | None = None) -> Verification:  # noqa: B008  # frozen, shown in the form
    """Verify the newest `runs` runs of the job, or all in its ledger. VerificationError says what differs first."""
    configure_logging()
    with (
        run_context() as context,
        log_context(job=job.name),
        stop_on_signals(context.stop),
        report_progress(context.progress, artifact_key("progress", "verify", job.name)),
        context.progress.stage("verify"),
    ):
        plans = plan_verification(job, current_connection(), runs)
        verify = with_retries(verify_recorded_run, job)
        verification = Verification(job.name, tuple(verify(job, plan) for plan in plans))
    headline = verification.headline()
    # That it cannot be shown must not hide what was found.
    with contextlib.suppress(Exception):
        create_table_artifact(verification.table(), key=artifact_key("verification", job.name), description=headline)
    log = get_logger()
    for line in verification.lines():
        log.warning(line)
    if not verification.ok:
        raise VerificationError(headline)
    return verification


if __name__ == "__main__":
    verify_topic()
