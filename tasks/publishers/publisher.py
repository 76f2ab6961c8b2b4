"""One publisher: steps 2 and 8 of an attempt with several. It sends its partitions, and decides nothing."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import Final
from uuid import uuid4

from tasks.errors import KafkaSortError
from tasks.failpoints import reach
from tasks.kafka.same_cluster import require_cluster
from tasks.kafka.transaction import TransactionalProducer
from tasks.manifests import KeyRange, SortedRows
from tasks.observe.logs import get_logger, log_context
from tasks.observe.progress import watching
from tasks.publishers.rendezvous import (
    REPORT_SECONDS,
    STALE_SECONDS,
    Announcement,
    DoorClosedError,
    Go,
    Message,
    Post,
    Progress,
    PublisherOrder,
    Report,
)
from tasks.publishers.rows import Total, Write, require_range, write_rows
from tasks.run_context import current_run
from tasks.settings.connection import current_connection
from tasks.sorting.rows import RowGatherer
from tasks.targets.kafka_topics import send_columns

_LOOK_SECONDS: Final = 0.05


def publish_share(order: PublisherOrder, post: Post) -> None:
    """Take part in an attempt, by the present connection, and tell the driver the outcome.

    An error is told, and raised. Of the run's context the stop is heeded, and the meter "publish" counts rows.
    """
    publisher = _Publisher(order, post)
    try:
        with log_context(**order.fields, publisher=order.number), watching(publisher.tell_progress, "publisher"):
            publisher.publish()
    except Exception as error:
        # The driver may be gone by now.
        with suppress(OSError):
            publisher.tell(_portable(error))
        raise


def _portable(error: Exception) -> Exception:
    """Return the error as another process can have it: errors of the project keep their class."""
    return error if isinstance(error, KafkaSortError) else RuntimeError(f"{type(error).__name__}: {error}")


@dataclass(frozen=True)
class _Publisher:
    order: PublisherOrder
    post: Post
    # A task that its engine runs twice has two tokens.
    token: str = field(default_factory=lambda: uuid4().hex)

    def publish(self) -> None:
        """Do steps 2 and 8."""
        # Step 2. No transactional id is touched in a cluster that is not the run's.
        ids = {topic.name: topic.id for topic in self.order.topics}
        require_cluster(current_connection(), self.order.cluster_id, ids, "nothing was fenced")
        with self._producer() as producer:
            go = self._wait_for_go(producer)
            share = go.shares.get(self.token)
            if share is None:
                get_logger().info("the attempt has begun without this publisher")
                return
            # Step 8.
            reach("before-adopt")
            producer.adopt(go.identity)
            reach("after-adopt")
            producer.begin()
            totals = self._send(producer, self._ranges(set(share)))
            reach("before-report")
            self.tell(Report(totals))
            reach("after-report")

    @contextmanager
    def _producer(self) -> Iterator[TransactionalProducer]:
        """Make the producer; it is closed without a request: what it leaves open is the driver's."""
        order = self.order
        producer = TransactionalProducer(
            current_connection(),
            order.job.group,
            order.transaction_seconds,
            order.queue_bytes,
            order.batch_bytes,
            order.job.request_timeout,
            shared=True,
        )
        try:
            yield producer
        finally:
            producer.close()

    def _wait_for_go(self, producer: TransactionalProducer) -> Go:
        """Announce this publisher, once it has an identity, and wait for the driver's word."""
        # An `init` behind a closed door would fence the driver: a retry for it, and never a wrong row.
        if self.post.is_closed:
            raise DoorClosedError("the attempt has begun without this publisher: nothing was fenced")
        self._require_driver()
        reach("before-publisher-init")
        producer.init(self.order.job.ledger)
        reach("after-publisher-init")
        producer.require_adoptable()
        producer.learn_partitions({topic.name: len(topic.partitions) for topic in self.order.topics})
        reach("before-announce")
        self.tell(Announcement())
        reach("after-announce")
        while (go := self.post.go) is None:
            self._require_driver()
            current_run().stop.wait(_LOOK_SECONDS)
        return go

    def _require_driver(self) -> None:
        if self.post.silence > STALE_SECONDS:
            raise DoorClosedError(f"the driver was not heard for {STALE_SECONDS:.0f} s: nothing was sent")

    def _ranges(self, share: set[tuple[str, int]]) -> Iterator[tuple[SortedRows, KeyRange]]:
        for rows in self.order.sorts:
            yield from ((rows, r) for r in rows.ranges if (rows.sort, r.partition) in share)

    def _send(self, producer: TransactionalProducer, ranges: Iterator[tuple[SortedRows, KeyRange]]) -> dict[str, Total]:
        """Send the rows of these ranges in order, and wait until all are acknowledged; return the totals by sort."""
        gatherer, meter, totals = RowGatherer(), current_run().progress.meter("publish"), dict[str, Total]()
        for rows, r in ranges:
            write: Write = partial(send_columns, producer.sender, rows.sort)
            total = write_rows(write, rows, gatherer, meter.add, r.first_row, r.end_row)
            totals[rows.sort] = totals.get(rows.sort, Total()) + require_range(rows, r, total)
        # Invariant I5: of a record that has its acknowledgement nothing is on its way.
        reach("before-publisher-flush")
        producer.flush()
        reach("after-publisher-flush")
        return totals

    def tell_progress(self, ended: Event) -> None:
        """Tell the driver how far this publisher is, until it ends."""
        meter = current_run().progress.meter("publish")
        while not ended.wait(REPORT_SECONDS):
            with suppress(OSError):
                self.tell(Progress(meter.done))

    def tell(self, content: Announcement | Progress | Report | Exception) -> None:
        """Tell the driver something, under this publisher's token."""
        self.post.tell(Message(self.order.attempt, self.order.number, self.token, content))
