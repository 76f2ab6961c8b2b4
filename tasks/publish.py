"""Step 6, publish and commit: all rows of all sorts, dead letters, ledger record and source offsets in one transaction.

Guarantee 2 (all or nothing, exactly once). The unit of retry is: fence, then read, then act. After any failure the
producer is thrown away; the next attempt becomes the newest holder of the transactional id and reads the ledger. Only
then it knows whether the run is there (done), is not (publish again, from the same rows and orders), or another one is.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from confluent_kafka import KafkaError
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks import checksum
from tasks.dead_letters import send_dead_letters
from tasks.errors import TerminalError
from tasks.failpoints import reach
from tasks.formats.known_schemas import describe_schemas
from tasks.formats.registry import describe_format
from tasks.kafka.clients import KafkaTransientError
from tasks.kafka.ledger import EARLIER, LAST, run_key
from tasks.kafka.sender import Sender
from tasks.kafka.transaction import TransactionalProducer
from tasks.keys import RULES
from tasks.observe.logs import get_logger, log_context
from tasks.ownership import Owner
from tasks.publication import Publication
from tasks.publishers.alone import ALONE
from tasks.publishers.base import Crew, Publishers
from tasks.publishers.rows import write_sorts
from tasks.publishers.shares import count_partitions
from tasks.replacement import refuse_newcomers
from tasks.run_context import current_run
from tasks.run_record import (
    FEATURES,
    FORMAT,
    PARQUET,
    REPLACE,
    CoveredRuns,
    ReadRange,
    RunRecord,
    WrittenSort,
)
from tasks.settings.budget import MB, peak_memory_bytes
from tasks.settings.job import Job
from tasks.source import check_source_unchanged
from tasks.sparse_index import index_changes
from tasks.targets.base import OutputChangedError, Writing

_TIMEOUT_CODES = frozenset({KafkaError.INVALID_PRODUCER_EPOCH, KafkaError._FENCED, KafkaError.INVALID_TXN_STATE})
# The options of a job that a run record keeps.
_OPTIONS = ("mode", "append", "split_heavy_keys", "timestamps", "partition_by", "output_key")
_VERSION = version("kafka-sorting-pipeline")


class SupersededError(TerminalError):
    """Another run of the job was committed while this one worked."""

    category = "refused"
    action = "Nothing: another run has published what this one read."


class TransactionTimeoutError(TerminalError):
    """Publishing took longer than a transaction may."""

    action = (
        "Publish by more (`--publishers`), raise `transaction.max.timeout.ms` on the broker, or take less at once with "
        "`--max-records`."
    )


Written = tuple[WrittenSort, ...]


def publish_run(owner: Owner, publication: Publication, publishers: Publishers = ALONE) -> RunRecord:
    """Publish the run, or find it published. After a TransientError, a retry follows the same rules."""
    owner.healthy_producer()
    found = _find_run(owner, publication)
    if found is not None:
        return found
    staged = stage_rows(owner.job, publication)
    with publishers.gather(owner, publication) as crew:
        return _publish_by(crew, owner, publication, staged)


def _publish_by(crew: Crew, owner: Owner, publication: Publication, staged: Written) -> RunRecord:
    """Fence, read, then act. What was read before the publishers came is read again, once they can do no harm."""
    producer = crew.fence()
    found = _find_run(owner, publication)
    if found is not None:
        return found
    if publication.merged is None:
        check_source_unchanged(owner.admin, owner.job.source_topic, publication.snapshot)
    publication.target.check()
    began = time.monotonic()
    try:
        return _publish(crew, owner, producer, publication, staged)
    except BaseException as error:
        crew.give_up(producer)
        _raise_if_too_late(owner, publication, error, time.monotonic() - began)
        raise


def _find_run(owner: Owner, publication: Publication) -> RunRecord | None:
    """Return the run's record if it is committed, None if it is to be published; SupersededError if another one is."""
    last, snapshot = owner.ledger.last, publication.snapshot
    if (last.run if last else 0) == snapshot.run - 1:
        return None
    # The ledger may hold later runs: if this run lost the lease after its commit, a successor ran.
    found = owner.ledger.runs.get(snapshot.run)
    if found is not None and found.attempt == publication.attempt:
        return found
    raise SupersededError(
        f"run {snapshot.run} of job {owner.job.name} was published by another attempt while this one worked: "
        "superseded; this one published nothing, and there is nothing to do"
    )


