"""Sends records over one producer, in order: blocks of Arrow columns, or one record at a time.

A block goes through librdkafka's batch call where that can carry it. Records of a block are not reported. A failed one
is noticed by the transaction, or by the topic's growth. No wait is longer than `timeout` without an answer.
"""

import time
from collections.abc import Callable, Iterable

import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Producer

from tasks.kafka import native_produce
from tasks.kafka.clients import Headers, kafka_errors, translate

# A full queue is asked again after the broker had time for some batches.
_FULL_QUEUE_SECONDS = 0.05
_FLUSH_SECONDS = 1.0
# 50,000 records a call: librdkafka's copy runs without the GIL for about 15 ms.
_BATCH_ROWS = 50_000

# Topic and librdkafka's error for a record → the error to raise.
Explain = Callable[[str, KafkaError], Exception]
# The error of a record, or None, and the record.
Report = Callable[[KafkaError | None, object], None]


def explain_refusal(topic: str, error: KafkaError) -> Exception:
    """Return the error for a record that was itself refused."""
    return translate(f"sending to topic {topic}", error)


class Sender:
    """Queues records on a producer. `what` names it in errors; `check` is called in every wait, and may raise."""

    def __init__(
        self,
        producer: Producer,
        what: str,
        timeout: float,
        check: Callable[[], object] = lambda: None,
        explain: Explain = explain_refusal,
    ) -> None:
        self._producer = producer
        self._what = what
        self._timeout = timeout
        self._check = check
        self._explain = explain
        self._topics: dict[str, native_produce.NativeTopic] = {}

    def send(
        self,
        topic: str,
        partition: int,
        values: pa.Array,
        keys: pa.Array | None = None,
        headers: pa.Array | None = None,
        timestamps: pa.Array | None = None,
    ) -> None:
        """Queue records in order. Arrays of one length; `headers` list<struct<name, value>>, `timestamps` int64 ms."""
        if native_produce.AVAILABLE and headers is None and timestamps is None:
            for first in range(0, len(values), _BATCH_ROWS):
                part = slice(first, first + _BATCH_ROWS)
                self._send_native(topic, partition, values[part], None if keys is None else keys[part])
        else:
            self._send_plain(topic, partition, values, keys, headers, timestamps)
        self.serve(0)

    def send_one(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int = -1,
        headers: Headers = (),
        timestamp: int = 0,
        delivered: Report | None = None,
    ) -> None:
        """Queue one record; a null value is sent as null. `delivered` is called with the answer, in a later wait."""
        answer = {} if delivered is None else {"on_delivery": delivered}
        while True:
            try:
                # A swallowed BufferError would be a lost record that no commit reports.
                self._producer.produce(
                    topic, value, key, partition, headers=list(headers), timestamp=timestamp, **answer
                )
            except BufferError:
                self._wait_for_space()
            except KafkaException as error:
                raise self._explain(topic, error.args[0]) from error
            else:
                return

    def _send_native(self, topic: str, partition: int, values: pa.Array, keys: pa.Array | None) -> None:
        handle = self._topics.get(topic)
        if handle is None:
            handle = self._topics[topic] = native_produce.NativeTopic(self._producer, topic)
        messages = native_produce.lay_out(values, keys)
        first = 0
        while first < len(messages):
            taken, code = handle.produce(partition, messages[first:])
            first += taken
            if native_produce.is_queue_full(code):
                self._wait_for_space()
            elif code:
                raise self._explain(topic, KafkaError(code))

    def _send_plain(
        self,
        topic: str,
        partition: int,
        values: pa.Array,
        keys: pa.Array | None,
        headers: pa.Array | None,
        timestamps: pa.Array | None,
    ) -> None:
        count = len(values)
        columns: list[Iterable[object]] = [
            [None] * count if column is None else column.to_pylist() for column in (keys, values, headers, timestamps)
        ]
        for key, value, header, timestamp in zip(*columns, strict=True):
            pairs = [(h["name"], h["value"]) for h in header or ()]
            self.send_one(topic, key, value, partition, pairs, max(timestamp or 0, 0))

    def serve(self, seconds: float) -> None:
        """Poll; a fatal error is raised here, not in the error callback."""
        with kafka_errors(self._what):
            self._producer.poll(seconds)

    def flush(self) -> None:
        """Wait until every queued record is answered."""
        with kafka_errors(self._what):
            self._wait_below(1, lambda: self._producer.flush(_FLUSH_SECONDS))

    def _wait_for_space(self) -> None:
        self._wait_below(len(self._producer), lambda: self.serve(_FULL_QUEUE_SECONDS))

    def _wait_below(self, count: int, serve: Callable[[], object]) -> None:
        """Wait until fewer than `count` records are unanswered; KafkaTransientError after `timeout` s without answer.

        librdkafka itself would wait for the transaction's timeout, a quarter of an hour, for a broker that is gone.
        """
        left, moved = len(self._producer), time.monotonic()
        while left >= count:
            self._check()
            serve()
            before, left = left, len(self._producer)
            if left < before:
                moved = time.monotonic()
            elif time.monotonic() > moved + self._timeout:
                raise translate(f"no record of {self._what} was answered", KafkaError(KafkaError._TIMED_OUT))

    def close(self) -> None:
        """Give the topic handles back, and drop what is still queued. The producer itself stays its owner's."""
        for handle in self._topics.values():
            handle.close()
        self._topics.clear()
        self._producer.purge(in_queue=True, in_flight=True)
