"""What every stage of a run can reach without being handed it: the stop flag and the progress meters.

A context variable, because tasks are given small picklable values only; Prefect copies the context into task threads.
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
    """A request to stop, seen by every loop of a run within one block of records.

    `consequence`: what it means that the run is stopped, for the errors that say so.
    """

    def __init__(self, consequence: str = NOTHING_VISIBLE) -> None:
        self.consequence = consequence
        # What was asked for, and is raised by who sees it; None where one task's failure stops the others.
        self.asked: StoppedError | None = None
        self._event = threading.Event()
        self._interrupts: set[Callable[[], object]] = set()

    def ask(self, error: StoppedError) -> None:
        """Ask the run to stop, with the error it is to end with. The first to ask is the one who is named."""
        self.asked = self.asked or error
        self.set()

    def set(self) -> None:
        """Stop the run's tasks, and interrupt what cannot look."""
        self._event.set()
        for interrupt in tuple(self._interrupts):
            interrupt()

    def is_set(self) -> bool:
        """Whether the run is to stop."""
        return self._event.is_set()

    def check(self) -> None:
        """StoppedError if the run is to stop."""
        if self._event.is_set():
            raise self.asked or StoppedError(consequence=self.consequence)

    def cause_of(self, error: E) -> E | StoppedError:
        """What ended the run: a transient error that a stop kept from being tried again is the stop.

        A commit of unknown outcome is not: a stop says that nothing is visible.
        """
        passing = isinstance(error, TransientError) and error.settled
        return self.asked if self.asked is not None and passing else error

    def sleep(self, seconds: float) -> bool:
        """Sleep, unless the run is to stop: False at once then."""
        return not self._event.wait(seconds)

    def wait(self, seconds: float) -> None:
        """Sleep, unless the run is to stop: then StoppedError at once."""
        self._event.wait(seconds)
        self.check()

    @contextmanager
    def interrupting(self, interrupt: Callable[[], object]) -> Iterator[None]:
        """Call `interrupt` from another thread if the stop comes while the block runs."""
        self._interrupts.add(interrupt)
        try:
            # One that came before would interrupt nothing: a query that is long begins after it.
            self.check()
            yield
        finally:
            self._interrupts.discard(interrupt)


@dataclass
class Meter:
    """Records one stage has done, of how many, since when."""

    stage: str
    total: int = 0
    done: int = 0
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, records: int) -> None:
        """Count records as done; from any thread, a block at a time."""
        with self._lock:
            self.done += records

    def end(self) -> None:
        """The stage is over."""
        self.ended = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time the stage has taken so far."""
        return (self.ended or time.monotonic()) - self.started

    @property
    def rate(self) -> float:
        """Records per second."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """At the present rate; None while that is unknown."""
        return (self.total - self.done) / self.rate if self.total and self.done else None


class Progress:
    """The meters of one run, by stage, in the order the stages began."""

    def __init__(self) -> None:
        self._meters: dict[str, Meter] = {}
        self._lock = threading.Lock()

    def meter(self, stage: str, total: int = 0) -> Meter:
        """The stage's meter, made at its first use."""
        with self._lock:
            meter = self._meters.setdefault(stage, Meter(stage))
            meter.total = total or meter.total
            return meter

    @property
    def meters(self) -> list[Meter]:
        """All meters so far."""
        with self._lock:
            return list(self._meters.values())

    @contextmanager
    def stage(self, name: str, total: int = 0) -> Iterator[Meter]:
        """The stage's meter, ended with the block."""
        meter = self.meter(name, total)
        try:
            yield meter
        finally:
            meter.end()

    @property
    def seconds(self) -> dict[str, float]:
        """Stage → seconds."""
        return {meter.stage: round(meter.seconds, 3) for meter in self.meters}


@dataclass(frozen=True)
class RunContext:
    """Stop flag and progress of the run that is under way."""

    stop: Stop = field(default_factory=Stop)
    progress: Progress = field(default_factory=Progress)


_current: ContextVar[RunContext | None] = ContextVar("run_context", default=None)


def current_run() -> RunContext:
    """The run under way; outside of one, a context of its own that nobody stops."""
    return _current.get() or RunContext()


@contextmanager
def run_context(stop: Stop | None = None) -> Iterator[RunContext]:
    """A new run's context, for this block and the tasks started in it. `stop`: of a whole that the run is part of."""
    context = RunContext(stop or Stop())
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)