def stage_rows(job: Job, publication: Publication) -> Written:
    """Write the rows of the sorts that are staged, before a transaction's time runs.

    ContentError if these are not the rows that were read; TransientError if their place cannot be used just now.
    """
    target, snapshot = publication.target, publication.snapshot
    with target.stage(publication.attempt, snapshot.run, publication.sorts) as writing:
        reach("before-stage")
        written = writing.finish(write_sorts(job, writing, publication, target.staged))
        reach("after-stage")
    return written


def _publish(
    crew: Crew, owner: Owner, producer: TransactionalProducer, publication: Publication, staged: Written
) -> RunRecord:
    """Publish in one transaction.

    1. Begin. 2. Rows of all sorts that are not staged. 3. Dead letters. 4. Flush, count what was delivered.
    5. Sparse index, ledger record. 6. Source offsets. 7. Commit.
    """
    job = owner.job
    writing = publication.target.begin(producer)
    if publication.snapshot.replaces:
        refuse_newcomers(owner)
    # Step 1. Callbacks were polled by `healthy_producer`; from here the broker's timeout runs.
    reach("before-begin")
    producer.begin()
    reach("after-begin")
    written, letters = _deliver(crew, owner, producer, writing, publication)
    # Step 5.
    record = _record(owner, publication, _in_order(job, (*staged, *written)), letters)
    _send_index(owner, producer.sender, publication, record)
    reach("before-ledger-record")
    _send_record(owner, producer.sender, record)
    producer.flush()
    reach("after-ledger-record")
    # Step 6.
    reach("before-offsets")
    # A merge has read nothing of the source, which may even be another topic of that name by now.
    if publication.merged is None:
        producer.send_offsets(job.source_topic, record.ends)
    reach("after-offsets")
    # Step 7.
    reach("before-commit")
    producer.commit()
    crew.note_committed(producer)
    owner.note_committed(record)
    reach("after-commit")
    return record


def _deliver(
    crew: Crew, owner: Owner, producer: TransactionalProducer, writing: Writing, publication: Publication
) -> tuple[Written, int]:
    """Do steps 2 to 4; return what was written, and the number of dead letters that were sent."""
    job, snapshot = owner.job, publication.snapshot
    # Step 2.
    reach("before-publish")
    sent = crew.write(producer, writing)
    reach("after-publish")
    # Step 3.
    known = owner.ledger.read_before((snapshot.source_topic_id, RULES, job.dead_letters), snapshot.ranges)
    letters = send_dead_letters(producer.sender, job, snapshot.source_topic_id, publication.chunks, known)
    # Step 4. One writer for each partition: what the outputs grew by is what was delivered.
    reach("before-flush")
    producer.flush()
    reach("after-flush")
    return _reveal_fence(owner, producer, publication, lambda: writing.finish(sent)), letters


def _in_order(job: Job, written: Written) -> Written:
    """Return what was written in the order of the job's sorts."""
    by_name = {sort.topic: sort for sort in written}
    return tuple(by_name[sort.name] for sort in job.sort_list)


def _send_index(owner: Owner, sender: Sender, publication: Publication, record: RunRecord) -> None:
    """Send the run's sparse index, and delete those of runs that it covers or folds."""
    entries = {rows.sort: {r.partition: r.index for r in rows.ranges} for rows in publication.sorts}
    for key, value in index_changes(owner.ledger, record, entries) if owner.has_index else ():
        sender.send_one(owner.job.index, key, value, 0)


def _send_record(owner: Owner, sender: Sender, record: RunRecord) -> None:
    """Send the run's record, and fold those of the oldest runs into one."""
    ledger, payload = owner.job.ledger, record.to_json()
    sender.send_one(ledger, run_key(record.run), payload, 0)
    sender.send_one(ledger, LAST, payload, 0)
    outdated = owner.ledger.outdated(record.run)
    if outdated and (earlier := owner.ledger.folded(record)):
        sender.send_one(ledger, EARLIER, earlier.to_json(), 0)
    for number in outdated:
        sender.send_one(ledger, run_key(number), None, 0)


def _reveal_fence(
    owner: Owner, producer: TransactionalProducer, publication: Publication, finish: Callable[[], Written]
) -> Written:
    """Return the result of `finish`. If this run was fenced, an output's extra offset is its own abort marker."""
    try:
        return finish()
    except OutputChangedError:
        # Kafka reports the fence to this call.
        producer.send_offsets(owner.job.source_topic, publication.snapshot.ends)
        raise


