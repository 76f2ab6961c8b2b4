"""`kafka-sort sort --dry-run` as a user runs it; and its estimates beside what real runs take."""

import json
import re
from typing import Any

import pytest

from tasks.kafka.topics import describe_topic
from tasks.settings.job import Job
from tests.cluster import Cluster, sample_values
from tests.command import Command
from tests.documents import assert_documented

# What the issue of this feature asks for.
FACTOR = 1.5


def dry_run(command: Command, job: Job, *flags: str) -> dict[str, Any]:
    """Return the object that the command prints, and nothing besides."""
    outcome = command.run(job, "--dry-run", "--output", "json", *flags)
    assert outcome.status == 0, outcome.err
    (line,) = outcome.out.splitlines()
    facts: dict[str, Any] = json.loads(line)
    return facts


def test_a_dry_run_for_a_person(cluster: Cluster, command: Command) -> None:
    """The tables have what the run would read, take and write, and why it stops where it does."""
    source = cluster.make_topic(2)
    cluster.produce(source, sample_values(100), 2)
    job = command.job(source, max_records=40, end="9999-12-31")
    outcome = command.run(job, "--dry-run")
    assert outcome.status == 0, outcome.err
    assert f"{source} run 1 would read 40 offsets of {source} before 9999-12-31; nothing was changed" in outcome.out
    for words in (
        "rough: no run of the job tells",
        "capped by",
        "max_records: 3 runs for all",
        "type of id",
        "about 40,",
    ):
        assert words in outcome.out
    assert describe_topic(cluster.admin, job.ledger) is None
    assert "flow run" not in outcome.err


def test_a_dry_run_for_a_script(cluster: Cluster, command: Command) -> None:
    """The object has what docs/output.md says; each of its names is on that page, and the other way round."""
    source = cluster.make_topic(2)
    cluster.produce(source, [*sample_values(100), b"no row"], 2)
    job = command.job(source)
    facts = dry_run(command, job)
    assert (facts["job"], facts["run"], facts["state"], facts["owner"]) == (source, 1, "planned", None)
    assert facts["ranges"] == [{"partition": 0, "start": 0, "end": 51}, {"partition": 1, "start": 0, "end": 50}]
    assert (facts["estimates"]["records"], facts["estimates"]["dead_letters"]) == (101, 1)
    assert [output["topic"] for output in facts["outputs"]] == [sort.topic for sort in job.sort_list]
    assert sum(partition["records"] for partition in facts["outputs"][0]["partitions"]) == 100
    assert set(facts["creates"]) == {job.ledger, job.dead_letters, *(sort.topic for sort in job.sort_list)}
    assert_documented("sort --dry-run", facts)


@pytest.mark.slow
def test_a_dry_run_that_is_refused(cluster: Cluster, command: Command) -> None:
    """What a run refuses is refused in the same way: one line, exit 2, nothing on standard output."""
    source = cluster.make_topic(1)
    cluster.produce(source, [b"{}"] * 10, 1)
    job = command.job(source)
    planned, refused = command.run(job, "--dry-run"), command.run(job)
    assert (planned.status, planned.out) == (2, "")
    assert planned.err.splitlines()[-1] == refused.err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("records", [1_000_000, 10_000_000])
def test_estimates_beside_real_runs(cluster: Cluster, command: Command, records: int) -> None:
    """Records, bytes, disk and memory are within a factor of 1.5, and the time as well once a run of the job is there.

    A machine that is busy with something else meanwhile makes one run slow, so the time has three attempts.
    """
    source = cluster.make_topic(4)
    job = command.job(source)
    fill(command, source, records, 1)
    facts = dry_run(command, job)["estimates"]
    assert facts["seconds_are_rough"]
    taken = sort(command, job)
    assert near(facts["records"], records)
    assert near(facts["record_bytes"], records * 51)
    assert near(facts["disk_bytes"], taken["disk_mb"] * 1e6)
    assert near(facts["memory_bytes"], taken["peak_memory_mb"] * 1e6)
    for attempt in (2, 3, 4):
        fill(command, source, records, attempt)
        facts = dry_run(command, job)["estimates"]
        assert not facts["seconds_are_rough"]
        taken = sort(command, job)
        if near(facts["seconds"], taken["dump"] + taken["sort"] + taken["publish"]):
            return
    pytest.fail("the time was never within the factor")


@pytest.mark.slow
def test_disk_of_a_run_that_does_not_fit_its_memory(cluster: Cluster, command: Command) -> None:
    """Each sort then has parts of its own, and the estimate knows; the bound that is checked is above both."""
    source = cluster.make_topic(4)
    job = command.job(source, memory_limit="768MB")
    fill(command, source, 4_000_000, 1)
    facts = dry_run(command, job)
    taken = sort(command, job)
    assert near(facts["estimates"]["disk_bytes"], taken["disk_mb"] * 1e6)
    assert near(facts["estimates"]["memory_bytes"], taken["peak_memory_mb"] * 1e6)
    assert taken["disk_mb"] * 1e6 < facts["limits"]["disk_bytes"]
    assert taken["disk_mb"] * 1e6 > 4_000_000 * 150


def fill(command: Command, topic: str, records: int, seed: int) -> None:
    made = command.start_flags("generate", "--topic", topic, "--records", str(records), "--seed", str(seed)).finish()
    assert made.status == 0, made.err


def sort(command: Command, job: Job) -> dict[str, float]:
    """Make a run, and return the numbers of its last log line."""
    done = command.start(job).finish(600)
    assert done.status == 0, done.err
    line = next(line for line in done.err.splitlines() if " committed " in line)
    return {name: float(value) for name, value in re.findall(r"(\w+)=([\d.]+)(?=\s|$)", line)}


def near(estimate: float, real: float) -> bool:
    return real / FACTOR <= estimate <= real * FACTOR
