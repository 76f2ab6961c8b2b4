"""A stream's end, requested from outside by a signal or by a cancellation in Prefect.

Guarantee: whatever the policy, the stream ends within the drain time, and what was not committed is not visible.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.run_context import Stop
from tasks.settings.streaming import Streaming

# The last part of the drain time, for aborting a transaction and closing.
_CLOSING_SHARE = 0.25


class Drain(Stop):
    """A request to end: the stream takes no further batch; its current one has its time, then the hard stop ends it."""

    def __init__(self, stop: Stop, streaming: Streaming) -> None:
        super().__init__()
        # Without a batch under way, as in waiting for the lease, there is nothing to drain.
        self._at_work = False
        self._hard = stop
        self._seconds = streaming.drain_timeout * (1 - _CLOSING_SHARE) if streaming.drain == "finish" else 0.0

    @contextmanager
    def working(self) -> Iterator[None]:
        """Batches may be under way in the block."""
        self._at_work = True
        try:
            yield
        finally:
            self._at_work = False

    def set(self) -> None:
        """Ask for an orderly end. A second call changes nothing."""
        if self.is_set():
            return
        # The hard stop's own error needs it too: whoever sees it first names the cause.
        self._hard.asked = self.asked
        super().set()
        timer = threading.Timer(self._seconds if self._at_work else 0.0, self._hard.set)
        timer.daemon = True
        timer.start()
