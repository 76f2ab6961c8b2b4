"""The measures of a run: Prometheus metrics in a registry of its own.

They are updated at the end of a stage or run, never for a single record. A job's partitions, sorts and stages bound the
number of series. Prefect's client metrics are not used: they bind one fixed port, which ends the second flow on a
machine.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from tasks.errors import KafkaSortError
from tasks.run_context import WorkerUse
from tasks.run_record import RunRecord

PREFIX: Final = "kafka_sort_"
OUTCOMES: Final = ("completed", "failed", "stopped", "refused")
CATEGORIES: Final = ("transient", "terminal", "settings", "unexpected")
# The stages that may run on workers.
WORKER_STAGES: Final = ("dump", "sort", "publish")
# The range is from the stages of an empty run to the transaction timeout that brokers permit by default.
_DURATION_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300, 600, 900)
_LATENCY_BUCKETS = (0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 300, 900, 3600)

# With them each counter has a second series, the time of its creation.
disable_created_metrics()  # type: ignore[no-untyped-call]


class RunMetrics:
    """The metrics of one job in this process: of one run, or of all runs of a stream."""

    def __init__(self, job: str) -> None:
        self.job = job
        self.registry = CollectorRegistry()
        self._records = self._counter("records", "Records a stage finished; dead letters are apart", *_PLACE)
        self._bytes = self._counter("bytes", "Bytes of key, value and headers of these records", *_PLACE)
        self._dead_letters = self._counter("dead_letters", "Records that went to the dead-letter topic")
        self._runs = self._counter("runs", "Runs that ended, by outcome", "outcome")
        self._errors = self._counter("errors", "Errors that ended a run, or caused a retry, by category", "category")
        self._retries = self._counter("task_retries", "Times a task was retried", "task")
        self._workers = self._gauge("workers", "Workers of Dask at the start of the newest stage")
        self._tasks = self._gauge("tasks", "Tasks of the newest stage of that name on workers", "stage", "state")
        self._lost = self._counter("tasks_run_again", "Tasks that were run again, as their worker was lost", "stage")
        self._cpu = self._counter("worker_cpu_seconds", "CPU time of workers, while they did tasks", "stage")
        self._memory = self._gauge("worker_memory_bytes", "The most memory that a worker's process has held", "stage")
        self._durations = self._histogram("stage_duration_seconds", "Time a stage took", _DURATION_BUCKETS, "stage")
        self._latency = self._histogram(
            "end_to_end_latency_seconds", "From a record's timestamp to the commit of its run", _LATENCY_BUCKETS
        )
        self._lag = self._gauge("lag_offsets", "Source offsets no run has read, as of the last snapshot", "partition")
        self._success = self._gauge("last_success_timestamp_seconds", "When a run last completed")
        self._failure = self._gauge("last_failure_timestamp_seconds", "When a run last failed")
        self._start_at_zero()

    def _start_at_zero(self) -> None:
        """Create the series that alerts use at once: `increase` does not see the first value of a series."""
        self._dead_letters.labels(self.job)
        for outcome in OUTCOMES:
            self._runs.labels(self.job, outcome)
        for category in CATEGORIES:
            self._errors.labels(self.job, category)
        self._workers.labels(self.job)
        for stage in WORKER_STAGES:
            self._lost.labels(self.job, stage)
            self._cpu.labels(self.job, stage)
            self.note_workers(stage, WorkerUse())

    def count(self, stage: str, records: int, size: int, *, partition: int | None = None, sort: str = "") -> None:
        """Count the records and bytes that a stage finished: of one source partition, or of one sort."""
        place = (self.job, stage, "" if partition is None else str(partition), sort)
        self._records.labels(*place).inc(records)
        self._bytes.labels(*place).inc(size)

    def count_committed(self, record: RunRecord, size: int, lag: Mapping[int, int]) -> None:
        """Count a committed run, of `size` bytes a sort. `lag`: source partition → offsets that it left unread."""
        for sort in record.sorts:
            self.count("publish", sort.count, size, sort=sort.topic)
        self._dead_letters.labels(self.job).inc(record.new_dead_letters)
        self.note_lag(lag)

    def note_look(self, offsets: Mapping[int, int]) -> None:
        """Note what a stream found unread, by source partition. None at all is a success: the stream is idle."""
        self.note_lag(offsets)
        if not any(offsets.values()):
            self._success.labels(self.job).set_to_current_time()

    def note_lag(self, offsets: Mapping[int, int]) -> None:
        """Set source partition → offsets that are there and unread."""
        for partition, count in offsets.items():
            self._lag.labels(self.job, str(partition)).set(count)

    def count_retry(self, task: str) -> None:
        """Count a retry: a task failed with a transient error."""
        self._retries.labels(self.job, task).inc()
        self._errors.labels(self.job, "transient").inc()

    def note_workers(self, stage: str, use: WorkerUse) -> None:
        """Set the workers, tasks and memory of a stage, as they are."""
        self._workers.labels(self.job).set(use.workers)
        self._tasks.labels(self.job, stage, "done").set(use.done)
        self._tasks.labels(self.job, stage, "left").set(use.left)
        self._memory.labels(self.job, stage).set(use.memory_bytes)

    def count_workers(self, stage: str, use: WorkerUse) -> None:
        """Count what a stage took on workers, at its end."""
        self.note_workers(stage, use)
        self._lost.labels(self.job, stage).inc(use.run_again)
        self._cpu.labels(self.job, stage).inc(use.cpu_seconds)

    def observe_stage(self, stage: str, seconds: float) -> None:
        """Note the time of a stage that ended, in whatever way."""
        self._durations.labels(self.job, stage).observe(seconds)

    def observe_latency(self, seconds: float) -> None:
        """Note the age of a record at its commit."""
        self._latency.labels(self.job).observe(seconds)

    def count_success(self) -> None:
        """Note that a run completed, even one with nothing new."""
        self._runs.labels(self.job, "completed").inc()
        self._success.labels(self.job).set_to_current_time()

    def count_error(self, error: BaseException) -> None:
        """Count the error that ended a run. A stop is no error, and neither is a run that another one made needless."""
        category = category_of(error)
        if category in CATEGORIES:
            self._errors.labels(self.job, category).inc()
            self._failure.labels(self.job).set_to_current_time()
        self._runs.labels(self.job, "failed" if category in CATEGORIES else category).inc()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, text, ("job", *labels), registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, text, ("job", *labels), registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(PREFIX + name, text, ("job", *labels), registry=self.registry, buckets=buckets)


# A place is a source partition or a sort; the other label is empty, which is the same as absent to Prometheus.
_PLACE = ("stage", "partition", "sort")
_current: ContextVar[RunMetrics | None] = ContextVar("run_metrics", default=None)


def category_of(error: BaseException) -> str:
    """Return one of CATEGORIES, or `stopped` or `refused`."""
    if isinstance(error, KafkaSortError):
        return error.category
    return "unexpected" if isinstance(error, Exception) else "stopped"


def current_metrics() -> RunMetrics:
    """Return the metrics of the current job; outside of a job, metrics that nobody reads."""
    return _current.get() or RunMetrics("")


@contextmanager
def use_metrics(metrics: RunMetrics) -> Iterator[None]:
    """Make these the metrics of the block, and of the tasks started in it."""
    token = _current.set(metrics)
    try:
        yield
    finally:
        _current.reset(token)
