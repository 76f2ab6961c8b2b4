"""Finds keys in the records of a run: by its sparse index, or by a binary search over offsets. It never scans a run."""

import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from tasks.arrow import one_chunk
from tasks.errors import TransientError
from tasks.kafka.clients import is_of_group, kafka_errors, make_consumer, translate
from tasks.kafka.fetch import Block
from tasks.reading.keys import KeyReader
from tasks.reading.merging import KEY
from tasks.reading.runs import ReadableRange, RunDeletedError
from tasks.run_context import current_run
from tasks.settings.connection import Connection
from tasks.sorting.encoded import count_before
from tasks.sparse_index import EVERY, IndexPart, part_keys

# A binary search ends at so few rows.
_FEW_ROWS: Final = 250
_MOST_ROWS: Final = 5000
# A fetch brings at least one batch, whole; these bytes keep it from bringing more.
_FETCH_BYTES: Final = 65_536
_CONSUME_SECONDS: Final = 0.05
_PARTS_HELD: Final = 64
_DELETED: Final = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})


class Prober:
    """Reads a few records from any offset of a topic, with one consumer that is kept: a seek takes one fetch."""

    def __init__(self, connection: Connection, group: str, topic: str, patience: float) -> None:
        settings = {
            "fetch.wait.max.ms": 10,
            "fetch.queue.backoff.ms": 0,
            "queued.min.messages": 1,
            "max.partition.fetch.bytes": _FETCH_BYTES,
        }
        self._consumer: Consumer = make_consumer(connection, group, **settings)
        self._topic, self._patience = topic, patience
        self._partition = self._next = -1

    def read(self, r: ReadableRange, offset: int, most: int) -> pa.Table:
        """Return up to so many records of a run from an offset on, one at least. RunDeletedError if they are gone."""
        self._seek(r.partition, offset)
        deadline = time.monotonic() + self._patience
        while time.monotonic() < deadline:
            current_run().stop.check()
            messages = self._consumer.consume(min(most, r.last + 1 - offset), _CONSUME_SECONDS)
            wanted = [m for m in messages if self._is_wanted(m, r, offset)]
            if wanted:
                self._next = (wanted[-1].offset() or 0) + 1
                return add_run(Block.of(wanted).table(r.partition), r.run)
        raise TransientError(f"{self._topic}/{r.partition} offset {offset} could not be read for {self._patience:g} s")

    def _seek(self, partition: int, offset: int) -> None:
        if (partition, offset) == (self._partition, self._next):
            # What was fetched ahead is not fetched again.
            return
        place = TopicPartition(self._topic, partition, offset)
        with kafka_errors(f"reading {self._topic}"):
            if partition == self._partition:
                self._consumer.seek(place)
            else:
                self._consumer.assign([place])
        self._partition = partition

    def _is_wanted(self, message: Message, r: ReadableRange, offset: int) -> bool:
        error = message.error()
        if error is not None and is_of_group(error):
            return False
        if error is None:
            return message.partition() == r.partition and offset <= (message.offset() or 0) <= r.last
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

    def scan(self, r: ReadableRange, low: bytes, high: bytes | None) -> Iterator[pa.Table]:
        """Yield the records with keys from `low` on that are below `high`, with a column of their keys."""
        # An entry of the index is at most so many rows before the key.
        offset, most = self.locate(r, low), EVERY + 1
        while offset <= r.last:
            rows = self._read(r, offset, most)
            part, is_end = cut_keys(rows, low, high)
            if len(part):
                yield part
            if is_end:
                return
            offset, most = rows.column("offset")[-1].as_py() + 1, min(2 * most, _MOST_ROWS)

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
