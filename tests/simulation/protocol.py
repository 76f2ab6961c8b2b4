"""The protocol of several publishers in one transaction, as processes of the simulation.

An attempt:

1. The driver opens a door and starts publishers.
2. A publisher that finds the door open inits, and announces itself.
3. The driver waits for them and closes the door.
4. It inits last, so its epoch is the newest.
5. It reads the ledger.
6. It notes the ends of the outputs.
7. It gives the epoch, and a share of the output partitions, to each publisher that announced itself.
8. These adopt the epoch, send their partitions in order, and report.
9. With every report the driver compares growth with counts, writes the ledger record, commits.
10. Anything else ends the attempt. The next one begins at 1, and its inits abort what is open.
"""

from collections import defaultdict
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from itertools import count
from random import Random
from typing import Any

from tests.simulation.adversary import Adversary, Process, Request, Wait
from tests.simulation.model import LEDGER, OK, Answer, Kafka

Asking = Generator[Request | Wait, Any, Answer]


class Mutation(Enum):
    """One step of the protocol done wrong."""

    READ_BEFORE_FENCE = "reads the ledger before it fences, and not behind"
    MISSING_REPORTS = "commits without every report"
    NO_DRIVER_INIT = "takes the newest epoch there is in place of its own init"
    LATE_INIT = "a publisher inits again after the door is closed"
    END_BY_ABORT = "ends an attempt by abort in place of the next attempt's init"
    ABORT_AND_INIT = "ends an attempt by abort, before the next attempt's init"


_ABORTS = (Mutation.END_BY_ABORT, Mutation.ABORT_AND_INIT)


@dataclass(frozen=True)
class Run:
    """A run, which is also its ledger record: the rows from `start` to before `end` of the source."""

    number: int
    start: int
    end: int

    def share(self, index: int, parts: int) -> range:
        """Return the rows of one output partition: a range of the sorted rows."""
        size = self.end - self.start
        return range(self.start + size * index // parts, self.start + size * (index + 1) // parts)


@dataclass
class Attempt:
    """The rendezvous of one attempt: what its members tell each other, and nothing of Kafka."""

    run: Run
    epoch: int | None = None
    is_open: bool = True
    is_over: bool = False
    members: list[str] = field(default_factory=list)
    announced: list[str] = field(default_factory=list)
    shares: dict[str, list[int]] | None = None
    reported: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)


def ask(request: Request) -> Asking:
    """Ask until the broker does not say "again"."""
    answer = yield request
    while answer.code == "retry":
        answer = yield request
    return answer  # type: ignore[no-any-return]


def insist(request: Request) -> Asking:
    """Ask as librdkafka does where the same request twice is as good as once: a lost answer is asked for again."""
    answer = yield from ask(request)
    while answer.code == "lost":
        answer = yield from ask(request)
    return answer


