"""Commands show one object to a script, or nothing but warnings and errors."""

import json
from pathlib import Path
from typing import Any

import pytest

from kafka_sort.facts import sort_facts, verification_facts
from tasks.settings.job import Job
from tasks.verify import verify_job
from tests.cluster import Cluster, sample_values
from tests.command import Command, Outcome
from tests.documents import assert_documented, members_of
from tests.stages import run_once

COLLECTOR = {"KAFKA_SORT_LOG_FORMAT": "json"}


def object_of(outcome: Outcome) -> Any:
    """Return the object that is all of standard output."""
    (line,) = outcome.out.splitlines()
    return json.loads(line)


@pytest.fixture
def job(cluster: Cluster, command: Command) -> Job:
    """A job over 60 records, one of which is no row."""
    source = cluster.make_topic(2)
    cluster.produce(source, [*sample_values(59), b"no row"], 2)
    suffix = source.rpartition("-")[2]
    return command.job(source, sorts=[f"id=o-{suffix}-id", f"name:desc=o-{suffix}-name"])


def test_a_run(cluster: Cluster, command: Command, job: Job) -> None:
    """The object of a run has its ledger's facts, and the members that the page has."""
    done = command.run(job, "--output", "json", "--dead-letter-topic", f"{job.source_topic}-bad")
    assert done.status == 0, done.err
    facts = object_of(done)
    assert_documented("sort", facts)
    record = cluster.ledger(job).last
    assert record is not None
    assert facts == json.loads(json.dumps(sort_facts(job, record)))
    assert {name: facts[name] for name in ("job", "state", "run", "records", "dead_letters", "dead_letter_topic")} == {
        "job": job.name,
        "state": "sorted",
        "run": 1,
        "records": 60,
        "dead_letters": 1,
        "dead_letter_topic": f"{job.source_topic}-bad",
    }
    assert sum(part["records"] for part in facts["outputs"][1]["partitions"]) == 59
    first = min(int(value.split(b",")[0]) for value in sample_values(59))
    assert facts["outputs"][0]["partitions"][0]["first_key"] == [first]


def test_nothing_new(cluster: Cluster, command: Command) -> None:
    """The object then has the same members, and the lines of a collector go to standard error."""
    job = command.job(cluster.make_topic(1))
    done = command.run(job, "--output", "json", environment=COLLECTOR)
    assert done.status == 0, done.err
    facts = object_of(done)
    assert (facts["state"], facts["run"], facts["outputs"]) == ("nothing new", None, [])
    assert facts["source"] == job.source_topic
    assert facts.keys() == {name for name in members_of("sort") if "." not in name}


def test_an_error(command: Command) -> None:
    """A command that fails prints its line on standard error, and no object."""
    done = command.run(command.job("absent-topic"), "--output", "json")
    assert (done.status, done.out) == (2, "")
    assert "there is no topic absent-topic" in done.err


@pytest.mark.slow
@pytest.mark.raises("VerificationError")
def test_a_verification(cluster: Cluster, command: Command, job: Job) -> None:
    """The object has the differences with their places, and comes with status 3; what is equal is status 0."""
    run_once(cluster, job, command.workdir)
    equal = verification_facts(verify_job(job, cluster.connection))
    assert (equal["ok"], equal["runs"][0]["differences"]) == (True, [])
    output = job.sort_list[0].topic
    cluster.delete_topic(output)
    cluster.make_topic(2, name=output)
    cluster.produce(output, sample_values(60, seed=2), 2)
    found = command.run(job, "--output", "json", command="verify")
    assert found.status == 3, found.err
    facts = object_of(found)
    assert_documented("verify", facts)
    (run,) = facts["runs"]
    assert (facts["ok"], run["ok"], run["records"], run["dead_letters"]) == (False, False, 60, 1)
    assert run["differences"][0]["topic"] == output
    assert f"run 1: {output}" in found.err.splitlines()[-1]


@pytest.mark.slow
def test_quiet(cluster: Cluster, command: Command, job: Job) -> None:
    """Sort, stream and verify show warnings alone when all is well, to a collector too; an error is a line."""
    done = command.run(job, "--quiet")
    assert (done.status, done.out) == (0, ""), done.err
    assert all("[warning" in line for line in done.err.splitlines())
    assert "dead letters" in done.err
    cluster.produce(job.source_topic, sample_values(50, seed=2), 2)
    streamed = command.run(job, "--quiet", "--max-batches", "1", command="stream", environment=COLLECTOR)
    assert (streamed.status, streamed.err) == (0, "")
    assert {json.loads(line)["level"] for line in streamed.out.splitlines()} <= {"warning"}
    last = cluster.ledger(job).last
    assert last is not None
    assert last.run == 2
    assert command.run(job, "--quiet", command="verify") == Outcome(0, "", "")
    refused = command.run(command.job("absent-topic"), "--quiet")
    assert (refused.status, refused.out, len(refused.err.splitlines())) == (2, "", 1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "people.csv"
    path.write_bytes(b"id,x\n1,a\n\n2,b,c\n3,d\n")
    return path


def test_a_load(cluster: Cluster, command: Command, file: Path) -> None:
    """The object has what was loaded, and the first record without a key."""
    topic = f"{cluster.make_topic(1)}-new"
    flags = [str(file), "--topic", topic, "--partitions", "2", "--skip-header", "--key", "id"]
    facts = object_of(command.start_flags("load", *flags, "--output", "json").finish())
    assert_documented("load", facts)
    assert (facts["topic"], facts["partitions"], facts["files"]) == (topic, 2, 1)
    assert (facts["records"], facts["empty_lines"], facts["without_key"]) == (3, 1, 1)
    assert f"{file}, line 4" in facts["first_without_key"]


@pytest.mark.slow
def test_quiet_filling(cluster: Cluster, command: Command, file: Path) -> None:
    """Load and generate fill the topic, and show nothing."""
    topic = f"{cluster.make_topic(1)}-new"
    assert command.start_flags("load", str(file), "--topic", topic, "--quiet").finish() == Outcome(0, "", "")
    generated = command.start_flags("generate", "--topic", topic, "--records", "10", "--quiet").finish()
    assert generated == Outcome(0, "", "")
    assert len(cluster.read(topic)) == 4 + 10
