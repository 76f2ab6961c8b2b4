"""The runner of a run on workers of Dask: dump, sort and publishers there, snapshot and commit in this process.

Guarantee 2 (all or nothing, exactly once) needs nothing of Dask: it may run a task twice or lose it. Tasks write files
that appear by rename, and lease, fence, ledger and transaction stay in this process.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import structlog
from prefect import Task

from tasks.dask.cluster import Workers, count_local, local_workers, shared_workers
from tasks.dask.orders import TOPIC, Order
from tasks.dask.publishers import DaskEngine
from tasks.dask.remote import work_on_worker
from tasks.dask.submission import submit
from tasks.errors import StoppedError, TransientError
from tasks.kafka.clients import make_admin
from tasks.kafka.topics import cluster_id
from tasks.manifests import Location, Snapshot
from tasks.observe.logs import get_logger, show_line
from tasks.observe.metrics import current_metrics
from tasks.ownership import Owner
from tasks.publication import Publication
from tasks.publish import publish_and_commit
from tasks.publishers.crew import SeveralPublishers
from tasks.run import Runner
from tasks.run_context import Meter, Stop, WorkerUse, current_run
from tasks.run_record import RunRecord
from tasks.runners import PrefectRunner
from tasks.settings.budget import job_of_workers
from tasks.settings.connection import Connection
from tasks.settings.job import Job
from tasks.snapshot import BatchLimits
from tasks.stage import Capacity, Q, R, Stage
from tasks.task_runs import with_retries

if TYPE_CHECKING:
    from prefect_dask.client import PrefectDaskClient
    from prefect_dask.task_runners import PrefectDaskFuture

# How long a stopped run waits for tasks that still write, before it removes their files.
_END_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.1
# Dask and Prefect take 0.12 s for a task, whatever it does.
_MOST_TASKS: Final = 1000


class WorkersLostError(TransientError):
    """Dask lost its scheduler, or so many workers of one task that it gave the task up."""

    action = (
        "Look why workers end: the system's log says which process it killed for memory. Then start again; what was "
        "committed stays."
    )


@contextmanager
def open_runner(job: Job, connection: Connection, stop: Stop) -> Iterator[Runner]:
    """Open the runner that the job asks for; with a scheduler's address its workers are checked now."""
    if job.runner == "threads":
        yield PrefectRunner(job, stop)
        return
    with ExitStack() as stack:
        workers = None if job.scheduler is None else stack.enter_context(shared_workers(job, job.scheduler))
        runner = DaskRunner(job, connection, stop, workers)
        stack.callback(runner.close)
        yield runner


