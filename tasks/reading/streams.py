"""Reads the records of runs in their order, in blocks of bounded size: one consumer a stream, none beyond its range."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
from confluent_kafka.admin import AdminClient

from tasks.kafka.clients import make_consumer
from tasks.kafka.range_reader import RangeReader
from tasks.manifests import OffsetRange
from tasks.reading.keys import KeyReader
from tasks.reading.merging import Blocks
from tasks.reading.runs import ReadableRange
from tasks.reading.search import add_run, cut_keys, deleted, with_keys
from tasks.run_context import current_run
from tasks.settings.connection import Connection

# What all streams of a reader together hold of records, half of it in librdkafka's queues.
_BYTES: Final = 64_000_000
_FEWEST_BYTES: Final = 500_000
_BLOCK_ROWS: Final = 50_000
_CONSUME_SECONDS: Final = 0.02
_QUEUED_RECORDS: Final = 100_000

# Where a range begins to hold keys from `low` on.
Locate = Callable[[ReadableRange, bytes], int]


@dataclass(frozen=True)
class StreamReader:
    """Reads streams of an output. `keys`: None if nothing depends on keys; `share`: the number of streams at once."""

    connection: Connection
    admin: AdminClient
    group: str
    topic: str
    patience: float
    keys: KeyReader | None
    share: int = 1

    @property
    def _bytes(self) -> int:
        return max(_BYTES // self.share, _FEWEST_BYTES)

    def read(
        self, stream: Sequence[ReadableRange], locate: Locate, low: bytes | None = None, high: bytes | None = None
    ) -> Blocks:
        """Yield a stream's records with keys from `low` on that are below `high`. RunDeletedError if some are gone."""
        queue = {
            "queued.max.messages.kbytes": self._bytes // 2000,
            # By default 100,000 small records, which take a multiple of their bytes.
            "queued.min.messages": max(_QUEUED_RECORDS // self.share, 1000),
            "fetch.wait.max.ms": 10,
        }
        fetch = {"max.partition.fetch.bytes": min(1_048_576, max(self._bytes // 16, 65_536))}
        consumer = make_consumer(self.connection, self.group, **queue, **fetch)
        stop, block_bytes = current_run().stop, self._bytes // 8
        reader = RangeReader(consumer, self.admin, self.topic, stop, self.patience, _CONSUME_SECONDS, block_bytes)
        try:
            for r in stream:
                start = r.first if low is None else locate(r, low)
                for rows in self._read_range(reader, r, start):
                    part, is_end = (rows, False) if self.keys is None else cut_keys(rows, low, high)
                    if len(part):
                        yield part
                    if is_end:
                        return
        finally:
            consumer.close()

    def _read_range(self, reader: RangeReader, r: ReadableRange, start: int) -> Iterator[pa.Table]:
        for rows in _gather(self._blocks(reader, r, start), self._bytes // 4):
            # Parsing wants columns in one piece; all else takes them as they come.
            yield rows if self.keys is None else with_keys(rows.combine_chunks(), self.keys)

    def _blocks(self, reader: RangeReader, r: ReadableRange, start: int) -> Iterator[pa.Table]:
        for block in reader.read(OffsetRange(r.partition, start, r.last + 1)):
            self._require_whole(reader, r)
            yield add_run(block.table(r.partition), r.run)
        self._require_whole(reader, r)

    def _require_whole(self, reader: RangeReader, r: ReadableRange) -> None:
        if reader.take_lost():
            raise deleted(self.topic, r)


def _gather(blocks: Iterator[pa.Table], most_bytes: int) -> Iterator[pa.Table]:
    """Join blocks: parsing and merging cost less a row in large ones."""
    parts: list[pa.Table] = []
    rows = size = 0
    for block in blocks:
        parts.append(block)
        rows, size = rows + len(block), size + block.nbytes
        if rows >= _BLOCK_ROWS or size >= most_bytes:
            yield pa.concat_tables(parts)
            parts, rows, size = [], 0, 0
    if parts:
        yield pa.concat_tables(parts)
