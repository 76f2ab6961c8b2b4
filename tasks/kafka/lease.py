"""The lease: one owner of a job at a time, by membership in a consumer group. It serves liveness only.

Guarantee 6 (one owner): the holder keeps the lease while it lives; a run that cannot get it learns which run has it. A
holder may lose it, for example when the broker was away for longer than the session timeout; it may regain it if nobody
else has it. If that judgement is ever wrong, fencing by the transactional id keeps the data right.
"""

import math
import os
import socket
import threading
import time
from collections.abc import Collection

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from tasks.errors import TerminalError, TransientError
from tasks.kafka.clients import (
    GROUP_REQUEST_TIMEOUT,
    KafkaTerminalError,
    Property,
    await_answer,
    make_consumer,
    translate,
)
from tasks.run_context import current_run
from tasks.settings.connection import Connection

# A wait goes this far beyond the session timeout: for joining, and the broker's initial rebalance delay (default 3 s).
_JOIN_MARGIN = 4.0
_POLL_SECONDS = 0.2
# librdkafka's thread sends the heartbeats: this interval notices a process whose own threads are starved.
_POLL_INTERVAL_MS = 60_000
_DESCRIBE_SECONDS = 5.0
_UNSEEN_SECONDS = 30.0


class LeaseTakenError(TerminalError):
    """Another run of the job is alive. `owner` names it."""

    category = "refused"
    action = "Wait for the run that the line names, or end it there."

    def __init__(self, job: str, owner: str) -> None:
        super().__init__(
            f"another run of job {job} is alive ({owner}): this one stops and has changed nothing; "
            "wait for it, or end it there"
        )
        self.owner = owner


class LeaseLostError(TransientError):
    """The lease was lost while this run worked. The next attempt regains it, or finds which run has it now."""

    action = (
        "Nothing: the next attempt takes the lease again, or finds which run has it. If it happens often, raise "
        "`--session-timeout`."
    )

    def __init__(self, group: str, why: str) -> None:
        super().__init__(f"the lease {group} was lost while this run worked: {why}")


class Lease:
    """Membership in the owner group, held by a thread that polls."""

    def __init__(self, connection: Connection, group: str, ledger: str, session_timeout: float) -> None:
        self._group = group
        self._ledger = ledger
        self._session_timeout = session_timeout
        self._assigned = threading.Event()
        self._refused: Exception | None = None
        # Each assignment begins a term. A holder that is in a later term than it took has lost the lease in between.
        self._term = 0
        self._taken = 0
        # This member's ids: the broker may still list one that a session timeout has ended.
        self._members: set[str] = set()
        self._closing = threading.Event()
        over: dict[str, Property] = {
            "client.id": f"kafka-sort pid {os.getpid()} on {socket.gethostname()}",
            # The holder keeps its partition when others join.
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": round(session_timeout * 1000),
            "heartbeat.interval.ms": round(session_timeout * 1000 / 3),
            "max.poll.interval.ms": max(_POLL_INTERVAL_MS, round(session_timeout * 1000)),
            "auto.offset.reset": "latest",
        }
        self._consumer = make_consumer(connection, group, **over)
        self._thread = threading.Thread(target=self._poll, name="lease", daemon=True)

    @property
    def held(self) -> bool:
        """Whether the lease was ours when the broker was last heard, without a break since it was taken."""
        return self._assigned.is_set() and self._term == self._taken

    def acquire(self, admin: AdminClient, job: str, *, standby: bool = False) -> None:
        """Wait for the lease: a standby for ever, others as long as a dead holder keeps it, then LeaseTakenError."""
        self._consumer.subscribe(
            [self._ledger], on_assign=self._on_assign, on_revoke=self._on_gone, on_lost=self._on_gone
        )
        self._thread.start()
        deadline = time.monotonic() + _UNSEEN_SECONDS
        while not self._take(standby=standby):
            owner = describe_owner(admin, self._group)
            # If no owner is seen, the group is moving from one broker to another, or we may not see it.
            if owner or time.monotonic() > deadline:
                self.close()
                raise LeaseTakenError(job, owner or f"a member of group {self._group}")

    def regain(self, admin: AdminClient, job: str) -> None:
        """Take the lease again if it was lost. LeaseTakenError if another run has it, LeaseLostError if none has it."""
        if self.held or self._take():
            return
        # A broker that was away may still list the member that this run was before.
        if owner := describe_owner(admin, self._group, self._members):
            raise LeaseTakenError(job, owner)
        raise LeaseLostError(self._group, "it has not come back yet: is a broker down?")

    def require(self) -> None:
        """Raise LeaseLostError unless the lease was held without a break since it was taken."""
        if not self.held:
            raise LeaseLostError(self._group, "another run may have it now, which finishes or takes over")

    def _take(self, *, standby: bool = False) -> bool:
        """Wait for an assignment, longer than a dead holder's would last; a standby waits for ever. Begin its term."""
        deadline = math.inf if standby else time.monotonic() + self._session_timeout + _JOIN_MARGIN
        self._refused = None
        while not self.held and time.monotonic() < deadline:
            # The term is read first: one that begins in between is not mistaken for this one.
            term = self._term
            if self._assigned.wait(_POLL_SECONDS):
                self._taken = term
            current_run().stop.check()
            if isinstance(self._refused, KafkaTerminalError):
                self.close()
                raise self._refused
        return self.held

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
            # Only membership is wanted, not the ledger's records.
            consumer.pause(partitions)
            self._members.add(consumer.memberid() or "")
            self._term += 1
            self._assigned.set()

    def _on_gone(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if partitions:
            self._assigned.clear()
            consumer.incremental_unassign(partitions)


def describe_owner(admin: AdminClient, group: str, but: Collection[str] = ()) -> str | None:
    """Name the lease's holder by process and host; None if there is none, if it is one of `but`, or if it is hidden."""
    try:
        asked = admin.describe_consumer_groups([group], request_timeout=GROUP_REQUEST_TIMEOUT)[group]
        found = await_answer(asked, _DESCRIBE_SECONDS)
    except KafkaException:
        return None
    holders = [m for m in found.members if m.assignment and m.assignment.topic_partitions and m.member_id not in but]
    return f"{holders[0].client_id} from {holders[0].host.lstrip('/')}" if holders else None
