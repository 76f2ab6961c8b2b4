"""Writes the files of a committed run again, from the source: `kafka-sort sort --rewrite RUN`.

Guarantee 3 (nothing lost in silence): the rows are those of the run, by count and checksum, or there are none. The
run's record names the new files from the transaction on that writes it again; then they get their place, as in any run.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from confluent_kafka.admin import AdminClient

from tasks.errors import SettingsError, TerminalError
from tasks.folders.base import Marker, find_marker, is_whole
from tasks.folders.registry import open_folder
from tasks.kafka.ledger import LAST, run_key
from tasks.kafka.topics import EARLIEST, LATEST, cluster_id, list_offsets
from tasks.manifests import OffsetRange, Snapshot
from tasks.observe.logs import get_logger
from tasks.ownership import Owner
from tasks.publish import stage_rows
from tasks.publishers.rows import ContentError
from tasks.run import Run, Runner
from tasks.run_record import RunRecord, WrittenSort
from tasks.settings.job import Job
from tasks.settlement import place_files
from tasks.source import require_source
from tasks.targets.parquet_folders import ParquetFolders, reaching


class UnreadableRunError(TerminalError):
    """The source has not all the records any more that a run read, so its files cannot be written again."""

    action = "Take the files from a backup, or go on without them with `--append`."
    at_risk = "**Yes**: the files of the run are gone, and so are records of the source that were in them."


def rewrite_run(owner: Owner, runner: Runner, folder: Path, attempt: str, number: int) -> RunRecord:
    """Write the files of a run again that are gone or altered; return the run's new record.

    1. Which files. 2. Read what the run read. 3. Stage. 4. Commit the record. 5. Place.
    """
    # Step 1.
    record = _find_run(owner, number)
    missing = _find_missing(owner, record)
    # Step 2.
    snapshot = Snapshot(number, record.source_topic_id, _find_ranges(owner.admin, owner.job, record))
    target = _claim_folders(owner, missing)
    publication = Run(owner, runner, lambda _: target, attempt).prepare(snapshot, folder)
    if (publication.records, f"{publication.checksum:016x}") != (record.placed, record.checksum["sum"]):
        raise ContentError(
            f"run {number} of job {record.job} placed {record.placed} records, and of what it read the source has "
            f"{publication.records} now that are placed (checksums {record.checksum['sum']} and "
            f"{publication.checksum:016x}): nothing was changed"
        )
    # Step 3.
    written = {sort.topic: sort for sort in stage_rows(owner.job, publication)}
    former = {sort.topic: sort for sort in missing}
    for name, sort in former.items():
        with reaching(name):
            # What is left of it is not what the run wrote.
            open_folder(name).remove_run(sort.folder)
    # Step 4.
    renamed = {name: replace(sort, folder=former[name].folder) for name, sort in written.items()}
    again = replace(record, sorts=tuple(renamed.get(sort.topic, sort) for sort in record.sorts))
    _commit(owner, again)
    # Step 5.
    place_files(owner, again)
    get_logger().info("files written again", run=number, outputs=",".join(renamed))
    return again


def _find_run(owner: Owner, number: int) -> RunRecord:
    ledger = owner.ledger
    record = ledger.runs.get(number)
    if record is None:
        known = f"runs {min(ledger.runs)} to {max(ledger.runs)}" if ledger.runs else "no run"
        raise SettingsError(f"--rewrite {number}: the ledger of job {owner.job.name} has {known}")
    if record.is_covered_by(ledger.runs.values()):
        raise SettingsError(f"--rewrite {number}: a later run of job {owner.job.name} took its place")
    return record


def _find_missing(owner: Owner, record: RunRecord) -> list[WrittenSort]:
    folders = [sort for sort in record.sorts if sort.has_folder]
    if not folders:
        raise SettingsError(f"--rewrite {record.run}: the run wrote no files, but topics alone")
    missing = []
    for sort in folders:
        with reaching(sort.topic):
            if not is_whole(open_folder(sort.topic), sort):
                missing.append(sort)
    if not missing:
        raise SettingsError(f"--rewrite {record.run}: all files of the run are there, as the run wrote them")
    # A job's own settings were compared with those of its last run.
    names = {sort.topic for sort in owner.job.folder_sorts}
    if any(sort.topic not in names for sort in missing):
        raise SettingsError(f"--rewrite {record.run}: the run wrote to {missing[0].topic}, and the job does not")
    return missing


def _find_ranges(admin: AdminClient, job: Job, record: RunRecord) -> tuple[OffsetRange, ...]:
    """Return what the run read; raise if the source does not have all of it."""
    source = require_source(admin, job.source_topic)
    ranges = [_without_lost(record, r.partition, r.start, r.end) for r in record.read]
    ranges = [r for r in ranges if r.span]
    gone = [] if source.id == record.source_topic_id else ranges
    known = [r for r in ranges if r.partition in source.partitions]
    starts = list_offsets(admin, source.name, [r.partition for r in known], EARLIEST)
    ends = list_offsets(admin, source.name, [r.partition for r in known], LATEST)
    gone = gone or [r for r in ranges if r not in known or starts[r.partition] > r.start or ends[r.partition] < r.end]
    if gone:
        what = ", ".join(f"partition {r.partition} offsets {r.start} to {r.end - 1}" for r in gone)
        raise UnreadableRunError(
            f"run {record.run} of job {record.job} read {what} of source {record.source_topic}, which has not all of "
            "them any more: its files cannot be written again; go on without them with --append"
        )
    return tuple(ranges)


def _without_lost(record: RunRecord, partition: int, start: int, end: int) -> OffsetRange:
    """Return the range from where it existed when the run read it."""
    for lost in sorted(record.lost, key=lambda lost: lost.start):
        if lost.partition == partition and lost.start <= start < lost.end:
            start = min(lost.end, end)
    return OffsetRange(partition, start, end)


def _claim_folders(owner: Owner, missing: Sequence[WrittenSort]) -> ParquetFolders:
    """Return the folders, which get back the markers that they had."""
    folders = {}
    for sort in missing:
        folder = folders[sort.topic] = open_folder(sort.topic)
        with reaching(sort.topic):
            marker = find_marker(folder)
            if marker is None:
                folder.claim(Marker(owner.job.name, cluster_id(owner.admin), sort.topic_id))
            elif marker.id != sort.topic_id:
                raise SettingsError(f"output {sort.topic} was replaced since the run: choose another folder")
    ids, counts = {s.topic: s.topic_id for s in missing}, {s.topic: s.partition_count for s in missing}
    return ParquetFolders(owner.job, folders, ids, counts)


def _commit(owner: Owner, record: RunRecord) -> None:
    """Write the run's record again, in a transaction of its own."""
    producer = owner.healthy_producer()
    last = owner.ledger.last
    try:
        producer.begin()
        producer.sender.send_one(owner.job.ledger, run_key(record.run), record.to_json(), 0)
        if last is not None and last.run == record.run:
            producer.sender.send_one(owner.job.ledger, LAST, record.to_json(), 0)
        producer.flush()
        producer.commit()
    except BaseException:
        producer.abort()
        raise