class DaskRunner:
    """Runs dump and sort as Prefect tasks on workers, one a partition or a sort, and the other stages in this process.

    Without a scheduler it starts workers on this machine, once there is work, and ends them before it publishes, unless
    there are several publishers, which are tasks on them.
    """

    def __init__(self, job: Job, connection: Connection, stop: Stop, workers: Workers | None = None) -> None:
        self._job = job
        self._connection = connection
        self._stop = stop
        self._workers = workers
        self._own = ExitStack()
        self._here = PrefectRunner(job, stop)
        self._run = f"kafka-sort-{uuid4().hex}"

    def snapshot(self, owner: Owner, limits: BatchLimits | None) -> Snapshot:
        """Run it as one task of this process."""
        return self._here.snapshot(owner, limits)

    def capacity(self, job: Job) -> Capacity:
        """Return the workers there are or will be, which divide the limits of their machines."""
        if self._workers is not None:
            return Capacity(self._workers.count, job_of_workers(job, self._workers.per_machine))
        count = count_local(job)
        return Capacity(count, job_of_workers(job, count))

    def run(self, stage: Stage[Q, R], requests: Sequence[Q]) -> list[R]:
        """Run one task for each request on the workers, or for several of very many."""
        return self._run_each(stage, requests) if requests else []

    def publish(self, owner: Owner, publication: Publication) -> RunRecord:
        """Run it as one task of this process, which has the machine's memory by then; publishers work on workers."""
        count = publication.snapshot.publishers
        if count == 1 or self._workers is None:
            self.close()
            return self._here.publish(owner, publication)
        engine = DaskEngine(self._workers, self._order(self._job.workdir))
        publish = with_retries(publish_and_commit, self._job)
        return publish(owner, publication, SeveralPublishers(engine, count))

    def close(self) -> None:
        """End the workers that this runner started."""
        self._own.close()

    def _run_each(self, stage: Stage[Any, R], requests: Sequence[Any]) -> list[R]:
        workers = self._started(requests[0].folder)
        order = self._order(requests[0].job.workdir)
        work = []
        for number, share in enumerate(divide_work(requests)):
            given = tuple(replace(r, job=job_of_workers(r.job, workers.per_machine)) for r in share)
            more = f" and {len(share) - 1} more" if len(share) > 1 else ""
            work.append((given, replace(order, number=number, name=f"{share[0].title}{more}")))
        task = with_retries(work_on_worker.with_options(name=stage.task.name), self._job, order.taken_up)
        meter = current_run().progress.meter(stage.meter)
        tasks = Tasks(workers.client, task, stage.name, meter)
        with self._telling_stop(workers):
            results = [done for share in tasks.run(work, self._stop) for done in share]
        # A last report may be late.
        meter.add(meter.total - meter.done)
        return results

    def _started(self, folder: Path) -> Workers:
        if self._workers is None:
            self._workers = self._own.enter_context(local_workers(self._job, self._connection, folder))
        return self._workers

    def _order(self, workdir: Location) -> Order:
        return Order(
            run=self._run,
            name="",
            number=0,
            cluster_id=cluster_id(make_admin(self._connection)),
            bootstrap_servers=self._connection.bootstrap_servers,
            profile=self._connection.profile,
            consequence=self._stop.consequence,
            workdir=workdir,
            fields=structlog.contextvars.get_contextvars(),
        )

    @contextmanager
    def _telling_stop(self, workers: Workers) -> Iterator[None]:
        """Set the run's event at the scheduler if the run is to stop while the block runs."""
        import distributed

        event = distributed.Event(self._run, client=workers.client)

        def tell() -> None:
            # The thread that stops a run waits for nothing, and a scheduler may be gone.
            threading.Thread(target=event.set, daemon=True).start()

        with self._stop.interrupting(tell):
            yield


