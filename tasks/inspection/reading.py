"""The bounded sample of a topic that an inspection looks at. It only reads: no lease, no group's offsets.

Guarantee: whatever the topic holds, a sample is of a limited number of partitions and records, and reading ends at a
limited number of bytes.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa
from confluent_kafka import Consumer, Message

from tasks.arrow import RECORD
from tasks.errors import SettingsError, TransientError
from tasks.kafka.clients import Admin, NotPermittedError, make_consumer, record_bytes
from tasks.kafka.fetch import Block
from tasks.kafka.topics import EARLIEST, LATEST, Topic, describe_topic, list_offsets, topic_settings
from tasks.kafka.windows import FETCH_WAIT_MS, Windows, plan_windows, read_windows
from tasks.manifests import OffsetRange
from tasks.printable import counted
from tasks.settings.connection import Connection
from tasks.settings.load import nearest

# Kafka itself needs no such group: librdkafka wants a name.
GROUP: Final = "kafka-sort.inspect"
_RECORDS: Final = 6000
_RECORDS_OF_PARTITION: Final = 2000
_PARTITIONS: Final = 100
_BYTES: Final = 8_000_000
# So much time is given to a sample that has records, and to one that has none yet.
_SECONDS: Final = 2.0
_PATIENCE_SECONDS: Final = 20.0
# With fewer records than this the gaps of the windows are filled from the beginning of the ranges.
_FEW_RECORDS: Final = 100
_LIMITS: Final = {
    "queued.max.messages.kbytes": 1024,
    "fetch.wait.max.ms": FETCH_WAIT_MS,
    # A broker reads so much of each partition for each fetch; the default of 1 MB is for those who want all of it.
    "fetch.message.max.bytes": 262_144,
}


@dataclass(frozen=True)
class TopicSample:
    """Records of a topic, by partition and offset (schema RECORD).

    `ranges`: of all partitions that have a leader. `read`: the number of partitions that were read from. `covered`: the
    number of offsets that were looked at, which is more than there are records where some are gone. `held_back`: those
    behind open transactions. `settings`: those of the topic; empty if they may not be seen.
    """

    topic: Topic
    ranges: tuple[OffsetRange, ...]
    records: pa.Table
    read: int
    covered: int
    held_back: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def offsets(self) -> int:
        """The number of offsets of all partitions: at least the number of their records."""
        return sum(r.span for r in self.ranges)

    @property
    def is_whole(self) -> bool:
        """Whether the sample is all that the topic holds."""
        return self.covered >= self.offsets

    @property
    def estimate(self) -> int:
        """The estimated number of records: as dense as the sample is among the offsets that were looked at."""
        return round(self.offsets * len(self.records) / max(self.covered, 1))


def sample_topic(connection: Connection, admin: Admin, name: str) -> TopicSample:
    """Read a sample of a topic, up to the last stable offsets.

    SettingsError if there is no such topic, or it holds no record; TransientError if none can be read.
    """
    topic = _require_topic(admin, name)
    starts = list_offsets(admin, name, topic.led, EARLIEST)
    ends = list_offsets(admin, name, topic.led, LATEST)
    last = list_offsets(admin, name, topic.led, LATEST, committed=False)
    held_back = sum(last[p] - ends[p] for p in topic.led)
    ranges = tuple(OffsetRange(p, starts[p], ends[p]) for p in topic.led)
    filled = [r for r in ranges if r.span]
    chosen = filled[:: max(1, -(-len(filled) // _PARTITIONS))]
    reader = _Reader(connection, name)
    if chosen:
        reader.read(chosen)
    if not reader.messages:
        waiting = f", and {counted(held_back, 'offset')} behind open transactions" * bool(held_back)
        raise SettingsError(
            f"topic {name} holds no records{waiting}, which could tell what to sort: inspect it when it has some"
        )
    return TopicSample(topic, ranges, reader.table(), len(chosen), reader.covered, held_back, _settings(admin, name))


def _require_topic(admin: Admin, name: str) -> Topic:
    topic = describe_topic(admin, name)
    if topic is None:
        known = [other for other in admin.list_topics(timeout=10).topics if not other.startswith("_")]
        raise SettingsError(f"there is no topic {name}{nearest(name, known) or ': check its name and the brokers'}")
    return topic


def _settings(admin: Admin, name: str) -> Mapping[str, str]:
    try:
        return topic_settings(admin, name)
    except NotPermittedError:
        return {}


class _Reader:
    """Collects messages, by partition and offset."""

    def __init__(self, connection: Connection, topic: str) -> None:
        self.messages: dict[tuple[int, int], Message] = {}
        self._connection, self._topic = connection, topic
        self._bytes = 0
        self._began = time.monotonic()
        # Partition, start and end of offsets that were looked at.
        self._looked: list[tuple[int, int, int]] = []

    def read(self, ranges: Sequence[OffsetRange]) -> None:
        """Read windows of the ranges, and what is behind gaps; TransientError if no record can be read."""
        with closing(make_consumer(self._connection, GROUP, **_LIMITS)) as consumer:
            most = min(_RECORDS_OF_PARTITION * len(ranges), _RECORDS)
            for turn, windows in enumerate(plan_windows(ranges, most, thorough=True), 1):
                self._read_windows(consumer, windows, most, _BYTES * turn // 3)
            if len(self.messages) < min(_FEW_RECORDS, sum(r.span for r in ranges)):
                # In a compacted topic the windows may hold next to nothing.
                whole = {r.partition: (r.start, r.end) for r in ranges}
                self._read_windows(consumer, whole, _FEW_RECORDS, _BYTES)
        if not self.messages and self._is_later_than(_PATIENCE_SECONDS):
            raise TransientError(f"no record of topic {self._topic} could be read for {_PATIENCE_SECONDS:g} s")

    def _read_windows(self, consumer: Consumer, windows: Windows, most: int, most_bytes: int) -> None:
        """Read until there are so many records or bytes in all, or no time is left."""
        reached, is_enough = {partition: start for partition, (start, _) in windows.items()}, False
        for messages in read_windows(consumer, self._topic, windows, self._began + _PATIENCE_SECONDS):
            for message in messages:
                place = message.partition() or 0, message.offset() or 0
                self._bytes += record_bytes(message)
                self.messages[place] = message
                reached[place[0]] = place[1] + 1
            late = bool(self.messages) and self._is_later_than(_SECONDS)
            if is_enough := late or len(self.messages) >= most or self._bytes >= most_bytes:
                break
        if not is_enough and not self._is_later_than(_PATIENCE_SECONDS):
            reached = {partition: end for partition, (_, end) in windows.items()}
        self._looked += [(partition, start, reached[partition]) for partition, (start, _) in windows.items()]

    def _is_later_than(self, seconds: float) -> bool:
        return time.monotonic() > self._began + seconds

    @property
    def covered(self) -> int:
        """The number of offsets that were looked at, each counted once."""
        covered, last = 0, (-1, 0)
        for partition, start, end in sorted(self._looked):
            first = max(start, last[1]) if partition == last[0] else start
            covered += max(0, end - first)
            last = partition, max(first, end)
        return covered

    def table(self) -> pa.Table:
        """Return the records, by partition and offset."""
        places = sorted(self.messages)
        block = Block.of([self.messages[place] for place in places])
        return block.table([partition for partition, _ in places]).cast(RECORD)