def _record(owner: Owner, publication: Publication, written: tuple[WrittenSort, ...], letters: int) -> RunRecord:
    job, snapshot = owner.job, publication.snapshot
    covers = (CoveredRuns(1, snapshot.run - 1),) if snapshot.replaces and snapshot.run > 1 else ()
    record = RunRecord(
        job=job.name,
        run=snapshot.run,
        attempt=publication.attempt,
        source_topic=job.source_topic,
        source_topic_id=snapshot.source_topic_id,
        format={**describe_format(job), **describe_schemas(owner.recorded_format, publication.chunks)},
        read=tuple(ReadRange(r.partition, r.start, r.end) for r in snapshot.ranges),
        lost=publication.lost,
        records=publication.records + publication.dead_letters,
        dead_letter_topic=job.dead_letters,
        dead_letters=publication.dead_letters,
        checksum={"name": checksum.NAME, "sum": f"{publication.checksum:016x}"},
        sorts=written if covers else tuple(replace(sort, delete_before=()) for sort in written),
        started=publication.started.isoformat(timespec="milliseconds"),
        published=datetime.now(UTC).isoformat(timespec="milliseconds"),
        seconds=current_run().progress.seconds,
        options=_recorded_options(job),
        version=_VERSION,
        skipped=snapshot.skipped,
        ledger=FORMAT,
        requires=_required(job, written, covers),
        covers=covers,
        dead_letters_written=None if letters == publication.dead_letters else letters,
    )
    return publication.merged.complete(record, publication.sorts) if publication.merged else record


def _required(job: Job, written: Written, covers: Sequence[CoveredRuns]) -> tuple[str, ...]:
    """Return the features that a process must know to go on from this run."""
    options = (feature for feature, option, default in FEATURES if getattr(job, option) != default)
    has_folders = any(sort.has_folder for sort in written)
    return (*([REPLACE] if covers else []), *([PARQUET] if has_folders else []), *options)


def _recorded_options(job: Job) -> dict[str, Any]:
    options = {name: getattr(job, name) for name in _OPTIONS}
    return options if job.end is None else {**options, "end": job.end}


def _raise_if_too_late(owner: Owner, publication: Publication, error: BaseException, seconds: float) -> None:
    """Raise the real cause if the broker's own timeout aborted the transaction: librdkafka also says "fenced" then."""
    late = seconds >= owner.transaction_seconds
    if late and isinstance(error, KafkaTransientError) and error.code in _TIMEOUT_CODES:
        raise TransactionTimeoutError(
            f"publishing took {seconds:.0f} s, longer than the transaction timeout of {owner.transaction_seconds:.0f} "
            f"s: the broker aborted it, nothing was published; {_more_publishers(publication)}raise "
            "transaction.max.timeout.ms on the broker (and --transaction-timeout, if given), or take less at once with "
            "--max-records"
        ) from error


def _more_publishers(publication: Publication) -> str:
    """Say that more publishers would help, if there is anything for them to send."""
    partitions, now = count_partitions(publication.sorts), publication.snapshot.publishers
    return f"publish by more than {now} (--publishers, up to {partitions}), " if now < partitions else ""


def warn_of_dead_letters(record: RunRecord) -> None:
    """Warn of dead letters, if there are any."""
    facts = {"of": record.records, "topic": record.dead_letter_topic}
    if record.is_mostly_dead:
        told = "more than half of the records are dead letters: do the columns fit the source?"
        get_logger().warning(told, records=record.dead_letters, **facts)
    elif record.dead_letters:
        get_logger().warning("dead letters", records=record.dead_letters, **facts)


@task(
    task_run_name="publish {publication.snapshot.run}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def publish_and_commit(owner: Owner, publication: Publication, publishers: Publishers = ALONE) -> RunRecord:
    """Publish all sorts and commit, in one transaction."""
    with log_context(stage="publish"):
        # This comes before the commit: nothing may fail after it.
        disk = publication.disk_bytes
        record = publish_run(owner, publication, publishers)
        log = get_logger()
        warn_of_dead_letters(record)
        log.info(
            "committed",
            records=record.records,
            sorts=len(record.sorts),
            **record.seconds,
            disk_mb=disk // MB,
            peak_memory_mb=peak_memory_bytes() // MB,
        )
        return record
