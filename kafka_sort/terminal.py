"""Flows that run from a terminal: progress on standard error, results on standard output, unless a collector has that.

A flow and the report of its work are one: a signal that comes in between does not keep a run from being reported.
"""

from prefect import tags

from flows.merge_topic import merge_topic
from flows.sort_topic import sort_topic
from flows.stream_topic import stream_topic
from flows.verify_topic import verify_topic
from kafka_sort.display import Display
from kafka_sort.facts import merge_facts, sort_facts, verification_facts
from kafka_sort.tables import print_table
from tasks.errors import VerificationError
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


TABLES = Display()


@holding()
def run_sort(job: Job, display: Display = TABLES, rewrite: int | None = None) -> RunRecord | None:
    """Make one run, or write the files of run `rewrite` again, and show what was done."""
    with tags(TAG):
        record = sort_topic(job, rewrite=rewrite)
    display.show(lambda: print_run(job, record), lambda: sort_facts(job, record))
    return record


@holding()
def run_merge(job: Job, display: Display = TABLES, *, latest: bool = False, drop_tombstones: bool = False) -> None:
    """Make one run of several, and show what was done."""
    with tags(TAG):
        record = merge_topic(job, latest=latest, drop_tombstones=drop_tombstones)
    display.show(lambda: print_merge(job, record), lambda: merge_facts(job, record))


@holding()
def run_stream(job: Job, streaming: Streaming, display: Display = TABLES) -> StreamStatus:
    """Run a stream to its end, and show what was done. PartitionsSkippedError if it left partitions out at its end."""
    with tags(TAG):
        status: StreamStatus = stream_topic(job, streaming)
    answer()
    display.show(lambda: print(stream_headline(status)))
    if status.skipped:
        raise PartitionsSkippedError(job.source_topic, status.skipped)
    return status


@holding()
def run_verify(job: Job, runs: int | None, display: Display = TABLES) -> Verification:
    """Verify the newest `runs` runs, or all, and show what was found.

    VerificationError if something differs: the log lists the differences, and an object has them too.
    """
    try:
        with tags(TAG):
            verification: Verification = verify_topic(job, runs)
    except VerificationError as error:
        found = error.found
        display.show(_nothing, lambda: verification_facts(found))
        raise
    display.show(lambda: print_verification(verification), lambda: verification_facts(verification))
    return verification


def _nothing() -> None:
    """Leave it to the log."""


def nothing_new_line(job: Job) -> str:
    """Say in one line that there is nothing to sort, up to the end that was asked for."""
    until = f" before {job.end}" if job.end_moment else ""
    return f"{job.name}: nothing new in {job.source_topic}{until}"


def print_run(job: Job, record: RunRecord | None) -> None:
    """Print the run's tables, or that there was nothing new."""
    if record is None:
        print(nothing_new_line(job))
        return
    print(headline(record))
    # The end of a folder's path tells it from others.
    print_table("outputs", *outputs_table(record), fold=any(sort.has_folder for sort in record.sorts))
    print_table("stages", *stages_table(record))


def print_merge(job: Job, record: RunRecord | None) -> None:
    """Print the merge's tables, or that there was nothing to do."""
    if record is None:
        print(f"{job.job_name or job.source_topic}: nothing to merge")
    else:
        print_run(job, record)


def print_verification(verification: Verification) -> None:
    """Print one line for each run."""
    print(verification.headline())
    if rows := verification.table():
        print_table("verified", list(rows[0]), [list(row.values()) for row in rows], fold=True)
