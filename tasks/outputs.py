"""Outputs and dead-letter topic: the checks before a run, and the creation of absent ones.

Guarantee 2 (all or nothing, exactly once) needs outputs that nothing else writes to, and whose settings remove no
record of a run: others are refused before any work.
"""

from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from confluent_kafka.admin import AdminClient

from tasks.errors import SettingsError
from tasks.kafka.clients import NotPermittedError
from tasks.kafka.topic_rules import TopicRules, dead_letter_rules, ledger_rules, output_rules
from tasks.kafka.topics import (
    EARLIEST,
    LATEST,
    Topic,
    add_partitions,
    describe_topic,
    describe_topics,
    group_offsets,
    list_offsets,
    topic_settings,
)
from tasks.kafka.windows import holds_committed
from tasks.observe.logs import get_logger
from tasks.output_folders import check_former_folders, count_files, prepare_folders
from tasks.ownership import JobView, Owner
from tasks.replacement import require_own_outputs
from tasks.run_record import RunRecord
from tasks.settings.job import Job
from tasks.targets.base import Target
from tasks.targets.joined import JoinedTargets
from tasks.targets.kafka_topics import KafkaTopics


def check_outputs(job: Job, admin: AdminClient) -> None:
    """Raise SettingsError if an output or the dead-letter topic exists with settings that would break a promise."""
    wanted = _rules(job, admin)
    for topic in describe_topics(admin, list(wanted)).values():
        wanted[topic.name].check(topic, topic_settings(admin, topic.name))


def check_absent_topics(job: Job, admin: AdminClient, source: Topic) -> None:
    """Raise SettingsError if Kafka would not create a topic that the job lacks, because of how it would be made.

    What is not permitted is told once it is needed: a run without work creates no output.
    """
    rules = _rules_of_all(job, admin)
    for name, partitions in _absent_of_all(job, source, describe_topics(admin, list(rules))).items():
        with suppress(NotPermittedError):
            rules[name].check_make(admin, name, partitions, job.replication_factor)


def check_output_partitions(job: Job, source: Topic) -> None:
    """Raise SettingsError if new outputs would have fewer partitions than the source, by which records are placed."""
    if job.partition_by == "source" and job.output_partitions and job.output_partitions < len(source.partitions):
        raise SettingsError(
            f"--output-partitions {job.output_partitions} is below the {len(source.partitions)} partitions of source "
            f"{source.name}, and --partition-by source gives each its own: leave it out, or raise it"
        )


def _rules(job: Job, admin: AdminClient) -> dict[str, TopicRules]:
    """Return the rules of each topic that the job writes to, except its ledger."""
    source = topic_settings(admin, job.source_topic)
    new_keys = job.output_key == "sort"
    outputs = output_rules(source, keep_timestamps=job.timestamps == "keep", new_keys=new_keys)
    return dict.fromkeys(_outputs(job), outputs) | {job.dead_letters: dead_letter_rules(source)}


def _rules_of_all(job: Job, admin: AdminClient) -> dict[str, TopicRules]:
    return {job.ledger: ledger_rules(), **_rules(job, admin)}


def _outputs(job: Job) -> list[str]:
    return [sort.topic for sort in job.topic_sorts]


def check_former_runs(view: JobView) -> None:
    """Raise SettingsError if the outputs contradict the ledger: records before any run, or none after one."""
    job, ledger = view.job, view.ledger
    check_former_folders(view)
    _check_hashed(view)
    if job.replaces:
        require_own_outputs(view)
    elif job.append:
        return
    elif ledger.last is not None and ledger.placed:
        _check_same_outputs(view.admin, ledger.last)
    elif problem := _find_former_run(view):
        # If we were away for long, the ledger was read before a successor's first run, which then is what was found.
        view.require_current_ledger()
        raise SettingsError(problem)


def prepare_outputs(owner: Owner) -> Target:
    """Return the outputs as they are now; absent ones and an absent dead-letter topic are created.

    With `--partition-by source` an output gets the partitions that it lacks. A property that puts a promise at risk is
    reported.
    """
    job, admin = owner.job, owner.admin
    wanted, source = _rules(job, admin), describe_topic(admin, job.source_topic)
    found = describe_topics(admin, list(wanted))
    for name, partitions in _absent(job, source, found).items():
        found[name] = wanted[name].make(admin, name, partitions, job.replication_factor)
    _check_hashed(owner)
    for name, partitions in _short(job, source, found).items():
        add_partitions(admin, name, partitions)
        get_logger().info("partitions added, as the source has", topic=name, partitions=partitions)
    _tell_risks(admin, wanted, found)
    targets: list[Target] = []
    if job.topic_sorts:
        targets.append(KafkaTopics.note(admin, _outputs(job), job.request_timeout, job.partition_by))
    if job.folder_sorts:
        targets.append(prepare_folders(owner, _new_partitions(job, source)))
    return targets[0] if len(targets) == 1 else JoinedTargets(tuple(targets))


def _check_hashed(view: JobView) -> None:
    """Raise SettingsError if the outputs have more partitions than those over which the last run hashed its keys."""
    last = view.ledger.last
    if last is None or not view.ledger.placed or view.job.partition_by != "hash":
        return
    topics = describe_topics(view.admin, _outputs(view.job))
    for sort in last.sorts:
        topic = topics.get(sort.topic)
        if topic and topic.id == sort.topic_id and len(topic.partitions) != sort.partition_count:
            raise SettingsError(
                f"output {sort.topic} has {len(topic.partitions)} partitions, and had {sort.partition_count} in run "
                f"{last.run} of job {last.job}: --partition-by hash would place equal keys in two of them; sort the "
                "source again into another output, with another --job-name"
            )


