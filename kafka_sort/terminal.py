"""Flows that run from a terminal: progress on standard error, tables on standard output, unless a collector has that.

A flow and the report of its work are one: a signal that comes in between does not keep a run from being reported.
"""

from prefect import tags

from flows.sort_topic import sort_topic
from flows.stream_topic import stream_topic
from flows.verify_topic import verify_topic
from kafka_sort.tables import print_table
from tasks.observe.logs import json_wanted
from tasks.observe.report import headline, outputs_table, stages_table
from tasks.run_record import RunRecord
from tasks.settings.job import Job
from tasks.settings.streaming import Streaming
from tasks.signals import answer, holding
from tasks.snapshot import PartitionsSkippedError
from tasks.streaming.report import stream_headline
from tasks.streaming.stats import StreamStatus
from tasks.verify import Verification

# The same tag as the deployments: automations and filters of the run history use it.
TAG = "kafka-sort"


@holding()
def run_sort(job: Job, rewrite: int | None = None) -> RunRecord | None:
    """Make one run, or write the files of run `rewrite` again, and print what was done."""
    with tags(TAG):
        record = sort_topic(job, rewrite=rewrite)
    if json_wanted():
        return record
    if record is None:
        print(nothing_new_line(job))
    else:
        print_run(record)
    return record


@holding()
def run_stream(job: Job, streaming: Streaming) -> StreamStatus:
    """Run a stream to its end, and print what was done. PartitionsSkippedError if it left partitions out at its end."""
    with tags(TAG):
        status: StreamStatus = stream_topic(job, streaming)
    answer()
    if not json_wanted():
        print(stream_headline(status))
    if status.skipped:
        raise PartitionsSkippedError(job.source_topic, status.skipped)
    return status


@holding()
def run_verify(job: Job, runs: int | None) -> Verification:
    """Verify the newest `runs` runs, or all, and print what was found. VerificationError if something differs."""
    with tags(TAG):
        verification: Verification = verify_topic(job, runs)
    if not json_wanted():
        print_verification(verification)
    return verification


def nothing_new_line(job: Job) -> str:
    """Say in one line that there is nothing to sort, up to the end that was asked for."""
    until = f" before {job.end}" if job.end_moment else ""
    return f"{job.name}: nothing new in {job.source_topic}{until}"


def print_run(record: RunRecord) -> None:
    """Print the run's tables."""
    print(headline(record))
    # The end of a folder's path tells it from others.
    print_table("outputs", *outputs_table(record), fold=any(sort.has_folder for sort in record.sorts))
    print_table("stages", *stages_table(record))


def print_verification(verification: Verification) -> None:
    """Print one line for each run."""
    print(verification.headline())
    if rows := verification.table():
        print_table("verified", list(rows[0]), [list(row.values()) for row in rows], fold=True)
