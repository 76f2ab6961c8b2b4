"""Reads ranges of offsets by whole blocks, into Arrow columns, for the quick pass of verification.

`reading` is the other way, by confluent-kafka's own messages, which the thorough pass takes.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
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
from tasks.manifests import OffsetRange
from tasks.run_context import current_run
from tasks.settings.connection import Connection
from tasks.verification.reading import Block

# The time to wait at the end of a range, where the last offset may hold no record.
_CONSUME_SECONDS = 0.02
_FETCH_WAIT_MS = 10


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
    """Reads one partition at a time, with one consumer a topic."""

    def __init__(self, connection: Connection, admin: AdminClient, group: str, patience: float) -> None:
        self._connection = connection
        self._admin = admin
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
        """Yield the committed records with offsets in [start, end). UnprovenError if some were removed."""
        if start >= end:
            return
        reader = self._reader(topic)
        try:
            for columns in _read_ahead(reader.read(OffsetRange(partition, start, end))):
                yield Fetched(partition, columns)
        finally:
            reader.release()
        require(not reader.take_lost())

    def _reader(self, topic: str) -> RangeReader:
        if topic not in self._readers:
            consumer = make_consumer(self._connection, self._group, **{"fetch.wait.max.ms": _FETCH_WAIT_MS})
            self._consumers.append(consumer)
            stop = current_run().stop
            self._readers[topic] = RangeReader(
                consumer, self._admin, topic, stop, self._patience, consume_seconds=_CONSUME_SECONDS
            )
        return self._readers[topic]


def _read_ahead(blocks: Iterator[fetch.Block]) -> Iterator[fetch.Block]:
    """Read the next block in another thread, mostly without Python's lock, while the last one is looked at."""
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(next, blocks, None)
        try:
            while (block := ahead.result()) is not None:
                ahead = pool.submit(next, blocks, None)
                yield block
        finally:
            # Nothing else may use the consumer before it is done.
            wait([ahead])
