"""Prefect's pages of a run: name, tags, states, artifacts, events; and how a run without a deployment ends."""

import signal
from typing import Any

import pytest

from tests.cluster import Cluster, assert_sorted, sample_values, wait_for
from tests.command import Command
from tests.history import History
from tests.stages import owned


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"].removeprefix("kafka-sort.run.") for event in events]


@pytest.mark.slow
def test_the_history_says_what_happened(cluster: Cluster, command: Command, history: History) -> None:
    """A run with dead letters, one with nothing new, and one that fails can be told apart at a glance."""
    source = cluster.make_topic()
    job = command.job(source)
    columns = ",".join(sort.columns for sort in job.sort_list)
    cluster.produce(source, [*sample_values(1500), b"no row"])
    assert command.run(job).status == 0
    assert "nothing new" in command.run(job).out
    refused = command.run(job, "--delimiter", ";")
    assert refused.status == 2

    done, idle, failed = history.runs(source)
    assert done["name"] == f"{source} · {columns} · 1,501 records · run 1"
    assert idle["name"] == f"{source} · {columns} · nothing new"
    assert failed["name"] == f"{source} · {columns}"
    assert set(done["tags"]) == {"kafka-sort", f"job:{source}"}
    wait_for(lambda: len(history.tasks(done["id"])) >= 5)
    # Each tag of a task would be a question to the server before the task starts.
    assert [task["tags"] for task in history.tasks(done["id"]) if task["tags"]] == []
    assert (done["state_name"], idle["state_name"], failed["state_name"]) == ("Completed", "Completed", "Failed")
    assert f"run 1: 1,501 records of {source}" in done["state"]["message"]
    assert f"1 dead letters in {job.dead_letters}" in done["state"]["message"]
    assert idle["state"]["message"] == "nothing new"
    assert f"kafka-sort: {failed['state']['message']}" == refused.err.splitlines()[-1]

    artifacts = history.artifacts(done["id"])
    plan, summary = artifacts[f"plan-{source}"]["data"], artifacts[f"summary-{source}"]["data"]
    assert f"| 0 | 0 | {cluster.ends(source)[0]} |" in plan
    assert f"| id | {job.sort_list[0].topic} |" in plan
    assert f"| {job.sort_list[2].topic} | 3 |" in summary
    assert "█" in summary

    wait_for(lambda: len(history.events(source)) >= 4)
    events = history.events(source)
    assert kinds(events) == ["completed", "dead-letters", "nothing-new", "failed"]
    assert events[0]["payload"].items() >= {"run": 1, "records": 1501, "dead_letters": 1}.items()
    assert {"prefect.flow-run." + done["id"]} <= {r["prefect.resource.id"] for r in events[0]["related"]}


@pytest.mark.slow
def test_stopped_while_it_waits_to_try_again(cluster: Cluster, command: Command, history: History) -> None:
    """A run hears a stop during the delay before a retry, which is ten minutes here."""
    source = cluster.make_topic()
    job = command.job(source, retry_delay=600.0)
    cluster.produce(source, sample_values(100))
    running = command.start(job, failpoint="before-snapshot=raise")
    wait_for(lambda: "retrying" in running.err, 60)
    running.send(signal.SIGTERM)
    outcome = running.finish(30)
    assert outcome.status == 128 + signal.SIGTERM, outcome.err
    assert outcome.err.splitlines()[-1].startswith("kafka-sort: SIGTERM: stopped before it was done")
    (run,) = history.runs(source)
    assert run["state_type"] == "CRASHED"
    assert f"kafka-sort: {run['state']['message']}" == outcome.err.splitlines()[-1]
    wait_for(lambda: kinds(history.events(source)) == ["stopped"])
    assert command.run(job).status == 0
    assert_sorted(cluster, job)


@pytest.mark.raises("CancelledError")
@pytest.mark.slow
@pytest.mark.parametrize("runner", ["none", "gone"])
def test_cancelled_without_a_runner(cluster: Cluster, command: Command, history: History, runner: str) -> None:
    """A run without a worker, or with one that is gone, gets no help from Prefect with a cancel from its pages.

    The run notices the cancel by itself, and ends.
    """
    source = cluster.make_topic()
    job = command.job(source, session_timeout=60.0)
    cluster.produce(source, sample_values(100))
    with owned(cluster, job):
        # By this variable Prefect's engine knows that a runner started it, and gives the run its state.
        started_by_runner = {"PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false"}
        running = command.start(job, environment=started_by_runner if runner == "gone" else None)
        wait_for(lambda: len(history.runs(source)) == 1, 60)
        (run,) = history.runs(source)
        history.cancel(run["id"])
        outcome = running.finish(90)
    assert outcome.status == 1, outcome.err
    assert outcome.err.splitlines()[-1].startswith("kafka-sort: cancelled in Prefect: stopped before it was done")
    run = history.run(run["id"])
    assert run["state_type"] == "CANCELLED"
    assert run["state"]["message"] in outcome.err
    wait_for(lambda: kinds(history.events(source)) == ["cancelled"])
    assert command.run(job).status == 0
    assert_sorted(cluster, job)


@pytest.mark.slow
@pytest.mark.raises("RunTimeoutError")
def test_run_timeout(cluster: Cluster, command: Command, history: History) -> None:
    """A run that takes longer than its timeout ends as Prefect's users know it, TimedOut, and publishes nothing."""
    source = cluster.make_topic()
    job = command.job(source, session_timeout=60.0, run_timeout=3.0)
    cluster.produce(source, sample_values(100))
    with owned(cluster, job):
        outcome = command.run(job)
    assert outcome.status == 1, outcome.err
    assert "longer than the run timeout of 3 s" in outcome.err.splitlines()[-1]
    assert history.runs(source)[-1]["state_name"] == "TimedOut"
    assert command.run(job, "--run-timeout", "600").status == 0
    assert_sorted(cluster, job)
