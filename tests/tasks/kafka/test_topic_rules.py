"""No promise rests on a broker's defaults: new topics get what a promise needs, existing ones are checked."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from structlog.testing import capture_logs

from tasks.broker.embedded import EmbeddedBroker
from tasks.errors import SettingsError
from tasks.generate import generate_records
from tasks.kafka.topic_rules import (
    NO_LIMIT,
    TopicRules,
    _replicas_in_sync,
    dead_letter_rules,
    generated_rules,
    ledger_rules,
    output_rules,
)
from tasks.kafka.topics import create_topic, topic_settings
from tasks.outputs import prepare_outputs
from tasks.preflight import check_before_lease
from tasks.settings.job import Job
from tasks.verify import verify_job
from tests.cluster import Cluster, sample_values, wait_for
from tests.stages import make_job, owned, run_once

HOSTILE = {
    "compression.type": "gzip",
    "log.cleaner.min.cleanable.ratio": "1.0",
    "log.cleaner.min.compaction.lag.ms": "9223372036854775807",
    "log.cleanup.policy": "compact",
    "log.flush.interval.messages": "100",
    "log.index.size.max.bytes": "1024",
    "log.initial.task.delay.ms": "500",
    "log.message.timestamp.after.max.ms": "10",
    "log.message.timestamp.before.max.ms": "1000",
    "log.message.timestamp.type": "LogAppendTime",
    "log.preallocate": "true",
    "log.retention.bytes": "100000000",
    "log.retention.check.interval.ms": "500",
    "log.retention.ms": "1000",
    "log.roll.ms": "1000",
    "log.segment.bytes": "1048576",
    "message.max.bytes": "30000",
    "min.insync.replicas": "3",
    "unclean.leader.election.enable": "true",
    "group.min.session.timeout.ms": "1000",
}
DOCUMENT = Path(__file__).parents[3] / "docs" / "topics.md"


@pytest.fixture(scope="module")
def hostile() -> Iterator[Cluster]:
    with EmbeddedBroker(properties=HOSTILE) as broker:
        yield Cluster(broker.bootstrap_servers)


def make_old_source(cluster: Cluster) -> str:
    """Make records from 40 days ago, some of which are no rows, in a topic that keeps them."""
    kept = {"cleanup_policy": "delete", "retention_ms": "-1", "max_message_bytes": "200000"}
    source = cluster.make_topic(
        3, message_timestamp_type="CreateTime", message_timestamp_before_max_ms=NO_LIMIT, **kept
    )
    producer, old = (
        Producer({"bootstrap.servers": cluster.bootstrap_servers}),
        round(time.time() * 1000) - 40 * 86_400_000,
    )
    for i, value in enumerate([*sample_values(300), b"no row", b"1,2,3,4,5", b"x" * 150_000]):
        producer.produce(source, value, partition=i % 3, timestamp=old + i)
    assert producer.flush(30) == 0
    return source


@pytest.mark.slow
def test_a_job_on_hostile_defaults(hostile: Cluster, tmp_path: Path) -> None:
    """Two runs with kept timestamps and dead letters verify, even after the broker has applied retention."""
    source = make_old_source(hostile)
    job = make_job(source, tmp_path, timestamps="keep")
    run_once(hostile, job, tmp_path)
    hostile.produce(source, sample_values(20, seed=2), 3)
    run_once(hostile, job, tmp_path)
    # Topics with the broker's settings lose their records meanwhile.
    doomed = hostile.make_topic(1, cleanup_policy="delete")
    hostile.produce(doomed, [b"doomed"], 1)
    wait_for(lambda: hostile.starts(doomed) == {0: 1})
    verification = verify_job(job, hostile.connection)
    assert verification.lines() == []
    assert [(run.records, run.dead_letters) for run in verification.runs] == [(303, 3), (20, 0)]


def test_sample_data_on_hostile_defaults(hostile: Cluster) -> None:
    """Each record arrives, without a key, in batches that the topic takes."""
    assert generate_records(hostile.connection, "generated", 5000, 1, 2) == 5000
    assert hostile.ends("generated") == {0: 2500, 1: 2500}
    assert topic_settings(hostile.admin, "generated").items() >= generated_rules().config.items()


def test_retention_of_outputs_is_the_users(hostile: Cluster, tmp_path: Path) -> None:
    """It is reported, once for all outputs; what a promise needs is set, replicas included."""
    source = make_old_source(hostile)
    job = make_job(source, tmp_path, sorts=[f"id={source}-1", f"name={source}-2"])
    with owned(hostile, job) as owner, capture_logs() as lines:
        prepare_outputs(owner)
    warnings = {line["event"]: line["topics"] for line in lines if line["log_level"] == "warning"}
    assert warnings == {
        "output: its retention.ms=1000 removes records of former runs in time": f"{source}-1,{source}-2",
        "output: its retention.bytes=100000000 removes records of former runs in time": f"{source}-1,{source}-2",
    }
    made = topic_settings(hostile.admin, source)
    rules = {
        f"{source}-1": output_rules(made, keep_timestamps=False),
        job.dead_letters: dead_letter_rules(made),
        job.ledger: ledger_rules(),
    }
    for name, rule in rules.items():
        expected = rule.config | {"min.insync.replicas": "1"}
        assert topic_settings(hostile.admin, name).items() >= expected.items(), name


@pytest.mark.parametrize(
    ("replicas", "broker", "expected"),
    [
        (3, {"min.insync.replicas": "1"}, "2"),
        (3, {"min.insync.replicas": "3"}, "3"),
        (2, {"min.insync.replicas": "1"}, "1"),
        (1, {"min.insync.replicas": "3"}, "1"),
        (None, {"min.insync.replicas": "2", "default.replication.factor": "1"}, "1"),
        (None, {"min.insync.replicas": "1", "default.replication.factor": "3"}, "2"),
        (3, {}, None),
    ],
)
def test_replicas_in_sync(replicas: int | None, broker: dict[str, str], expected: str | None) -> None:
    """The value is never above the replicas, never below the broker's, two of three; left alone if that is unknown."""
    assert _replicas_in_sync(broker, replicas).get("min.insync.replicas") == expected


