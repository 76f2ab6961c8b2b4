"""Reads ranges of offsets by whole blocks, into Arrow columns, for the quick pass of verification.

The sorter reads so, too; the thorough pass reads by confluent-kafka's own messages (`reading`). The first blocks, and
one in 200 behind them, are compared with what these give, so that source and outputs are not misread alike.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from confluent_kafka.admin import AdminClient

from tasks.kafka import fetch
from tasks.kafka.clients import make_consumer
from tasks.kafka.range_reader import RangeReader
from tasks.kafka.read_ahead import read_ahead
from tasks.manifests import OffsetRange
from tasks.run_context import current_run
from tasks.settings.connection import Connection
from tasks.verification.reading import Block, TopicReader

# The time to wait at the end of a range, where the last offset may hold no record.
_CONSUME_SECONDS = 0.02
_FETCH_WAIT_MS = 10
_COMPARED_BLOCKS = 200


class UnprovenError(Exception):
    """The quick pass cannot show that nothing differs. The thorough pass then says what does, if anything."""


def require(condition: bool) -> None:  # noqa: FBT001  # as assert has it
    """Raise UnprovenError unless the condition holds."""
    if not condition:
        raise UnprovenError


@dataclass(frozen=True)
class FetchedBlock(Block):
    """Records as lists, made of Arrow columns. `messages` holds their timestamps in ms."""

    @cached_property
    def _times(self) -> npt.NDArray[np.int64]:
        return np.array(self.messages, np.int64)


@dataclass(frozen=True)
class Fetched:
    """Consecutive records of one partition as Arrow columns."""

    partition: int
    columns: fetch.Block

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """The offsets, which ascend."""
        return self.columns.offsets

    @cached_property
    def listed(self) -> Block:
        """The same records as lists."""
        columns = self.columns
        values, keys, headers = map(_to_list, (columns.values, columns.keys, columns.headers))
        if columns.headers.null_count < len(self):
            headers = [item and [(header["name"], header["value"]) for header in item] for item in headers]
        return FetchedBlock(self.partition, columns.offsets, values, keys, headers, columns.timestamps)  # type: ignore[arg-type]  # times stand for messages


def _to_list(column: pa.Array) -> list[Any]:
    """Return the items; a column of nulls needs no look at each."""
    return [None] * len(column) if column.null_count == len(column) else column.to_pylist()


class FetchedReader:
    """Reads one partition at a time, with one consumer a topic. `other`: the reader to compare with."""

    def __init__(
        self, connection: Connection, admin: AdminClient, other: TopicReader, group: str, patience: float
    ) -> None:
        self._connection = connection
        self._admin = admin
        self._other = other
        self._group = group
        self._patience = patience
        self._readers: dict[str, RangeReader] = {}
        self._consumers: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for consumer in self._consumers:
            consumer.close()

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[Fetched]:
        """Yield the committed records with offsets in [start, end).

        UnprovenError if some were removed, or if the other reader has others.
        """
        if start >= end:
            return
        reader = self._reader(topic)
        try:
            for number, columns in enumerate(read_ahead(reader.read(OffsetRange(partition, start, end)))):
                fetched = Fetched(partition, columns)
                # The first one is small.
                if number == 0 or number % _COMPARED_BLOCKS == 1:
                    self._compare(topic, fetched.listed)
                yield fetched
        finally:
            reader.release()
        require(not reader.take_lost())

    def _compare(self, topic: str, block: Block) -> None:
        """Compare a block with what the other reader gives."""
        first, last = int(block.offsets[0]), int(block.offsets[-1])
        others = list(self._other.read(topic, block.partition, first, last + 1))
        for mine, theirs in (
            (block.offsets, [other.offsets for other in others]),
            (block.times(), [other.times() for other in others]),
            (block.digests(), [other.digests() for other in others]),
        ):
            require(bool(others) and np.array_equal(mine, np.concatenate(theirs)))

    def _reader(self, topic: str) -> RangeReader:
        if topic not in self._readers:
            consumer = make_consumer(self._connection, self._group, **{"fetch.wait.max.ms": _FETCH_WAIT_MS})
            self._consumers.append(consumer)
            stop = current_run().stop
            self._readers[topic] = RangeReader(
                consumer, self._admin, topic, stop, self._patience, consume_seconds=_CONSUME_SECONDS
            )
        return self._readers[topic]
