"""Finds keys in the records of a run: by its sparse index, or by a binary search over offsets. It never scans a run."""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Final

import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, TopicPartition

from tasks.arrow import one_chunk
from tasks.errors import TransientError
from tasks.kafka.clients import kafka_errors, make_consumer, translate
from tasks.kafka.fetch import Block
from tasks.kafka.native_fetch import make_fetcher
from tasks.reading.keys import KeyReader
from tasks.reading.merging import KEY, Blocks
from tasks.reading.runs import ReadableRange, RunDeletedError
from tasks.run_context import current_run
from tasks.settings.connection import Connection
from tasks.sorting.encoded import count_before
from tasks.sparse_index import EVERY, IndexPart, part_keys

# A binary search ends at so few rows.
_FEW_ROWS: Final = 250
_MOST_ROWS: Final = 5000
# The consumer fetches the next batch once it has none left, also if nobody wants it.
_FETCH_ROWS: Final = EVERY + 1
# To read over so many records takes less than to seek.
_NEAR_ROWS: Final = 1000
# A fetch brings at least one batch, whole; these bytes keep it from bringing more.
_FETCH_BYTES: Final = 65_536
_CONSUME_SECONDS: Final = 0.05
_PARTS_HELD: Final = 64
# So many ranges are looked into at once.
_GROUP: Final = 64
_DELETED: Final = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})


class Prober:
    """Reads a few records from any offset of a topic, with one consumer that is kept: a seek takes one fetch."""

    def __init__(self, connection: Connection, group: str, topic: str, patience: float) -> None:
        settings = {
            "fetch.wait.max.ms": 10,
            # A seek waits as long as the backoff. Without any a thread spins while there are records that nobody takes.
            "fetch.queue.backoff.ms": 1,
            "queued.min.messages": 1,
            "max.partition.fetch.bytes": _FETCH_BYTES,
        }
        self._consumer: Consumer = make_consumer(connection, group, **settings)
        self._fetcher = make_fetcher(self._consumer, topic)
        self._topic, self._patience = topic, patience
        self._partition = self._next = -1
        # Records from `_next` on that were fetched with others.
        self._carried: Block | None = None

    def read(self, r: ReadableRange, offset: int, most: int) -> pa.Table:
        """Return up to so many records of a run from an offset on, one at least. RunDeletedError if they are gone."""
        self._move(r.partition, offset)
        deadline = time.monotonic() + self._patience
        while time.monotonic() < deadline:
            current_run().stop.check()
            if wanted := self._take(r, offset, min(offset + most, r.last + 1)):
                return add_run(wanted.table(r.partition), r.run)
        raise TransientError(f"{self._topic}/{r.partition} offset {offset} could not be read for {self._patience:g} s")

    def _move(self, partition: int, offset: int) -> None:
        """Be at an offset. If it is near, the records before it are read: small runs lie one behind the other."""
        if partition == self._partition and self._next <= offset <= self._next + _NEAR_ROWS:
            return
        place = TopicPartition(self._topic, partition, offset)
        with kafka_errors(f"reading {self._topic}"):
            if partition == self._partition:
                self._consumer.seek(place)
            else:
                self._fetcher.assign(partition, offset)
        self._partition, self._next, self._carried = partition, offset, None

    def _take(self, r: ReadableRange, start: int, end: int) -> Block | None:
        """Return records between these offsets, and keep those behind them."""
        fetched, self._carried = self._carried or self._fetch(r), None
        if not fetched:
            return None
        wanted, behind = fetched.divide(start)[1].divide(end)
        if behind and not wanted:
            raise deleted(self._topic, r)
        self._carried = behind or None
        self._next = int(fetched.offsets[-1 - len(behind)]) + 1
        return wanted or None

    def _fetch(self, r: ReadableRange) -> Block:
        """Return what there is. RunDeletedError if the next record is gone."""
        block, error = self._fetcher.fetch(_FETCH_ROWS, _CONSUME_SECONDS, least=1)
        if block or error is None:
            return block
        # The next read assigns the partition again.
        self._partition = -1
        raise deleted(self._topic, r) if error.code() in _DELETED else translate(f"reading {self._topic}", error)

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()