KEEP = {"timestamps": "keep"}
FOREVER = {"retention.ms": "-1"}
LIMITS = {"message.timestamp.before.max.ms": "1000", "message.timestamp.after.max.ms": "1000"}
# Kind of topic, its settings, settings of the job, words of the refusal.
Case = tuple[str, dict[str, str], dict[str, object], str]

REFUSED: dict[str, Case] = {
    "compacted and deleted": ("output", {"cleanup.policy": "compact,delete"}, {}, "cleanup.policy=delete"),
    "small": ("output", {"max.message.bytes": "1000"}, {}, "max.message.bytes=1048588"),
    "kept at the broker's time": (
        "output",
        {"message.timestamp.type": "LogAppendTime", **FOREVER},
        dict(KEEP),
        "message.timestamp.type=CreateTime",
    ),
    "kept and too old": (
        "output",
        {"message.timestamp.before.max.ms": "1000", **FOREVER},
        dict(KEEP),
        f"message.timestamp.before.max.ms={NO_LIMIT}",
    ),
    "kept and too far ahead": (
        "output",
        {"message.timestamp.after.max.ms": "1000", **FOREVER},
        dict(KEEP),
        f"message.timestamp.after.max.ms={NO_LIMIT}",
    ),
    "kept and removed": ("output", {"retention.ms": "604800000"}, dict(KEEP), "retention.ms=-1"),
    "dead letters at the broker's time": (
        "letters",
        {"message.timestamp.type": "LogAppendTime"},
        {},
        "message.timestamp.type=CreateTime",
    ),
    "small dead letters": ("letters", {"max.message.bytes": "1000"}, {}, "max.message.bytes=1114124"),
    "small ledger": ("ledger", {"cleanup.policy": "compact", "max.message.bytes": "1000"}, {}, "65536 or more"),
}


