"""Signals that ask this process to stop: SIGINT, SIGTERM, and SIGHUP unless it is ignored.

Guarantee: none is lost. The first one is kept. Whatever listens is told, and whatever begins to listen later is told
too. A second one ends the process at once, which is as safe as any kill. This module imports nothing that takes time,
since a command watches for signals before it does anything else.
"""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from types import FrameType
from typing import Final, NoReturn

Listener = Callable[[int], object]

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# `timeout` and wrappers that pass Ctrl-C on send the same wish twice.
_SAME_SECONDS: Final = 0.3
# From the end of the last listener to the end of the command, for its last lines.
_UNWIND_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.1
_STDERR: Final = 2


class Signals:
    """The handlers, installed from `install` to `restore`, both in the main thread.

    The handler only takes notes. A thread tells the listeners: a handler that took a lock could wait for the very code
    that it interrupts.
    """

    def __init__(self, *, abandons: bool = False) -> None:
        # Whether the process ends as soon as it is asked to, where nothing listens.
        self._abandons = abandons
        self.first: int | None = None
        self.settled: int | None = None
        self.cleanups: list[Callable[[], object]] = []
        self._since = 0.0
        self._is_told = False
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []
        self._came: SimpleQueue[int | None] = SimpleQueue()
        self._former: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def install(self) -> None:
        """Watch from now on. SIGINT too where it is ignored, as shells do to background jobs; SIGHUP not: `nohup`."""
        threading.Thread(target=self._tell, name="signals", daemon=True).start()
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._former[number] = signal.signal(number, self._handle)

    def restore(self) -> None:
        """Give the signals back."""
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._came.put(None)

    @contextlib.contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Call `listener` once with the signal's number, if one comes while the block runs, or has come before."""
        with self._lock:
            self._listeners.append(listener)
            is_late = self._is_told
        try:
            if is_late and self.first is not None:
                listener(self.first)
            yield
        finally:
            with self._lock:
                self._listeners.remove(listener)

    def settle(self, status: int) -> None:
        """The work is done, and reported: whatever comes now ends the process with this status."""
        self.settled = status

    def answer(self) -> None:
        """The signal that came, if one did, was how this command ends: that is no stop."""
        if self.first is not None:
            self.first, self.settled = None, 0

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.settled is not None:
            os._exit(self.settled)
        if not self._since:
            self._since, self.first = time.monotonic(), number
            self._came.put(number)
        elif time.monotonic() > self._since + _SAME_SECONDS:
            _die(number)

    def _tell(self) -> None:
        number = self._came.get()
        if number is None:
            return
        with self._lock:
            self._is_told, listeners = True, tuple(self._listeners)
        for listener in listeners:
            listener(number)
        if self._abandons:
            if listeners:
                self._await_unwinding()
            self._abandon(number)

    def _await_unwinding(self) -> None:
        """While something listens, it is ending; then the command has a moment for the rest."""
        quiet_since = time.monotonic()
        while time.monotonic() < quiet_since + _UNWIND_SECONDS:
            if self._listeners:
                quiet_since = time.monotonic()
            time.sleep(_LOOK_SECONDS)

    def _abandon(self, number: int) -> NoReturn:
        """End the process now. Nothing is under way that has to end in order, or it does not come to its end."""
        status = 128 + number if self.settled is None else self.settled
        if self.settled is None:
            say(f"{signal.Signals(number).name}: stopped")
        # The command works on until the last line here, and may not tell of what it loses.
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
        for cleanup in tuple(self.cleanups):
            with contextlib.suppress(Exception):
                cleanup()
        os._exit(status)


def _die(number: int) -> NoReturn:
    """As an unhandled signal does; the first process of a container is not killed by one."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def say(line: str) -> None:
    """A line on standard error, unless that would have to wait, or cannot be."""
    with contextlib.suppress(OSError, ValueError):
        if select.select([], [_STDERR], [], 0)[1]:
            os.write(_STDERR, f"kafka-sort: {line}\n".encode())


# Of a command. Flows that Prefect starts in processes of its own have none.
_process: Signals | None = None


def watch() -> Signals:
    """Watch for the rest of this process, which is a command. Again: the same."""
    global _process  # noqa: PLW0603  # a process has its signals once
    if _process is None:
        _process = Signals(abandons=True)
        _process.install()
    return _process


def asked() -> int | None:
    """Number of the signal that asked this command to stop, or None."""
    return _process.first if _process else None


def answer() -> None:
    """Say that a signal is how this command ends: its exit status is not the signal's."""
    if _process:
        _process.answer()


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call `listener` once with a signal's number, from another thread, if one comes while the block runs.

    In a command also if one came before. In other processes the handlers are there for the block, in the main thread
    only: other threads cannot handle signals.
    """
    if _process is None and threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = _process or Signals()
    if _process is None:
        signals.install()
    try:
        with signals.listening(listener):
            yield
    finally:
        if signals is not _process:
            signals.restore()


def _go_on(_: int) -> None:
    """No answer to a signal but to come to an end."""


@contextlib.contextmanager
def holding() -> Iterator[None]:
    """A block that comes to its end also when the command is asked to stop: what it does has to be told."""
    with listening(_go_on):
        yield


@contextlib.contextmanager
def stop_event() -> Iterator[threading.Event]:
    """An event that a signal sets, for loops that go on until then."""
    event = threading.Event()
    with listening(lambda _: event.set()):
        yield event


def add_cleanup(cleanup: Callable[[], object]) -> None:
    """Call this if the command ends at once, past all `finally`."""
    if _process:
        _process.cleanups.append(cleanup)


def remove_cleanup(cleanup: Callable[[], object]) -> None:
    """It is done, or not needed any more."""
    if _process and cleanup in _process.cleanups:
        _process.cleanups.remove(cleanup)
