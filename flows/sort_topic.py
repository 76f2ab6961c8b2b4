"""The flow `sort-topic`: one run of a job, from a snapshot of the source to a committed transaction."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from prefect import State, flow

from tasks.chunks import drop_divided
from tasks.dump import DumpRequest, dump_partition, refuse_lost
from tasks.kafka.clients import make_admin
from tasks.manifests import RunRecord
from tasks.observe.export import export_metrics, measure_run
from tasks.observe.flow_states import nothing_new, observe_run, published, show_plan
from tasks.observe.logs import log_context
from tasks.ownership import own_job
from tasks.preflight import check_before_lease, check_job_unchanged, prepare_outputs
from tasks.publish import Publication, note_outputs, publish_and_commit
from tasks.run_context import RunContext
from tasks.settings.connection import ProfileName, current_connection, use_profile
from tasks.settings.job import Job
from tasks.snapshot import estimate_disk, records_start, require_none_skipped, snapshot_source
from tasks.sort import SortRequest, sort_records
from tasks.task_runs import run_each, with_retries
from tasks.workdir import attempt_folder

# The form shows its defaults.
_SAMPLE = Job()


@flow(name="sort-topic", flow_run_name="{job.title}", persist_result=False)
def sort_topic(job: Job = _SAMPLE, connection: ProfileName = None) -> RunRecord | None:
    """Sort what is new in the source topic into the outputs, exactly once.

    Args:
        job: What to sort, into which topics, within which limits.
        connection: Name of the connection to Kafka; empty: the one of the process that runs.
    """

    def work(context: RunContext) -> State[Any]:
        measured = export_metrics(job.name)
        with log_context(job=job.name), use_profile(connection), measured, measure_run(context.stop):
            return sort_new_records(job, context)

    run: RunRecord | None = observe_run("run", job.name, work, job.run_timeout)
    return run


def sort_new_records(job: Job, context: RunContext) -> State[Any]:
    """One run, by the steps of the protocol."""
    connection, started, attempt = current_connection(), datetime.now(UTC), uuid4().hex
    progress, stop = context.progress, context.stop
    check_before_lease(job, connection, make_admin(connection))
    # Steps 1 to 3: lease, fence, ledger.
    with own_job(job, connection) as owner, attempt_folder(job, attempt) as folder:
        check_job_unchanged(job, owner.ledger)
        prepare_outputs(owner)
        outputs = note_outputs(owner)
        # Step 4: snapshot.
        snapshot = with_retries(snapshot_source, job)(owner)
        if not snapshot.span and not records_start(job, owner.ledger):
            require_none_skipped(job, snapshot)
            return nothing_new(job)
        show_plan(job, snapshot, estimate_disk(job, snapshot))
        # Step 5: dump and sort. No write to Kafka yet, so tasks are tried again freely.
        with log_context(run=snapshot.run), progress.stage("dump", snapshot.span):
            requests = [
                DumpRequest(job, snapshot.run, snapshot.source_topic_id, r, folder) for r in snapshot.ranges if r.span
            ]
            dumped = run_each(with_retries(dump_partition, job), requests, job.dump_concurrency, stop.set)
            chunks = tuple(chunk for part in dumped for chunk in part)
            refuse_lost(job, chunks)
        rows = sum(chunk.records for chunk in chunks) * len(job.sort_list)
        with log_context(run=snapshot.run), progress.stage("sort", rows):
            orders = [SortRequest(job, s, chunks, len(outputs[s.topic].partitions), folder) for s in job.sort_list]
            sorts = run_each(with_retries(sort_records, job), orders, job.sort_concurrency, stop.set)
            drop_divided(chunks, sorts)
        # Step 6: publish and commit.
        with log_context(run=snapshot.run), progress.stage("publish", rows):
            publication = Publication(attempt, snapshot, chunks, tuple(sorts), outputs, started)
            record = with_retries(publish_and_commit, job)(owner, publication)
    shown = published(job, record)
    require_none_skipped(job, snapshot)
    return shown


if __name__ == "__main__":
    sort_topic()
