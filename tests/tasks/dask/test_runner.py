"""The runner of workers of Dask, on two workers in this process that speak TCP as any others."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cloudpickle
import pytest
from distributed import Client, LocalCluster
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import PREFECT_API_KEY, PREFECT_API_URL, temporary_settings

from tasks.dask import orders
from tasks.dask.orders import INHERITED, bequeath
from tasks.dask.runner import DaskRunner, WorkersLostError, divide_work, open_runner
from tasks.dump import DUMP, DumpRequest
from tasks.errors import SourceLostError, StoppedError, TransientError
from tasks.kafka.same_cluster import OtherClusterError
from tasks.kafka.topics import cluster_id, describe_topic
from tasks.manifests import Dumped, LostRange, OffsetRange
from tasks.observe.metrics import RunMetrics, use_metrics
from tasks.run_context import RunContext, Stop, WorkerUse, current_run, run_context
from tasks.settings.budget import peak_memory_bytes
from tasks.settings.connection import Connection, current_connection
from tasks.settings.job import Job
from tests.cluster import Cluster, sample_values, wait_for

RECORDS = 400


@pytest.fixture(scope="module")
def scheduler() -> Iterator[LocalCluster]:
    """Two workers; what a test puts into this process is theirs as well."""
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        protocol="tcp://",
        host="127.0.0.1",
        dashboard_address=None,
        memory_limit=0,
        silence_logs=logging.CRITICAL,
    ) as running:
        yield running


def part_of(cluster: LocalCluster) -> Any:
    """The scheduler itself."""
    return cluster.scheduler


@dataclass
class Here:
    """A source with records, and the runner of a job over it."""

    cluster: Cluster
    job: Job
    connection: Connection
    folder: Path
    stop: Stop = field(default_factory=Stop)

    def requests(self, topic_id: str | None = None) -> list[DumpRequest]:
        topic = describe_topic(self.cluster.admin, self.job.source_topic)
        assert topic is not None
        ends = self.cluster.ends(self.job.source_topic)
        return [DumpRequest(self.job, 1, topic_id or topic.id, OffsetRange(p, 0, ends[p]), self.folder) for p in ends]

    def dump(self, requests: list[DumpRequest] | None = None) -> list[Dumped]:
        with open_runner(self.job, self.connection, self.stop) as runner:
            return runner.run(DUMP, self.requests() if requests is None else requests)


@pytest.fixture
def here(cluster: Cluster, scheduler: LocalCluster, prefect_server: str, tmp_path: Path) -> Iterator[Here]:
    source = cluster.make_topic(2)
    cluster.produce(source, [*sample_values(RECORDS - 1), b"no row"], 2)
    folder = tmp_path / "attempt"
    folder.mkdir()
    job = Job(
        source_topic=source,
        workdir=tmp_path,
        runner="dask",
        scheduler=scheduler.scheduler_address,
        retry_delay=0.05,
        memory_limit="4GB",
    )
    with run_context() as context, temporary_settings({PREFECT_API_URL: prefect_server}):
        context.progress.meter("dump", RECORDS)
        yield Here(cluster, job, Connection(cluster.bootstrap_servers), folder, context.stop)


def test_ranges_are_read_by_workers(here: Here) -> None:
    """Chunks, counts, seconds, progress and what workers took come back, in the order of the requests."""
    requests, metrics = here.requests(), RunMetrics("j")
    with use_metrics(metrics):
        dumped = here.dump(requests)
    use = current_run().progress.meter("dump").use
    assert use is not None
    assert (use.workers, use.tasks, use.done, use.left, use.run_again) == (2, 2, 2, 0, 0)
    assert use.after(WorkerUse(3, 4, 4, 1, 0.5, 7)) == WorkerUse(3, 6, 6, 1, use.cpu_seconds + 0.5, use.memory_bytes)
    assert use.cpu_seconds > 0
    # That of this process, as the workers are in it.
    assert 100_000_000 < use.memory_bytes <= peak_memory_bytes()
    for name, value in (("tasks", 2.0), ("worker_cpu_seconds_total", use.cpu_seconds)):
        labels = {"job": "j", "stage": "dump"} | ({"state": "done"} if name == "tasks" else {})
        assert metrics.registry.get_sample_value(f"kafka_sort_{name}", labels) == value
    assert [d.range for d in dumped] == [r.range for r in requests]
    assert sum(d.records for d in dumped) == RECORDS - 1
    assert sum(d.dead_letters for d in dumped) == 1
    assert all(d.seconds > 0 and all(c.path is None or c.path.exists() for c in d.chunks) for d in dumped)
    assert current_run().progress.meter("dump").done == RECORDS


def test_a_result_that_came_is_forgotten(here: Here, scheduler: LocalCluster) -> None:
    """While others still work, a worker that ends takes no result with it that Dask would compute again."""
    held, turns = Held(), iter(["first"])

    def hold_second(name: str) -> None:
        if name == "before-dump-chunk" and next(turns, None) is None:
            held(name)

    with patch("tasks.dump.reach", hold_second), run_in_thread(here):
        wait_for(lambda: len(held.contexts) == 1)
        wait_for(lambda: len(part_of(scheduler).tasks) == 1)


@pytest.mark.slow
def test_chunks_of_a_former_execution_are_found(here: Here) -> None:
    """A task that is run again takes the chunks that its lost worker had finished."""
    first = here.dump()
    with patch("tasks.dump._dump_chunk", side_effect=AssertionError):
        assert [(d.range, d.chunks) for d in here.dump()] == [(d.range, d.chunks) for d in first]


def test_the_driver_s_own_class_of_error(here: Here) -> None:
    """An error of a task is the same error in the driver, with its facts."""
    lost = SourceLostError("s", [LostRange(0, 1, 2)])
    with patch("tasks.dump._dump_chunk", side_effect=lost), pytest.raises(SourceLostError) as caught:
        here.dump()
    assert caught.value.lost == lost.lost


@pytest.mark.slow
def test_transient_errors_are_retried_and_counted(here: Here) -> None:
    """A worker tries a task again by the job's policy; the run's metrics count that."""
    failures = iter([TransientError("at first")])
    metrics = RunMetrics("j")

    def fail_once(name: str) -> None:
        if name == "before-dump" and (error := next(failures, None)) is not None:
            raise error

    with use_metrics(metrics), patch("tasks.dump.reach", fail_once):
        dumped = here.dump()
    assert sum(d.records for d in dumped) == RECORDS - 1
    assert (
        metrics.registry.get_sample_value("kafka_sort_task_retries_total", {"job": "j", "task": "dump_partition"}) == 1
    )


class Held:
    """Holds each dump until the run stops."""

    def __init__(self) -> None:
        self.contexts: list[RunContext] = []
        self.ended = threading.Semaphore(0)

    def __call__(self, name: str) -> None:
        if name != "before-dump-chunk":
            return
        self.contexts.append(current_run())
        current_run().progress.meter("dump").add(7)
        try:
            while True:
                current_run().stop.wait(0.05)
        finally:
            self.ended.release()


def test_a_stop_reaches_workers(here: Here) -> None:
    """The run's stop ends tasks under way, and is what the driver raises. Their progress was shown until then."""
    with patch("tasks.dump.reach", Held()) as held, run_in_thread(here) as run:
        wait_for(lambda: len(held.contexts) == 2)
        # 7 of each task: it is told before the tasks end.
        wait_for(lambda: run.meter.done == 14)
        here.stop.ask(StoppedError("SIGTERM", 15))
        run.thread.join(30)
        assert not run.thread.is_alive()
    assert all(held.ended.acquire(timeout=1) for _ in range(2))
    assert isinstance(run.error, StoppedError)
    assert run.error.exit_code == 143