def _new_partitions(job: Job, source: Topic | None) -> int:
    """Return the number of partitions of an output that is created now."""
    return job.output_partitions or (len(source.partitions) if source else 1)


def _absent(job: Job, source: Topic | None, found: Mapping[str, Topic]) -> dict[str, int]:
    """Return the topics that a run creates, with their numbers of partitions."""
    wanted = dict.fromkeys(_outputs(job), _new_partitions(job, source)) | {job.dead_letters: 1}
    return {name: count for name, count in wanted.items() if name not in found}


def _absent_of_all(job: Job, source: Topic | None, found: Mapping[str, Topic]) -> dict[str, int]:
    return ({} if job.ledger in found else {job.ledger: 1}) | _absent(job, source, found)


def _short(job: Job, source: Topic | None, found: Mapping[str, Topic]) -> dict[str, int]:
    """Return the outputs to which a run adds partitions, with their numbers then."""
    if job.partition_by != "source" or source is None:
        return {}
    count = len(source.partitions)
    return {name: count for name in _outputs(job) if name in found and len(found[name].partitions) < count}


@dataclass(frozen=True)
class PlannedTopics:
    """Topics that a run would write to, by name, with their numbers of partitions then; likewise folders.

    `created`, `grown`: those that it would create first, or give more partitions.
    """

    partitions: Mapping[str, int]
    created: tuple[str, ...]
    grown: tuple[str, ...]


def plan_topics(view: JobView, *, has_work: bool) -> PlannedTopics:
    """Look at the topics that a run would write to, its ledger among them; nothing is changed.

    The error of a change that Kafka would refuse comes now: it is asked to check, and not to create. A run without work
    creates its ledger alone.
    """
    job, admin = view.job, view.admin
    source = describe_topic(admin, job.source_topic)
    rules = _rules_of_all(job, admin)
    found = describe_topics(admin, list(rules))
    absent = _absent_of_all(job, source, found)
    short = _short(job, source, found)
    created = [name for name in absent if has_work or name == job.ledger]
    for name in created:
        rules[name].check_make(admin, name, absent[name], job.replication_factor)
    grown = [*short] if has_work else []
    for name in grown:
        add_partitions(admin, name, short[name], only_check=True)
    there = {name: len(topic.partitions) for name, topic in found.items()}
    partitions = _new_partitions(job, source)
    folders = {sort.topic: count_files(view, sort.topic, partitions) for sort in job.folder_sorts}
    return PlannedTopics(there | absent | short | folders, tuple(created), tuple(grown))


def _tell_risks(admin: AdminClient, wanted: Mapping[str, TopicRules], found: Mapping[str, Topic]) -> None:
    """Log one line for each property and value, with all topics that have it."""
    risks: dict[str, list[str]] = defaultdict(list)
    for name, rules in wanted.items():
        for breach in rules.breaches(found[name], topic_settings(admin, name), refused=False):
            risks[breach.risk].append(name)
    for risk, names in risks.items():
        get_logger().warning(risk, topics=",".join(names))


def _check_same_outputs(admin: AdminClient, last: RunRecord) -> None:
    """Raise SettingsError if an output is not the topic that the last run wrote: what the runs wrote there is gone."""
    for sort in (sort for sort in last.sorts if not sort.has_folder):
        topic = describe_topic(admin, sort.topic)
        if topic is None or topic.id != sort.topic_id:
            raise SettingsError(
                f"output {sort.topic} was deleted{' and recreated' if topic else ''} since run {last.run} of job "
                f"{last.job}, and holds none of its records: go on there with --append, or sort all of the source "
                "again with --mode replace"
            )


def _find_former_run(view: JobView) -> str | None:
    """Return a sign of a run that the ledger does not have, and what to do; None if there is none."""
    job, admin = view.job, view.admin
    if view.ledger.last is None and job.start != "group" and _group_has_offsets(view):
        return (
            f"group {job.group} has offsets, and the ledger {job.ledger} has no run: the ledger was lost; "
            "go on behind these offsets with --start group --append, or sort all again (--append or another --job-name)"
        )
    for topic in describe_topics(admin, _outputs(job)).values():
        if _holds_records(view, topic):
            return (
                f"output {topic.name} holds records, and job {job.name} has no run in its ledger that wrote any: "
                "its ledger was lost, or something else writes there; empty the topic, choose another, "
                "or permit it with --append"
            )
    return None


def _group_has_offsets(view: JobView) -> bool:
    source = describe_topic(view.admin, view.job.source_topic)
    partitions = source.partitions if source else ()
    return bool(group_offsets(view.connection, view.job.group, view.job.source_topic, partitions))


def _holds_records(view: JobView, topic: Topic) -> bool:
    """Whether a `read_committed` reader finds any record. Records of aborted runs do not count."""
    starts = list_offsets(view.admin, topic.name, topic.partitions, EARLIEST)
    ends = list_offsets(view.admin, topic.name, topic.partitions, LATEST)
    windows = {p: (starts[p], ends[p]) for p in topic.partitions}
    return holds_committed(view.connection, view.job.group, topic.name, windows, view.job.request_timeout)
