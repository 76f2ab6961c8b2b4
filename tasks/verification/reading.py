"""Reads ranges of offsets back as a `read_committed` reader sees them, in blocks of bounded size.

Guarantee: a range has been read when the position is at or past its end. Records are never counted for that, since
control, aborted and compacted records leave gaps. A range that cannot be read to its end is an error, not a short
range.
"""

import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from tasks.errors import TransientError
from tasks.kafka.clients import kafka_errors, make_consumer, translate
from tasks.kafka.topics import LATEST, list_offsets
from tasks.run_context import current_run
from tasks.settings.connection import Connection
from tasks.verification.content import Digests, Headers, digest_records
from tasks.verification.partitions import Partitions, hash_partitions

_BLOCK_RECORDS = 5000
# A block of large records must not outgrow memory; the mean is from the block before.
_BLOCK_BYTES = 16_000_000
# Also the time to wait at the end of a range, where the last offset may hold no record.
_CONSUME_SECONDS = 0.02
_FETCH_WAIT_MS = 10
_STABLE_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Block:
    """Consecutive records of one partition."""

    partition: int
    offsets: npt.NDArray[np.int64]
    values: list[bytes | None]
    keys: list[bytes | None]
    headers: list[Headers]
    messages: list[Message]

    def __len__(self) -> int:
        return len(self.values)

    def within(self, start: int, end: int) -> "Block":
        """Return the records with offsets in [start, end)."""
        first, last = np.searchsorted(self.offsets, (start, end)).tolist()
        return self if last - first == len(self) else self._cut(slice(first, last))

    def _cut(self, part: slice) -> "Block":
        columns = (column[part] for column in self._columns)
        return type(self)(self.partition, self.offsets[part], *columns)

    @property
    def _columns(self) -> tuple[list[Any], ...]:
        return self.values, self.keys, self.headers, self.messages

    def select(self, indexes: Sequence[int]) -> "Block":
        """Return the records at these indexes."""
        columns = ([column[i] for i in indexes] for column in self._columns)
        return type(self)(self.partition, self.offsets[list(indexes)], *columns)

    def without(self, indexes: Sequence[int]) -> "Block":
        """Return the other records."""
        excluded = set(indexes)
        return self.select([i for i in range(len(self)) if i not in excluded]) if excluded else self

    def times(self) -> npt.NDArray[np.int64]:
        """The timestamps in ms; -1 or 0 if a record has none. Each costs a call, so they are read only if compared."""
        return self._times

    @cached_property
    def _times(self) -> npt.NDArray[np.int64]:
        return np.array([message.timestamp()[1] for message in self.messages], np.int64)

    @property
    def places(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The partition and the offset of each record in the source, if it comes from there."""
        return np.full(len(self), self.partition, np.int64), self.offsets

    def digests(self) -> Digests:
        """Return one digest a record, over value, key and headers."""
        return self._digests

    @cached_property
    def _digests(self) -> Digests:
        # Sorts with the same record keys share them.
        return digest_records(self.values, self.keys, self.headers)

    def hashed(self, count: int) -> Partitions:
        """Return the partition of each record key by hash, among so many; -1 where a record has none."""
        if count not in self._hashed:
            self._hashed[count] = hash_partitions(self.keys, count)
        return self._hashed[count]

    @cached_property
    def _hashed(self) -> dict[int, Partitions]:
        return {}


class TopicReader:
    """Reads one partition at a time, with one consumer a topic, closed with the block.

    A consumer that turns to another topic waits up to a second for its metadata; a new one asks at once.
    """

    def __init__(self, connection: Connection, group: str, patience: float) -> None:
        self._connection = connection
        self._group = group
        self._patience = patience
        self._consumers: dict[str, Consumer] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for consumer in self._consumers.values():
            consumer.close()

    def _consumer(self, topic: str) -> Consumer:
        if topic not in self._consumers:
            # A fetch that waits at one partition's end delays the next partition (500 ms by default).
            waits = {"fetch.wait.max.ms": _FETCH_WAIT_MS}
            self._consumers[topic] = make_consumer(self._connection, self._group, **waits)
        return self._consumers[topic]

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[Block]:
        """Yield the committed records with offsets in [start, end). TransientError without progress for a while."""
        if start >= end:
            return
        consumer = self._consumer(topic)
        consumer.assign([TopicPartition(topic, partition, start)])
        try:
            yield from self._read_assigned(consumer, topic, partition, start, end)
        finally:
            # Records that were fetched ahead are dropped.
            consumer.unassign()

    def _read_assigned(self, consumer: Consumer, topic: str, partition: int, start: int, end: int) -> Iterator[Block]:
        position, moved, most = start, time.monotonic(), _BLOCK_RECORDS
        while position < end:
            current_run().stop.check()
            # It asks for no more than what is left: `consume` waits its full time for messages that will not come.
            messages = consumer.consume(min(most, end - position), _CONSUME_SECONDS)
            if block := _to_block(topic, partition, messages).within(start, end):
                most = _fit(block)
                yield block
            reached = _position(consumer, topic, partition)
            if reached > position:
                position, moved = reached, time.monotonic()
            elif time.monotonic() > moved + self._patience:
                raise TransientError(f"no progress at {topic}/{partition} offset {position} for {self._patience:g} s")


def _position(consumer: Consumer, topic: str, partition: int) -> int:
    """Return the position, which also moves past control and aborted records."""
    with kafka_errors(f"position in {topic}/{partition}"):
        return int(consumer.position([TopicPartition(topic, partition)])[0].offset)


def _to_block(topic: str, partition: int, messages: list[Message]) -> Block:
    if error := next(filter(None, map(Message.error, messages)), None):
        raise translate(f"reading back {topic}/{partition}", error)
    values, keys, headers = (list(map(part, messages)) for part in (Message.value, Message.key, Message.headers))
    return Block(partition, _offsets(messages), values, keys, headers, messages)  # type: ignore[arg-type]  # bytes by default


def _offsets(messages: list[Message]) -> npt.NDArray[np.int64]:
    if not messages:
        return np.empty(0, np.int64)
    first, last = messages[0].offset() or 0, messages[-1].offset() or 0
    if last - first == len(messages) - 1:
        return np.arange(first, last + 1)
    return np.array([message.offset() for message in messages], np.int64)


def _fit(block: Block) -> int:
    sample = [len(value or b"") for value in block.values[::100]]
    return min(_BLOCK_RECORDS, max(1, _BLOCK_BYTES * len(sample) // (sum(sample) + len(sample))))


def await_stable(admin: AdminClient, topic: str, ends: Mapping[int, int], patience: float) -> None:
    """Wait until each partition's last stable offset is at its end: a commit is answered before its markers."""
    deadline = time.monotonic() + patience
    while behind := _behind(admin, topic, ends):
        if time.monotonic() > deadline:
            partition = min(behind)
            raise TransientError(
                f"{topic}/{partition} can be read to offset {behind[partition]} of {ends[partition]} only, for "
                f"{patience:g} s: an open transaction holds it back; verify again when it has ended"
            )
        current_run().stop.wait(_STABLE_POLL_SECONDS)


def _behind(admin: AdminClient, topic: str, ends: Mapping[int, int]) -> dict[int, int]:
    stable = list_offsets(admin, topic, ends, LATEST)
    return {partition: offset for partition, offset in stable.items() if offset < ends[partition]}


@contextmanager
def paused_collection() -> Iterator[None]:
    """Pause cyclic collection: thousands of live messages make each one long, and they hold no cycles."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
