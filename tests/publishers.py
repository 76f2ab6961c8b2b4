"""Publishers for tests: an engine of threads, whose publishers a test can hold, double or bring late."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue

import psutil

from tasks.publishers.crew import SeveralPublishers
from tasks.publishers.processes import LocalProcesses
from tasks.publishers.publisher import publish_share
from tasks.publishers.rendezvous import Door, Go, Message, PublisherOrder
from tasks.run_context import run_context
from tasks.settings.budget import PublisherBudget
from tasks.settings.connection import Connection, use_connection
from tasks.settings.job import Job
from tests.cluster import wait_for


def local(connection: Connection, count: int = 2) -> SeveralPublishers:
    """So many processes of this machine."""
    return SeveralPublishers(LocalProcesses(connection), count)


def find_publishers(parent: int | None = None) -> list[psutil.Process]:
    """The processes of publishers that a process has started, this one by default."""
    with suppress(psutil.NoSuchProcess):
        return [p for p in psutil.Process(parent).children() if is_publisher(p)]
    return []


def is_publisher(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return "tasks.publishers.processes" in " ".join(process.cmdline())
    return False


def wait_until_stopped(count: int = 2, parent: int | None = None) -> list[psutil.Process]:
    """Wait until so many publishers have stopped at their failpoint; return them."""

    def stopped() -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return [p for p in find_publishers(parent) if p.status() == psutil.STATUS_STOPPED]
        return []

    wait_for(lambda: len(stopped()) >= count, 60)
    return stopped()


@dataclass
class Threads:
    """An engine whose publishers are threads of this process.

    `delay`: seconds by which publisher `number` comes later. `doubled`: whether each order is carried out twice.
    `outcomes`: what each publisher ended with. `messages`: all that was said.
    """

    connection: Connection
    delay: Callable[[int], float] = lambda number: 0.0
    copies: int = 1
    change: Callable[[PublisherOrder], PublisherOrder] = lambda order: order
    outcomes: list[tuple[int, Exception | None]] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    def budget(self, job: Job, count: int) -> PublisherBudget:
        del job
        return PublisherBudget.of(0, count)

    @contextmanager
    def open_door(self, orders: Sequence[PublisherOrder]) -> Iterator[Door]:
        door = _Door(self)
        for order in [*orders] * self.copies:
            context = copy_context()
            run = (context.run, self._publish, self.change(order), door)
            self.threads.append(threading.Thread(target=run[0], args=run[1:], daemon=True))
            self.threads[-1].start()
        yield door

    def _publish(self, order: PublisherOrder, door: "_Door") -> None:
        time.sleep(self.delay(order.number))
        error: Exception | None = None
        try:
            with use_connection(self.connection), run_context():
                publish_share(order, door)
        except Exception as caught:  # noqa: BLE001  # it is looked at by the test
            error = caught
        self.outcomes.append((order.number, error))

    def join(self) -> None:
        for thread in self.threads:
            thread.join(60)


@dataclass
class _Door:
    """Both sides at once."""

    engine: Threads
    go: Go | None = None
    is_closed: bool = False
    silence: float = 0.0
    _queue: "SimpleQueue[Message]" = field(default_factory=SimpleQueue)

    def beat(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True

    def say_go(self, go: Go) -> None:
        self.go = go

    def tell(self, message: Message) -> None:
        self.engine.messages.append(message)
        self._queue.put(message)

    def listen(self, seconds: float) -> Message | None:
        with suppress(Empty):
            return self._queue.get(timeout=seconds)
        return None


def several(engine: Threads, count: int = 2) -> SeveralPublishers:
    """So many publishers of the engine."""
    return SeveralPublishers(engine, count)


def elsewhere(order: PublisherOrder) -> PublisherOrder:
    """The order of a run in another cluster."""
    return replace(order, cluster_id="another")
