"""The lease: one owner of a job at a time, by membership in a consumer group. For liveness only.

Guarantee 6 (one owner): the holder keeps the lease while it lives; who cannot get it learns who has it. Should the
judgement ever be wrong, fencing by the transactional id keeps the data right.
"""

import os
import socket
import threading
import time
from typing import NoReturn

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from tasks.errors import TerminalError
from tasks.kafka.clients import KafkaTerminalError, Property, make_reader, translate
from tasks.observe.context import current_run
from tasks.settings.connection import Connection

# Beyond the session timeout: joining, and the broker's initial rebalance delay (3 s by default).
_JOIN_MARGIN = 4.0
_POLL_SECONDS = 0.2


class LeaseTakenError(TerminalError):
    """Another run of the job is alive. `owner` names it."""

    category = "refused"

    def __init__(self, job: str, owner: str) -> None:
        super().__init__(
            f"another run of job {job} is alive ({owner}): this one stops and has changed nothing; "
            "wait for it, or end it there"
        )
        self.owner = owner


class LeaseLostError(TerminalError):
    """The lease passed to a successor while this run worked."""


class Lease:
    """Membership in the owner group, held by a thread that polls."""

    def __init__(self, connection: Connection, group: str, ledger: str, session_timeout: float) -> None:
        self._group = group
        self._ledger = ledger
        self._session_timeout = session_timeout
        self._assigned = threading.Event()
        self._refused: Exception | None = None
        # Once lost, lost for this run, also if it comes back: in between there was a successor.
        self._lost = False
        self._closing = threading.Event()
        over: dict[str, Property] = {
            "client.id": f"kafka-sort pid {os.getpid()} on {socket.gethostname()}",
            # The holder keeps its partition when others join.
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": round(session_timeout * 1000),
            "heartbeat.interval.ms": round(session_timeout * 1000 / 3),
            "max.poll.interval.ms": max(60_000, round(session_timeout * 1000)),
            "auto.offset.reset": "latest",
        }
        self._consumer = make_reader(connection, group, **over)
        self._thread = threading.Thread(target=self._poll, name="lease", daemon=True)

    @property
    def held(self) -> bool:
        """Whether the lease was ours when the broker was last heard."""
        return self._assigned.is_set() and not self._lost

    def acquire(self, admin: AdminClient, job: str) -> None:
        """Wait until the lease is ours; LeaseTakenError once a dead holder's would have passed on."""
        self._consumer.subscribe(
            [self._ledger], on_assign=self._on_assign, on_revoke=self._on_gone, on_lost=self._on_gone
        )
        self._thread.start()
        deadline = time.monotonic() + self._session_timeout + _JOIN_MARGIN
        while not self._assigned.wait(_POLL_SECONDS) and time.monotonic() < deadline:
            current_run().stop.check()
            if isinstance(self._refused, KafkaTerminalError):
                self.close()
                raise self._refused
        if not self.held:
            owner = self._describe_owner(admin)
            self.close()
            raise LeaseTakenError(job, owner)

    def require(self) -> None:
        """LeaseLostError unless the lease is held: who lost it has a successor, and must not fence him."""
        if not self.held:
            self.report_lost()

    def report_lost(self) -> NoReturn:
        """Raise the error of a run that has a successor."""
        raise LeaseLostError(
            f"the lease {self._group} passed to another run while this one worked: this one stops; "
            "the other finishes or takes over what is missing"
        )

    def close(self) -> None:
        """Give the lease back at once, so that the next run need not wait for the session timeout."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        self._assigned.clear()

    def _poll(self) -> None:
        while not self._closing.is_set():
            message = self._consumer.poll(_POLL_SECONDS)
            if message is not None and (error := message.error()):
                self._refused = translate(f"the lease, group {self._group}", error)
        self._consumer.close()

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if partitions:
            consumer.incremental_assign(partitions)
            # Membership is all that is wanted, not the ledger's records.
            consumer.pause(partitions)
            self._assigned.set()

    def _on_gone(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if partitions:
            self._lost = True
            consumer.incremental_unassign(partitions)

    def _describe_owner(self, admin: AdminClient) -> str:
        return describe_owner(admin, self._group) or f"a member of group {self._group}"


def describe_owner(admin: AdminClient, group: str) -> str | None:
    """Who holds the lease: process and host; None if nobody does or it cannot be seen."""
    try:
        found = admin.describe_consumer_groups([group])[group].result()
    except KafkaException:
        return None
    holders = [m for m in found.members if m.assignment and m.assignment.topic_partitions]
    return f"{holders[0].client_id} from {holders[0].host.lstrip('/')}" if holders else None
