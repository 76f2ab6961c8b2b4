"""The flow `sort-topic`: one run of a job, from a snapshot of the source to a committed transaction."""

from functools import partial
from typing import Any
from uuid import uuid4

from prefect import State, flow

from tasks.attempts import run_folder
from tasks.dask.runner import open_runner
from tasks.kafka.clients import make_admin
from tasks.observe.export import export_metrics, measure_run
from tasks.observe.flow_states import nothing_new, observe_run, published, show_plan
from tasks.observe.logs import log_context
from tasks.outputs import check_former_runs, prepare_outputs
from tasks.ownership import own_job
from tasks.preflight import check_before_lease, take_up_job
from tasks.rewriting import rewrite_run
from tasks.run import Run, run_job
from tasks.run_context import RunContext
from tasks.run_record import RunRecord
from tasks.settings.connection import ProfileName, current_connection, use_profile
from tasks.settings.job import Job
from tasks.settlement import take_over
from tasks.snapshot import require_none_skipped

# The form shows its defaults.
_SAMPLE = Job()


@flow(name="sort-topic", flow_run_name="{job.title}", persist_result=False)
def sort_topic(job: Job = _SAMPLE, connection: ProfileName = None, rewrite: int | None = None) -> RunRecord | None:
    """Sort what is new in the source topic into the outputs, exactly once.

    Args:
        job: What to sort, into which topics, within which limits.
        connection: Name of the connection to Kafka; empty: the connection of the process that runs the flow.
        rewrite: Number of a run whose Parquet files are gone, to write them again; empty: make a run.
    """

    def work(context: RunContext) -> State[Any]:
        measured = export_metrics(job.name)
        with log_context(job=job.name), use_profile(connection), measured, measure_run(context.stop):
            return sort_new_records(job, context) if rewrite is None else write_again(job, context, rewrite)

    run: RunRecord | None = observe_run("run", job.name, work, job.run_timeout)
    return run


def sort_new_records(job: Job, context: RunContext) -> State[Any]:
    """Make one run, by the steps of the protocol."""
    connection, attempt = current_connection(), uuid4().hex
    check_before_lease(job, connection, make_admin(connection))
    # Steps 1 to 3: lease, fence, ledger.
    with (
        open_runner(job, connection, context.stop) as runner,
        own_job(job, connection) as owner,
        run_folder(owner, attempt) as folder,
    ):
        take_up_job(owner)
        take_over(owner)
        check_former_runs(owner)
        # Steps 4 to 6: snapshot ▶ dump ▶ sort ▶ publish and commit.
        run = Run(owner, runner, lambda _: prepare_outputs(owner), attempt)
        done = run_job(run, folder, show_plan=partial(show_plan, job))
    shown = published(job, done.record) if done.record else nothing_new(job)
    require_none_skipped(job, done.snapshot)
    return shown


def write_again(job: Job, context: RunContext, run: int) -> State[Any]:
    """Write the files of a committed run again, as its owner."""
    connection, attempt = current_connection(), uuid4().hex
    check_before_lease(job, connection, make_admin(connection))
    with (
        open_runner(job, connection, context.stop) as runner,
        own_job(job, connection) as owner,
        run_folder(owner, attempt) as folder,
    ):
        take_up_job(owner)
        return published(job, rewrite_run(owner, runner, folder, attempt, run))


if __name__ == "__main__":
    sort_topic()
