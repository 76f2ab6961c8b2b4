"""The source topic: its required state, where a run starts in it, and whether it is still the one that was read.

Guarantee 3 (nothing lost in silence): a source that was recreated, or that ends before what was read, stops the run.
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from confluent_kafka.admin import AdminClient, OffsetSpec

from tasks.errors import SettingsError, TerminalError
from tasks.kafka.topics import EARLIEST, LATEST, Topic, describe_topic, group_offsets, list_offsets
from tasks.manifests import Snapshot
from tasks.observe.logs import get_logger
from tasks.ownership import JobView
from tasks.run_context import current_run
from tasks.run_record import RunRecord
from tasks.settings.job import Job
from tasks.settings.moments import epoch_millis

_LOOK_SECONDS: Final = 0.5


class SourceRecreatedError(TerminalError):
    """The source is another topic of the same name than the one the ledger records."""

    action = "To sort the new topic, take another `--job-name`, with `--append` for the same outputs."
    at_risk = "What the old topic held and no run had read is gone."


class SourceTruncatedError(TerminalError):
    """The source ends before offsets that were read or promised: an unclean leader election, or a replaced topic."""

    action = (
        "Look for an unclean leader election or lost disks in the source's cluster; then take another "
        "`--job-name` with `--append`."
    )
    at_risk = "**Yes**: the source has lost records that it had acknowledged. This run has published nothing."


def require_source(admin: AdminClient, name: str, patience: float = 0) -> Topic:
    """Return the source topic; SettingsError if it does not exist.

    For `patience` seconds this waits until the topic exists and each of its partitions has a leader. One that has none
    by then is left to `check_leaders`.
    """
    began = time.monotonic()
    topic = _look_for_source(admin, name, patience)
    waited = time.monotonic() - began
    if topic is None:
        still = f" after a wait of {waited:.1f} s" * bool(patience)
        raise SettingsError(
            f"there is no topic {name}{still}: check --source-topic (kafka-sort generate makes a sample)"
        )
    if patience and topic.leaderless:
        numbers = ",".join(map(str, topic.leaderless))
        get_logger().warning(f"no leader after a wait of {waited:.1f} s", topic=name, partitions=numbers)
    return topic


def _look_for_source(admin: AdminClient, name: str, patience: float) -> Topic | None:
    """Return the topic as it is when it has all its leaders, or when the time is over."""
    deadline = time.monotonic() + patience
    topic = describe_topic(admin, name)
    if patience and topic is None:
        get_logger().info("waiting for the source", topic=name, seconds=patience)
    while (topic is None or topic.leaderless) and (left := deadline - time.monotonic()) > 0:
        current_run().stop.wait(min(_LOOK_SECONDS, left))
        topic = describe_topic(admin, name)
    return topic


def check_source_unchanged(admin: AdminClient, name: str, snapshot: Snapshot) -> None:
    """Check before publishing that the source is still the same topic, and still as long as what was read."""
    source = require_source(admin, name)
    if source.id != snapshot.source_topic_id:
        raise SourceRecreatedError(_recreated(source.name))
    read = [r for r in snapshot.ranges if r.span]
    ends = list_offsets(admin, source.name, [r.partition for r in read], LATEST)
    for r in read:
        if ends[r.partition] < r.end:
            raise SourceTruncatedError(
                f"source {source.name} partition {r.partition} ends at offset {ends[r.partition]}, before {r.end}, to "
                "where it was read: its log was truncated during the run; nothing was published, start again"
            )


def check_same_topic(source: Topic, last: RunRecord | None) -> None:
    """Raise SourceRecreatedError unless the topic is the one that the ledger records."""
    if last is not None and last.source_topic_id != source.id:
        raise SourceRecreatedError(_recreated(source.name))


def _recreated(name: str) -> str:
    return (
        f"source {name} was deleted and recreated since it was read (its topic id differs): nothing was published; "
        "to sort the new topic, take another --job-name, with --append for the same outputs"
    )


def check_leaders(source: Topic, job: Job, last: RunRecord | None) -> None:
    """Raise TerminalError if a partition has no leader and may not be left to the next run.

    The first run of a job that does not start at the beginning needs all partitions: their starts are not known later.
    """
    from_beginning = last is not None or job.starts_at_beginning
    if not source.leaderless or (job.on_partition_failure == "skip" and from_beginning):
        return
    numbers = ", ".join(map(str, source.leaderless))
    way_out = ", or sort the others with --on-partition-failure skip" if from_beginning else ""
    raise TerminalError(
        f"source {source.name} has no leader for partition {numbers}: nothing was published; "
        f"start its brokers, then again{way_out}"
    )


def start_offsets(view: JobView, source: Topic) -> dict[int, int]:
    """Return where each partition goes on; one that the ledger does not know is read from its beginning.

    A run that replaces all former ones begins where a first run does.
    """
    last = view.ledger.last
    if last is None or view.job.replaces:
        return _first_starts(view, source)
    new = [p for p in source.partitions if p not in last.ends]
    return last.ends | list_offsets(view.admin, source.name, new, EARLIEST)


def _first_starts(view: JobView, source: Topic) -> dict[int, int]:
    job, admin = view.job, view.admin
    earliest = list_offsets(admin, source.name, source.partitions, EARLIEST)
    if job.start is None or job.starts_at_beginning:
        return earliest
    if job.start == "group":
        return earliest | group_offsets(view.connection, job.group, source.name, source.partitions)
    latest = list_offsets(admin, source.name, source.partitions, LATEST)
    return latest if job.start_moment is None else offsets_at(admin, source, job.start_moment, latest)


def end_offsets(admin: AdminClient, job: Job, source: Topic, latest: Mapping[int, int]) -> Mapping[int, int]:
    """Return where a run ends in each partition: at `latest`, the last stable offsets, or before the job's end."""
    if job.end_moment is None:
        return latest
    found = offsets_at(admin, source, job.end_moment, latest)
    # A record may have come since `latest` was asked for.
    return {p: min(offset, latest[p]) for p, offset in found.items()}


def offsets_at(admin: AdminClient, source: Topic, moment: datetime, latest: Mapping[int, int]) -> dict[int, int]:
    """Return partition → the first offset whose record is at the time or after it; `latest` where there is none yet."""
    spec = OffsetSpec.for_timestamp(epoch_millis(moment))
    found = list_offsets(admin, source.name, source.partitions, spec)
    # Kafka answers -1 where it finds none.
    return {p: offset if offset >= 0 else latest[p] for p, offset in found.items()}


def check_end(job: Job) -> None:
    """Raise SettingsError if no run that begins where the job's first run does could read anything before its end."""
    if job.start == "latest" and job.end_moment is not None and job.end_moment <= datetime.now(UTC):
        raise SettingsError(
            f"--end {job.end} is in the past, and --start latest begins behind all that is there: "
            "give another start, or leave --end out"
        )
