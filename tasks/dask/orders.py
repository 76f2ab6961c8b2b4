"""Orders to tasks on workers: all that a task is told besides its request, and the context in which it works there.

Guarantees: a task reads the cluster and the topic of its run or nothing, whatever its worker's environment says; a stop
of the run, and the end of its driver, stop it within seconds. No secret is in what is sent: the worker has its own.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from prefect.logging.handlers import APILogHandler

from tasks.errors import SettingsError
from tasks.kafka.same_cluster import require_cluster
from tasks.manifests import Location
from tasks.observe.logs import LOGGER, configure_logging, fields_of, log_context
from tasks.observe.metrics import RunMetrics, use_metrics
from tasks.observe.progress import watching
from tasks.run_context import RunContext, Stop, run_context
from tasks.settings.budget import peak_memory_bytes
from tasks.settings.connection import Connection, current_connection, load_profile, resolve_connection, use_connection
from tasks.workdir import private_files, use_scratch

# The connection of the driver, in the environment of workers that it started on its machine.
INHERITED: Final = "KAFKA_SORT_WORKER_CONNECTION"
# The scheduler's topic of what tasks tell their drivers.
TOPIC: Final = "kafka-sort"
# How often a task looks whether the run is to stop, and tells how far it is.
_LOOK_SECONDS: Final = 1.0


class UnfitWorkerError(SettingsError):
    """A worker of Dask cannot do tasks of the run, for the reason that the line gives."""

    action = "Start that worker as [scaling.md](scaling.md) says: same release, same work folder, one thread."


@dataclass(frozen=True)
class Order:
    """All that a task on a worker is told besides its request.

    `run`: the name of the run at the scheduler. `name`, `number`: of the task, for people and in its stage. `profile`:
    the connection's name, if it has one; otherwise its address alone goes with the order. `fields`: of each log line.
    `seconds`: how often the task looks at the stop.
    """

    run: str
    name: str
    number: int
    cluster_id: str
    bootstrap_servers: str
    profile: str | None
    consequence: str
    workdir: Location
    fields: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = _LOOK_SECONDS

    @contextmanager
    def taken_up(self) -> Iterator[None]:
        """Make the context of the run for this block: stop, log, metrics; tell the driver of the progress.

        UnfitWorkerError if the run's work folder is not there.
        """
        _log_to_prefect()
        reporter = _Reporter(self)
        with ExitStack() as stack:
            stack.enter_context(private_files())
            stack.enter_context(use_scratch(reporter.folder))
            stack.enter_context(log_context(**self.fields))
            stack.enter_context(telling_lines(reporter))
            self._require_folder(reporter.address)
            stack.enter_context(use_metrics(_ReportedMetrics(reporter)))
            context = stack.enter_context(run_context(Stop(self.consequence)))
            # The first report says where the task is, the last one comes after the last look.
            reporter.report_progress(context)
            # Its scheduler's answer comes behind the report: of a worker that dies from here on the task is known.
            if reporter.is_over():
                context.stop.set()
            stack.callback(reporter.report_progress, context)
            stack.enter_context(watching(lambda ended: reporter.watch(context, ended), "order"))
            yield

    @contextmanager
    def connected(self, topic: str, topic_id: str) -> Iterator[None]:
        """Use the worker's own connection in this block.

        OtherClusterError unless it reaches the run's cluster, and there the topic that the run knows.
        """
        with self.with_own_connection():
            require_cluster(current_connection(), self.cluster_id, {topic: topic_id}, "nothing was read")
            yield

    def with_own_connection(self) -> AbstractContextManager[None]:
        """Use the worker's own connection in a block, whatever cluster it leads to."""
        return use_connection(self._connect())

    def _require_folder(self, address: str) -> None:
        # A worker that joined later was not asked before the run.
        if isinstance(self.workdir, Path) and not self.workdir.is_dir():
            raise UnfitWorkerError(
                f"worker {address} does not see the work folder {self.workdir}: give a folder with --workdir that all "
                "workers share, and start them as the same user"
            )

    def _connect(self) -> Connection:
        if inherited := os.environ.get(INHERITED):
            return Connection(**json.loads(inherited))
        if self.profile is not None:
            return load_profile(self.profile)
        return resolve_connection(self.bootstrap_servers)


