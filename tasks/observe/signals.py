"""SIGINT and SIGTERM ask a run to stop; a second one ends it at once, which is as safe as any kill."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType

from tasks.errors import StoppedError
from tasks.observe.logs import get_logger
from tasks.run_context import Stop

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_on_signals(stop: Stop) -> Iterator[SimpleQueue[int]]:
    """Install the handlers for the block, where signals can be handled at all: in the main thread. What came is queued.

    A thread may wait for such a queue and be interrupted by a handler that fills it; with an Event it would hang.
    """
    came: SimpleQueue[int] = SimpleQueue()
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    former = {number: signal.getsignal(number) for number in _SIGNALS}

    def handle(number: int, _: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        name = signal.Signals(number).name
        stop.ask(StoppedError(name, number))
        came.put(number)
        get_logger().warning(
            f"{name}: stopping; what is not committed is not visible, "
            "and the next start goes on where the last committed run ended"
        )

    for number in _SIGNALS:
        signal.signal(number, handle)
    try:
        yield came
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
