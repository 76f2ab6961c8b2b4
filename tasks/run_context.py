"""The context of a run, which every stage can reach without a parameter: the stop flag and the progress meters.

It is a context variable, because tasks get small picklable values only; Prefect copies the context into task threads.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

from tasks.errors import NOTHING_VISIBLE, StoppedError, TransientError

E = TypeVar("E", bound=BaseException)


class Stop:
    """A request to stop, which every loop of a run sees within one block of records.

    `consequence`: what the stop means for the run, for the errors that say so.
    """

    def __init__(self, consequence: str = NOTHING_VISIBLE) -> None:
        self.consequence = consequence
        # The error of the request, raised where the stop is seen; None where one task's failure stops the others.
        self.asked: StoppedError | None = None
        self._event = threading.Event()
        self._interrupts: set[Callable[[], object]] = set()

    def ask(self, error: StoppedError) -> None:
        """Ask the run to stop, with the error it is to end with. The first request counts."""
        self.asked = self.asked or error
        self.set()

    def set(self) -> None:
        """Stop the run's tasks, and interrupt calls that cannot check the flag."""
        self._event.set()
        for interrupt in tuple(self._interrupts):
            interrupt()

    def is_set(self) -> bool:
        """Whether the run is to stop."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise StoppedError if the run is to stop."""
        if self._event.is_set():
            raise self.asked or StoppedError(consequence=self.consequence)

    def cause_of(self, error: E) -> E | StoppedError:
        """Return what ended the run: the stop, if it kept a transient error from its retry.

        A commit of unknown outcome stays what it is: a stop says that nothing is visible.
        """
        passing = isinstance(error, TransientError) and error.settled
        return self.asked if self.asked is not None and passing else error

    def sleep(self, seconds: float) -> bool:
        """Sleep, unless the run is to stop: then return False at once."""
        return not self._event.wait(seconds)

    def wait(self, seconds: float) -> None:
        """Sleep, unless the run is to stop: then raise StoppedError at once."""
        self._event.wait(seconds)
        self.check()

    @contextmanager
    def interrupting(self, interrupt: Callable[[], object]) -> Iterator[None]:
        """Call `interrupt` from another thread if the stop comes while the block runs."""
        self._interrupts.add(interrupt)
        try:
            # An earlier stop would interrupt nothing: the long query begins after it.
            self.check()
            yield
        finally:
            self._interrupts.discard(interrupt)


@dataclass
class WorkerUse:
    """Use of workers by the tasks of one stage so far.

    `workers`: at the start of the stage. `run_again`: tasks whose worker was lost. `cpu_seconds`: of the workers'
    processes. `memory_bytes`: the most that one of them has held since it started.
    """

    workers: int = 0
    tasks: int = 0
    done: int = 0
    run_again: int = 0
    cpu_seconds: float = 0.0
    memory_bytes: int = 0

    @property
    def left(self) -> int:
        """The number of tasks that are not done."""
        return self.tasks - self.done

    def after(self, former: "WorkerUse | None") -> "WorkerUse":
        """Return both together: a stage may be done in several steps."""
        if former is None:
            return self
        return WorkerUse(
            max(former.workers, self.workers),
            former.tasks + self.tasks,
            former.done + self.done,
            former.run_again + self.run_again,
            former.cpu_seconds + self.cpu_seconds,
            max(former.memory_bytes, self.memory_bytes),
        )


@dataclass
class Meter:
    """Records one stage has done, of how many, since when. `use`: that of its workers, if it has any."""

    stage: str
    total: int = 0
    done: int = 0
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None
    use: WorkerUse | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, records: int) -> None:
        """Count records as done; any thread may call it, once a block."""
        with self._lock:
            self.done += records

    def end(self) -> None:
        """Note that the stage is over."""
        self.ended = time.monotonic()

    @property
    def seconds(self) -> float:
        """The time the stage has taken so far."""
        return (self.ended or time.monotonic()) - self.started

    @property
    def rate(self) -> float:
        """The records per second so far."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """The time left at the present rate; None while that is unknown."""
        return (self.total - self.done) / self.rate if self.total and self.done else None


class Progress:
    """The meters of one run, by stage, in the order the stages began."""

    def __init__(self) -> None:
        self._meters: dict[str, Meter] = {}
        self._lock = threading.Lock()

    def meter(self, stage: str, total: int = 0) -> Meter:
        """Return the stage's meter, made at its first use."""
        with self._lock:
            meter = self._meters.setdefault(stage, Meter(stage))
            meter.total = total or meter.total
            return meter

    @property
    def meters(self) -> list[Meter]:
        """List all meters so far."""
        with self._lock:
            return list(self._meters.values())

    @contextmanager
    def stage(self, name: str, total: int = 0) -> Iterator[Meter]:
        """Yield the stage's meter, and end it with the block."""
        meter = self.meter(name, total)
        try:
            yield meter
        finally:
            meter.end()

    @property
    def seconds(self) -> dict[str, float]:
        """Return stage → seconds."""
        return {meter.stage: round(meter.seconds, 3) for meter in self.meters}


@dataclass(frozen=True)
class RunContext:
    """Stop flag and progress of the current run."""

    stop: Stop = field(default_factory=Stop)
    progress: Progress = field(default_factory=Progress)


_current: ContextVar[RunContext | None] = ContextVar("run_context", default=None)


def current_run() -> RunContext:
    """Return the current run's context; outside of a run, a context of its own that nothing stops."""
    return _current.get() or RunContext()


@contextmanager
def run_context(stop: Stop | None = None) -> Iterator[RunContext]:
    """Make a context for this block and the tasks started in it. `stop`: that of a whole that the run is part of."""
    context = RunContext(stop or Stop())
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)
