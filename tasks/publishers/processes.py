"""Publishers as processes of this machine, which speak with their driver by pipes and end with it.

The connection goes through the pipe: no secret is on a command line or in an environment.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as PipeEnd, Pipe, wait
from typing import Any, Final

from tasks.observe.logs import LOGGER, configure_logging, fields_of, get_logger
from tasks.publishers.alone import ALONE
from tasks.publishers.base import Publishers
from tasks.publishers.crew import SeveralPublishers
from tasks.publishers.publisher import publish_share
from tasks.publishers.rendezvous import (
    Door,
    Go,
    Message,
    PublisherLostError,
    PublisherOrder,
)
from tasks.run_context import run_context
from tasks.settings.budget import BASE_BYTES, PUBLISHER_BYTES, PublisherBudget
from tasks.settings.connection import Connection, use_connection
from tasks.settings.job import Job

# A publisher that has reported closes its producer, and ends.
_END_SECONDS: Final = 5.0
_BEAT, _CLOSED = "beat", "closed"


@dataclass(frozen=True)
class LocalProcesses:
    """The engine that starts processes of this machine, with the connection of this one."""

    connection: Connection

    def budget(self, job: Job, count: int) -> PublisherBudget:
        """Divide what the processes leave of this machine's limit."""
        return PublisherBudget.of(job.memory_bytes - BASE_BYTES - count * PUBLISHER_BYTES, count)

    @contextmanager
    def open_door(self, orders: Sequence[PublisherOrder]) -> Iterator[Door]:
        """Start the processes; at the end of the block they are killed if they have not ended by themselves."""
        with ExitStack() as stack:
            children = [stack.enter_context(_running(order)) for order in orders]
            door = _PipeDoor({child.pipe: child for child in children})
            for child in children:
                child.say((child.order, self.connection))
            yield door


def local_publishers(connection: Connection, count: int) -> Publishers:
    """Return so many publishers of this machine; one is the run's own process."""
    return SeveralPublishers(LocalProcesses(connection), count) if count > 1 else ALONE


@dataclass(frozen=True)
class _Line:
    """A line of a publisher's log."""

    level: int
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class _Child:
    """A publisher's process, and this end of its pipe."""

    order: PublisherOrder
    process: "subprocess.Popen[bytes]"
    pipe: "PipeEnd[Any, Any]"
    lock: threading.Lock = field(default_factory=threading.Lock)

    def say(self, what: object) -> None:
        """Send something; the end of the process shows in what it says, or no longer says."""
        with self.lock, suppress(OSError):
            self.pipe.send(what)

    def hear(self) -> Message | None:
        """Receive a message, or log a line and return None; the last message says that the process is gone."""
        try:
            said: Message | _Line = self.pipe.recv()
        except (EOFError, OSError):
            self.process.wait()
            lost = PublisherLostError(
                f"publisher {self.order.number}, process {self.process.pid}, ended with status "
                f"{self.process.returncode} before it had sent its rows: nothing was published; the publish is tried "
                "again"
            )
            return Message(self.order.attempt, self.order.number, "", lost)
        if isinstance(said, Message):
            return said
        facts = dict(said.fields)
        get_logger().log(said.level, str(facts.pop("event", "")), **facts)
        return None


@contextmanager
def _running(order: PublisherOrder) -> Iterator[_Child]:
    ours, theirs = Pipe()
    # -P: a folder `tasks` where the command is run is not ours. A session of its own: Ctrl-C is the driver's.
    code = f"from tasks.publishers.processes import serve; serve({theirs.fileno()})"
    command = [sys.executable, "-P", "-c", code]
    process = subprocess.Popen(
        command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )
    theirs.close()
    patience = 0.0
    try:
        yield _Child(order, process, ours)
        patience = _END_SECONDS
    finally:
        _end(process, patience)
        ours.close()


def _end(process: "subprocess.Popen[bytes]", patience: float) -> None:
    """End a publisher: it may be frozen, and it holds nothing that needs a farewell."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    process.kill()
    process.wait()


@dataclass(frozen=True)
class _PipeDoor:
    children: "dict[PipeEnd[Any, Any], _Child]"

    def beat(self) -> None:
        """Say that the driver lives."""
        self._say_all(_BEAT)

    def close(self) -> None:
        """Say that nobody else may come."""
        self._say_all(_CLOSED)

    def say_go(self, go: Go) -> None:
        """Say that the rows may be sent."""
        self._say_all(go)

    def listen(self, seconds: float) -> Message | None:
        """Return the next message; a process that is gone is told once, behind all that it said."""
        ready = wait([pipe for pipe in self.children if not pipe.closed], seconds) if self.children else []
        if not ready:
            return None
        pipe: Any = ready[0]
        message = self.children[pipe].hear()
        if message is not None and isinstance(message.content, PublisherLostError) and not message.token:
            del self.children[pipe]
        return message

    def _say_all(self, what: object) -> None:
        for child in list(self.children.values()):
            child.say(what)


class PipePost:
    """A publisher's end of its pipe. A driver that is gone ends the process at once."""

    def __init__(self, pipe: "PipeEnd[Any, Any]") -> None:
        self.go: Go | None = None
        self.is_closed = False
        self._pipe = pipe
        self._lock = threading.Lock()
        self._heard = time.monotonic()
        threading.Thread(target=self._listen, name="driver", daemon=True).start()

    def tell(self, message: Message) -> None:
        """Tell the driver something; any thread may call it."""
        self.send(message)

    def send(self, what: Message | _Line) -> None:
        """Send a message, or a line."""
        with self._lock:
            self._pipe.send(what)

    @property
    def silence(self) -> float:
        """The seconds since the driver was heard."""
        return time.monotonic() - self._heard

    def _listen(self) -> None:
        while True:
            try:
                said = self._pipe.recv()
            except (EOFError, OSError):
                # Nothing of a publisher outlives its driver, and nothing in it is worth keeping.
                os._exit(1)
            self._heard = time.monotonic()
            if isinstance(said, Go):
                self.go = said
            self.is_closed = self.is_closed or said == _CLOSED


class _LineTeller(logging.Handler):
    """Tells the driver the lines of this process's log."""

    def __init__(self, post: PipePost) -> None:
        super().__init__()
        self._post = post

    def emit(self, record: logging.LogRecord) -> None:
        fields = fields_of(record)
        with suppress(OSError):
            self._post.send(_Line(record.levelno, fields))


def serve(descriptor: int) -> None:
    """Be a publisher, in a process that was started for it: its order and connection come by the pipe."""
    pipe: PipeEnd[Any, Any] = PipeEnd(descriptor)
    order, connection = pipe.recv()
    post = PipePost(pipe)
    logger = logging.getLogger(LOGGER)
    logger.addHandler(_LineTeller(post))
    logger.propagate = False
    configure_logging()
    with use_connection(connection), run_context(), suppress(Exception):
        publish_share(order, post)
