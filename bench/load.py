"""The load of a measured stream: a generator at a steady rate, and a reader of the outputs."""

import re
import threading
import time
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Consumer, TopicPartition

from tasks.generate import make_block
from tasks.kafka.clients import make_admin, make_consumer, make_producer
from tasks.kafka.native_produce import NativeTopic, lay_out
from tasks.kafka.topics import LATEST, list_offsets
from tasks.settings.connection import Connection

_TICK_SECONDS = 0.02
_POOL_RECORDS = 400_000
# The generator writes the time, in ms, where the sample has an address; the reader finds it there.
_TIME = re.compile(rb"^[^,]*,[^,]*,(\d{13}),")
_READ_ONE_OF = 50


class Feed:
    """Records at a steady rate, from a thread; each holds the time when it was handed to the producer."""

    def __init__(self, connection: Connection, topic: str, partitions: int, rate: int) -> None:
        self._producer = make_producer(connection, **{"linger.ms": 5, "delivery.report.only.error": True})
        self._topic = NativeTopic(self._producer, topic)
        rows = make_block(1, 0, _POOL_RECORDS)
        fields = pc.split_pattern(rows.cast(pa.string()), ",")
        id_, name, continent = (pc.list_element(fields, i) for i in (0, 1, 3))
        self._heads = pc.binary_join_element_wise(id_, name, pa.scalar(","))
        self._tails = continent
        self._partitions, self._rate = partitions, rate
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.sent = 0
        self.started = 0.0

    def __enter__(self) -> Self:
        self.started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._producer.flush(60)
        self._topic.close()

    def _run(self) -> None:
        partition = 0
        while not self._ended.wait(_TICK_SECONDS):
            due = int((time.monotonic() - self.started) * self._rate) - self.sent
            self._send(min(due, _POOL_RECORDS), partition)
            partition = (partition + 1) % self._partitions
            self._producer.poll(0)

    def _send(self, count: int, partition: int) -> None:
        first = self.sent % (_POOL_RECORDS - count + 1)
        now = pa.scalar(str(round(time.time() * 1000)))
        heads, tails = self._heads.slice(first, count), self._tails.slice(first, count)
        rows = pc.binary_join_element_wise(heads, now, tails, pa.scalar(",")).cast(pa.binary())
        messages = lay_out(rows, None)
        taken = 0
        while taken < count:
            some, _ = self._topic.produce(partition, messages[taken:])
            taken += some
            if taken < count:
                self._producer.poll(0.01)
        self.sent += count


class Tail:
    """A `read_committed` reader of one output, which measures how late it could read records."""

    def __init__(self, connection: Connection, topic: str, partitions: int) -> None:
        self.seconds: list[float] = []
        self.longest_wait = 0.0
        self._consumer: Consumer = make_consumer(connection, "bench-tail", **{"auto.offset.reset": "latest"})
        ends = list_offsets(make_admin(connection), topic, range(partitions), LATEST)
        self._consumer.assign([TopicPartition(topic, p, end) for p, end in ends.items()])
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._consumer.close()

    def _run(self) -> None:
        last: float | None = None
        while not self._ended.is_set():
            block = self._consumer.consume(5000, 0.05)
            now = time.time()
            if block:
                self.longest_wait = max(self.longest_wait, now - (last or now))
                last = now
            for message in block[::_READ_ONE_OF]:
                found = _TIME.match(message.value() or b"")
                if found:
                    self.seconds.append(now - int(found[1]) / 1000)
