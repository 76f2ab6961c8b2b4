"""Reads a bounded range of offsets of one partition, in blocks.

Guarantee 3 (nothing lost in silence): a range has been read when the position is at or past its end. Records are never
counted for that, since control, aborted and compacted records leave gaps. A record that was removed before it was read
is an event, not a gap: the consumer has no reset policy, so the broker's "out of range" is reported as an error.
"""

import time
from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient

from tasks.errors import TerminalError
from tasks.kafka import native_fetch
from tasks.kafka.clients import translate
from tasks.kafka.fetch import Block
from tasks.kafka.topics import EARLIEST, LATEST, list_offsets
from tasks.manifests import LostRange, OffsetRange
from tasks.run_context import Stop

# 5000 messages stay in the processor's cache; 20,000 do not (490,000 → 1,650,000 records/s, with the other settings).
_BLOCK_RECORDS = 5000
_BLOCK_BYTES = 8_000_000
_FIRST_RECORDS = 10
CONSUME_SECONDS = 0.25
_STALL_SECONDS = 5.0


class RangeEndError(TerminalError):
    """The partition ends before the range does: its log was truncated."""

    action = "Look for an unclean leader election or lost disks in the source's cluster."
    at_risk = "**Yes**: the source has lost records that it had acknowledged. This run has published nothing."


class RangeReader:
    """Reads ranges with one consumer, without a pause where one begins at the end of the former.

    `consume_seconds`: how long a block waits for records, also at the end of a range where only control records follow.
    `block_bytes`: about how many a block has at most. `values_only`: keys and headers may come as nulls.
    """

    def __init__(
        self,
        consumer: Consumer,
        admin: AdminClient,
        topic: str,
        stop: Stop,
        request_timeout: float,
        consume_seconds: float = CONSUME_SECONDS,
        block_bytes: int = _BLOCK_BYTES,
        *,
        values_only: bool = False,
    ) -> None:
        self._lost: list[LostRange] = []
        self._consume_seconds = consume_seconds
        self._consumer = consumer
        self._fetcher = native_fetch.make_fetcher(consumer, topic, values_only=values_only)
        self._admin = admin
        self._topic = topic
        self._stop = stop
        self._timeout = request_timeout
        self._partition = self._next = -1
        # Records below this offset were removed, in this range and in later ones.
        self._removed_to = 0
        self._carried: Block | None = None
        # The first block is small: the size of records is not known yet.
        self._block_bytes = block_bytes
        self._mean_bytes = block_bytes / _FIRST_RECORDS

    @property
    def place(self) -> tuple[int, int]:
        """The partition, and the offset behind the last record: a range that begins there is read without a seek."""
        return self._partition, self._next

    def read(self, wanted: OffsetRange) -> Iterator[Block]:
        """Yield the range's records in blocks, in offset order. A caller may end before the range does."""
        if wanted.partition != self._partition:
            # What was removed from one partition says nothing about another.
            self._removed_to = 0
        start = max(wanted.start, min(self._removed_to, wanted.end))
        if start > wanted.start:
            self._lost.append(LostRange(wanted.partition, wanted.start, start))
        if start == wanted.end:
            # A fetch there would fail, and its error would be reported in the next range.
            return
        if self.place != (wanted.partition, start):
            self._seek(wanted.partition, start)
        progress = time.monotonic()
        while self._next < wanted.end:
            self._stop.check()
            block = self._cut(self._take(wanted), wanted.end)
            if block:
                progress = time.monotonic()
                yield block
            elif not self._advance(wanted) and time.monotonic() > progress + _STALL_SECONDS:
                self._check_stall(wanted, progress)
        self._next = wanted.end

    def take_lost(self) -> tuple[LostRange, ...]:
        """Return the ranges that were removed before they were read, since the last call."""
        lost, self._lost = tuple(self._lost), []
        return lost

    def release(self) -> None:
        """Give up the partition; the next range seeks its start again."""
        self._next = -1
        self._fetcher.release()

    def _seek(self, partition: int, offset: int) -> None:
        self._carried = None
        self._partition, self._next = partition, offset
        self._fetcher.assign(partition, offset)

    def _take(self, wanted: OffsetRange) -> Block:
        if self._carried:
            block, self._carried = self._carried, None
            return block
        # It asks for no more than what is left: `fetch` waits its full time for records that will not come.
        most = min(_BLOCK_RECORDS, wanted.end - self._next, max(1, int(self._block_bytes / self._mean_bytes)))
        block, error = self._fetcher.fetch(most, self._consume_seconds)
        if error is None:
            return block
        if error.code() not in {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}:
            raise translate(f"reading {self._topic} partition {wanted.partition}", error)
        # The records before the gap come first.
        if not block:
            self._skip_removed(wanted, error)
        return block

    def _skip_removed(self, wanted: OffsetRange, error: KafkaError) -> None:
        """Note the records that retention removed meanwhile, and go on behind them."""
        partition = wanted.partition
        log_start = list_offsets(self._admin, self._topic, [partition], EARLIEST)[partition]
        if log_start <= self._next:
            self._check_end(wanted)
            raise translate(f"reading {self._topic} partition {partition} at offset {self._next}", error)
        self._note_removed(wanted, log_start)

    def _note_removed(self, wanted: OffsetRange, log_start: int) -> None:
        self._lost.append(LostRange(wanted.partition, self._next, min(log_start, wanted.end)))
        self._removed_to = log_start
        self._seek(wanted.partition, log_start)

    def _cut(self, block: Block, end: int) -> Block | None:
        """Return the records below `end`, and keep those above for the next range."""
        if not block:
            return None
        self._mean_bytes = block.nbytes / len(block) + 100
        self._next = min(int(block.offsets[-1]) + 1, end)
        if block.offsets[-1] < end:
            return block
        below, above = block.divide(end)
        self._carried = above or None
        return below or None

    def _advance(self, wanted: OffsetRange) -> bool:
        """Move past offsets without a record: the consumer's position passes control records."""
        position = self._consumer.position([TopicPartition(self._topic, wanted.partition)])[0].offset
        if position > self._next:
            self._next = position
            return True
        return False

    def _check_stall(self, wanted: OffsetRange, progress: float) -> None:
        """Find out why nothing came for a while: records were removed, the log was truncated, or the broker is slow."""
        self._check_end(wanted)
        partition = wanted.partition
        log_start = list_offsets(self._admin, self._topic, [partition], EARLIEST)[partition]
        if log_start > self._next:
            self._note_removed(wanted, log_start)
        elif time.monotonic() > progress + self._timeout:
            error = KafkaError(KafkaError._TIMED_OUT)
            raise translate(f"reading {self._topic} partition {partition} at offset {self._next}", error)

    def _check_end(self, wanted: OffsetRange) -> None:
        end = list_offsets(self._admin, self._topic, [wanted.partition], LATEST)[wanted.partition]
        if end < wanted.end:
            raise RangeEndError(
                f"source {self._topic} partition {wanted.partition} ends at offset {end}, before {wanted.end}, where "
                "it ended when the run began: its log was truncated; nothing was published, start again"
            )
