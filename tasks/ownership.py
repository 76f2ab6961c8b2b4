"""Ownership of a job: lease, fence, ledger, in this order. Steps 1 to 3 of the protocol. Or a look at it from outside.

A run is exactly once because a commit succeeds only for the newest holder of the transactional id, and every holder
reads the ledger *after* it became the holder. `Owner.fence` is the one place where both happen.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Protocol

from confluent_kafka.admin import AdminClient

from tasks.errors import KafkaSortError, SettingsError, TransientError
from tasks.failpoints import reach
from tasks.kafka import native_fetch, native_produce
from tasks.kafka.clients import BATCH_BYTES, Admin, NotPermittedError, make_admin
from tasks.kafka.lease import Lease, LeaseLostError, describe_owner
from tasks.kafka.ledger import Ledger, ensure_ledger, read_ledger, read_settled_ledger
from tasks.kafka.topic_rules import index_rules
from tasks.kafka.topics import broker_settings, describe_topic, topic_settings
from tasks.kafka.transaction import TransactionalProducer
from tasks.observe.logs import get_logger
from tasks.permissions import name_refusals, permits_writing
from tasks.run_context import run_context
from tasks.run_record import RunRecord
from tasks.settings.budget import Budget
from tasks.settings.connection import Connection
from tasks.settings.job import Job

# The longest time in which a transaction that was given up is ended, for the readers behind it.
_SETTLE_SECONDS = 5.0
# The broker's default of transaction.max.timeout.ms, for principals that may not read it.
_DEFAULT_TRANSACTION_MS = 900_000


class JobView(Protocol):
    """A job and its ledger, as the checks before a run and the snapshot see them: as the owner, or from outside."""

    job: Job
    connection: Connection
    admin: Admin
    ledger: Ledger
    transaction_seconds: float

    def require_current_ledger(self) -> None:
        """Raise an error if a run was committed since the ledger was read."""


class Onlooker:
    """A job that is only looked at: nothing is taken, fenced or created, and a living run is not disturbed.

    The ledger is what is committed by now; empty if it does not exist. `holder`: the living run that owns the job.
    """

    def __init__(self, job: Job, connection: Connection, admin: Admin) -> None:
        self.job = job
        self.connection = connection
        self.admin = admin
        self.transaction_seconds = _transaction_seconds(job, broker_settings(admin))
        self.holder = describe_owner(admin, job.owner_group)
        self.ledger = self._read_ledger()

    def require_current_ledger(self) -> None:
        """Raise TransientError if a run was committed since the ledger was read."""
        if self._read_ledger().last != self.ledger.last:
            raise TransientError(f"a run of job {self.job.name} was committed meanwhile: start again")

    def _read_ledger(self) -> Ledger:
        name = self.job.ledger
        if describe_topic(self.admin, name) is None:
            return Ledger(None, {})
        return read_settled_ledger(self.connection, self.admin, name, self.job.name, self.job.request_timeout)


def _transaction_seconds(job: Job, broker: Mapping[str, str]) -> float:
    """Return the time that a transaction may take; SettingsError if the job wants more than the broker permits."""
    allowed = int(broker.get("transaction.max.timeout.ms", _DEFAULT_TRANSACTION_MS))
    if job.transaction_timeout is not None and job.transaction_timeout * 1000 > allowed:
        raise SettingsError(
            f"transaction timeout {job.transaction_timeout:g} s is above the {allowed / 1000:g} s of the broker: "
            "lower --transaction-timeout, or raise the broker's transaction.max.timeout.ms"
        )
    return job.transaction_timeout or allowed / 1000


class Owner:
    """The one run of a job that may publish."""

    def __init__(self, job: Job, connection: Connection) -> None:
        self.job = job
        self.connection = connection
        self.admin = make_admin(connection)
        self.budget = Budget.of(job)
        self.ledger = Ledger(None, {})
        # Whether runs write a sparse index.
        self.has_index = False
        self._lease = Lease(connection, job.owner_group, job.ledger, job.session_timeout)
        self._producer: TransactionalProducer | None = None
        broker = broker_settings(self.admin)
        self.transaction_seconds = _transaction_seconds(job, broker)
        # Outputs take at least what the source takes; ledger and dead letters take what the broker takes.
        limits = topic_settings(self.admin, job.source_topic)["max.message.bytes"], broker.get("message.max.bytes")
        self.batch_bytes = min(BATCH_BYTES, *(int(limit) for limit in limits if limit))

    @property
    def recorded_format(self) -> Mapping[str, str]:
        """The facts of the format that the last run recorded; empty before the first."""
        return {} if self.ledger.last is None else self.ledger.last.format

    def acquire(self, *, standby: bool = False) -> None:
        """Create an absent ledger, take the lease, fence, read the ledger.

        LeaseTakenError names the holder; a standby waits for its end.
        """
        ensure_ledger(self.admin, self.job.ledger, self.job.replication_factor)
        self.has_index = prepare_index(self.job, self.admin)
        reach("before-lease")
        if not (native_produce.AVAILABLE and native_fetch.AVAILABLE):
            get_logger().warning("librdkafka's batch calls were not found: records go one by one, half as fast")
        self._lease.acquire(self.admin, self.job.name, standby=standby)
        reach("after-lease")
        # If we were away for longer than the session timeout, a new start costs nothing: nothing was decided yet.
        self._lease.require()
        self._fence()

    def require_lease(self) -> None:
        """Take the lease again if it was lost; LeaseTakenError if another run has it."""
        self._lease.regain(self.admin, self.job.name)

    def fence(self, *, shared: bool = False) -> TransactionalProducer:
        """Become the newest holder of the transactional id again, and read the ledger again; return the producer.

        The lease comes first: if another run has it, this raises LeaseTakenError and does not fence that run. If the
        lease was lost and regained, a successor may have run in between; then the ledger has what it committed.
        `shared`: others will send under the identity of the producer, which it learns for them.
        """
        self.require_lease()
        return self._fence(shared=shared)

    def _fence(self, *, shared: bool = False) -> TransactionalProducer:
        self._close_producer()
        # NewerLedgerError comes before fencing: this version must not disturb what it does not understand.
        read_ledger(self.connection, self.admin, self.job.ledger, self.job.name, self.job.request_timeout, fenced=False)
        reach("before-init")
        producer = self._producer = self._make_producer(self.job.request_timeout, shared=shared)
        producer.init(self.job.ledger)
        reach("after-init")
        reach("before-ledger-read")
        self.ledger = self._read_ledger()
        reach("after-ledger-read")
        # If the lease was lost while fencing, stop: a successor may have fenced first.
        self._lease.require()
        return producer

    def _make_producer(self, timeout: float, *, shared: bool = False) -> TransactionalProducer:
        return TransactionalProducer(
            self.connection,
            self.job.group,
            self.transaction_seconds,
            self.budget.producer_queue_bytes,
            self.batch_bytes,
            timeout,
            shared=shared,
        )

    def settle(self) -> None:
        """End what is open under the transactional id by a new `init`, while the lease is held; it never raises.

        A run that is to stop does so as well, within seconds: readers wait behind what is open. If it fails, the next
        holder of the id does it, or the broker once the transaction has timed out.
        """
        self._close_producer()
        if not self._lease.held:
            return
        with run_context(), contextlib.suppress(KafkaSortError):
            producer = self._make_producer(_SETTLE_SECONDS)
            try:
                producer.init(self.job.ledger)
            finally:
                producer.close()

    def require_current_ledger(self) -> None:
        """Raise LeaseLostError if a run was committed since the ledger was read: a successor's."""
        if self._read_ledger().last != self.ledger.last:
            raise LeaseLostError(self.job.owner_group, "another run was committed; start again, if it left anything")

    def require_ownership(self) -> None:
        """Raise LeaseLostError if another run has the lease, or one was committed since the ledger was read."""
        self._lease.require()
        self.require_current_ledger()

    def healthy_producer(self) -> TransactionalProducer:
        """Return the producer of the last fence; if that one is spent, fence and read the ledger again first."""
        if self._producer is not None and not self._producer.spent:
            self._producer.poll()
        if self._producer is None or self._producer.spent:
            return self.fence()
        return self._producer

    def note_committed(self, record: RunRecord) -> None:
        """Add the record to the ledger: what was read after fencing, and what this very producer committed since."""
        self.ledger = self.ledger.followed_by(record)

    def _read_ledger(self) -> Ledger:
        return read_ledger(self.connection, self.admin, self.job.ledger, self.job.name, self.job.request_timeout)

    def close(self) -> None:
        """Give everything back, the lease last, so that a successor finds nothing of ours open."""
        self._close_producer()
        self._lease.close()

    def _close_producer(self) -> None:
        if self._producer is not None:
            self._producer.close()
            self._producer = None


def prepare_index(job: Job, admin: AdminClient) -> bool:
    """Create the topic of sparse indexes if it is absent; return whether the job may write to it.

    Jobs of former versions have no permission for it, and go on without: readers then search for keys.
    """
    with contextlib.suppress(NotPermittedError):
        if describe_topic(admin, job.index) is None:
            index_rules().make(admin, job.index, 1, job.replication_factor)
        if permits_writing(admin, job.index):
            return True
    get_logger().warning("no sparse index: Write, and Create if it is absent, are not permitted", topic=job.index)
    return False


@contextlib.contextmanager
def own_job(job: Job, connection: Connection, *, standby: bool = False) -> Iterator[Owner]:
    """Own the job for the duration of the block."""
    owner = Owner(job, connection)
    with name_refusals(job, owner.admin):
        try:
            owner.acquire(standby=standby)
            yield owner
        finally:
            owner.close()