@pytest.mark.slow
def test_a_stop_that_a_task_does_not_see(here: Here) -> None:
    """A worker that is frozen does not keep a stopped run from its end."""
    woken, frozen = threading.Event(), threading.Semaphore(0)

    def freeze(name: str) -> None:
        if name == "before-dump-chunk":
            frozen.release()
            assert woken.wait(60)

    with patch("tasks.dump.reach", freeze), patch("tasks.dask.runner._END_SECONDS", 0.5), run_in_thread(here) as run:
        assert all(frozen.acquire(timeout=30) for _ in range(2))
        here.stop.ask(StoppedError("SIGTERM", 15))
        run.thread.join(30)
        assert not run.thread.is_alive()
        woken.set()
    assert isinstance(run.error, StoppedError)


@pytest.mark.slow
def test_a_failure_stops_the_others(here: Here) -> None:
    """The first error ends the stage, after the other tasks have ended: nobody writes into the folder any more."""
    held = Held()

    def fail_one(name: str) -> None:
        if name == "before-dump" and not held.contexts:
            held.contexts.append(current_run())
            wait_for(lambda: len(held.contexts) == 2)
            raise SourceLostError("s", [LostRange(0, 1, 2)])
        held(name)

    with patch("tasks.dump.reach", fail_one), pytest.raises(SourceLostError):
        here.dump()
    assert held.ended.acquire(timeout=0)


@dataclass
class Run:
    thread: threading.Thread
    meter: Any
    error: BaseException | None = None


@contextmanager
def run_in_thread(here: Here) -> Iterator[Run]:
    """Dump in a thread, with the context of the test."""

    def dump() -> None:
        try:
            here.dump()
        except Exception as error:  # noqa: BLE001  # the test looks at it
            run.error = error

    run = Run(threading.Thread(target=copy_context().run, args=(dump,)), current_run().progress.meter("dump"))
    run.thread.start()
    try:
        yield run
    finally:
        here.stop.set()
        run.thread.join(60)


