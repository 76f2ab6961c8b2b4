"""A survey of what a run is going to read: some thousands of records from all over its ranges, parsed as the dump does.

What is read is bounded in records, bytes and seconds, and not by the topic. Nothing is written.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from confluent_kafka import Consumer, Message

from tasks.chunks import column_bytes
from tasks.dump import RowGroup
from tasks.file_columns import source_place
from tasks.formats.registry import make_format
from tasks.kafka.clients import make_consumer, record_bytes
from tasks.kafka.fetch import Block
from tasks.kafka.windows import FETCH_WAIT_MS, plan_windows, read_windows
from tasks.keys import chunk_schema
from tasks.manifests import OffsetRange, Snapshot
from tasks.ownership import JobView
from tasks.placement import OutputColumns, Placements
from tasks.settings.job import Job

RECORDS: Final = 16_000
_BYTES: Final = 32_000_000
# No more is held, though records are larger than the mean has it, or it is not known.
_MOST_BYTES: Final = 2 * _BYTES
_SECONDS: Final = 1.5
# Windows of a range, as long as each can have some records: few long ones would see less of the range.
_MOST_TURNS: Final = 16
_WINDOW_RECORDS: Final = 50


@dataclass(frozen=True)
class Survey:
    """The records that were found. `offsets`: how many were looked at. `rows`: what sorts can place, as in a chunk.

    `column_bytes`: column of a chunk → bytes of these rows in it. `placements`: of the job's sorts.
    """

    offsets: int
    records: int
    record_bytes: int
    rows: pa.Table
    column_bytes: Mapping[str, int]
    placements: Placements = field(default_factory=Placements)
    # How many offsets of the ranges stand behind each of the rows.
    weights: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    @property
    def share(self) -> float:
        """The share of offsets that hold a record; 1 if none was looked at."""
        return self.records / self.offsets if self.offsets else 1.0

    @property
    def placed_share(self) -> float:
        """The share of records that sorts can place; 1 without a record."""
        return len(self.rows) / self.records if self.records else 1.0

    @property
    def mean_record_bytes(self) -> float:
        """The mean size of key, value and headers; 0 without a record."""
        return self.record_bytes / max(self.records, 1)

    def row_bytes(self, *columns: str) -> float:
        """Return the mean bytes of a row in these columns of a chunk, or in all of them."""
        return sum(self.column_bytes[name] for name in columns or self.column_bytes) / max(len(self.rows), 1)


def take_survey(
    view: JobView, snapshot: Snapshot, placements: Placements, most: int = RECORDS, seconds: float = _SECONDS
) -> Survey:
    """Survey the ranges of the snapshot, by the types that the job has by now: at most so many records, for so long."""
    groups: dict[int, RowGroup] = {}
    offsets = records = size = 0
    for windows, messages in _read(view, snapshot, most, seconds):
        offsets += sum(end - start for start, end in windows.values())
        records += len(messages)
        size += sum(map(record_bytes, messages))
        for partition, of_one in _by_partition(messages).items():
            groups.setdefault(partition, RowGroup(partition)).add(Block.of(of_one))
    rows, counts = _parse(view.job, placements, groups)
    spans = {r.partition: r.span for r in snapshot.ranges}
    each = [np.full(count, spans[partition] / max(count, 1)) for partition, count in counts.items()]
    weights = np.concatenate([np.empty(0), *each])
    return Survey(offsets, records, size, rows, column_bytes(rows), placements, weights)


def _read(
    view: JobView, snapshot: Snapshot, most: int, seconds: float
) -> Iterator[tuple[Mapping[int, tuple[int, int]], list[Message]]]:
    """Yield windows and their messages, turn by turn, as long as a turn is read whole in time."""
    ranges, deadline = [r for r in snapshot.ranges if r.span], time.monotonic() + seconds
    if not ranges:
        return
    limits = {"queued.max.messages.kbytes": 1024, "fetch.wait.max.ms": FETCH_WAIT_MS}
    with closing(make_consumer(view.connection, view.job.group, **limits)) as consumer:
        size = 0
        for planned in _plan(ranges, snapshot.mean_record_bytes, most):
            windows, messages = _read_turn(consumer, view.job.source_topic, planned, deadline, _MOST_BYTES - size)
            if time.monotonic() >= deadline:
                return
            yield windows, messages
            size += sum(map(record_bytes, messages))
            if size >= _MOST_BYTES:
                return


def _plan(
    ranges: Sequence[OffsetRange], mean_record_bytes: float, most: int
) -> Iterator[Mapping[int, tuple[int, int]]]:
    most = min(most, int(_BYTES / max(mean_record_bytes, 1.0)))
    turns = max(3, min(_MOST_TURNS, most // (_WINDOW_RECORDS * len(ranges))))
    return plan_windows(ranges, most, turns=turns)


def _read_turn(
    consumer: Consumer, topic: str, windows: Mapping[int, tuple[int, int]], deadline: float, most_bytes: int
) -> tuple[Mapping[int, tuple[int, int]], list[Message]]:
    """Return the windows and their messages; what was read of them, if the messages are more bytes than that."""
    found: list[Message] = []
    for messages in read_windows(consumer, topic, windows, deadline):
        found += messages
        most_bytes -= sum(map(record_bytes, messages))
        if most_bytes <= 0:
            ends = {message.partition() or 0: (message.offset() or 0) + 1 for message in found}
            return {partition: (windows[partition][0], end) for partition, end in ends.items()}, found
    return windows, found


def _by_partition(messages: Sequence[Message]) -> dict[int, list[Message]]:
    found = defaultdict(list)
    for message in messages:
        found[message.partition() or 0].append(message)
    return found


def _parse(job: Job, placements: Placements, groups: Mapping[int, RowGroup]) -> tuple[pa.Table, dict[int, int]]:
    """Return the rows as the dump writes them, in order of arrival, and partition → number of rows."""
    fmt, outputs = make_format(job), OutputColumns(job, placements)
    tables = {
        partition: outputs.add(groups[partition].split(job, fmt, job.key_columns)[0], partition)
        for partition in sorted(groups)
    }
    none = placements.extend(chunk_schema(job.key_columns, source_place(job))).empty_table()
    return pa.concat_tables([none, *tables.values()]), {partition: len(rows) for partition, rows in tables.items()}
