"""Fills a topic with records, a block at a time, and knows which blocks are in it.

Guarantee: a block counts as acknowledged when all in-sync replicas have it and all blocks before it. After `finish`
each record that was sent is in the topic once, behind the records that were there before.
"""

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final, NamedTuple, Self

import pyarrow as pa
from confluent_kafka import KafkaError
from confluent_kafka.admin import AdminClient
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_exponential

from tasks.errors import SettingsError, TerminalError, TransientError
from tasks.kafka.clients import BATCH_BYTES, NotPermittedError, make_admin, make_producer, translate
from tasks.kafka.reach import require_broker, require_leaders
from tasks.kafka.sender import Sender
from tasks.kafka.topic_rules import TopicRules, generated_rules
from tasks.kafka.topics import LATEST, Topic, describe_topic, list_offsets, topic_settings
from tasks.observe.logs import get_logger
from tasks.run_context import current_run
from tasks.settings.connection import Connection
from tasks.settings.names import check_written_topic

START_SECONDS: Final = 30.0
QUEUE_MESSAGES: Final = 400_000
QUEUE_KILOBYTES: Final = 65_536
ANSWER_SECONDS: Final = 60.0
# A larger record might never fit the queue.
LARGEST_BYTES: Final = 60_000_000
# What was sent is answered within seconds. A stop does not wait longer for a broker that is gone.
_STOP_SECONDS: Final = 10.0
# A batch of one record without headers: 61 bytes, and the lengths and deltas of the record.
_FRAME_BYTES: Final = 61 + 24


class Part(NamedTuple):
    """The records of a block that go to one partition, in order: values, and keys or None (binary, same length)."""

    partition: int
    values: pa.Array
    keys: pa.Array | None = None


class Filler:
    """Appends blocks of records to one topic, which is created with `partitions` partitions if it is absent.

    SettingsError if the topic's settings do not fit; BrokerUnavailableError if no broker answers.
    """

    def __init__(
        self, connection: Connection, topic: str, partitions: int, replication_factor: int | None = None
    ) -> None:
        admin = make_admin(connection)
        require_broker(admin, connection, START_SECONDS)
        rules = generated_rules()
        self.topic = describe_topic(admin, topic) or rules.make(admin, topic, partitions, replication_factor)
        require_leaders(admin, connection, [self.topic], START_SECONDS)
        settings = _check_settings(admin, self.topic, rules)
        taken = int(settings.get("max.message.bytes", LARGEST_BYTES))
        # The largest record that the topic takes, in bytes of key and value together.
        self.largest = max(min(taken, LARGEST_BYTES) - _FRAME_BYTES, 0)
        self._admin = admin
        self._before = _ends(admin, self.topic)
        self._sent: Counter[int] = Counter()
        # For each block that is not acknowledged, the parts that are not; `acknowledged` blocks are before them.
        self._waiting: deque[int] = deque()
        self.acknowledged = 0
        self._refused: KafkaError | None = None
        self._given_up: float | None = None
        queue: dict[str, Any] = {
            "queue.buffering.max.messages": QUEUE_MESSAGES,
            "queue.buffering.max.kbytes": QUEUE_KILOBYTES,
            # librdkafka does not split a batch that the topic refuses as too large.
            "batch.size": min(BATCH_BYTES, taken),
        }
        producer = make_producer(connection, **queue)
        self._sender = Sender(producer, f"records of topic {topic}", ANSWER_SECONDS, self._check)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sender.close()

    @property
    def blocks(self) -> int:
        """The number of blocks that were sent."""
        return self.acknowledged + len(self._waiting)

    def send(self, block: Iterable[Part]) -> None:
        """Queue a block. KafkaTerminalError or KafkaTransientError if Kafka refused records of an earlier one."""
        number = self.blocks
        self._waiting.append(1)
        for part in block:
            if len(part.values):
                self._waiting[number - self.acknowledged] += 1
                self._send_part(part, number)
        self._note(number, None)

    def _send_part(self, part: Part, number: int) -> None:
        """Queue a part; the report of its last record stands for all, since a partition is written in order."""
        partition, values, keys = part
        last = len(values) - 1
        self._sender.send(self.topic.name, partition, values[:last], None if keys is None else keys[:last])
        key = None if keys is None else keys[last].as_py()
        report = partial(self._report, number)
        self._sender.send_one(self.topic.name, key, values[last].as_py(), partition, delivered=report)
        self._sent[partition] += last + 1
        self._raise_refusal()

    def _report(self, number: int, error: KafkaError | None, _: object) -> None:
        self._note(number, error)

    def _note(self, number: int, error: KafkaError | None) -> None:
        if error is not None:
            self._refused = self._refused or error
            return
        self._waiting[number - self.acknowledged] -= 1
        while self._waiting and not self._waiting[0]:
            self._waiting.popleft()
            self.acknowledged += 1

    def _raise_refusal(self) -> None:
        if self._refused is not None:
            raise translate(f"records sent to topic {self.topic.name}", self._refused)

    def _check(self) -> None:
        """Leave a wait that a stop makes too long."""
        stop = current_run().stop
        if stop.is_set():
            self._given_up = self._given_up or time.monotonic() + _STOP_SECONDS
            if time.monotonic() > self._given_up:
                stop.check()

    def flush(self) -> None:
        """Wait until each record is answered; errors are those of `send`."""
        self._sender.flush()
        self._raise_refusal()

    def finish(self, advice: str) -> None:
        """Flush, and compare the topic's growth with what was sent. TerminalError, which ends in `advice`."""
        self.flush()
        after = _ends(self._admin, self.topic)
        for partition in self.topic.partitions:
            sent, grown = self._sent[partition], after[partition] - self._before[partition]
            if grown != sent:
                raise TerminalError(
                    f"topic {self.topic.name}, partition {partition}: {sent:,} records were sent, but it grew by "
                    f"{grown:,}: either not all could be delivered, or something else writes to it; {advice}"
                )


def deal(first: int, partitions: tuple[int, ...]) -> Iterator[tuple[int, slice]]:
    """Yield each partition with its rows, for a block that begins at record `first`: they take turns."""
    for index, partition in enumerate(partitions):
        yield partition, slice((index - first) % len(partitions), None, len(partitions))


def check_topic(topic: str) -> None:
    """Raise SettingsError if Kafka permits no topic of this name, or it is no topic to be filled."""
    try:
        check_written_topic(topic, "the topic")
    except ValueError as error:
        raise SettingsError(f"{error}; give another") from None


def _check_settings(admin: AdminClient, topic: Topic, rules: TopicRules) -> Mapping[str, str]:
    """Return the topic's settings; none if the principal may not see them, since Write is enough to fill a topic."""
    try:
        settings = topic_settings(admin, topic.name)
    except NotPermittedError:
        return {}
    rules.check(topic, settings)
    for breach in rules.breaches(topic, settings, refused=False):
        get_logger().warning(breach.risk, topics=topic.name)
    return settings


# A new topic has a leader before that leader knows of it (NOT_LEADER_FOR_PARTITION).
@retry(
    retry=retry_if_exception_type(TransientError),
    wait=wait_exponential(multiplier=0.05, max=1.0),
    stop=stop_after_delay(START_SECONDS),
    reraise=True,
)
def _ends(admin: AdminClient, topic: Topic) -> dict[int, int]:
    return list_offsets(admin, topic.name, topic.partitions, LATEST, committed=False)