def make_case(cluster: Cluster, folder: Path, kind: str, settings: dict[str, str], over: dict[str, object]) -> Job:
    source = cluster.make_topic(1)
    cluster.produce(source, sample_values(3), 1)
    job = make_job(source, folder, **over)
    name = {"output": job.sort_list[0].topic, "letters": job.dead_letters, "ledger": job.ledger}[kind]
    create_topic(cluster.admin, name, 1, 1, settings)
    return job


@pytest.mark.parametrize(("kind", "settings", "over", "words"), REFUSED.values(), ids=REFUSED)
def test_a_topic_that_breaks_a_promise(
    cluster: Cluster, tmp_path: Path, kind: str, settings: dict[str, str], over: dict[str, object], words: str
) -> None:
    """It is refused before any work: topic, property, value, what it must be, and how it is set."""
    job = make_case(cluster, tmp_path, kind, settings, over)
    with pytest.raises(SettingsError, match=re.escape(words)) as refused:
        check_before_lease(job, cluster.connection, cluster.admin)
    found = [f"{name}={value}" for name, value in settings.items()]
    assert any(setting in str(refused.value) for setting in found)
    assert "kafka-configs --alter" in str(refused.value)


HARMLESS: dict[str, Case] = {
    "the broker's time": ("output", {"message.timestamp.type": "LogAppendTime", **FOREVER}, {}, ""),
    "limits of time": ("output", {**LIMITS, **FOREVER}, {}, ""),
    "no policy": ("output", {"cleanup.policy": ""} | FOREVER, {}, ""),
    "other files": ("output", {"compression.type": "gzip", "segment.bytes": "1048576", **FOREVER}, {}, ""),
    "one replica, unclean": ("output", {"unclean.leader.election.enable": "true", **FOREVER}, {}, ""),
    "more in sync than there are": ("output", {"min.insync.replicas": "3", **FOREVER}, {}, "min.insync.replicas=3"),
    "retention": ("output", {"retention.ms": "86400000"}, {}, "output: its retention.ms=86400000 removes"),
    "dead letters that go": ("letters", {"retention.ms": "86400000"}, {}, "retention.ms=86400000 removes dead letters"),
    "dead letters with limits": ("letters", LIMITS, {}, "refuses dead letters that keep an older"),
}


# One run for each of these; the others take the same ways.
_QUICK = {"no policy", "more in sync than there are", "dead letters with limits"}


@pytest.mark.parametrize(
    ("kind", "settings", "over", "words"),
    [pytest.param(*case, id=n, marks=[] if n in _QUICK else pytest.mark.slow) for n, case in HARMLESS.items()],
)
def test_a_topic_that_works(
    cluster: Cluster, tmp_path: Path, kind: str, settings: dict[str, str], over: dict[str, object], words: str
) -> None:
    """A job that works today goes on working, even if a line reports a risk."""
    job = make_case(cluster, tmp_path, kind, settings, over)
    with capture_logs() as lines:
        assert run_once(cluster, job, tmp_path).placed == 3
    name = job.sort_list[0].topic if kind == "output" else job.dead_letters
    told = [line["event"] for line in lines if name in str(line.get("topics")).split(",")]
    if words:
        assert any(words in line for line in told), told
    else:
        assert told == []


def test_all_of_kafkas_topic_configuration_is_gone_through(cluster: Cluster) -> None:
    """docs/topics.md has each property that the broker knows, once, and the values that new topics get."""
    rows = re.findall(r"^\| `([a-z0-9.]+)` \|(.*)\|$", DOCUMENT.read_text(), re.MULTILINE)
    names = [name for name, _ in rows]
    assert len(names) == len(set(names))
    known = set(topic_settings(cluster.admin, cluster.make_topic(1)))
    assert set(names) == known
    source = {"max.message.bytes": "1048588"}
    kinds: list[TopicRules] = [
        output_rules(source, keep_timestamps=True),
        output_rules(source, keep_timestamps=False),
        dead_letter_rules(source),
        generated_rules(),
        ledger_rules(),
    ]
    said = dict(rows)
    for rule in (rule for kind in kinds for rule in kind.rules):
        assert rule.made_with is None or rule.name == "max.message.bytes" or f"`{rule.made_with}`" in said[rule.name]
        assert "no promise" not in said[rule.name]
