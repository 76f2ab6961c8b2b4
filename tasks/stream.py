"""A job as a stream: runs back to back, each one a micro-batch, and each exactly like a run of `sort-topic`.

Guarantee 2 (exactly once): between two batches nothing is kept that the ledger does not have. Consumers and producer
live on while all goes well. After any error the stream gives the job up and owns it again, as a restart after a kill
does: lease, fence, ledger. So a batch of unknown outcome is found in the ledger, or its records are sorted again.
"""

import gc
import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed
from tenacity import RetryCallState, Retrying, retry_if_exception_type

from tasks.dump import DUMP, dump_range
from tasks.errors import KafkaSortError, RunTimeoutError, StoppedError, TransientError
from tasks.kafka.consumer_pool import ConsumerPool
from tasks.kafka.lease import LeaseLostError, LeaseTakenError
from tasks.manifests import Chunk, Snapshot
from tasks.observe.logs import get_logger
from tasks.observe.metrics import category_of, current_metrics
from tasks.outputs import check_former_runs, prepare_outputs
from tasks.ownership import Owner, own_job
from tasks.preflight import take_up_job
from tasks.publish import warn_of_dead_letters
from tasks.run import Run, Runner, RunResult, run_job
from tasks.run_context import Stop, run_context
from tasks.run_record import RunRecord
from tasks.runners import ThreadRunner
from tasks.settings.connection import Connection
from tasks.settings.job import Job
from tasks.settings.streaming import Streaming, check_streamable
from tasks.settlement import take_over
from tasks.snapshot import BatchLimits
from tasks.sort import SORT
from tasks.streaming.drain import Drain
from tasks.streaming.stats import Seconds, StreamStats, StreamStatus
from tasks.streaming.trigger import BatchTrigger
from tasks.targets.base import Target
from tasks.workdir import attempt_folder

# Prefect's graph of a flow run ends at 10,000 nodes, and a page that shows them all is slow long before.
SEGMENT_BATCHES = 1000
_MOST_SORTS_AT_ONCE = 16
_LONGEST_BACKOFF = 60.0
_LOG_SECONDS = 60.0


class StreamCancelledError(KafkaSortError):
    """The stream ended in order because Prefect was asked to cancel it; the message says what it has done."""

    exit_code = 0
    action = "Start again when it suits: it goes on behind the last batch."


@dataclass
class OwnedStream:
    """The resources of a stream while it owns the job."""

    owner: Owner
    trigger: BatchTrigger
    folder: Path
    # Its threads live on from batch to batch, as consumers and producer do: allocators keep memory for each ended
    # thread.
    runner: Runner
    _target: Target | None = None

    def open_target(self, snapshot: Snapshot) -> Target:
        """Return the outputs as the first batch finds or creates them; once they lack a partition, as they are then."""
        if self._target is None or not self._target.takes(snapshot):
            self._target = prepare_outputs(self.owner)
        return self._target