def divide_work(requests: Sequence[Q]) -> Iterator[Sequence[Q]]:
    """Divide the requests of a stage into those of each task: one, or consecutive ones if there are very many."""
    size = -(-len(requests) // _MOST_TASKS)
    return (requests[start : start + size] for start in range(0, len(requests), size))


@dataclass
class Tasks:
    """The task runs of one stage on the workers, and what they report meanwhile."""

    client: "PrefectDaskClient"
    task: Task[..., Any]
    stage: str
    meter: Meter
    use: WorkerUse = field(default_factory=WorkerUse)
    _news: "SimpleQueue[Any]" = field(default_factory=SimpleQueue)
    _done: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    _places: dict[int, str] = field(default_factory=dict)
    _cpu: dict[tuple[int, str], float] = field(default_factory=dict)
    _ends: float | None = None

    def run(self, work: Sequence[tuple[Any, Order]], stop: Stop) -> list[Any]:
        """Return the results in the order of the work. The first failure stops the others; the run's stop is raised."""
        former = self._begin(len(work))
        self.client.subscribe_topic(TOPIC, lambda event: self._news.put(event[1]))
        futures = [self._submit(requests, order) for requests, order in work]
        try:
            return self._collect(futures, [order for _, order in work], stop)
        except BaseException as error:
            stop.set()
            _await_end(futures)
            if isinstance(error, StoppedError):
                stop.check()
            raise
        finally:
            self.client.unsubscribe_topic(TOPIC)
            current_metrics().count_workers(self.meter.stage, self.use)
            self.meter.use = self.use.after(former)

    def _begin(self, tasks: int) -> WorkerUse | None:
        """Begin to measure so many tasks; return what was measured of former steps of the stage."""
        former, self.meter.use, self.use.tasks = self.meter.use, self.use, tasks
        # A measure ends no run: without a scheduler the tasks fail, and their error says so.
        with suppress(OSError):
            self.use.workers = len(self.client.scheduler_info(n_workers=-1)["workers"])
        current_metrics().note_workers(self.meter.stage, self.use)
        return former

    def _submit(self, requests: Any, order: Order) -> "PrefectDaskFuture[Any]":
        future = submit(self.client, self.task, {"stage": self.stage, "requests": requests, "order": order})
        future.add_done_callback(self._news.put)
        return future

    def _collect(self, futures: "list[PrefectDaskFuture[Any]]", orders: list[Order], stop: Stop) -> list[Any]:
        numbers = {id(future): number for number, future in enumerate(futures)}
        results: dict[int, Any] = {}
        while len(results) < len(futures):
            news = self._next(stop)
            if not isinstance(news, dict):
                results[numbers[id(news)]] = _result(news)
                self._note_done(len(results))
            # Other runs report on the same topic, which the scheduler keeps within bounds.
            elif news["run"] == orders[0].run:
                self._note(news, orders[news["number"]])
        return [results[number] for number in range(len(futures))]

    def _next(self, stop: Stop) -> Any:
        """Return the next report or future. A stop is raised if a task does not see it: its worker may be frozen."""
        while True:
            with suppress(Empty):
                return self._news.get(timeout=_LOOK_SECONDS)
            if stop.is_set():
                self._ends = self._ends or time.monotonic() + _END_SECONDS
                if time.monotonic() > self._ends:
                    stop.check()

    def _note(self, report: dict[str, Any], order: Order) -> None:
        """Note what a task reports: a line, a retry, or its progress, which restarts if it is run again."""
        place = report["worker"]
        if self._places.setdefault(order.number, place) != place:
            get_logger().warning("a worker was lost: its task is run again", task=order.name, on=place)
            self._places[order.number] = place
            self.use.run_again += 1
        if "retried" in report:
            current_metrics().count_retry(report["retried"])
        elif "fields" in report:
            show_line(report["level"], report["fields"])
        else:
            self.meter.add(report["done"] - self._done[order.number])
            self._done[order.number] = report["done"]
            self._note_use(report, (order.number, place))

    def _note_done(self, done: int) -> None:
        self.use.done = done
        current_metrics().note_workers(self.meter.stage, self.use)

    def _note_use(self, report: dict[str, Any], where: tuple[int, str]) -> None:
        """Add the CPU time since the task's last report: the first one comes when it begins, the last at its end."""
        before = self._cpu.get(where, report["cpu_seconds"])
        self.use.cpu_seconds += report["cpu_seconds"] - before
        self._cpu[where] = report["cpu_seconds"]
        self.use.memory_bytes = max(self.use.memory_bytes, report["memory_bytes"])


def _await_end(futures: "list[PrefectDaskFuture[Any]]") -> None:
    """Wait until no task writes any more: the run's folder is removed next."""
    ends = time.monotonic() + _END_SECONDS
    while any(future.wrapped_future.status == "pending" for future in futures):
        if time.monotonic() > ends:
            get_logger().warning("tasks on workers may still run", seconds=_END_SECONDS)
            return
        time.sleep(_LOOK_SECONDS)


def _result(future: "PrefectDaskFuture[Any]") -> Any:
    """Return a task's result, and release it: Dask would compute it again if its worker ended later."""
    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        raise WorkersLostError(f"a task lost its worker {error.allowed_failures + 1} times: {error}") from error
    except CancelledError as error:
        raise WorkersLostError(f"Dask lost its scheduler, or the task ({error}): start again") from error
    finally:
        future.wrapped_future.release()
