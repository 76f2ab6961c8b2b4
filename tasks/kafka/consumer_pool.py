"""A pool of consumers that outlive one range, for streams, which read range after range.

A new consumer costs threads, connections and 20 ms. A run of minutes does not notice that, but a micro-batch does.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Consumer

from tasks.kafka.clients import Property, make_admin, make_consumer
from tasks.kafka.range_reader import CONSUME_SECONDS, RangeReader
from tasks.run_context import current_run
from tasks.settings.budget import Budget
from tasks.settings.connection import Connection
from tasks.settings.job import Job

# By default a fetch at a partition's end waits half a second at the broker, and the next assignment waits behind it.
_LIVELY_FETCH_MS = 10
_LIVELY_CONSUME_SECONDS = 0.02


class ConsumerPool:
    """A pool of as many consumers as ranges are read at once; between two ranges they hold no partition.

    `lively`: for small ranges of partitions that are read to their ends, at the cost of more requests.
    """

    def __init__(self, job: Job, connection: Connection, *, lively: bool = False) -> None:
        self._job = job
        self._connection = connection
        self._admin = make_admin(connection)
        self._lively = lively
        self._free: list[Consumer] = []

    @contextmanager
    def take(self, topic: str) -> Iterator[RangeReader]:
        """Yield a reader for consecutive ranges of one partition. A reader that failed is not used again."""
        consumer = self._free.pop() if self._free else self._make()
        timeout, wait = self._job.request_timeout, _LIVELY_CONSUME_SECONDS if self._lively else CONSUME_SECONDS
        reader = RangeReader(consumer, self._admin, topic, current_run().stop, timeout, wait)
        try:
            yield reader
            reader.release()
        except BaseException:
            consumer.close()
            raise
        self._free.append(consumer)

    def close(self) -> None:
        """Close the consumers; none may be in use."""
        while self._free:
            self._free.pop().close()

    def _make(self) -> Consumer:
        job = self._job
        budget = Budget.of(job)
        over: dict[str, Property] = {"queued.max.messages.kbytes": budget.consumer_queue_bytes // 1000}
        if self._lively:
            over["fetch.wait.max.ms"] = _LIVELY_FETCH_MS
        return make_consumer(self._connection, job.group, **over)
