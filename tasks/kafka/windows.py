"""Windows of offsets: a few records from the beginning, the middle and the end of ranges, read side by side.

What is read is bounded by the windows, and not by the topic.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from tasks.kafka.clients import make_consumer, translate
from tasks.manifests import OffsetRange
from tasks.run_context import current_run
from tasks.settings.connection import Connection

_CONSUME_RECORDS = 100
_CONSUME_SECONDS = 0.05
# A fetch that waits at one partition's end delays the others.
FETCH_WAIT_MS = 10

# Partition → offsets [start, end) from which records are taken.
Windows = Mapping[int, tuple[int, int]]


def plan_windows(
    ranges: Sequence[OffsetRange], most: int, *, thorough: bool = True, turns: int = 3
) -> Iterator[Windows]:
    """Return the windows to read of each range, in turns: its beginning, and if `thorough` its middle and end.

    `turns`: how many windows a range has then, at even distances from its beginning to its end.
    """
    turns = turns if thorough else 1
    size = max(1, most // (turns * len(ranges)))
    for turn in zip_longest(*(_windows(r, size, turns) for r in ranges)):
        yield {r.partition: window for r, window in zip(ranges, turn, strict=True) if window is not None}


def _windows(r: OffsetRange, size: int, turns: int) -> list[tuple[int, int]]:
    if r.span <= size * turns:
        return [(r.start, r.end)]
    starts = [r.start + (r.span - size) * turn // max(turns - 1, 1) for turn in range(turns)]
    return [(start, start + size) for start in starts]


def read_windows(consumer: Consumer, topic: str, windows: Windows, deadline: float) -> Iterator[list[Message]]:
    """Read the windows' messages. A window is read when the position is at its end: some offsets hold no record."""
    left = dict(windows)
    consumer.assign([TopicPartition(topic, partition, start) for partition, (start, _) in windows.items()])
    while left and time.monotonic() < deadline:
        current_run().stop.check()
        messages, errors = _divide(consumer.consume(_CONSUME_RECORDS, _CONSUME_SECONDS))
        if errors:
            raise translate(f"reading topic {topic}", errors[0])
        yield [m for m in messages if (m.offset() or 0) < windows[m.partition() or 0][1]]
        positions = consumer.position([TopicPartition(topic, partition) for partition in left])
        if read := [p.partition for p in positions if p.offset >= left[p.partition][1]]:
            consumer.incremental_unassign([TopicPartition(topic, partition) for partition in read])
            left = {partition: window for partition, window in left.items() if partition not in read}


def holds_committed(connection: Connection, group: str, topic: str, windows: Windows, timeout: float) -> bool:
    """Whether a `read_committed` reader finds any record in the windows: those of aborted runs do not count.

    Windows that cannot be read to their ends within `timeout` seconds count as if they did: a refusal loses nothing.
    """
    wanted = {partition: window for partition, window in windows.items() if window[0] < window[1]}
    if not wanted:
        return False
    deadline = time.monotonic() + timeout
    # Retention may move the log's start meanwhile.
    consumer = make_consumer(connection, group, **{"auto.offset.reset": "earliest"})
    try:
        return any(read_windows(consumer, topic, wanted, deadline)) or time.monotonic() >= deadline
    finally:
        consumer.close()


def _divide(messages: Sequence[Message]) -> tuple[list[Message], list[KafkaError]]:
    """Return the records among messages, and the errors.

    A client asks for its group's coordinator in any case. A refusal is no error, as no offset of a group is used.
    """
    errors = [error for error in map(Message.error, messages) if error is not None]
    harmful = [error for error in errors if error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED]
    return [message for message in messages if message.error() is None], harmful
