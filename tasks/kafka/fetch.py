"""Blocks: consecutive records of one partition as Arrow columns, the same for both ways of fetching them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from tasks.arrow import HEADERS, RECORD, partition_column
from tasks.kafka.clients import is_of_group


@dataclass(frozen=True)
class Block:
    """Records in offset order; a block may be empty. `timestamps` in ms, `headers` null where there are none."""

    values: pa.Array
    keys: pa.Array
    headers: pa.Array
    timestamps: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]

    @classmethod
    def of(cls, messages: Sequence[Message]) -> Self:
        """Make a block of messages, none of which is an error."""
        return cls(
            values=pa.array(list(map(Message.value, messages)), pa.binary()),
            keys=_column(list(map(Message.key, messages)), pa.binary()),
            headers=_column(list(map(Message.headers, messages)), HEADERS),
            timestamps=np.array([message.timestamp()[1] for message in messages], np.int64),
            offsets=np.array(list(map(Message.offset, messages)), np.int64),
        )

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def nbytes(self) -> int:
        """Bytes of values, keys and headers."""
        return int(self.values.nbytes + self.keys.nbytes + self.headers.nbytes)

    def table(self, partitions: int | Sequence[int]) -> pa.Table:
        """Return the records as a table of the schema RECORD. `partitions`: that of all of them, or of each."""
        columns = (self.values, self.keys, self.headers, pa.array(self.timestamps), pa.array(self.offsets))
        return pa.Table.from_arrays([*columns, partition_column(partitions, len(self))], schema=RECORD)

    def split(self, most: int) -> Iterator["Block"]:
        """Split the block into blocks that have `most` bytes of values and keys beside their largest record."""
        if self.nbytes <= most:
            yield self
            return
        sizes = [np.asarray(pc.binary_length(part).fill_null(0)) for part in (self.values, self.keys)]
        ends = np.cumsum(sizes[0].astype(np.int64) + sizes[1])
        edges = np.flatnonzero(np.diff(ends // most)) + 1
        for start, end in pairwise([0, *edges.tolist(), len(self)]):
            yield self._part(slice(start, end))

    def divide(self, offset: int) -> tuple["Block", "Block"]:
        """Split the block into the records below the offset, and the others."""
        row = int(np.searchsorted(self.offsets, offset))
        return self._part(slice(0, row)), self._part(slice(row, None))

    def _part(self, rows: slice) -> "Block":
        columns = (self.values, self.keys, self.headers, self.timestamps, self.offsets)
        return Block(*(column[rows] for column in columns))


def _column(items: list[Any], kind: pa.DataType) -> pa.Array:
    """Return the items as Arrow; a column of nulls takes next to no memory."""
    return pa.nulls(len(items), kind) if items.count(None) == len(items) else pa.array(items, kind)


class Fetcher(Protocol):
    """Fetches blocks of one partition at a time."""

    def assign(self, partition: int, offset: int) -> None:
        """Fetch from this offset of the partition from now on."""

    def fetch(self, most: int, seconds: float, least: int | None = None) -> tuple[Block, KafkaError | None]:
        """Fetch up to so many records, and the error behind them.

        It waits until all are there, or as many as `least`, or until the time is over. The end of the partition is no
        error.
        """

    def release(self) -> None:
        """Give up the partition, and all that was fetched."""


class PlainFetcher:
    """A fetcher that uses confluent-kafka's own `consume`: one Python object a record."""

    def __init__(self, consumer: Consumer, topic: str) -> None:
        self._consumer = consumer
        self._topic = topic

    def assign(self, partition: int, offset: int) -> None:
        """Fetch from this offset of the partition from now on."""
        self._consumer.assign([TopicPartition(self._topic, partition, offset)])

    def fetch(self, most: int, seconds: float, least: int | None = None) -> tuple[Block, KafkaError | None]:
        """Fetch up to so many records, and the error behind them."""
        messages, error = self._consumer.consume(least or most, seconds), None
        if least is not None and len(messages) == least < most:
            messages += self._consumer.consume(most - least, 0)
        if any(map(Message.error, messages)):
            messages, error = _part_at_error(messages)
        return Block.of(messages), error

    def release(self) -> None:
        """Give up the partition."""
        self._consumer.unassign()


def _part_at_error(messages: Sequence[Message]) -> tuple[list[Message], KafkaError | None]:
    good: list[Message] = []
    for message in messages:
        error = message.error()
        if error is None:
            good.append(message)
        elif error.code() != KafkaError._PARTITION_EOF and not is_of_group(error):
            return good, error
    return good, None
