"""Reads the records of runs in their order, in blocks of bounded size, and none beyond its range.

All streams of a reader share a few consumers: each costs threads, connections, 20 ms, and megabytes of records that
librdkafka has fetched and nobody has asked for yet. So memory grows little with the number of streams.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient

from tasks.kafka.clients import make_consumer
from tasks.kafka.fetch import Block
from tasks.kafka.range_reader import RangeReader
from tasks.manifests import OffsetRange
from tasks.reading.keys import KeyReader
from tasks.reading.merging import KEY, Blocks
from tasks.reading.runs import ReadableRange
from tasks.reading.search import add_run, cut_keys, deleted, with_keys
from tasks.run_context import current_run
from tasks.settings.connection import Connection

# Up to so many streams have a consumer each, which fetches ahead. More streams share two, one for each thread,
# which seek for each block: what they fetched ahead would be for another stream.
MOST_CONSUMERS: Final = 8
SHARED_CONSUMERS: Final = 2
# Blocks of all streams together; what is merged of them, and printed, takes a multiple.
_BYTES: Final = 8_000_000
# Less than a batch of Kafka's would fetch it again for each part of it.
_FEWEST_BYTES: Final = 1_000_000
_MOST_BYTES: Final = 4_000_000
_BLOCK_ROWS: Final = 50_000
_CONSUME_SECONDS: Final = 0.02
# A record in librdkafka's queue takes 400 bytes beside its own. A fetch brings a batch at least, some 10,000 records.
_QUEUED_RECORDS: Final = 20_000

# Where a range begins to hold keys from `low` on.
Locate = Callable[[ReadableRange, bytes], int]


@dataclass
class ReaderPool:
    """Readers of one topic, for several threads. `streams`: how many there are to read at once."""

    connection: Connection
    admin: AdminClient
    group: str
    topic: str
    patience: float
    streams: int
    values_only: bool
    _free: list[RangeReader] = field(default_factory=list)
    _consumers: list[Consumer] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def block_bytes(self) -> int:
        """About how many bytes a stream's block may have."""
        return min(max(_BYTES // self.streams, _FEWEST_BYTES), _MOST_BYTES)

    @property
    def _most(self) -> int:
        return self.streams if self.streams <= MOST_CONSUMERS else SHARED_CONSUMERS

    @contextmanager
    def take(self, place: tuple[int, int]) -> Iterator[RangeReader]:
        """Yield a reader, if possible one that stands at this partition and offset. One that failed is not used again.

        There are as many as are taken at once, and as many as streams while these are few.
        """
        reader = self._choose(place)
        yield reader
        with self._lock:
            self._free.append(reader)

    def _choose(self, place: tuple[int, int]) -> RangeReader:
        with self._lock:
            for i, reader in enumerate(self._free):
                if reader.place == place:
                    return self._free.pop(i)
            # The one that has not been used for the longest time: its records may be wanted by nobody.
            if self._free and len(self._consumers) >= self._most:
                return self._free.pop(0)
            return self._make()

    def _make(self) -> RangeReader:
        queue = {
            "queued.max.messages.kbytes": self.block_bytes // 1000,
            "queued.min.messages": _QUEUED_RECORDS if self.streams == 1 else 1,
            "fetch.queue.backoff.ms": 1,
            "fetch.wait.max.ms": 10,
            "max.partition.fetch.bytes": self.block_bytes // 4,
        }
        consumer = make_consumer(self.connection, self.group, **queue)
        self._consumers.append(consumer)
        stop, seconds, size = current_run().stop, _CONSUME_SECONDS, self.block_bytes // 2
        return RangeReader(
            consumer, self.admin, self.topic, stop, self.patience, seconds, size, values_only=self.values_only
        )

    def close(self) -> None:
        """Close the consumers; none may be in use."""
        self._free.clear()
        while self._consumers:
            self._consumers.pop().close()


@dataclass(frozen=True)
class StreamReader:
    """Reads streams of an output. `keys`: None if nothing depends on keys; `columns`: those that are wanted."""

    pool: ReaderPool
    keys: KeyReader | None
    columns: Sequence[str]

    def read(
        self, stream: Sequence[ReadableRange], locate: Locate, low: bytes | None = None, high: bytes | None = None
    ) -> Blocks:
        """Yield a stream's records with keys from `low` on that are below `high`. RunDeletedError if some are gone."""
        for r in stream:
            start = r.first if low is None else locate(r, low)
            for rows in self._read_range(r, start):
                part, is_end = (rows, False) if self.keys is None else cut_keys(rows, low, high)
                if len(part):
                    yield part
                if is_end:
                    return

    def _read_range(self, r: ReadableRange, start: int) -> Iterator[pa.Table]:
        while start <= r.last:
            with self.pool.take((r.partition, start)) as reader:
                blocks, start = self._read_blocks(reader, r, start)
            if blocks:
                yield self._shape(blocks, r)

    def _read_blocks(self, reader: RangeReader, r: ReadableRange, start: int) -> tuple[list[Block], int]:
        """Return records from an offset on, and the offset behind them. A large table costs less a row."""
        blocks: list[Block] = []
        rows = size = 0
        for block in reader.read(OffsetRange(r.partition, start, r.last + 1)):
            self._require_whole(reader, r)
            blocks.append(block)
            rows, size = rows + len(block), size + block.nbytes
            if rows >= _BLOCK_ROWS or size >= self.pool.block_bytes:
                return blocks, reader.place[1]
        self._require_whole(reader, r)
        return blocks, r.last + 1

    def _shape(self, blocks: Sequence[Block], r: ReadableRange) -> pa.Table:
        """Return the columns that are wanted, and the keys."""
        if self.keys is None and set(self.columns) == {"value"}:
            return pa.table({"value": pa.chunked_array([block.values for block in blocks])})
        rows = add_run(pa.concat_tables([block.table(r.partition) for block in blocks]), r.run)
        if self.keys is None:
            return rows.select(self.columns)
        # Parsing wants columns in one piece; all else takes them as they come.
        return with_keys(rows.combine_chunks(), self.keys).select([*self.columns, KEY])

    def _require_whole(self, reader: RangeReader, r: ReadableRange) -> None:
        if reader.take_lost():
            raise deleted(self.pool.topic, r)
