"""A model of Kafka's transactions at the grain of requests: one coordinator, logs of partitions, markers one by one.

Modelled on Kafka 4.3, for one transactional id and one row a batch. A client of the older protocol (KIP-98,
transaction.version 1) ends a transaction and keeps its epoch; one of KIP-890 (version 2) gets a new epoch by each end.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

Row = Any
LEDGER = "ledger"


@dataclass(frozen=True)
class Answer:
    """A broker's answer. `retry` stands for CONCURRENT_TRANSACTIONS; `lost` is none at all."""

    code: Literal["ok", "retry", "fenced", "refused", "lost"]
    value: Any = None


OK, RETRY, FENCED, REFUSED, LOST = (Answer(code) for code in ("ok", "retry", "fenced", "refused", "lost"))


class State(Enum):
    """The states of a transaction in its coordinator's log."""

    EMPTY = "empty"
    ONGOING = "ongoing"
    PREPARE_COMMIT = "prepare commit"
    PREPARE_ABORT = "prepare abort"
    COMPLETE_COMMIT = "complete commit"
    COMPLETE_ABORT = "complete abort"


_COMPLETE = {State.PREPARE_COMMIT: State.COMPLETE_COMMIT, State.PREPARE_ABORT: State.COMPLETE_ABORT}


@dataclass(frozen=True)
class BrokerRules:
    """Whether a first write is verified with the coordinator (since 3.6.1), and whether an end raises the epoch."""

    verifies_partitions: bool = True
    end_raises_epoch: bool = False


@dataclass
class PartitionLog:
    """One partition: committed rows, then open ones, and what the leader knows of the producer.

    `end` is the offset behind the last entry; a marker has an offset like a row.
    """

    epoch: int = -1
    sequence: int = -1
    end: int = 0
    committed: list[Row] = field(default_factory=list)
    open: list[Row] = field(default_factory=list)

    def append(self, epoch: int, sequence: int, row: Row) -> None:
        self.epoch, self.sequence = epoch, sequence
        self.open.append(row)
        self.end += 1

    def mark(self, epoch: int, *, commits: bool) -> None:
        """Write a marker. Sequence numbers go on behind it, unless it raises the epoch."""
        if epoch > self.epoch:
            self.epoch, self.sequence = epoch, -1
        if commits:
            self.committed += self.open
        self.open = []
        self.end += 1


@dataclass(frozen=True)
class Decision:
    """A commit that the coordinator has decided, with the rows of each partition that were open then."""

    rows: dict[str, tuple[Row, ...]]


class Kafka:
    """The requests of producers and readers, and the steps that the brokers take by themselves."""

    def __init__(self, rules: BrokerRules) -> None:
        self.epoch = -1
        self.state = State.EMPTY
        self.logs: defaultdict[str, PartitionLog] = defaultdict(PartitionLog)
        self.decisions: list[Decision] = []
        self._rules = rules
        self._former_epoch = -1
        self._added: set[str] = set()
        self._unmarked: set[str] = set()

    def init(self) -> Answer:
        """InitProducerId: a new epoch, once a transaction that was open is aborted."""
        if self.has_open_transaction:
            self._prepare(State.PREPARE_ABORT, raises_epoch=True)
        if self.state in _COMPLETE:
            return RETRY
        self._former_epoch, self.epoch = self.epoch, self.epoch + 1
        self.state, self._added = State.EMPTY, set()
        return Answer("ok", self.epoch)

    def add(self, epoch: int, partition: str) -> Answer:
        """AddPartitionsToTxn, which begins the transaction if none is open."""
        if epoch != self.epoch:
            return FENCED
        if self.state in _COMPLETE:
            return RETRY
        if self.state is not State.ONGOING:
            self.state, self._added = State.ONGOING, set()
        self._added.add(partition)
        return OK

    def produce(self, epoch: int, partition: str, sequence: int, row: Row) -> Answer:
        """Append a row, unless it is a duplicate, out of order, of an old epoch, or of no open transaction."""
        log = self.logs[partition]
        if epoch < log.epoch:
            return FENCED
        is_newer = epoch > log.epoch
        if not is_newer and sequence <= log.sequence:
            return OK
        if sequence != (0 if is_newer else log.sequence + 1):
            return REFUSED
        begins = is_newer or not log.open
        if begins and self._rules.verifies_partitions and not self._has_open(epoch, partition):
            return REFUSED
        log.append(epoch, sequence, row)
        return OK

    def end_transaction(self, epoch: int, *, commits: bool) -> Answer:
        """EndTxn; the answer has the epoch to go on with. The same end again gets the same answer."""
        prepared = State.PREPARE_COMMIT if commits else State.PREPARE_ABORT
        raises = self._rules.end_raises_epoch
        if epoch == (self._former_epoch if raises else self.epoch) and self.state in (prepared, _COMPLETE[prepared]):
            return Answer("ok", self.epoch)
        if epoch != self.epoch:
            return FENCED
        if self.state is not State.ONGOING:
            return REFUSED
        if commits:
            self.decisions.append(Decision({name: tuple(log.open) for name, log in self.logs.items() if log.open}))
        self._prepare(prepared, raises_epoch=raises)
        return Answer("ok", self.epoch)

    def read(self, partition: str) -> Answer:
        """Read to the high watermark with `read_committed`, which waits for an open transaction to end."""
        log = self.logs[partition]
        return RETRY if log.open else Answer("ok", tuple(log.committed))

    def end_offset(self, partition: str) -> Answer:
        """Return the high watermark."""
        return Answer("ok", self.logs[partition].end)

    @property
    def unmarked(self) -> list[str]:
        """The partitions whose markers are still to be written."""
        return sorted(self._unmarked)

    def write_marker(self, partition: str) -> None:
        """Write one marker; the last one completes the end of the transaction."""
        self.logs[partition].mark(self.epoch, commits=self.state is State.PREPARE_COMMIT)
        self._unmarked.discard(partition)
        if not self._unmarked:
            self.state = _COMPLETE[self.state]

    @property
    def has_open_transaction(self) -> bool:
        return self.state is State.ONGOING

    def time_out(self) -> None:
        """Abort the open transaction as one that took too long."""
        self._prepare(State.PREPARE_ABORT, raises_epoch=True)

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is open and no marker is missing."""
        return self.state not in _COMPLETE and not any(log.open for log in self.logs.values())

    def _has_open(self, epoch: int, partition: str) -> bool:
        return self.epoch == epoch and self.state is State.ONGOING and partition in self._added

    def _prepare(self, state: State, *, raises_epoch: bool) -> None:
        self.state, self._unmarked = state, set(self._added)
        if raises_epoch:
            self._former_epoch, self.epoch = self.epoch, self.epoch + 1