def bequeath(connection: Connection) -> dict[str, str]:
    """Return the variable that gives the connection to workers which this process starts, and to nobody else."""
    return {INHERITED: json.dumps(asdict(connection))}


class _Reporter:
    """Tells the driver, by the scheduler's events, and looks at the run's stop. Made in the thread of the task."""

    def __init__(self, order: Order) -> None:
        import distributed

        self._order = order
        self._worker = distributed.get_worker()
        self._task = self._worker.get_current_task()
        self._stop = distributed.Event(order.run, client=distributed.get_client())

    @property
    def address(self) -> str:
        """The worker's address."""
        return str(self._worker.address)

    @property
    def folder(self) -> Path:
        """The worker's own folder."""
        return Path(self._worker.local_directory)

    def watch(self, context: RunContext, ended: threading.Event) -> None:
        """Report the progress, and stop the task with the run, until the task is done."""
        while not ended.wait(self._order.seconds):
            self.report_progress(context)
            if self.is_over():
                context.stop.set()

    def report_progress(self, context: RunContext) -> None:
        """Tell how many records are done, and what this process has taken since it started."""
        done = sum(meter.done for meter in context.progress.meters)
        self._report(done=done, cpu_seconds=time.process_time(), memory_bytes=peak_memory_bytes())

    def report_retry(self, task: str) -> None:
        """Tell that the task is retried."""
        self._report(retried=task)

    def report_line(self, record: logging.LogRecord) -> None:
        """Tell a line of the log."""
        fields = fields_of(record)
        plain = {name: value if isinstance(value, bool | int | float) else str(value) for name, value in fields.items()}
        self._report(level=record.levelno, fields=plain)

    def _report(self, **facts: Any) -> None:
        place = {"run": self._order.run, "number": self._order.number, "worker": self.address}
        self._worker.log_event(TOPIC, {**place, **facts})

    def is_over(self) -> bool:
        """Whether the run is to stop, the driver is gone, or the scheduler, with which all is lost."""
        state = self._worker.state.tasks.get(self._task)
        if state is None or state.state == "cancelled":
            return True
        try:
            return bool(self._stop.is_set())
        except TimeoutError:
            return False
        except OSError:
            return True


class LineReporter(Protocol):
    """The part of a reporter that tells lines of the log."""

    def report_line(self, record: logging.LogRecord) -> None:
        """Tell a line."""


class _LineTeller(logging.Handler):
    """Tells the driver the lines of one task."""

    def __init__(self, reporter: LineReporter) -> None:
        super().__init__()
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        if _present_task.get() is self:
            self._reporter.report_line(record)


_present_task: ContextVar[_LineTeller | None] = ContextVar("present_task", default=None)


@contextmanager
def telling_lines(reporter: LineReporter) -> Iterator[None]:
    """Tell the driver the lines of the block, and of threads that work in a copy of its context."""
    handler, logger = _LineTeller(reporter), logging.getLogger(LOGGER)
    former = _present_task.set(handler)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        _present_task.reset(former)


class _ReportedMetrics(RunMetrics):
    """The metrics of a task: the driver counts what it is told."""

    def __init__(self, reporter: _Reporter) -> None:
        super().__init__("")
        self._report_retry: Callable[[str], None] = reporter.report_retry

    def count_retry(self, task: str) -> None:
        self._report_retry(task)


def _log_to_prefect() -> None:
    """Send our log lines to the Prefect run, whatever the environment in which the worker was started."""
    configure_logging()
    logger = logging.getLogger(LOGGER)
    if not any(isinstance(handler, APILogHandler) for handler in logger.handlers):
        logger.addHandler(APILogHandler())
