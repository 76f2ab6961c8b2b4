"""What must be right before any work: topics, their settings, the ledger, the work folder.

Every finding is one line that names the setting and the way out. Nothing is changed but topics that are absent.
"""

import time
from collections.abc import Iterable, Mapping

from confluent_kafka import OFFSET_BEGINNING, TopicPartition
from confluent_kafka.admin import AdminClient

from tasks.errors import SettingsError
from tasks.kafka.clients import Admin, make_consumer, translate
from tasks.kafka.ledger import Ledger, ensure_ledger
from tasks.kafka.reach import require_broker, require_leaders
from tasks.kafka.topics import (
    EARLIEST,
    LATEST,
    Topic,
    create_topic,
    describe_topic,
    describe_topics,
    group_offsets,
    list_offsets,
    require_no_collision,
    topic_settings,
)
from tasks.ownership import Owner
from tasks.permissions import check_permissions
from tasks.run_record import RunRecord
from tasks.settings.budget import Budget
from tasks.settings.connection import Connection
from tasks.settings.job import Job
from tasks.workdir import job_folder

# A dead letter is its record and the headers that say why.
_ERROR_HEADER_BYTES = 65_536
# Settings of a job that decide what its outputs hold: fixed by its first run.
_FIXED_WAY_OUT = "take another --job-name (and, to write to the same outputs, --append)"


def check_before_lease(job: Job, connection: Connection, admin: Admin) -> None:
    """Broker, limits, work folder, permissions, source, ledger: SettingsError and others of exit status 2."""
    Budget.of(job)
    job_folder(job)
    require_broker(admin, connection, job.start_timeout)
    check_permissions(job, admin)
    source = require_source(admin, job.source_topic)
    written = [*(sort.topic for sort in job.sort_list), job.dead_letters, job.ledger]
    require_no_collision(admin, written)
    require_leaders(admin, connection, [source, *describe_topics(admin, written).values()], job.start_timeout)
    for topic in _existing(admin, [sort.topic for sort in job.sort_list]):
        _check_output(admin, topic, source, job)
    for topic in _existing(admin, [job.dead_letters]):
        _require_delete_policy(topic.name, topic_settings(admin, topic.name))
    ensure_ledger(admin, job.ledger, job.replication_factor)


def require_source(admin: AdminClient, name: str) -> Topic:
    """The source topic; SettingsError if there is none."""
    topic = describe_topic(admin, name)
    if topic is None:
        raise SettingsError(f"there is no topic {name}: check --source-topic (kafka-sort generate makes a sample)")
    return topic


def check_job_unchanged(job: Job, ledger: Ledger) -> None:
    """SettingsError where the job differs from the one its ledger records."""
    last = ledger.last
    if last is None:
        return
    then = {
        "source": last.source_topic,
        "sorts": ", ".join(f"{sort.columns}={sort.topic}" for sort in last.sorts),
        "columns": last.format["columns"],
        "delimiter": last.format["delimiter"],
    }
    now = {
        "source": job.source_topic,
        "sorts": ", ".join(map(str, job.sort_list)),
        "columns": job.columns,
        "delimiter": job.delimiter,
    }
    for name, recorded in then.items():
        if recorded != now[name]:
            raise SettingsError(
                f"job {job.name} has {name} {recorded!r} by its ledger, and was started with {now[name]!r}: "
                f"start it as it was, or {_FIXED_WAY_OUT}"
            )
    if job.start is not None:
        raise SettingsError(
            f"--start is for a job's first run, and {job.name} has run {last.run}: leave it out "
            "(it goes on where the last run ended), or take another --job-name"
        )


def prepare_outputs(owner: Owner) -> None:
    """Make absent outputs. Without a ledger record refuse those that hold records, with one those that were deleted."""
    job, admin = owner.job, owner.admin
    if owner.ledger.last is not None and not job.append:
        _check_same_outputs(admin, owner.ledger.last)
    if owner.ledger.last is None and not job.append and (problem := _find_former_run(owner)):
        # Who was away may have read it before a successor's first run, which then is what was found.
        owner.require_current_ledger()
        raise SettingsError(problem)
    source = require_source(admin, job.source_topic)
    partitions = job.output_partitions or len(source.partitions)
    limit = int(topic_settings(admin, job.source_topic)["max.message.bytes"])
    # Records that keep old timestamps would be deleted at the next check of the default retention.
    kept = {"retention.ms": "-1"} if job.timestamps == "keep" else {}
    wanted = [(sort.topic, partitions, limit, kept) for sort in job.sort_list]
    for name, count, size, config in [*wanted, (job.dead_letters, 1, limit + _ERROR_HEADER_BYTES, {})]:
        if describe_topic(admin, name) is None:
            create_topic(admin, name, count, job.replication_factor, {"max.message.bytes": str(size), **config})


