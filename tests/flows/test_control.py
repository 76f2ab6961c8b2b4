"""Control of runs on a real server and worker: cancel, retry, crash, pile-up, and a server that restarts."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kafka_sort.ui import SERVER_SETTINGS
from tasks.generate import generate_records
from tasks.ownership import own_job
from tasks.settings.job import Job
from tests.cluster import Cluster, assert_sorted, sample_values, wait_for
from tests.command import Command
from tests.deployed import ROOT, Deployments, Server
from tests.history import FINAL, History, Run

pytestmark = pytest.mark.slow

# There are so many records that each stage takes seconds.
MANY = 5_000_000
ON_DEMAND, SCHEDULED = "sort-topic/on-demand", "sort-topic/scheduled"


def parameters(job: Job) -> dict[str, Any]:
    return {"job": job.model_dump(mode="json", exclude_unset=True)}


def is_task_running(history: History, run_id: str, name: str) -> bool:
    return any(t["name"].startswith(name) and t["state_type"] == "RUNNING" for t in history.tasks(run_id))


def assert_stopped_in_order(history: History, run_id: str) -> None:
    """Assert that it saw the cancel by itself: a run that Prefect kills does not write the flow's last line."""
    assert history.wait(run_id)["state_type"] == "CANCELLED"
    last = re.compile(r'event="(SIGTERM|cancelled in Prefect): stopped before it was done: ')
    wait_for(lambda: any(last.match(line) for line in history.logs(run_id)))


def test_cancel_while_it_sorts_and_while_it_sends(
    prefect: Deployments, cluster: Cluster, command: Command, history: History
) -> None:
    """A cancel by button or command works while DuckDB sorts and librdkafka sends; the next run reads the same."""
    source = cluster.make_topic()
    generate_records(cluster.connection, source, MANY, 1, 4)
    job = command.job(source)
    sorting = history.create(ON_DEMAND, parameters(job))
    wait_for(lambda: is_task_running(history, sorting, "sort "), 120)
    history.cancel(sorting)
    assert_stopped_in_order(history, sorting)

    sending = history.create(ON_DEMAND, parameters(job))
    wait_for(lambda: is_task_running(history, sending, "publish "), 180)
    prefect("flow-run", "cancel", sending)
    assert_stopped_in_order(history, sending)
    assert cluster.ledger(job).last is None

    # The third state is a retry of the second, requested as soon as it is Cancelled.
    history.retry(sending)
    assert history.wait(sending, lambda run: run["state_type"] == "COMPLETED")["run_count"] == 2
    # Prefect's worker cancelled each once, and does not come back to it.
    for run_id in (sorting, sending):
        assert [state["type"] for state in history.states(run_id)].count("CANCELLED") == 1
    ledger = cluster.ledger(job)
    assert ledger.last is not None
    assert ledger.runs.keys() == {1}
    assert {r.partition: (r.start, r.end) for r in ledger.last.read} == {
        p: (0, e) for p, e in cluster.ends(source).items()
    }
    assert [sum(w.count for w in sort.partitions) for sort in ledger.last.sorts] == [MANY] * 3


def test_retry_after_any_outcome(prefect: Deployments, cluster: Cluster, command: Command, history: History) -> None:
    """One flow run: failed, retried and done, retried with nothing new, and again with more to do."""
    source = f"t-later-{command.workdir.parent.name}"
    job = command.job(source)
    run_id = history.create(ON_DEMAND, parameters(job))
    failed = history.wait(run_id)
    assert failed["state_name"] == "Failed"
    assert failed["state"]["message"].startswith(f"there is no topic {source}: ")

    cluster.make_topic(name=source)
    cluster.produce(source, sample_values(1000))
    assert retry(prefect, history, run_id, 2)["state_name"] == "Completed"
    assert_sorted(cluster, job)

    assert retry(prefect, history, run_id, 3)["state"]["message"] == "nothing new"
    assert_sorted(cluster, job)

    cluster.produce(source, sample_values(500, seed=2))
    assert retry(prefect, history, run_id, 4)["state_name"] == "Completed"
    assert_sorted(cluster, job, runs=2)


