"""Stops a flow when a signal asks for it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from queue import SimpleQueue

from tasks.errors import StoppedError
from tasks.observe.logs import get_logger
from tasks.run_context import Stop
from tasks.signals import listening


@contextmanager
def stop_on_signals(stop: Stop) -> Iterator[SimpleQueue[int]]:
    """Ask for the stop if a signal comes while the block runs, or came before. The request is queued, too."""
    came: SimpleQueue[int] = SimpleQueue()
    # The log line belongs to the flow run that this block is in.
    context = copy_context()

    def ask(number: int) -> None:
        name = signal.Signals(number).name
        stop.ask(StoppedError(name, number, stop.consequence))
        came.put(number)
        # A thread of its own writes the line: its reader may not read, and the next signal must still be seen.
        line = f"{name}: stopping; a second signal ends it at once"
        threading.Thread(target=context.run, args=(get_logger().warning, line), daemon=True).start()

    with listening(ask):
        yield came
