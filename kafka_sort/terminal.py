"""Flows run from a terminal: progress on standard error, tables on standard output, unless a collector has that.

A flow and the report of what it did are one: a signal that comes in between does not keep a run from being told.
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

# As the deployments have it: automations and filters of the run history go by it.
TAG = "kafka-sort"


@holding()
def run_sort(job: Job) -> RunRecord | None:
    """One run; prints what was done."""
    with tags(TAG):
        record = sort_topic(job)
    if json_wanted():
        return record
    if record is None:
        print(f"{job.name}: nothing new in {job.source_topic}")
    else:
        print_run(record)
    return record


@holding()
def run_stream(job: Job, streaming: Streaming) -> StreamStatus:
    """A stream until it ends; prints what was done. PartitionsSkippedError if partitions were left out at its end."""
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
    """The newest `runs` runs verified, or all; prints what was found. VerificationError where something differs."""
    with tags(TAG):
        verification: Verification = verify_topic(job, runs)
    if not json_wanted():
        print_verification(verification)
    return verification


def print_run(record: RunRecord) -> None:
    """The run's tables."""
    print(headline(record))
    print_table("outputs", *outputs_table(record))
    print_table("stages", *stages_table(record))


def print_verification(verification: Verification) -> None:
    """One line a run."""
    print(verification.headline())
    if rows := verification.table():
        print_table("verified", list(rows[0]), [list(row.values()) for row in rows], fold=True)