class Stream:
    """One stream of a job: `serve` it, `wait` for batches and `run_batch` them."""

    def __init__(self, job: Job, streaming: Streaming, connection: Connection) -> None:
        check_streamable(job)
        # All sorts of a batch run at once, so the memory is divided among them.
        at_once = min(len(job.sort_list), _MOST_SORTS_AT_ONCE)
        self.job = job.model_copy(update={"sort_concurrency": at_once})
        self.streaming = streaming
        self.stats = StreamStats(job.name)
        self._stop = Stop()
        self.drain = Drain(self._stop, streaming)
        self.ended = False
        self.connection = connection
        self._attempt = uuid4().hex
        self._deadline = time.monotonic() + streaming.max_runtime if streaming.max_runtime else math.inf
        self._failures = 0
        self._logged = -math.inf
        self._owned: OwnedStream | None = None

    @property
    def next_run(self) -> int:
        """The number of the next batch's run."""
        last = self._held.owner.ledger.last
        return last.run + 1 if last else 1

    @property
    def _held(self) -> OwnedStream:
        if self._owned is None:
            raise RuntimeError("a stream works while it owns the job: see `serve`")
        return self._owned

    def serve(self, run_segment: Callable[[], None]) -> None:
        """Own the job until the stream ends, and run its batches, segment by segment.

        After a transient error the job is given up and owned again, with growing pauses while no batch succeeds in
        between.
        """
        passing = (TransientError, LeaseLostError, *((LeaseTakenError,) if self.streaming.standby else ()))
        retrying = Retrying(
            retry=retry_if_exception_type(passing),
            stop=self._is_enough,
            wait=self._backoff,
            sleep=self._pause,
            before_sleep=self._tell_trouble,
            reraise=True,
        )
        with _frozen_gc():
            for attempt in retrying:
                with attempt, run_context(self._stop), self._until_drained(), self._own():
                    while not self.ended:
                        run_segment()

    def wait(self) -> BatchLimits | None:
        """Block until a batch closes; return None, and end the stream, if there will be none."""
        if self.ended:
            return None
        with self._until_drained():
            # This frees the last batch's memory, off the path of the next one. It takes 4 ms.
            pa.default_memory_pool().release_unused()
            limits = self._held.trigger.wait(self._deadline)
            self.ended = limits is None
            return limits
        return None

    def run_batch(self, limits: BatchLimits) -> str:
        """Run one batch; return a line that says what it was."""
        with self._until_drained(), run_context(self._stop), self._within_timeout():
            try:
                done = _sort_batch(self._held, limits, self._attempt)
            except OSError as error:
                raise TransientError(f"work folder {self.job.workdir}: {error}") from error
            told = self._note(done.record, done.chunks) if done.record else "nothing to read"
            self.ended = self._is_last()
            return told
        return "abandoned: the drain time was over; nothing of it is visible"

    @contextmanager
    def _own(self) -> Iterator[None]:
        """Do steps 1 to 3, and prepare what the batches need."""
        with (
            own_job(self.job, self.connection, standby=self.streaming.standby) as owner,
            attempt_folder(self.job, self._attempt) as folder,
            closing(ConsumerPool(self.job, self.connection, lively=True)) as consumers,
            ThreadPoolExecutor(self.job.dump_concurrency, "dump") as dumping,
            ThreadPoolExecutor(self.job.sort_concurrency, "sort") as sorting,
            self.drain.working(),
        ):
            self._count_unknown(owner)
            take_up_job(owner)
            take_over(owner)
            check_former_runs(owner)
            trigger = BatchTrigger(owner, self.streaming, self.drain, self.stats)
            runner = ThreadRunner(
                {DUMP.name: dumping, SORT.name: sorting}, {DUMP.name: partial(dump_range, consumers=consumers)}
            )
            self._owned = OwnedStream(owner, trigger, folder, runner)
            try:
                yield
            finally:
                self._owned = None

    @contextmanager
    def _until_drained(self) -> Iterator[None]:
        """End in order if a stop was asked for; the current batch is abandoned."""
        try:
            yield
        except StoppedError:
            if not self.drain.is_set():
                raise
            self.ended = True

    @contextmanager
    def _within_timeout(self) -> Iterator[None]:
        """Apply `run_timeout` to a batch, which is a run."""
        if self.job.run_timeout is None:
            yield
            return
        timer = threading.Timer(self.job.run_timeout, self._stop.ask, [RunTimeoutError(self.job.run_timeout)])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _count_unknown(self, owner: Owner) -> None:
        """Count this stream's batch whose commit got no answer, if the ledger has it."""
        last, known = owner.ledger.last, self.stats.status().last
        if last is not None and last.attempt == self._attempt and (known is None or known.run < last.run):
            self._note(last, ())

    def _note(self, record: RunRecord, chunks: tuple[Chunk, ...]) -> str:
        self._failures = 0
        # The start of the first run is settled by now.
        self.job = self.job.model_copy(update={"start": None})
        latencies = self.stats.add(record, (time for chunk in chunks for time in chunk.times))
        size = sum(chunk.record_bytes for chunk in chunks)
        count_batch(latencies)
        if self._owned:
            self._owned.trigger.note_batch(sum(chunk.records for chunk in chunks), size)
        if time.monotonic() >= self._logged + _LOG_SECONDS:
            self._logged = time.monotonic()
            log_status(self.stats.status())
            warn_of_dead_letters(record)
        late = f", at most {latencies.max():.2f} s late" if len(latencies) else ""
        return f"run {record.run}: {record.records:,} records, {record.dead_letters:,} dead letters{late}"

    def _is_last(self) -> bool:
        most = self.streaming.max_batches
        enough = most is not None and self.stats.batches >= most
        return enough or self.drain.is_set() or time.monotonic() >= self._deadline

    def _is_enough(self, _: RetryCallState) -> bool:
        self._failures += 1
        return self._failures > self.job.retries

    def _backoff(self, _: RetryCallState) -> float:
        return min(self.job.retry_delay * 2.0 ** (self._failures - 1), _LONGEST_BACKOFF)

    def _pause(self, seconds: float) -> None:
        self.drain.sleep(seconds)

    def _tell_trouble(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        current_metrics().count_retry("stream")
        get_logger().warning("owning the job again after an error", failures=self._failures, error=str(error))


@contextmanager
def _frozen_gc() -> Iterator[None]:
    """Keep what is loaded by now out of the sight of Python's cyclic garbage collector.

    The collector runs when a quarter as many objects as it saw last time were added, and Prefect leaves a few cycles a
    batch: if it sees all modules, cycles of tens of minutes pile up.
    """
    gc.collect()
    gc.freeze()
    # From now on it has seen few objects.
    gc.collect()
    try:
        yield
    finally:
        gc.unfreeze()


def _sort_batch(stream: OwnedStream, limits: BatchLimits, attempt: str) -> RunResult:
    """Do steps 4 to 6 of one run; the record is None if there is nothing to read after all."""
    owner = stream.owner
    # If the producer saw an error since the last batch, it is replaced here: check the lease, fence, read the ledger.
    owner.healthy_producer()
    with _batch_folder(stream.folder) as folder:
        return run_job(Run(owner, stream.runner, stream.open_target, attempt), folder, limits)


@contextmanager
def _batch_folder(parent: Path) -> Iterator[Path]:
    folder = parent / "batch"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def count_batch(latencies: Seconds) -> None:
    """Count a committed batch in the metrics: its success, and the delay of its records."""
    metrics = current_metrics()
    metrics.count_success()
    for seconds in latencies.tolist():
        metrics.observe_latency(seconds)


@contextmanager
def count_errors() -> Iterator[None]:
    """Count the error that ended a stream, if any. Its batches were counted one by one."""
    try:
        yield
    except BaseException as error:
        current_metrics().count_error(error)
        get_logger().error("stream not completed", category=category_of(error), error=str(error))
        raise


def log_status(status: StreamStatus) -> None:
    """Log the stream's status in one line."""
    late = (
        {} if status.p50 is None or status.p99 is None else {"p50": round(status.p50, 2), "p99": round(status.p99, 2)}
    )
    get_logger().info(
        "streaming",
        run=status.last.run if status.last else 0,
        batches=status.batches,
        records=status.records,
        dead_letters=status.dead_letters,
        rate=round(status.rate),
        lag=sum(status.lag.values()),
        **late,
    )


_current: ContextVar[Stream] = ContextVar("stream")


def current_stream() -> Stream:
    """Return the stream whose segment runs; a flow takes only what Prefect can store as its parameters."""
    return _current.get()


@contextmanager
def use_stream(stream: Stream) -> Iterator[None]:
    """Make it the result of `current_stream`."""
    token = _current.set(stream)
    try:
        yield
    finally:
        _current.reset(token)


@task(task_run_name="run {run}", cache_policy=NO_CACHE, persist_result=False)
def stream_batch(stream: Stream, limits: BatchLimits, run: int) -> State[None]:  # noqa: ARG001  # `run` names the task run
    """Run one micro-batch, from snapshot to commit."""
    return Completed(message=stream.run_batch(limits))
