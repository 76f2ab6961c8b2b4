"""Publishers as tasks on workers of Dask: the engine of a driver, and the task of its publishers.

Guarantee 2 (all or nothing, exactly once) needs nothing of Dask: it may run a task twice, lose it, or lose all with its
scheduler. A publisher that is run twice has another token, and finds the door closed. What is said goes by events of
the scheduler to the driver, and by a variable of the scheduler to the publishers.
"""

import pickle
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.dask.cluster import Workers
from tasks.dask.orders import TOPIC, Order
from tasks.dask.submission import submit
from tasks.observe.logs import show_line
from tasks.publishers.publisher import publish_share
from tasks.publishers.rendezvous import (
    BEAT_SECONDS,
    STALE_SECONDS,
    Door,
    Go,
    Message,
    PublisherLostError,
    PublisherOrder,
)
from tasks.run_context import RunContext, current_run, run_context
from tasks.settings.budget import BASE_BYTES, PublisherBudget, job_of_workers
from tasks.settings.job import Job

if TYPE_CHECKING:
    from prefect_dask.task_runners import PrefectDaskFuture

# The scheduler's topic of what happens to all workers.
_ALL: Final = "all"
_LOOK_SECONDS: Final = 0.25
# How long a driver waits for tasks whose publishers have reported.
_END_SECONDS: Final = 5.0


