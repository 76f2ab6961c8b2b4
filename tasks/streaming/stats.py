"""The counts of a stream and the delay of its records, kept by batch for the reports."""

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.observe.logs import get_logger
from tasks.observe.metrics import current_metrics
from tasks.run_record import RunRecord

Seconds = npt.NDArray[np.float64]

_WINDOW_SECONDS = 60.0
# Batches whose latencies are kept: eight minutes at two batches a second.
_KEPT_BATCHES = 1000


@dataclass(frozen=True)
class StreamStatus:
    """The state of a stream at one moment.

    `rate` is in records/s, `p50` and `p99` in seconds from a record's time to its commit. All three are of the last
    minute, and None if it has no batch. `lag`: source partition → offsets that no run has read.
    """

    job: str
    seconds: float
    batches: int
    records: int
    dead_letters: int
    rate: float
    lag: Mapping[int, int]
    skipped: tuple[int, ...]
    p50: float | None
    p99: float | None
    last: RunRecord | None


class StreamStats:
    """Counts by batch, from the thread that makes the batches; any thread may ask for `status`."""

    def __init__(self, job: str) -> None:
        self._job = job
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._batches = self._records = self._dead_letters = 0
        self._recent: deque[tuple[float, int, Seconds]] = deque(maxlen=_KEPT_BATCHES)
        self._lag: Mapping[int, int] = {}
        self._skipped: tuple[int, ...] = ()
        self._last: RunRecord | None = None

    def add(self, record: RunRecord, times: Iterable[int] = ()) -> Seconds:
        """Count a committed batch, with the latencies of its records; `times` (ms) are a sample of them."""
        # A record may have no time, which is -1; clocks of two machines may differ a little.
        known = np.fromiter((millis for millis in times if millis > 0), np.float64)
        latencies = np.maximum(0.0, time.time() - known / 1000)
        with self._lock:
            self._batches += 1
            self._records += record.records
            self._dead_letters += record.dead_letters
            self._recent.append((time.monotonic(), record.records, latencies))
            self._last = record
        return latencies

    def note_lag(self, lag: Mapping[int, int]) -> None:
        """Note the offsets that wait now, by partition."""
        self._lag = lag
        current_metrics().note_look(lag)

    def note_skipped(self, partitions: tuple[int, ...]) -> None:
        """Note the partitions that have no leader now."""
        if partitions and partitions != self._skipped:
            get_logger().warning("partitions have no leader, and wait", partitions=",".join(map(str, partitions)))
        self._skipped = partitions

    @property
    def batches(self) -> int:
        """The number of batches committed so far."""
        return self._batches

    def status(self, window: float = _WINDOW_SECONDS) -> StreamStatus:
        """Return the present status; rate and latencies are of the last `window` seconds."""
        with self._lock:
            now = time.monotonic()
            recent = [(records, late) for at, records, late in self._recent if at >= now - window]
            seconds = now - self._started
            latencies = np.concatenate([late for _, late in recent]) if recent else np.empty(0)
            p50, p99 = np.quantile(latencies, (0.5, 0.99)).tolist() if len(latencies) else (None, None)
            return StreamStatus(
                self._job,
                seconds,
                self._batches,
                self._records,
                self._dead_letters,
                sum(records for records, _ in recent) / max(min(window, seconds), 1e-9),
                self._lag,
                self._skipped,
                p50,
                p99,
                self._last,
            )
