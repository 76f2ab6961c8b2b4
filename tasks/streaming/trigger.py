"""Decides when a micro-batch closes, and how much it may hold.

A batch closes at `batch_size` records, at `max_bytes`, or `max_latency` after its first record, whichever comes first.
When the stream ends, the waiting records are flushed; those behind the job's end do not wait. While more waits than a
batch takes, batches double, up to what memory permits; when the stream has caught up they shrink again. Only the
partitions' ends are polled.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from tasks.kafka.topics import LATEST, Topic, list_offsets
from tasks.ownership import Owner
from tasks.settings.sorts import parse_size
from tasks.settings.streaming import Streaming
from tasks.snapshot import BatchLimits, records_start
from tasks.source import check_leaders, check_same_topic, end_offsets, require_source, start_offsets
from tasks.streaming.drain import Drain
from tasks.streaming.stats import StreamStats

# With a backlog a batch grows to so many times its usual size: beyond it throughput gains little.
_GROWTH = 16
# The memory that DuckDB needs for a byte to sort it without spilling, with room to spare: keys may be long as records.
_SORT_FACTOR = 3
# The pause between two polls of the partitions' ends: a part of the latency, less while a batch fills, within limits.
_IDLE_SHARE, _FILLING_SHARE = 0.25, 0.1
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
# New partitions are noticed within this time.
_DESCRIBE_SECONDS = 10.0


class Pace:
    """The number of records that a batch may take: twice as many after each that left more behind than it took."""

    def __init__(self, batch_size: int) -> None:
        self.records = batch_size
        self._least = batch_size

    def note_waiting(self, waiting: int) -> None:
        """Note the offsets that wait right after a batch."""
        if waiting >= self.records:
            self.records = min(self.records * 2, self._least * _GROWTH)
        else:
            self.records = max(self.records // 2, self._least)


class BatchTrigger:
    """Watches the source of an owned job."""

    def __init__(self, owner: Owner, streaming: Streaming, drain: Drain, stats: StreamStats) -> None:
        self._owner = owner
        self._streaming = streaming
        self._drain = drain
        self._stats = stats
        self._pace = Pace(streaming.batch_size)
        self._limits = BatchLimits(
            streaming.batch_size,
            parse_size(streaming.max_bytes) if streaming.max_bytes else owner.budget.duckdb_bytes // _SORT_FACTOR,
        )
        self._is_behind_batch = False
        # The first record of a batch arrived after this time.
        self._since = time.monotonic()
        self._described = 0.0
        self._source: Topic | None = None
        self._starts: Mapping[int, int] = {}

    def wait(self, deadline: float) -> BatchLimits | None:
        """Block until a batch closes, and return its limits; None if the stream ends, at `deadline` or by its drain."""
        while True:
            ending = self._drain.is_set() or time.monotonic() >= deadline or self._is_end_passed()
            waiting = self._look()
            if self._is_behind_batch:
                self._pace.note_waiting(sum(waiting.values()))
                self._is_behind_batch = False
            if self._is_closed(waiting, ending=ending):
                self._since = time.monotonic()
                return replace(self._limits, records=self._pace.records)
            if ending:
                return None
            self._drain.sleep(min(self._pause(waiting), max(deadline - time.monotonic(), 0.0)))

    def note_batch(self, records: int, record_bytes: int) -> None:
        """Note what the batch held: the next one measures bytes by it."""
        self._is_behind_batch = True
        if records:
            self._limits = replace(self._limits, mean_record_bytes=record_bytes / records)

    def _is_end_passed(self) -> bool:
        """Whether the job's end is in the past: records that come from now on are behind it."""
        end = self._owner.job.end_moment
        return end is not None and end <= datetime.now(UTC)

    def _is_closed(self, offsets: Mapping[int, int], *, ending: bool) -> bool:
        waiting, now = sum(offsets.values()), time.monotonic()
        if records_start(self._owner.job, self._owner.ledger) or min(offsets.values(), default=0) < 0:
            # There is a first position to record; or a log was truncated, which the snapshot reports.
            return True
        if not waiting:
            self._since = now
            return False
        full = waiting >= self._streaming.batch_size or waiting * self._limits.mean_record_bytes >= self._limits.bytes
        return full or ending or now >= self._since + self._streaming.max_latency

    def _pause(self, waiting: Mapping[int, int]) -> float:
        latency = self._streaming.max_latency
        if not any(waiting.values()):
            return min(max(latency * _IDLE_SHARE, _SHORTEST_PAUSE), _LONGEST_PAUSE)
        left = self._since + latency - time.monotonic()
        return max(0.0, min(max(latency * _FILLING_SHARE, _SHORTEST_PAUSE), _LONGEST_PAUSE, left))

    def _look(self) -> dict[int, int]:
        """Return partition → offsets before the job's end that no run has read; negative where a log was truncated."""
        owner, source = self._owner, self._describe()
        latest = list_offsets(owner.admin, source.name, source.partitions, LATEST)
        starts = {**self._starts, **(owner.ledger.last.ends if owner.ledger.last else {})}
        lag = {p: latest[p] - starts[p] for p in source.partitions}
        self._stats.note_lag(lag)
        ends = end_offsets(owner.admin, owner.job, source, latest)
        return {p: min(lag[p], max(ends[p] - starts[p], 0)) for p in source.partitions}

    def _describe(self) -> Topic:
        """Return the source with the partitions that have a leader; it is described again from time to time."""
        if self._source is None or time.monotonic() >= self._described + _DESCRIBE_SECONDS:
            job, last = self._owner.job, self._owner.ledger.last
            source = require_source(self._owner.admin, job.source_topic)
            check_same_topic(source, last)
            check_leaders(source, job, last)
            self._stats.note_skipped(source.leaderless)
            self._source = replace(source, partitions=source.led)
            self._starts = start_offsets(self._owner, self._source)
            self._described = time.monotonic()
        return self._source