class Search:
    """Looks keys up in the runs of an output. `index`: the records of the job's index by their keys."""

    def __init__(self, prober: Prober, keys: KeyReader, topic: str, index: Mapping[bytes, bytes]) -> None:
        self._prober, self._keys, self._topic, self._index = prober, keys, topic, index
        self._parse = lru_cache(_PARTS_HELD)(IndexPart.parse)

    def scan(self, ranges: Sequence[ReadableRange], low: bytes, high: bytes | None) -> Blocks:
        """Yield the records with keys from `low` on that are below `high`, by range, with a column of their keys.

        What begins at these keys is read of some ranges in the order of their offsets, and parsed at once.
        """
        for start in range(0, len(ranges), _GROUP):
            group = ranges[start : start + _GROUP]
            begun = self._begin(group, low)
            for r in group:
                yield from self._go_on(r, begun.pop(r), low, high)

    def _begin(self, ranges: Sequence[ReadableRange], low: bytes) -> dict[ReadableRange, pa.Table]:
        """Return range → its first rows."""
        ordered = sorted(ranges, key=lambda r: (r.partition, r.first))
        # An entry of the index is at most so many rows before the key.
        read = {r: self._prober.read(r, self.locate(r, low), EVERY + 1) for r in ordered}
        rows = with_keys(pa.concat_tables(read.values()).combine_chunks(), self._keys)
        ends = accumulate(map(len, read.values()))
        return {r: rows.slice(end - len(read[r]), len(read[r])) for r, end in zip(read, ends, strict=True)}

    def _go_on(self, r: ReadableRange, rows: pa.Table, low: bytes, high: bytes | None) -> Iterator[pa.Table]:
        most = EVERY
        while True:
            part, is_end = cut_keys(rows, low, high)
            if len(part):
                yield part
            offset = rows.column("offset")[-1].as_py() + 1
            if is_end or offset > r.last:
                return
            most = min(2 * most, _MOST_ROWS)
            rows = self._read(r, offset, most)

    def locate(self, r: ReadableRange, low: bytes) -> int:
        """Return an offset of the range before which all keys are below `low`; the first such is not far behind it."""
        if r.first_bound is not None and not r.first_bound.is_before(low):
            return r.first
        found = self._find_in_index(r, low)
        return self._bisect(r, low) if found is None else max(found, r.first)

    def _find_in_index(self, r: ReadableRange, low: bytes) -> int | None:
        """Return the offset of the last entry before the key; None if there is no index, or none that can be read."""
        found = r.first
        values = [self._index.get(key) for key in part_keys(r.run, self._topic, r.partition, r.written)]
        if not values:
            return None
        for value in values:
            part = None if value is None else self._parse(value)
            # A job whose ledger was lost begins with run 1 again.
            if part is None or part.attempt != r.attempt:
                return None
            place = part.find(low)
            if place is None:
                break
            found = place
        return found

    def _bisect(self, r: ReadableRange, low: bytes) -> int:
        start, end = r.first, r.last + 1
        while end - start > _FEW_ROWS:
            middle = (start + end) // 2
            rows = self._read(r, middle, 1)
            if rows.column(KEY)[0].as_py() < low:
                start = middle + 1
            else:
                end = middle
        return start

    def _read(self, r: ReadableRange, offset: int, most: int) -> pa.Table:
        return with_keys(self._prober.read(r, offset, most), self._keys)


def with_keys(rows: pa.Table, keys: KeyReader) -> pa.Table:
    """Add the column of encoded keys."""
    return rows.append_column(KEY, keys.encode(rows))


def add_run(rows: pa.Table, run: int) -> pa.Table:
    """Add the column `run`."""
    return rows.append_column("run", pa.repeat(pa.scalar(run, pa.int32()), len(rows)))


def cut_keys(rows: pa.Table, low: bytes | None, high: bytes | None) -> tuple[pa.Table, bool]:
    """Return the rows with keys from `low` on that are below `high`, and whether the others behind need no look."""
    keys = one_chunk(rows.column(KEY))
    start = 0 if low is None else count_before(keys, low)
    end = len(keys) if high is None else count_before(keys, high)
    return rows.slice(start, max(end - start, 0)), end < len(keys)


def deleted(topic: str, r: ReadableRange) -> RunDeletedError:
    """Return the error of a range whose records are gone."""
    return RunDeletedError(
        f"records of run {r.run} in {topic}/{r.partition} were deleted while they were read: a later run took the "
        "run's place, or retention removed them; read again"
    )