@dataclass
class Job:
    """Drivers and publishers of one job, whose source has so many rows."""

    kafka: Kafka
    adversary: Adversary
    publishers: int
    rows: int
    mutation: Mutation | None = None

    def __post_init__(self) -> None:
        self.outputs = [f"output-{index}" for index in range(self.publishers)]
        self.is_done = False
        self._chance: Random = self.adversary.chance
        self._names: Iterator[int] = count(1)
        self._drivers: list[str] = []
        self._attempts: list[Attempt] = []
        # The next sequence number of an epoch in a partition, for a protocol that uses an epoch twice.
        self._sequences: defaultdict[tuple[int, str], int] = defaultdict(int)

    def start_driver(self) -> None:
        """Start one more driver, without a lease: fencing alone must keep the data right."""
        name = f"driver-{next(self._names)}"
        self._drivers.append(name)
        self.adversary.spawn(name, self._drive())

    @property
    def has_driver(self) -> bool:
        return any(map(self.adversary.is_alive, self._drivers))

    def start_twin(self) -> None:
        """Run a publisher of the newest attempt twice, as an engine may that believes the first one dead."""
        if self._attempts:
            self._start_publisher(self._attempts[-1])

    # The driver

    def _drive(self) -> Process:
        while True:
            # Fence and read, as a start does; the fence also ends a transaction that the read would wait for.
            yield from ask(self.kafka.init)
            ledger = yield from ask(partial(self.kafka.read, LEDGER))
            if ledger.code != "ok":
                continue
            run = self._next_run(ledger.value)
            if run is None:
                self.is_done = True
                return
            yield from self._publish_run(run)

    def _publish_run(self, run: Run) -> Process:
        """Make attempts until the run, or another of its number, is known to be in the ledger."""
        kept: int | None = None
        is_settled = False
        while not is_settled:
            attempt = Attempt(run)
            is_settled = yield from self._attempt(attempt, kept)
            attempt.is_open, attempt.is_over = False, True
            kept = None if is_settled else (yield from self._end_by_abort(attempt))

    def _next_run(self, ledger: tuple[Run, ...]) -> Run | None:
        """Take a snapshot from the ledger's end on: its size differs between drivers."""
        number, start = (ledger[-1].number, ledger[-1].end) if ledger else (0, 0)
        if start == self.rows:
            return None
        return Run(number + 1, start, min(start + self._chance.randint(2, 8), self.rows))

    def _attempt(self, attempt: Attempt, kept: int | None) -> Generator[Request | Wait, Any, bool]:
        """Make one attempt; return whether the run, or another of its number, is known to be in the ledger."""
        self._attempts.append(attempt)
        for _ in range(self.publishers):  # 1
            self._start_publisher(attempt, inits=kept is None)
        yield Wait(lambda: len(attempt.announced) >= self.publishers or self._has_lost(attempt, attempt.members))
        attempt.is_open = False  # 3
        if not attempt.announced:
            return False
        fenced = yield from self._fence(kept)  # 4
        if fenced.code != "ok":
            return False
        if self.mutation is not Mutation.READ_BEFORE_FENCE:
            ledger = yield from ask(partial(self.kafka.read, LEDGER))  # 5
            if ledger.code != "ok":
                return False
            if ledger.value and ledger.value[-1].number >= attempt.run.number:
                return True
        return (yield from self._publish(attempt, fenced.value))

    def _fence(self, kept: int | None) -> Asking:
        if self.mutation is Mutation.NO_DRIVER_INIT:
            return Answer("ok", self.kafka.epoch)
        if kept is not None:
            return Answer("ok", kept)
        return (yield from ask(self.kafka.init))

    def _publish(self, attempt: Attempt, epoch: int) -> Generator[Request | Wait, Any, bool]:
        ends = yield from self._ends()  # 6
        attempt.epoch = epoch
        attempt.shares = self._divide(attempt.announced)  # 7
        sharers = list(attempt.shares)
        yield Wait(lambda: attempt.reported >= set(sharers) or self._has_lost(attempt, sharers))
        grown = yield from self._ends()  # 9
        expected = [len(attempt.run.share(index, self.publishers)) for index in range(self.publishers)]
        is_whole = attempt.reported >= set(sharers) and [b - a for a, b in zip(ends, grown, strict=True)] == expected
        if not is_whole and self.mutation is not Mutation.MISSING_REPORTS:
            return False
        return (yield from self._commit(attempt.run, epoch))

    def _commit(self, run: Run, epoch: int) -> Generator[Request | Wait, Any, bool]:
        added = yield from insist(partial(self.kafka.add, epoch, LEDGER))
        if added.code != "ok":
            return False
        written = yield from insist(partial(self.kafka.produce, epoch, LEDGER, 0, run))
        if written.code != "ok":
            return False
        answer = yield from ask(partial(self.kafka.end_transaction, epoch, commits=True))
        return bool(answer.code == "ok")

    def _ends(self) -> Generator[Request | Wait, Any, list[int]]:
        ends = []
        for name in self.outputs:
            answer = yield from insist(partial(self.kafka.end_offset, name))
            ends.append(answer.value)
        return ends

    def _divide(self, announced: list[str]) -> dict[str, list[int]]:
        shares: dict[str, list[int]] = {token: [] for token in announced}
        for index in range(self.publishers):
            shares[announced[index % len(announced)]].append(index)
        return {token: share for token, share in shares.items() if share}

    def _has_lost(self, attempt: Attempt, awaited: list[str]) -> bool:
        """Whether a member failed, or ended without what is awaited of it."""
        dead = {name for name in attempt.members if not self.adversary.is_alive(name)}
        return bool(attempt.failed) or bool(dead - attempt.reported & set(awaited))

    def _end_by_abort(self, attempt: Attempt) -> Generator[Request | Wait, Any, int | None]:
        """Abort a failed attempt, and return the epoch to go on with; None begins the next one with an init."""
        if self.mutation not in _ABORTS or attempt.epoch is None:
            return None
        answer = yield from insist(partial(self.kafka.end_transaction, attempt.epoch, commits=False))
        return answer.value if answer.code == "ok" and self.mutation is Mutation.END_BY_ABORT else None

    # The publishers

    def _start_publisher(self, attempt: Attempt, *, inits: bool = True) -> None:
        name = f"publisher-{next(self._names)}"
        attempt.members.append(name)
        self.adversary.spawn(name, self._publisher(attempt, name, inits=inits))

    def _publisher(self, attempt: Attempt, name: str, *, inits: bool) -> Process:
        if not attempt.is_open:  # 2
            return
        own = (yield from ask(self.kafka.init)) if inits else OK
        if own.code != "ok":
            attempt.failed.add(name)
            return
        attempt.announced.append(name)
        yield Wait(lambda: attempt.shares is not None or attempt.is_over)
        if attempt.is_over or attempt.shares is None or attempt.epoch is None:
            return
        for index in attempt.shares.get(name, ()):  # 8
            answer = yield from self._send(attempt.run, index, attempt.epoch)
            if answer.code != "ok":
                attempt.failed.add(name)
                return
        attempt.reported.add(name)

    def _send(self, run: Run, index: int, epoch: int) -> Asking:
        """Send one output partition in order under the adopted epoch; the answer is the first that is not "ok"."""
        output, place = self.outputs[index], (epoch, self.outputs[index])
        if self.mutation is Mutation.LATE_INIT:
            yield from ask(self.kafka.init)
        answer = yield from insist(partial(self.kafka.add, epoch, output))
        first = self._sequences[place] if self.mutation is Mutation.END_BY_ABORT else 0
        for sequence, row in enumerate(run.share(index, self.publishers), first):
            if answer.code != "ok":
                break
            # Without an answer librdkafka sends the row again, until its time is over.
            send = self._chance.choice((ask, insist))
            answer = yield from send(partial(self.kafka.produce, epoch, output, sequence, row))
            if answer.code == "ok":
                self._sequences[place] = sequence + 1
        return answer
