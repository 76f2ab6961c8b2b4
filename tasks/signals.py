"""Signals that ask this process to stop: SIGINT, SIGTERM, and SIGHUP unless it is ignored.

Guarantee: no signal is lost. The first one is kept: it reaches each listener, including those that begin to listen
later. A second one ends the process at once, which is as safe as any kill. This module imports nothing that takes
time, since a command watches for signals before it does anything else.
"""

import contextlib
import fcntl
import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final, NoReturn

Listener = Callable[[int], object]

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# `timeout` and wrappers that pass Ctrl-C on send the same request twice.
_SAME_SECONDS: Final = 0.3
# The longest time from the end of the last listener to the end of the command, for its last lines.
_UNWIND_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.1
_STDERR: Final = 2


class Signals:
    """The handlers, installed from `install` to `restore`, both in the main thread; `serve` does what they ask for.

    A handler in Python may wait for the very code that it interrupts, and it runs only when the main thread wakes, even
    if the signal came to another thread. So the system's handler writes the number to a pipe, and `serve` reads it.
    """

    def __init__(self, *, abandons: bool = False) -> None:
        # True if the process ends as soon as it is asked to while nothing listens.
        self._abandons = abandons
        self.first: int | None = None
        self.settled: int | None = None
        self.cleanups: list[Callable[[], object]] = []
        self._since: float | None = None
        self._told: int | None = None
        self._quiet_since = -math.inf
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []
        self._former: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
        self._former_pipe = -1
        self._reader, self._writer = map(_lift, os.pipe())
        os.set_blocking(self._writer, False)

    def install(self) -> None:
        """Watch from now on: SIGINT even if a shell ignores it for a background job, SIGHUP unless it is ignored."""
        self._former_pipe = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._former[number] = signal.signal(number, self._leave_if_settled)

    def restore(self) -> None:
        """Give the signals back."""
        for number, handler in self._former.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._former_pipe)

    def serve(self, is_over: Callable[[], bool]) -> None:
        """Do what the signals ask for, until the work is over; `wake` makes this check."""
        while not is_over():
            ready = select.select([self._reader], [], [], None if self._told is None else _LOOK_SECONDS)[0]
            for number in os.read(self._reader, 64) if ready else b"":
                if number in self._former:
                    self._take(number)
            if self._told is not None and self._abandons and self._is_unwound():
                self._abandon(self._told)

    def wake(self) -> None:
        """Make `serve` check whether the work is over."""
        os.write(self._writer, b"\0")

    def close(self) -> None:
        """Give up the pipe, once nothing serves it any more."""
        os.close(self._reader)
        os.close(self._writer)

    @contextlib.contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Call `listener` once with the signal's number, if one comes while the block runs, or came before."""
        with self._lock:
            self._listeners.append(listener)
            late = self._told
        try:
            if late is not None:
                listener(late)
            yield
        finally:
            with self._lock:
                self._listeners.remove(listener)

    def settle(self, status: int) -> None:
        """Note that the work is done and reported: a signal from now on ends the process with this status."""
        self.settled = status

    def answer(self) -> None:
        """Note that the signal, if one came, was the way to end this command: that is no stop."""
        if self.first is not None:
            self.first, self.settled = None, 0

    def _leave_if_settled(self, _: int, __: FrameType | None) -> None:
        """Leave from the handler itself: at the end the main thread closes things, and does not serve."""
        if self.settled is not None:
            os._exit(self.settled)

    def _take(self, number: int) -> None:
        now = time.monotonic()
        if self._since is None:
            self._since, self.first = now, number
            self._tell(number)
        elif now > self._since + _SAME_SECONDS:
            os._exit(128 + number)

    def _tell(self, number: int) -> None:
        with self._lock:
            self._told, listeners = number, tuple(self._listeners)
        if listeners:
            self._quiet_since = time.monotonic()
        for listener in listeners:
            listener(number)

    def _is_unwound(self) -> bool:
        """Whether nothing has listened for so long that the command should have ended, or nothing ever listened."""
        if self._listeners:
            self._quiet_since = time.monotonic()
        return time.monotonic() > self._quiet_since + _UNWIND_SECONDS

    def _abandon(self, number: int) -> NoReturn:
        """End the process now: nothing is left that must end in order, or it does not come to its end."""
        status = 128 + number if self.settled is None else self.settled
        if self.settled is None:
            say(f"{signal.Signals(number).name}: stopped")
        # The command works on until the last line here, and must not report the output that it loses.
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
        for cleanup in tuple(self.cleanups):
            with contextlib.suppress(Exception):
                cleanup()
        os._exit(status)


def _lift(descriptor: int) -> int:
    """Move the descriptor above the standard streams, which may be closed, and are checked later."""
    lifted = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(descriptor)
    return lifted


def say(line: str) -> None:
    """Write a line to standard error, unless that would have to wait, or fails."""
    with contextlib.suppress(OSError, ValueError):
        if select.select([], [_STDERR], [], 0)[1]:
            os.write(_STDERR, f"kafka-sort: {line}\n".encode())


# The signals of a command. Flows that Prefect starts in processes of its own have none.
_process: Signals | None = None


def watch() -> Signals:
    """Watch for the rest of this process, which is a command. A second call returns the same."""
    global _process  # noqa: PLW0603  # a process has its signals once
    if _process is None:
        _process = Signals(abandons=True)
        _process.install()
    return _process


def asked() -> int | None:
    """Return the number of the signal that asked this command to stop, or None."""
    return _process.first if _process else None


def answer() -> None:
    """Say that a signal is how this command ends: its exit status is not the signal's."""
    if _process:
        _process.answer()


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call `listener` once with a signal's number, from another thread, if one comes while the block runs.

    In a command, an earlier signal counts too. In other processes the handlers exist for the block, in the main thread
    only: other threads cannot handle signals.
    """
    if _process is None and threading.current_thread() is not threading.main_thread():
        yield
        return
    with contextlib.nullcontext(_process) if _process else _signals_of_block() as signals, signals.listening(listener):
        yield


@contextlib.contextmanager
def _signals_of_block() -> Iterator[Signals]:
    """Install handlers for the block only, with a thread that serves them."""
    signals, ended = Signals(), threading.Event()
    thread = threading.Thread(target=signals.serve, args=(ended.is_set,), name="signals", daemon=True)
    thread.start()
    signals.install()
    try:
        yield signals
    finally:
        signals.restore()
        ended.set()
        signals.wake()
        thread.join()
        signals.close()


def _go_on(_: int) -> None:
    """Do not stop at a signal: the block comes to its end."""


@contextlib.contextmanager
def holding() -> Iterator[None]:
    """Let the block come to its end even if the command is asked to stop: what it does has to be reported."""
    with listening(_go_on):
        yield


@contextlib.contextmanager
def stop_event() -> Iterator[threading.Event]:
    """Yield an event that a signal sets, for loops that go on until then."""
    event = threading.Event()
    with listening(lambda _: event.set()):
        yield event


def add_cleanup(cleanup: Callable[[], object]) -> None:
    """Call this if the command ends at once, past all `finally`."""
    if _process:
        _process.cleanups.append(cleanup)


def remove_cleanup(cleanup: Callable[[], object]) -> None:
    """Drop the cleanup, which is done or not needed any more."""
    if _process and cleanup in _process.cleanups:
        _process.cleanups.remove(cleanup)