def test_retry_without_a_deployment(prefect: Deployments, cluster: Cluster, command: Command, history: History) -> None:
    """A command's run that failed within its transaction is retried where its code is, with its parameters."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(1000))
    job = command.job(source, retries=0)
    assert command.run(job, failpoint="after-publish-batch=raise").status == 1
    (failed,) = history.runs(source)
    assert failed["state"]["message"] == "failpoint after-publish-batch"
    prefect("flow-run", "retry", failed["id"], "--entrypoint", "flows/sort_topic.py:sort_topic")
    again = history.run(failed["id"])
    assert (again["state_name"], again["run_count"]) == ("Completed", 2)
    assert_sorted(cluster, job)


def retry(prefect: Deployments, history: History, run_id: str, attempt: int) -> Run:
    prefect("flow-run", "retry", run_id)
    return history.wait(run_id, lambda run: run["run_count"] == attempt and run["state_type"] in FINAL)


@contextmanager
def automation(prefect: Deployments, name: str, folder: Path) -> Iterator[None]:
    """Return a shipped automation as it is, except for its waiting time."""
    text = (ROOT / "deploy" / "automations" / f"{name}.yaml").read_text()
    shorter = re.sub(r"^  within: \d+$", "  within: 12", text, flags=re.MULTILINE)
    assert shorter != text
    file = folder / f"{name}.yaml"
    file.write_text(shorter)
    prefect("automation", "create", "--from-file", str(file))
    title = re.search(r'^name: "(.*)"$', text, re.MULTILINE)
    assert title
    yield
    prefect("automation", "delete", title.group(1))


def test_a_worker_is_killed(
    prefect: Deployments, cluster: Cluster, command: Command, history: History, tmp_path: Path
) -> None:
    """The run is found Crashed, late runs do not pile up, and the limited deployment's next run does all."""
    source = cluster.make_topic()
    job = command.job(source, session_timeout=100.0)
    cluster.produce(source, sample_values(100))
    assert command.run(job, "--max-records", "50").status == 0
    with automation(prefect, "silent-runs", tmp_path), own_job(job, cluster.connection):
        silent = history.create(SCHEDULED, parameters(job))
        history.wait(silent, lambda run: run["state_type"] == "RUNNING")
        # Its process is there, and waits for the lease, which this test holds.
        wait_for(lambda: len(history.runs(source)) == 2, 120)
        killed, worker = prefect.kill_worker()
        assert (killed > 0, worker) == (True, -9)
        crashed = history.wait(silent)
    assert crashed["state_type"] == "CRASHED"
    assert crashed["state"]["message"].startswith("silent for 90 s")

    with automation(prefect, "late-runs", tmp_path):
        late = [history.create(SCHEDULED, parameters(job)) for _ in range(2)]
        by_hand = history.create(ON_DEMAND, parameters(job))
        assert {history.wait(run)["state_type"] for run in late} == {"CANCELLED"}
        assert any(state["name"] == "Late" for state in history.states(late[0]))
        assert history.run(by_hand)["state_type"] == "SCHEDULED"
    history.cancel(by_hand)

    prefect.start_worker()
    following = history.create(SCHEDULED, parameters(job))
    assert history.wait(following)["state_type"] == "COMPLETED"
    assert_sorted(cluster, job, runs=2)
    # A crashed run may be retried, too.
    assert retry(prefect, history, silent, 2)["state"]["message"] == "nothing new"


def test_the_server_restarts(cluster: Cluster, command: Command, tmp_path: Path) -> None:
    """A run of a limited deployment goes on, and keeps its place: the leases outlive the server, by our setting."""
    source = cluster.make_topic()
    job = command.job(source, session_timeout=200.0)
    cluster.produce(source, sample_values(100))
    assert command.run(job, "--max-records", "50").status == 0
    server = Server(tmp_path, SERVER_SETTINGS)
    deployments = Deployments(cluster.bootstrap_servers, tmp_path, server.environment)
    server.start()
    try:
        history = History(server.api)
        deployments.deploy()
        deployments.start_worker()
        with own_job(job, cluster.connection):
            run_id = history.create(SCHEDULED, parameters(job))
            wait_for(lambda: len(history.runs(source)) == 1, 120)
            server.stop()
            server.start()
            lease = history.run(run_id)["state"]["state_details"]["deployment_concurrency_lease_id"]
            # The request that the run repeats every few minutes; it ends if that is refused.
            history.renew(lease)
            # Its slot is taken.
            second = history.wait(history.create(SCHEDULED, parameters(job)))
            assert second["state_type"] == "CANCELLED"
            assert all(state["type"] != "RUNNING" for state in history.states(second["id"]))
        assert history.wait(run_id)["state_type"] == "COMPLETED"
    finally:
        deployments.stop_worker()
        server.stop()
    assert_sorted(cluster, job, runs=2)
