"""A job whose settings do not fit its source is refused at its first run, with a hint, before anything is written."""

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tasks.kafka.topics import describe_topic
from tasks.observe.report import headline
from tasks.publish import publish_and_commit
from tasks.sample import MostlyDeadLettersError
from tasks.settings.job import Job
from tasks.snapshot import take_snapshot
from tests.cluster import Cluster, Record, sample_values
from tests.command import Command, Outcome
from tests.stages import make_job, owned, prepare, run_once

JSON = [b'{"id": %d, "name": "c"}' % i for i in range(40)]


def assert_refused(cluster: Cluster, job: Job, outcome: Outcome) -> None:
    """Check one line with the reason, a value, a hint and the way out; nothing was created, sent or moved on."""
    assert outcome.status == 2, outcome.err
    line = outcome.err.splitlines()[-1]
    for words in ("40 of 40 records", "(40: 2 fields, expected 4)", JSON[0].decode(), "looks like JSON"):
        assert words in line
    assert "--allow-dead-letters" in line
    for topic in (*(sort.topic for sort in job.sort_list), job.dead_letters):
        assert describe_topic(cluster.admin, topic) is None
    assert cluster.ends(job.ledger, committed=False) == {0: 0}
    assert cluster.group_offsets(job) == {}


@pytest.mark.raises("MostlyDeadLettersError")
def test_a_first_run_of_dead_letters_is_refused(cluster: Cluster, command: Command) -> None:
    """It exits 2 before work; the same job with other columns then sorts all of it."""
    source = cluster.make_topic()
    cluster.produce(source, JSON)
    job = command.job(source)
    assert_refused(cluster, job, command.run(job))
    right = job.model_copy(update={"columns": "a,b", "sorts": [f"b={source}-by-b"]})
    outcome = command.run(Job.model_validate(right.model_dump(exclude_unset=True)))
    assert outcome.status == 0, outcome.err
    assert len(cluster.read(f"{source}-by-b")) == 40


def test_the_first_batch_of_a_stream_is_judged(cluster: Cluster, command: Command) -> None:
    """A stream ends with the same line and status."""
    source = cluster.make_topic()
    cluster.produce(source, JSON)
    job = command.job(source)
    assert_refused(cluster, job, command.run(job, "--max-latency", "0.2", command="stream"))


def test_dead_letters_that_are_permitted(cluster: Cluster, tmp_path: Path) -> None:
    """--allow-dead-letters permits them; until a record is placed the columns are free, and each run is judged."""
    source = cluster.make_topic()
    cluster.produce(source, JSON)
    job = make_job(source, tmp_path, allow_dead_letters=True)
    assert run_once(cluster, job, tmp_path).dead_letters == 40
    cluster.produce(source, JSON)
    judged = job.model_copy(update={"allow_dead_letters": False})
    with owned(cluster, judged) as owner, pytest.raises(MostlyDeadLettersError):
        take_snapshot(owner)
    right = make_job(source, tmp_path, columns="id,b", sorts=job.sorts)
    assert run_once(cluster, right, tmp_path).placed == 40


@pytest.mark.slow
def test_a_first_run_that_began_at_latest(cluster: Cluster, tmp_path: Path) -> None:
    """A run that has read nothing fixes where the job begins, and no more: the run that reads is judged."""
    source = cluster.make_topic()
    cluster.produce(source, JSON)
    job = make_job(source, tmp_path, start="latest")
    assert run_once(cluster, job, tmp_path).records == 0
    cluster.produce(source, JSON[:8])
    later = make_job(source, tmp_path, sorts=job.sorts)
    with owned(cluster, later) as owner, pytest.raises(MostlyDeadLettersError, match="8 of 8"):
        take_snapshot(owner)
    right = make_job(source, tmp_path, columns="a,b", sorts=[f"b={source}-by-b"])
    assert run_once(cluster, right, tmp_path).placed == 8
    # Now they are fixed.
    cluster.produce(source, JSON[:8])
    with pytest.raises(Exception, match="--job-name"), owned(cluster, later):
        pass


def judge(cluster: Cluster, tmp_path: Path, values: list[bytes | None], **over: object) -> bool:
    """Whether a first run over one partition of these values begins."""
    source = cluster.make_topic(1)
    cluster.produce(source, values, 1)
    with owned(cluster, make_job(source, tmp_path, **over)) as owner:
        try:
            take_snapshot(owner)
        except MostlyDeadLettersError:
            return False
    return True


HINTS = {
    "no unit": ({"format": "json", "sorts": ["a:time"]}, b'{"a": 1700000000}', None, "a time with its unit: time(s)"),
    "no unit in CSV": ({"columns": "a:time", "sorts": ["a"]}, b"1700000000", None, "a time with its unit: time(s)"),
    "no zone": ({"columns": "a:time", "sorts": ["a"]}, b"2026-01-31T12:00:00", None, "a time needs a zone"),
    "no time": ({"columns": "a:time", "sorts": ["a"]}, b"noon", None, "correct --columns, --delimiter"),
    "a key": ({"format": "none", "key_format": "int64", "sorts": ["@key"]}, None, b"7", "correct --key-format, --sort"),
    "a key beside JSON": ({"columns": "a", "sorts": ["a,@key:int"]}, b'{"a":1}', b"x", "correct --key-format, --sort"),
}


@pytest.mark.parametrize(("settings", "value", "key", "words"), HINTS.values(), ids=HINTS)
def test_a_hint_is_for_the_commonest_reason(
    cluster: Cluster, tmp_path: Path, settings: dict[str, Any], value: bytes | None, key: bytes | None, words: str
) -> None:
    """What the value looks like helps only where the value is what cannot be read."""
    source = cluster.make_topic(1)
    cluster.produce_records(source, [Record(value, key)] * 3)
    job = Job(source_topic=source, workdir=tmp_path, **settings)
    with owned(cluster, job) as owner, pytest.raises(MostlyDeadLettersError) as raised:
        take_snapshot(owner)
    assert words in str(raised.value)
    assert not any(other in str(raised.value) for other in ("looks like", "tombstones"))


def test_what_is_judged(cluster: Cluster, tmp_path: Path) -> None:
    """The sample is from the beginning, the middle and the end of what this run reads; more than half of it counts."""
    good, bad = sample_values(3000), [b"no row"] * 3000
    assert not judge(cluster, tmp_path, [b"no row"])
    assert not judge(cluster, tmp_path, [None, None, good[0]])
    assert judge(cluster, tmp_path, [good[0], b"no row"])
    assert not judge(cluster, tmp_path, [*good[:1000], *bad[:2000]])
    assert judge(cluster, tmp_path, [*bad[:1000], *good[:2000]])
    # The records that the next run reads do not count.
    assert judge(cluster, tmp_path, [*good[:100], *bad[:2000]], max_records=100)


def test_a_later_run_of_dead_letters(cluster: Cluster, tmp_path: Path) -> None:
    """It is a run like any other, with a loud warning, also in its final state; a large record is no hindrance."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(20))
    job = make_job(source, tmp_path)
    assert "MORE THAN HALF" not in headline(run_once(cluster, job, tmp_path))
    cluster.produce_records(source, [Record(b"x" * 900_000), *map(Record, JSON), Record(sample_values(1)[0])])
    with owned(cluster, job) as owner, capture_logs() as lines:
        record = publish_and_commit.fn(owner, prepare(owner, tmp_path))
    assert (record.records, record.dead_letters) == (42, 41)
    assert f"MORE THAN HALF of them, 41 dead letters in {job.dead_letters}" in headline(record)
    assert any("more than half" in line["event"] and line["log_level"] == "warning" for line in lines)
