"""The flow `sort-topic`: one run of a job, from a snapshot of the source to a committed transaction."""

from datetime import UTC, datetime
from uuid import uuid4

from prefect import flow
from prefect.states import Completed

from tasks.chunks import drop_rows
from tasks.dump import DumpRequest, dump_partition, refuse_lost
from tasks.kafka.clients import make_admin
from tasks.observe.context import run_context
from tasks.observe.logs import configure_logging, log_context
from tasks.observe.report import artifact_key, headline, publish_summary, report_progress
from tasks.observe.signals import stop_on_signals
from tasks.ownership import own_job
from tasks.preflight import check_before_lease, check_job_unchanged, prepare_outputs
from tasks.publish import Publication, note_outputs, publish_and_commit
from tasks.records import RunRecord
from tasks.settings.connection import current_connection
from tasks.settings.job import Job
from tasks.snapshot import anchors_job, snapshot_source
from tasks.sort import SortRequest, sort_records
from tasks.workdir import attempt_folder
from tasks.workers import run_each, with_retries


@flow(name="sort-topic", flow_run_name="{job.title}", persist_result=False)
def sort_topic(job: Job = Job()) -> RunRecord | None:  # noqa: B008  # frozen; the form shows its defaults
    """Sort what is new in the source topic into the outputs, exactly once."""
    configure_logging()
    connection, started, attempt = current_connection(), datetime.now(UTC), uuid4().hex
    with (
        run_context() as context,
        log_context(job=job.name),
        stop_on_signals(context.stop),
        report_progress(context.progress, artifact_key("progress", job.name)),
    ):
        progress, stop = context.progress, context.stop
        check_before_lease(job, connection, make_admin(connection))
        # Steps 1 to 3: lease, fence, ledger.
        with own_job(job, connection) as owner, attempt_folder(job, attempt) as folder:
            check_job_unchanged(job, owner.ledger)
            prepare_outputs(owner)
            outputs = note_outputs(owner)
            # Step 4: snapshot.
            snapshot = with_retries(snapshot_source, job)(owner)
            if not snapshot.span and not anchors_job(job, owner.ledger):
                return Completed(message="nothing new", data=None)  # type: ignore[return-value]  # Prefect unwraps it
            sorts = len(job.sort_list)
            # Step 5: dump and sort. No write to Kafka yet, so tasks are tried again freely.
            with log_context(run=snapshot.run), progress.stage("dump", snapshot.span):
                requests = [
                    DumpRequest(job, snapshot.run, snapshot.source_topic_id, r, folder)
                    for r in snapshot.ranges
                    if r.span
                ]
                dumped = run_each(with_retries(dump_partition, job), requests, job.dump_concurrency, stop.set)
                chunks = tuple(chunk for part in dumped for chunk in part)
                refuse_lost(job, chunks)
            records = sum(chunk.records for chunk in chunks)
            with log_context(run=snapshot.run), progress.stage("sort", records * sorts):
                orders = [SortRequest(job, s, chunks, len(outputs[s.topic].partitions), folder) for s in job.sort_list]
                files = run_each(with_retries(sort_records, job), orders, job.sort_concurrency, stop.set)
                drop_rows(chunks)
            # Step 6: publish and commit.
            with log_context(run=snapshot.run), progress.stage("publish", records * sorts):
                publication = Publication(attempt, snapshot, chunks, tuple(files), outputs, started)
                record = with_retries(publish_and_commit, job)(owner, publication)
    publish_summary(record)
    return Completed(message=headline(record), data=record)  # type: ignore[return-value]


if __name__ == "__main__":
    sort_topic()
