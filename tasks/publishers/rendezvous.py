"""Messages between a driver and its publishers, and the interface of the engine that carries them.

Nothing here is durable, and nothing decides what is committed: a message that is lost or late ends the attempt.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from tasks.errors import TransientError
from tasks.kafka.native_adopt import ProducerIdentity
from tasks.kafka.topics import Topic
from tasks.manifests import SortedRows
from tasks.publishers.rows import Total
from tasks.publishers.shares import Share
from tasks.settings.budget import PublisherBudget
from tasks.settings.job import Job

# How often a driver says that it lives, and how long a publisher takes its word for it. A publisher counts by its own
# monotonic clock.
BEAT_SECONDS: Final = 2.0
STALE_SECONDS: Final = 10.0
# How often a publisher says how far it is, which also says that it lives.
REPORT_SECONDS: Final = 1.0


class PublisherLostError(TransientError):
    """A publisher ended or fell silent before it had sent its rows: its process, its worker or its host is gone."""

    action = (
        "Nothing at first: the publish is tried again. If it fails all the same, look why processes end there: the "
        "system's log says which one it killed for memory. `--publishers 1` publishes by the run's own process."
    )


class DoorClosedError(TransientError):
    """A publisher came too late to its attempt, or heard nothing of the driver for 10 s: it sends nothing."""

    action = "Nothing: the run goes on without that publisher, or tries again."


@dataclass(frozen=True)
class PublisherOrder:
    """All that a publisher is told at its start. `number`: of its task; a task may be run twice.

    `topics`: the outputs as they must be. `sorts`: those whose rows go to topics. `fields`: of each log line.
    """

    attempt: str
    number: int
    job: Job
    cluster_id: str
    topics: tuple[Topic, ...]
    sorts: tuple[SortedRows, ...]
    transaction_seconds: float
    queue_bytes: int
    batch_bytes: int
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Go:
    """The driver's word to begin. `identity`: (P, E) of its producer. `shares`: token → the partitions of it alone."""

    identity: ProducerIdentity
    shares: Mapping[str, Share]


@dataclass(frozen=True)
class Announcement:
    """A publisher has its producer, and could adopt the driver's identity."""


@dataclass(frozen=True)
class Progress:
    """A publisher lives, and has sent so many rows so far."""

    rows: int


@dataclass(frozen=True)
class Report:
    """All rows of a share are acknowledged. `totals`: of each sort, by its name."""

    totals: Mapping[str, Total]


@dataclass(frozen=True)
class Message:
    """A message of one publisher. `token`: its own; empty if the engine lost it, whichever token it had."""

    attempt: str
    number: int
    token: str
    content: Announcement | Progress | Report | Exception


class Post(Protocol):
    """A publisher's side of the engine."""

    @property
    def go(self) -> Go | None:
        """The driver's word to begin; None before that."""

    @property
    def is_closed(self) -> bool:
        """Whether the driver has closed its door: no other publisher may come."""

    @property
    def silence(self) -> float:
        """The seconds since the driver was heard, by the clock of this process."""

    def tell(self, message: Message) -> None:
        """Tell the driver something."""


class Door(Protocol):
    """The driver's side of the engine, for one attempt."""

    def beat(self) -> None:
        """Tell the publishers that the driver lives; any thread may call it."""

    def close(self) -> None:
        """Tell the publishers that nobody else may come."""

    def say_go(self, go: Go) -> None:
        """Tell the publishers to begin. Whoever has no share in it ends."""

    def listen(self, seconds: float) -> Message | None:
        """Return the next message of any publisher; None if there is none within so many seconds."""


class Engine(Protocol):
    """The interface that runs publishers: it decides where."""

    def open_door(self, orders: Sequence[PublisherOrder]) -> AbstractContextManager[Door]:
        """Start a publisher for each order. With the block all of them end, whatever they do; none is waited for."""

    def budget(self, job: Job, count: int) -> PublisherBudget:
        """Return the memory of each of so many publishers, which share the limit of their machines."""