@dataclass(frozen=True)
class DaskEngine:
    """The engine of workers. `order`: what each task is told, besides the orders of its publishers.

    `flow`: the context of the flow run. That of the publish, a task of this process, cannot be sent to a worker.
    """

    workers: Workers
    order: Order
    flow: Context = field(default_factory=copy_context)

    def budget(self, job: Job, count: int) -> PublisherBudget:
        """Divide what the workers of a machine have, which the publishers there share."""
        free = job_of_workers(job, self.workers.per_machine).memory_bytes - BASE_BYTES
        return PublisherBudget.of(free, self.workers.per_machine * -(-count // self._count_workers()))

    def _count_workers(self) -> int:
        """Return how many workers there are now: some may have been lost since the run began."""
        with _noticing_loss():
            # A client that has lost its scheduler knows nothing.
            found: Mapping[str, Any] = self.workers.client.scheduler_info(n_workers=-1)
            if not found.get("workers"):
                raise OSError("no worker is known")
            return len(found["workers"])

    @contextmanager
    def open_door(self, orders: Sequence[PublisherOrder]) -> Iterator[Door]:
        """Start tasks, of one publisher each; of several if there are fewer workers. At the end all are told to end."""
        count, attempt = min(len(orders), self._count_workers()), orders[0].attempt
        told = replace(self.order, run=f"{self.order.run}-{attempt}")
        door = _SchedulerDoor(self.workers.client, told, attempt, self.flow)
        with door.listening():
            for number in range(count):
                door.start(tuple(orders[number::count]))
            yield door
            door.await_end()


@dataclass
class _SchedulerDoor:
    """The driver's side. `places`: number of a publisher → address of the worker that it was last heard of."""

    client: Any
    order: Order
    attempt: str
    flow: Context
    _said: tuple[int, bool, Go | None] = (0, False, None)
    _places: dict[int, str] = field(default_factory=dict)
    _futures: "list[PrefectDaskFuture[Any]]" = field(default_factory=list)
    _messages: "SimpleQueue[Message]" = field(default_factory=SimpleQueue)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Subscribe to what publishers say, and what becomes of their workers; at the end tell all to end."""
        import distributed

        self._variable = distributed.Variable(_variable(self.attempt), client=self.client)
        stop = distributed.Event(self.order.run, client=self.client)
        self._say()
        topics = {self.attempt: self._note, TOPIC: self._show, _ALL: self._note_workers}
        for topic, handle in topics.items():
            self.client.subscribe_topic(topic, lambda event, handle=handle: handle(event[1]))
        try:
            yield
        finally:
            for topic in topics:
                self.client.unsubscribe_topic(topic)
            # A scheduler may be gone, and a publish that failed waits for nothing.
            threading.Thread(target=self._end, args=(stop,), daemon=True).start()

    def _end(self, stop: Any) -> None:
        with suppress(Exception):
            stop.set()
        with suppress(Exception):
            for future in self._futures:
                future.wrapped_future.release()
            self._variable.delete()

    def start(self, orders: tuple[PublisherOrder, ...]) -> None:
        """Start a task. Neither Prefect nor the driver tries it again: another attempt has other publishers."""
        numbers = [order.number for order in orders]
        name = f"publisher {', '.join(map(str, numbers))}"
        given = {"publishers": orders, "order": replace(self.order, name=name, number=numbers[0])}
        future = self.flow.run(submit, self.client, publish_on_worker, given)
        future.add_done_callback(lambda _: self._lose(numbers, "its task ended"))
        self._futures.append(future)

    def await_end(self) -> None:
        """Wait a little for tasks whose publishers have reported, so that Prefect has their end."""
        ends = time.monotonic() + _END_SECONDS
        while any(f.wrapped_future.status == "pending" for f in self._futures) and time.monotonic() < ends:
            time.sleep(_LOOK_SECONDS)

    def beat(self) -> None:
        """Say that the driver lives: the count goes on. A scheduler that is gone is noticed by what comes next."""
        with suppress(PublisherLostError):
            self._say(beats=1)

    def close(self) -> None:
        """Say that nobody else may come."""
        self._say(is_closed=True)

    def say_go(self, go: Go) -> None:
        """Say that the rows may be sent."""
        self._say(go=go)

    def _say(self, beats: int = 0, *, is_closed: bool = False, go: Go | None = None) -> None:
        with self._lock:
            self._said = (self._said[0] + beats, self._said[1] or is_closed, self._said[2] or go)
            with _noticing_loss():
                self._variable.set(pickle.dumps(self._said), timeout=BEAT_SECONDS)

    def listen(self, seconds: float) -> Message | None:
        """Return the next message."""
        with suppress(Empty):
            return self._messages.get(timeout=seconds)
        return None

    def _note(self, event: dict[str, Any]) -> None:
        message = pickle.loads(event["message"])  # noqa: S301  # from our workers, who run our code
        self._places[message.number] = event["worker"]
        self._messages.put(message)

    def _show(self, event: dict[str, Any]) -> None:
        if event["run"] == self.order.run and "fields" in event:
            show_line(event["level"], event["fields"])

    def _note_workers(self, event: dict[str, Any]) -> None:
        if event.get("action") == "remove-worker":
            lost = [number for number, place in self._places.items() if place == event.get("worker")]
            self._lose(lost, f"worker {event.get('worker')} is gone")

    def _lose(self, numbers: Sequence[int], why: str) -> None:
        for number in numbers:
            lost = PublisherLostError(
                f"publisher {number} ended before it had sent its rows: {why}; nothing was published; the publish is "
                "tried again"
            )
            self._messages.put(Message(self.attempt, number, "", lost))


@contextmanager
def _noticing_loss() -> Iterator[None]:
    """Raise PublisherLostError if the scheduler does not answer."""
    try:
        yield
    except (OSError, TimeoutError) as error:
        raise PublisherLostError(
            f"Dask lost its scheduler, and with it all publishers ({error}): start again"
        ) from error


def _variable(attempt: str) -> str:
    return f"kafka-sort-door-{attempt}"


@task(name="publisher", task_run_name="{order.name}", cache_policy=NO_CACHE, persist_result=False, retries=0)
def publish_on_worker(publishers: tuple[PublisherOrder, ...], order: Order) -> None:
    """Be these publishers, each in a thread if they are several; the error of one is raised once all have ended."""
    with order.taken_up(), order.with_own_connection():
        if len(publishers) == 1:
            _publish(publishers[0], current_run())
            return
        outer = current_run()
        with ThreadPoolExecutor(len(publishers)) as pool:
            futures = [pool.submit(copy_context().run, _publish, publisher, outer) for publisher in publishers]
        for future in futures:
            future.result()


def _publish(publisher: PublisherOrder, outer: RunContext) -> None:
    """Be one publisher, with a meter of its own, until the task is to stop."""
    with run_context(outer.stop), _SchedulerPost(publisher.attempt).listening() as post:
        publish_share(publisher, post)


class _SchedulerPost:
    """A publisher's side: what its driver says stands in the scheduler's variable."""

    def __init__(self, attempt: str) -> None:
        import distributed

        self.go: Go | None = None
        # Until the driver was heard, nobody knows whether its door is open.
        self.is_closed = True
        self._beats = -1
        self._heard = time.monotonic()
        self._attempt = attempt
        self._worker = distributed.get_worker()
        self._variable = distributed.Variable(_variable(attempt), client=distributed.get_client())

    @property
    def silence(self) -> float:
        """The seconds since the driver's count went on, by this machine's clock."""
        return time.monotonic() - self._heard

    def tell(self, message: Message) -> None:
        """Tell the driver something."""
        self._worker.log_event(self._attempt, {"worker": self._worker.address, "message": pickle.dumps(message)})

    @contextmanager
    def listening(self) -> Iterator["_SchedulerPost"]:
        """Look at the variable for the time of the block, for the first time before it."""
        self._look()
        ended = threading.Event()
        thread = threading.Thread(target=self._watch, args=(ended,), name="door", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            ended.set()

    def _watch(self, ended: threading.Event) -> None:
        while not ended.wait(_LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        # Without a scheduler or a variable the driver falls silent.
        with suppress(OSError, TimeoutError):
            beats, self.is_closed, go = pickle.loads(self._variable.get(timeout=STALE_SECONDS))  # noqa: S301
            if beats != self._beats:
                self._beats, self._heard = beats, time.monotonic()
            self.go = self.go or go
