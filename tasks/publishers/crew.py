"""Several publishers as their driver sees them: steps 1, 3, 4, 7, 9 and 10 of an attempt."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Final
from uuid import uuid4

import structlog

from tasks.errors import TransientError
from tasks.failpoints import reach
from tasks.kafka.native_adopt import PlaceNotFoundError
from tasks.kafka.topics import cluster_id
from tasks.kafka.transaction import TransactionalProducer
from tasks.manifests import SortedRows
from tasks.observe.logs import get_logger
from tasks.observe.progress import watching
from tasks.ownership import Owner
from tasks.publication import Publication
from tasks.publishers.alone import ALONE
from tasks.publishers.base import Crew
from tasks.publishers.rendezvous import (
    BEAT_SECONDS,
    Announcement,
    Door,
    Engine,
    Go,
    Message,
    Progress,
    PublisherLostError,
    PublisherOrder,
    Report,
)
from tasks.publishers.rows import Total, require_all
from tasks.publishers.shares import count_partitions, divide_partitions
from tasks.run_context import current_run
from tasks.targets.base import Sent, Writing

# How long a driver waits for publishers that do not come, once it has asked for them.
_GATHER_SECONDS: Final = 60.0
# A publisher that says nothing for so long is lost, though its connection may still be there.
_SILENT_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.5


@dataclass(frozen=True)
class SeveralPublishers:
    """So many publishers of an engine; fewer where fewer output partitions get rows, and alone if that is one."""

    engine: Engine
    count: int

    @contextmanager
    def gather(self, owner: Owner, publication: Publication) -> Iterator[Crew]:
        """Do steps 1 and 3; TransientError if no publisher comes. Where none can adopt, the run publishes alone."""
        target = publication.target
        sorts = [rows for rows in publication.sorts if rows.sort in target.sorts - target.staged]
        count = min(self.count, count_partitions(sorts))
        if count < 2:
            with ALONE.gather(owner, publication) as crew:
                yield crew
            return
        # Step 1. The `init` of a publisher fences, so the lease comes first, as it does before a fence.
        owner.require_lease()
        orders = self._orders(owner, publication, sorts, count)
        reach("before-gather")
        with self.engine.open_door(orders) as door, watching(lambda ended: _beat(door, ended), "heartbeat"):
            # Step 3.
            tokens = _Gathering(door, orders[0].attempt, count).gather()
            door.close()
            reach("after-gather")
            if tokens:
                yield _Crew(owner, publication, sorts, door, orders[0].attempt, tokens)
                return
            # They have fenced the run's producer.
            owner.fence()
            with ALONE.gather(owner, publication) as crew:
                yield crew

    def _orders(
        self, owner: Owner, publication: Publication, sorts: list[SortedRows], count: int
    ) -> list[PublisherOrder]:
        budget = self.engine.budget(owner.job, count)
        order = PublisherOrder(
            # An attempt of its own: what a former attempt of this very run still says does not count (I6).
            attempt=uuid4().hex,
            number=0,
            job=owner.job,
            cluster_id=cluster_id(owner.admin),
            topics=tuple(publication.target.topics.values()),
            sorts=tuple(_plain(rows, budget.at_once) for rows in sorts),
            transaction_seconds=owner.transaction_seconds,
            queue_bytes=budget.queue_bytes,
            batch_bytes=owner.batch_bytes,
            fields=structlog.contextvars.get_contextvars(),
        )
        return [replace(order, number=number) for number in range(1, count + 1)]


def _plain(rows: SortedRows, at_once: int) -> SortedRows:
    """Return the manifest of a sort as publishers need it: without the index, in batches that share the memory."""
    ranges = tuple(replace(key_range, index=b"") for key_range in rows.ranges)
    return replace(rows, ranges=ranges, batch_rows=max(1, rows.batch_rows // at_once))


def _beat(door: Door, ended: Event) -> None:
    while not ended.wait(BEAT_SECONDS):
        door.beat()


@dataclass
class _Gathering:
    """The wait of a driver at its open door."""

    door: Door
    attempt: str
    count: int
    # Number → token of those that came; number → error of those that did not.
    came: dict[int, str] = field(default_factory=dict)
    failed: dict[int, Exception] = field(default_factory=dict)

    def gather(self) -> Mapping[int, str]:
        """Return number → token of all that came; raise an error that all would have. None came if none can adopt."""
        deadline = time.monotonic() + _GATHER_SECONDS
        while len(self.came.keys() | self.failed.keys()) < self.count and time.monotonic() < deadline:
            current_run().stop.check()
            message = self.door.listen(_LOOK_SECONDS)
            if message is not None and message.attempt == self.attempt:
                self._note(message)
        unable = any(isinstance(error, PlaceNotFoundError) for error in self.failed.values())
        if not self.came and not unable:
            raise next(iter(self.failed.values()), PublisherLostError("no publisher came: start again"))
        if len(self.came) < self.count:
            why = "; ".join(sorted({str(error) for error in self.failed.values()})) or "they are late"
            get_logger().warning("fewer publishers than asked for", came=len(self.came), asked=self.count, why=why)
        return self.came

    def _note(self, message: Message) -> None:
        match message.content:
            case Announcement():
                # A task that its engine runs again has lost its former publisher, so the last one counts.
                self.came[message.number] = message.token
                self.failed.pop(message.number, None)
            case TransientError() | PlaceNotFoundError() as error:
                self._drop(message, error)
            case Exception() as error:
                raise error

    def _drop(self, message: Message, error: Exception) -> None:
        if message.token in {"", self.came.get(message.number, message.token)}:
            self.came.pop(message.number, None)
            # That its process ended comes behind the reason.
            self.failed.setdefault(message.number, error)


@dataclass(frozen=True)
class _Crew:
    """Publishers behind a closed door. `tokens`: number → token of those that came."""

    owner: Owner
    publication: Publication
    sorts: list[SortedRows]
    door: Door
    attempt: str
    tokens: Mapping[int, str]

    def fence(self) -> TransactionalProducer:
        """Do steps 4 and 5: I1, the identity is newer than that of every publisher; I3, the ledger is read after."""
        return self.owner.fence(shared=True)

    def write(self, producer: TransactionalProducer, writing: Writing) -> list[Sent]:
        """Do steps 7 and 9: let the publishers send, and return once each has reported."""
        del writing
        shares = divide_partitions(self.sorts, len(self.tokens))
        reach("before-go")
        self.door.say_go(Go(producer.identity, dict(zip(self.tokens.values(), shares, strict=True))))
        reach("after-go")
        totals = _Reports(self.door, self.attempt, self.tokens).collect()
        reach("after-reports")
        columns = {sort.name: sort.columns for sort in self.owner.job.sort_list}
        return [
            Sent(rows, columns[rows.sort], require_all(rows, totals.get(rows.sort, Total())).checksum)
            for rows in self.sorts
        ]

    def give_up(self, producer: TransactionalProducer) -> None:
        """Do step 10. Invariant I7: an attempt ends by a new `init`, never by an abort, whatever ended it."""
        producer.spent = True
        self.owner.settle()

    def note_committed(self, producer: TransactionalProducer) -> None:
        """Give up the producer. Invariant I2: nothing is begun again under its epoch, which others have, too."""
        producer.spent = True


@dataclass
class _Reports:
    """The reports of an attempt. Invariant I6: only those that name it and a token of its `go` count."""

    door: Door
    attempt: str
    tokens: Mapping[int, str]
    reports: dict[int, Report] = field(default_factory=dict)
    _rows: dict[int, int] = field(default_factory=dict)
    _heard: dict[int, float] = field(default_factory=dict)
    # The time that this process has listened. It may itself have been frozen, with messages that wait to be read.
    _listened: float = 0.0

    def collect(self) -> dict[str, Total]:
        """Return the totals of each sort, once every publisher has reported; raise the error of the first that fails.

        PublisherLostError if one ends or falls silent before that. None of the others is waited for.
        """
        while waiting := self.tokens.keys() - self.reports.keys():
            current_run().stop.check()
            began = time.monotonic()
            message = self.door.listen(_LOOK_SECONDS)
            self._listened += min(time.monotonic() - began, _LOOK_SECONDS)
            if message is not None and message.attempt == self.attempt:
                self._note(message)
            self._require_heard(waiting)
        totals = dict[str, Total]()
        for report in self.reports.values():
            for sort, total in report.totals.items():
                totals[sort] = totals.get(sort, Total()) + total
        return totals

    def _note(self, message: Message) -> None:
        number = message.number
        if message.token not in {"", self.tokens.get(number)} or number in self.reports:
            return
        self._heard[number] = self._listened
        match message.content:
            case Report() as report:
                self.reports[number] = report
            case Progress(rows):
                current_run().progress.meter("publish").add(rows - self._rows.get(number, 0))
                self._rows[number] = rows
            case Exception() as error:
                raise error

    def _require_heard(self, waiting: set[int]) -> None:
        for number in waiting:
            if self._listened - self._heard.get(number, 0.0) > _SILENT_SECONDS:
                raise PublisherLostError(
                    f"publisher {number} has said nothing for {_SILENT_SECONDS:.0f} s: nothing was published; the "
                    "publish is tried again"
                )
