"""One transaction on one producer instance: begun, filled, committed. After any failure the instance is thrown away.

Guarantee 2 (all or nothing, exactly once): a commit succeeds only for the newest holder of the transactional id, and
a producer that has seen an error begins no other transaction. librdkafka 2.16 lacks the client side of KIP-890, so a
late commit of an older transaction must find a newer epoch, which only `init_transactions` of a new instance gives.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from functools import partial

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

from tasks.kafka import native_adopt
from tasks.kafka.clients import (
    CommitUnknownError,
    KafkaTransientError,
    Property,
    kafka_errors,
    make_consumer,
    make_producer,
    translate,
)
from tasks.kafka.sender import Sender
from tasks.run_context import current_run
from tasks.settings.connection import Connection

# An answer may never come if its connection broke: a call that has none this much later is given up.
_LOST_SECONDS = 10.0
_LOOK_SECONDS = 0.1
# librdkafka may notice its own timeout some time later.
_GRACE_SECONDS = 5.0


def _check_stop() -> None:
    """Check the stop of the present run, by the time of the call: a producer outlives the batches of a stream."""
    current_run().stop.check()


def is_retriable(error: BaseException) -> bool:
    """Whether librdkafka says that the very same call may be repeated."""
    return isinstance(error, KafkaException) and bool(error.args[0].retriable())


class TransactionalProducer:
    """A producer that holds a transactional id from `init` on; any error after that makes it spent."""

    def __init__(
        self,
        connection: Connection,
        transactional_id: str,
        transaction_seconds: float,
        queue_bytes: int,
        batch_bytes: int,
        timeout: float,
        *,
        shared: bool = False,
    ) -> None:
        """Make the producer. `shared`: its transaction has several publishers, so it learns its own identity."""
        self.spent = False
        self._id = transactional_id
        self._identity = native_adopt.IdentityLog() if shared else None
        self._timeout = timeout
        over: dict[str, Property] = {
            "transactional.id": transactional_id,
            "transaction.timeout.ms": round(transaction_seconds * 1000),
            # Without delivery reports for successful records, a record costs no Python at all; a failed one makes the
            # commit fail.
            "delivery.report.only.error": True,
            # In kB; never 0, which is not "no limit". The default is 1 GB. librdkafka counts the bytes of records, and
            # not the 170 bytes that it needs for each besides: hence the limit in records.
            "queue.buffering.max.kbytes": max(queue_bytes // 1024, 1024),
            "queue.buffering.max.messages": max(queue_bytes // 128, 10_000),
            # librdkafka does not split a batch that a topic refuses as too large.
            "batch.size": batch_bytes,
            "error_cb": self._on_error,
            **(self._identity.properties if self._identity else {}),
        }
        self._producer: Producer = make_producer(connection, **over)
        what = f"transaction {transactional_id}"
        self.sender = Sender(self._producer, what, timeout, _check_stop, self._cause)
        self._make_group = partial(make_consumer, connection, transactional_id)
        self._group: Consumer | None = None

    def _on_error(self, _: KafkaError) -> None:
        self.spent = True

    def init(self, topic: str) -> None:
        """Fence the former holder of the id, and settle its transaction. `topic`: any topic that exists.

        To ask for it makes the client connect first: without a connection librdkafka looks for the coordinator only
        twice a second.
        """
        with kafka_errors(f"fencing as {self._id}"):
            self._producer.list_topics(topic, self._timeout)
            for attempt in self._while_retriable():
                with attempt:
                    self._producer.init_transactions(self._timeout)
        self.spent = False

    @property
    def identity(self) -> native_adopt.ProducerIdentity:
        """The id and epoch that `init` got, of a shared producer; PlaceNotFoundError if librdkafka did not say."""
        if self._identity is None:
            raise RuntimeError("only a shared producer learns its identity")
        return self._identity.learn(self._producer)

    def require_adoptable(self) -> None:
        """Raise PlaceNotFoundError unless this producer can take another one's identity."""
        native_adopt.find_place(self._producer, self.identity)

    def adopt(self, shared: native_adopt.ProducerIdentity) -> None:
        """Take the identity of the driver's producer, before the transaction begins.

        Invariant I1: rows are sent only under an identity that a driver's `init` got after that of this producer. If
        this write failed, Kafka would refuse the first row: the identity of this producer is fenced.
        """
        native_adopt.adopt(self._producer, self.identity, shared)

    def learn_partitions(self, topics: Mapping[str, int]) -> None:
        """Wait until the producer knows so many partitions of each topic; KafkaTransientError after too long."""
        deadline = time.monotonic() + self._timeout
        with kafka_errors(f"partitions of {', '.join(topics)}"):
            for topic, count in topics.items():
                while len(self._producer.list_topics(topic, self._timeout).topics[topic].partitions) < count:
                    if time.monotonic() > deadline:
                        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
                    _check_stop()
                    time.sleep(_LOOK_SECONDS)

    def poll(self) -> None:
        """Serve callbacks, so that errors are noticed."""
        try:
            self._producer.poll(0)
        except KafkaException:
            self.spent = True

    def begin(self) -> None:
        """Begin the one transaction."""
        with kafka_errors(f"transaction {self._id} could not begin"):
            self._producer.begin_transaction()

    def flush(self) -> None:
        """Wait until every queued record is answered; raise the error of a failed one."""
        self.sender.flush()
        self.require_healthy()

    def require_healthy(self) -> None:
        """Raise the error that made the transaction fail, if there is one."""
        try:
            # librdkafka refuses this: in a healthy transaction because one is open, in a failed one with its reason.
            self._producer.begin_transaction()
        except KafkaException as error:
            if error.args[0].code() != KafkaError._STATE:
                raise translate(f"transaction {self._id}", error.args[0]) from error

    def _cause(self, topic: str, refused: KafkaError) -> Exception:
        """Return why the transaction failed, in place of "erroneous state", which later records get."""
        try:
            self.require_healthy()
        except Exception as cause:  # noqa: BLE001  # returned, not swallowed
            return cause
        return translate(f"sending to {topic}", refused)

    def send_offsets(self, topic: str, offsets: dict[int, int]) -> None:
        """Add source partition → next offset to the transaction, for the group that has the id's name."""
        positions = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
        with kafka_errors(f"offsets of group {self._id}"):
            for attempt in self._while_retriable():
                with attempt:
                    metadata = self._offsets_group().consumer_group_metadata()
                    send = self._producer.send_offsets_to_transaction
                    self._within_time("offsets", partial(send, positions, metadata, self._timeout))

    def _offsets_group(self) -> Consumer:
        """Return the consumer that only carries the group's name.

        It never subscribes, so the group does not fence its commits.
        """
        self._group = self._group or self._make_group()
        return self._group

    def commit(self) -> None:
        """Commit. CommitUnknownError if there is no answer: the ledger has the outcome."""
        try:
            with kafka_errors(f"commit of transaction {self._id}"):
                for attempt in self._while_retriable():
                    with attempt:
                        commit = self._producer.commit_transaction
                        self._within_time("commit", partial(commit, self._timeout))
        except KafkaTransientError as error:
            raise CommitUnknownError(f"{error}; the ledger has the outcome", error.code) from error

    def abort(self) -> None:
        """Try to settle the transaction now, for the readers that wait behind it; else the next fencing does it."""
        self.spent = True
        with contextlib.suppress(KafkaException, KafkaTransientError):
            self._producer.purge(in_queue=True, in_flight=True)
            abort = self._producer.abort_transaction
            self._within_time("abort", partial(abort, _LOST_SECONDS))

    def close(self) -> None:
        """Give up the instance. The next `init` settles a transaction that it left open."""
        self.spent = True
        with contextlib.suppress(KafkaException):
            self.sender.close()
        if self._group is not None:
            self._group.close()
        # The producer ends with its last reference.
        del self._producer, self.sender

    def _within_time(self, what: str, call: Callable[[], object]) -> None:
        """Make a call that librdkafka should bound by the request timeout; KafkaTransientError where it does not.

        librdkafka 2.16 may never answer `send_offsets_to_transaction` if the broker goes away during the call, even
        once the broker is back, and meanwhile readers wait behind the transaction. So the call is given up much sooner
        after an error, or when the run is to stop. Such a call keeps its thread and the producer, which is thrown away:
        it begins and commits nothing more.
        """
        outcome: Future[None] = Future()

        def run() -> None:
            try:
                call()
            except BaseException as error:  # noqa: BLE001  # raised below
                outcome.set_exception(error)
            else:
                outcome.set_result(None)

        threading.Thread(target=run, name=what, daemon=True).start()
        deadline, stop = time.monotonic() + self._timeout + _GRACE_SECONDS, current_run().stop
        while not wait([outcome], _LOOK_SECONDS).done:
            self.poll()
            if self.spent or stop.is_set():
                deadline = min(deadline, time.monotonic() + _LOST_SECONDS)
            if time.monotonic() > deadline:
                raise translate(f"{what} of transaction {self._id} got no answer", KafkaError(KafkaError._TIMED_OUT))
        outcome.result()

    def _while_retriable(self) -> Retrying:
        return Retrying(
            retry=retry_if_exception(is_retriable),
            wait=wait_exponential_jitter(multiplier=0.1, max=2.0, jitter=0.1),
            stop=stop_after_delay(self._timeout),
            reraise=True,
        )
