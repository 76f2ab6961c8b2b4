"""The flow `merge-topic`: the oldest runs of a job become one, and then their records are deleted."""

from functools import partial
from typing import Any
from uuid import uuid4

from prefect import State, flow

from tasks.attempts import refuse_storage, run_folder
from tasks.dask.runner import open_runner
from tasks.errors import SettingsError
from tasks.kafka.clients import make_admin
from tasks.merging.merge import Merge
from tasks.merging.plan import plan_merge
from tasks.merging.recorded import merging_job
from tasks.observe.export import export_metrics, measure_run
from tasks.observe.flow_states import nothing_to_merge, observe_run, published, show_merge
from tasks.observe.logs import log_context
from tasks.outputs import check_former_runs, prepare_outputs
from tasks.ownership import own_job
from tasks.preflight import check_before_lease, take_up_job
from tasks.run import run_job
from tasks.run_context import RunContext
from tasks.run_record import RunRecord
from tasks.settings.connection import ProfileName, current_connection, use_profile
from tasks.settings.job import Job
from tasks.settlement import take_over
from tasks.sorting.newest import Newest

# The form shows its defaults.
_SAMPLE = Job()


@flow(name="merge-topic", flow_run_name="{job.name} · merge", persist_result=False)
def merge_topic(
    job: Job = _SAMPLE, connection: ProfileName = None, *, latest: bool = False, drop_tombstones: bool = False
) -> RunRecord | None:
    """Make one run of the oldest runs of a job, as many as fit one transaction, and delete these.

    Args:
        job: The job, by its name or its source topic, and limits; the ledger has its format and its sorts.
        connection: Name of the connection to Kafka; empty: the connection of the process that runs the flow.
        latest: Keep only the newest record of each key, in each output by its own key; it takes all runs.
        drop_tombstones: With latest, leave that one out as well if it has no value.
    """

    def work(context: RunContext) -> State[Any]:
        newest = newest_of(latest=latest, drop_tombstones=drop_tombstones)
        measured = export_metrics(job.name)
        with log_context(job=job.name), use_profile(connection), measured, measure_run(context.stop):
            return merge_runs(job, context, newest)

    run: RunRecord | None = observe_run("run", job.name, work, job.run_timeout)
    return run


def newest_of(*, latest: bool, drop_tombstones: bool) -> Newest | None:
    """Return which records a merge keeps; None for all. SettingsError if only a part of it is given."""
    if drop_tombstones and not latest:
        raise SettingsError("drop_tombstones is for latest: give both, or leave it out")
    return Newest(drop_tombstones) if latest else None


def merge_runs(given: Job, context: RunContext, newest: Newest | None) -> State[Any]:
    """Make one run of several, by the steps of the protocol."""
    refuse_storage(given, "a merge")
    connection, attempt = current_connection(), uuid4().hex
    admin = make_admin(connection)
    job = merging_job(given, connection, admin)
    check_before_lease(job, connection, admin)
    # Steps 1 to 3: lease, fence, ledger.
    with (
        open_runner(job, connection, context.stop) as runner,
        own_job(job, connection) as owner,
        run_folder(owner, attempt) as folder,
    ):
        take_up_job(owner)
        take_over(owner)
        check_former_runs(owner)
        plan = plan_merge(owner, newest)
        if plan is None:
            return nothing_to_merge(job)
        # Steps 4 to 6: dump ▶ sort ▶ publish and commit, with the outputs in place of the source.
        run = Merge(owner, runner, lambda _: prepare_outputs(owner), attempt, plan=plan)
        done = run_job(run, folder, show_plan=partial(show_merge, job, plan.records))
    return published(job, done.record) if done.record else nothing_to_merge(job)


if __name__ == "__main__":
    merge_topic()