def _check_same_outputs(admin: AdminClient, last: RunRecord) -> None:
    """SettingsError where an output is not the topic that the last run wrote: what the runs wrote there is gone."""
    for sort in last.sorts:
        topic = describe_topic(admin, sort.topic)
        if topic is None or topic.id != sort.topic_id:
            raise SettingsError(
                f"output {sort.topic} was deleted{' and made again' if topic else ''} since run {last.run} of job "
                f"{last.job}, and holds none of its records: go on there with --append, or sort all of the source anew "
                "with another --job-name"
            )


def _find_former_run(owner: Owner) -> str | None:
    """What tells of a run that an empty ledger does not have, and what to do; None if nothing does."""
    job, admin = owner.job, owner.admin
    if job.start != "group" and group_offsets(admin, job.group, job.source_topic):
        return (
            f"group {job.group} has offsets, and the ledger {job.ledger} has no run: the ledger was lost; "
            "go on behind these offsets with --start group --append, or anew with --append or another --job-name"
        )
    for topic in _existing(admin, [sort.topic for sort in job.sort_list]):
        if _holds_records(owner, topic):
            return (
                f"output {topic.name} holds records, and job {job.name} has no run in its ledger: "
                "its ledger was lost, or something else writes there; empty the topic, choose another, "
                "or permit it with --append"
            )
    return None


def _existing(admin: AdminClient, names: Iterable[str]) -> list[Topic]:
    found = (describe_topic(admin, name) for name in names)
    return [topic for topic in found if topic is not None]


def _check_output(admin: AdminClient, output: Topic, source: Topic, job: Job) -> None:
    settings = topic_settings(admin, output.name)
    _require_delete_policy(output.name, settings)
    limit = topic_settings(admin, source.name)["max.message.bytes"]
    if int(settings["max.message.bytes"]) < int(limit):
        raise SettingsError(
            f"output {output.name} has max.message.bytes={settings['max.message.bytes']}, below the source's {limit}: "
            "raise it"
        )
    if job.timestamps == "keep" and int(settings["retention.ms"]) >= 0:
        raise SettingsError(
            f"output {output.name} has retention.ms={settings['retention.ms']}, which would delete records that keep "
            "older timestamps: set it to -1, or use timestamps=new"
        )


def _require_delete_policy(name: str, settings: Mapping[str, str]) -> None:
    if settings["cleanup.policy"] != "delete":
        raise SettingsError(
            f"output {name} has cleanup.policy={settings['cleanup.policy']}, which would remove records of a run, and "
            "refuse those without a key: set it to delete, or choose another topic"
        )


def _holds_records(owner: Owner, topic: Topic) -> bool:
    """Whether a `read_committed` reader finds anything. What aborted runs left does not count."""
    admin = owner.admin
    ends = list_offsets(admin, topic.name, topic.partitions, LATEST)
    starts = list_offsets(admin, topic.name, topic.partitions, EARLIEST)
    left = {p for p in topic.partitions if ends[p] > starts[p]}
    if not left:
        return False
    consumer = make_consumer(owner.connection, owner.job.group, **{"auto.offset.reset": "earliest"})
    deadline = time.monotonic() + owner.job.request_timeout
    try:
        consumer.assign([TopicPartition(topic.name, p, OFFSET_BEGINNING) for p in left])
        while left and time.monotonic() < deadline:
            for message in consumer.consume(1, 0.2):
                if error := message.error():
                    raise translate(f"reading output {topic.name}", error)
                return True
            for position in consumer.position([TopicPartition(topic.name, p) for p in left]):
                if position.offset >= ends[position.partition]:
                    left.discard(position.partition)
    finally:
        consumer.close()
    # Not read to its end: refusing is the side that loses nothing.
    return bool(left)
