"""Fills a topic with the sample data, made and sent a block at a time.

Guarantee: record i is a function of the seed and of i alone, and goes to partition i mod the number of partitions. When
a call returns, each record is in the topic once, acknowledged by all in-sync replicas, behind the records that were
there before.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np
import pyarrow as pa
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_exponential

from tasks.errors import SettingsError, StoppedError, TerminalError, TransientError
from tasks.kafka.clients import BATCH_BYTES, NotPermittedError, make_admin, make_producer
from tasks.kafka.reach import require_broker, require_leaders
from tasks.kafka.sender import Sender
from tasks.kafka.topic_rules import generated_rules
from tasks.kafka.topics import LATEST, Topic, describe_topic, list_offsets, topic_settings
from tasks.observe.logs import get_logger
from tasks.people.make import WRITERS, make_people
from tasks.run_context import Stop, current_run
from tasks.settings.connection import Connection
from tasks.settings.sorts import check_topic_name

# Seed, first record, count → the records, as an Arrow binary array.
BlockMaker = Callable[[int, int, int], pa.Array]

START_SECONDS: Final = 30.0
BLOCK_RECORDS: Final = 50_000
MAX_SEED: Final = 2**64 - 1

_QUEUE: Final = {
    "queue.buffering.max.messages": 400_000,
    "queue.buffering.max.kbytes": 65_536,
    # Without reports for successful records a record costs no Python; the topic's growth reveals a failed one.
    "delivery.report.only.error": True,
}
_ANSWER_SECONDS: Final = 60.0


class GenerationStoppedError(StoppedError):
    """The generation stopped between two blocks. `sent` records stay in the topic."""

    action = "Start again for more records."
    at_risk = "No: what was sent stays in the topic."

    def __init__(self, topic: str, sent: int, stop: Stop) -> None:
        asked = stop.asked or StoppedError()
        super().__init__(asked.reason, asked.signal)
        self.args = (
            f"{asked.reason}: " * bool(asked.reason) + f"stopped after {sent:,} records, which stay in topic {topic}",
        )
        self.sent = sent


def generate_records(
    connection: Connection,
    topic: str,
    records: int,
    seed: int,
    partitions: int,
    replication_factor: int | None = None,
    make: BlockMaker | None = None,
) -> int:
    """Append sample records to `topic`; return how many were delivered.

    `make` makes other records than the sample data. An absent topic is created with `partitions` partitions; an
    existing one keeps its own. TerminalError if it did not grow by what was sent, which another writer also causes.
    """
    _check_settings(topic, records, seed)
    admin = make_admin(connection)
    require_broker(admin, connection, START_SECONDS)
    rules = generated_rules()
    target = describe_topic(admin, topic) or rules.make(admin, topic, partitions, replication_factor)
    require_leaders(admin, connection, [target], START_SECONDS)
    settings = _visible_settings(admin, topic)
    rules.check(target, settings)
    for breach in rules.breaches(target, settings, refused=False):
        get_logger().warning(breach.risk, topics=topic)
    # librdkafka does not split a batch that the topic refuses as too large.
    limit = min(BATCH_BYTES, int(settings.get("max.message.bytes", BATCH_BYTES)))
    before = _ends(admin, target)
    _send_all(make_producer(connection, **_QUEUE, **{"batch.size": limit}), target, records, seed, make or make_block)
    _check_growth(target, before, _ends(admin, target), records)
    return records


def _visible_settings(admin: AdminClient, topic: str) -> dict[str, str]:
    """Return the topic's settings; none if the principal may not see them, since Write is enough to fill a topic."""
    try:
        return topic_settings(admin, topic)
    except NotPermittedError:
        return {}


def make_block(seed: int, first: int, count: int, fmt: str = "csv") -> pa.Array:
    """Make the records `first` to `first + count` of a seed, as an Arrow binary array."""
    return WRITERS[fmt](make_people(seed, first, count))


def _check_settings(topic: str, records: int, seed: int) -> None:
    try:
        check_topic_name(topic, "the topic")
    except ValueError as error:
        raise SettingsError(str(error)) from None
    if records < 0:
        raise SettingsError(f"records {records}: give 0 or more")
    if not 0 <= seed <= MAX_SEED:
        raise SettingsError(f"seed {seed}: give a number from 0 to {MAX_SEED}")


# A new topic has a leader before that leader knows of it (NOT_LEADER_FOR_PARTITION).
@retry(
    retry=retry_if_exception_type(TransientError),
    wait=wait_exponential(multiplier=0.05, max=1.0),
    stop=stop_after_delay(START_SECONDS),
    reraise=True,
)
def _ends(admin: AdminClient, topic: Topic) -> dict[int, int]:
    return list_offsets(admin, topic.name, topic.partitions, LATEST, committed=False)


def _send_all(producer: Producer, topic: Topic, records: int, seed: int, make: BlockMaker) -> None:
    stop, meter = current_run().stop, current_run().progress.meter("generate", records)
    sender = Sender(producer, f"records of topic {topic.name}", _ANSWER_SECONDS)
    try:
        for first in range(0, records, BLOCK_RECORDS):
            if stop.is_set():
                sender.flush()
                raise GenerationStoppedError(topic.name, first, stop)
            count = min(BLOCK_RECORDS, records - first)
            values = make(seed, first, count)
            for partition, rows in deal(first, topic.partitions):
                sender.send(topic.name, partition, values.take(pa.array(np.arange(count)[rows])))
            meter.add(count)
        sender.flush()
    finally:
        sender.close()


def deal(first: int, partitions: tuple[int, ...]) -> Iterator[tuple[int, slice]]:
    """Yield each partition with its rows, for a block that begins at record `first`."""
    for index, partition in enumerate(partitions):
        yield partition, slice((index - first) % len(partitions), None, len(partitions))


def _check_growth(topic: Topic, before: Mapping[int, int], after: Mapping[int, int], records: int) -> None:
    """Compare the topic's growth with what was sent: nothing here reports a record that could not be delivered."""
    for partition, rows in deal(0, topic.partitions):
        sent, grown = len(range(records)[rows]), after[partition] - before[partition]
        if grown != sent:
            raise TerminalError(
                f"topic {topic.name}, partition {partition}: {sent:,} records were sent, but it grew by {grown:,}: "
                "either not all could be delivered, or something else writes to it; delete the topic and generate again"
            )