@pytest.mark.slow
def test_a_task_sees_the_end_of_its_driver(here: Here, scheduler: LocalCluster) -> None:
    """A task whose driver is gone, and says nothing, stops: nobody waits for it, and its folder will be removed."""
    silent = patch.object(DaskRunner, "_telling_stop", lambda *_: nullcontext())
    with silent, patch("tasks.dump.reach", Held()) as held, run_in_thread(here) as run:
        wait_for(lambda: len(held.contexts) == 2)
        (client,) = (name for name in part_of(scheduler).clients if f"kafka-sort-{here.job.name}" in name)
        part_of(scheduler).loop.add_callback(part_of(scheduler).remove_client, client)
        assert all(held.ended.acquire(timeout=10) for _ in range(2))
    assert isinstance(run.error, WorkersLostError | StoppedError)


def test_another_cluster_is_not_read(here: Here) -> None:
    """A worker whose environment leads to another cluster reads nothing of it."""
    with (
        patch("tasks.dask.runner.cluster_id", lambda _: "another"),
        patch("tasks.dump._dump_chunk", side_effect=AssertionError),
        pytest.raises(OtherClusterError, match=r"the cluster .*, and the run reads another: nothing was read"),
    ):
        here.dump()


def test_another_topic_of_the_name_is_not_read(here: Here) -> None:
    """A topic that was recreated since the snapshot is not read."""
    with pytest.raises(OtherClusterError, match=r"has the id .*, and the run knows the one with the id former"):
        here.dump(here.requests("former"))


@pytest.mark.slow
def test_a_worker_connects_by_the_profile(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that has a name is loaded by the worker, by that name; its properties are not sent."""
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    (profiles / "here.properties").write_text(f"bootstrap.servers={here.cluster.bootstrap_servers}\n")
    monkeypatch.setenv("KAFKA_SORT_PROFILES", str(profiles))
    known = cluster_id(here.cluster.admin)
    here.connection = Connection("127.0.0.1:1", profile="here")
    with patch("tasks.dask.runner.cluster_id", lambda _: known):
        assert sum(d.records for d in here.dump()) == RECORDS - 1


def record_sent(monkeypatch: pytest.MonkeyPatch, sent: list[bytes]) -> None:
    """Keep what is sent to workers."""
    submit = Client.submit

    def record(self: Any, *arguments: Any, **named: Any) -> Any:
        sent.append(cloudpickle.dumps((arguments, named)))
        return submit(self, *arguments, **named)

    monkeypatch.setattr("distributed.Client.submit", record)


def test_no_secret_is_sent(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """An order to a worker holds neither Kafka's passwords nor Prefect's key."""
    sent: list[bytes] = []
    record_sent(monkeypatch, sent)
    here.connection = Connection(here.cluster.bootstrap_servers, {"sasl.password": "s3cr3t-kafka"})
    with temporary_settings({PREFECT_API_KEY: "s3cr3t-prefect"}):
        here.dump()
    assert len(sent) == 2
    assert not any(b"s3cr3t" in data for data in sent)
    assert all(here.job.source_topic.encode() in data for data in sent)


def test_no_module_is_sent_that_workers_do_not_know(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flow that a deployment loaded from its file is in a module of this process alone, and stays there."""
    sent: list[bytes] = []
    (tmp_path / "deployed_here.py").write_text("from prefect import flow\n@flow\ndef dump():\n    work()\n")
    dump: Any = load_flow_from_entrypoint(f"{tmp_path}/deployed_here.py:dump")
    assert dump.fn.__module__ == "deployed_here"
    dump.fn.__globals__["work"] = here.dump
    record_sent(monkeypatch, sent)
    dump()
    assert len(sent) == 2
    assert not any(b"deployed_here" in data for data in sent)


@pytest.mark.slow
def test_workers_of_this_machine_inherit_the_connection(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags of a command reach workers that it starts, by their environment, with all properties."""
    own = Connection(here.cluster.bootstrap_servers, {"client.id": "inherited"}, {"bearer.auth.token": "t"})
    monkeypatch.setenv(INHERITED, bequeath(own)[INHERITED])
    here.connection = Connection("127.0.0.1:1")
    seen: list[Connection] = []

    def note() -> Connection:
        seen.append(current_connection())
        return seen[-1]

    with (
        patch("tasks.dask.runner.cluster_id", lambda _: "another"),
        patch.object(orders, "current_connection", note),
        pytest.raises(OtherClusterError),
    ):
        here.dump()
    assert (seen[0], seen[0].registry) == (own, own.registry)


def test_chunks_are_private(here: Here) -> None:
    """Files of a worker are its user's alone, whatever the umask it was started with."""
    former = os.umask(0o022)
    try:
        dumped = here.dump()
    finally:
        os.umask(former)
    paths = [c.path for d in dumped for c in d.chunks if c.path is not None]
    assert paths
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o600}


@pytest.mark.parametrize(("requests", "tasks"), [(1, 1), (1000, 1000), (1001, 501), (10_000, 1000)])
def test_tasks_are_bounded(requests: int, tasks: int) -> None:
    """A topic of very many partitions has some thousand tasks at most, in order and whole."""
    shares = list(divide_work(list(range(requests))))  # type: ignore[type-var]
    assert len(shares) == tasks
    assert [number for share in shares for number in share] == list(range(requests))
