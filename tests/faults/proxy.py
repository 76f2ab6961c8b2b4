"""A TCP proxy before a broker's listener, which knows Kafka's requests: it can lose a reply, hold a request, break.

The broker advertises the proxy's address on that listener, so all that a client says goes through here.
"""

import contextlib
import queue
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tasks.broker.embedded import HOST, EmbeddedBroker, _free_port

# Numbers of requests, https://kafka.apache.org/protocol#protocol_api_keys
PRODUCE, METADATA, INIT_PRODUCER_ID, ADD_PARTITIONS_TO_TXN = 0, 3, 22, 24
ADD_OFFSETS_TO_TXN, END_TXN, TXN_OFFSET_COMMIT = 25, 26, 28

Frame = bytes


class ProxiedBroker(EmbeddedBroker):
    """A broker with one more listener, which it advertises at an address where a proxy may listen."""

    def __init__(self, properties: Mapping[str, str], data: Path | None = None) -> None:
        self.proxied_port, self.proxy_port = _free_port(), _free_port()
        listener = {
            "listeners": f"PROXIED://{HOST}:{self.proxied_port}",
            "advertised.listeners": f"PROXIED://{HOST}:{self.proxy_port}",
            "listener.security.protocol.map": "PROXIED:PLAINTEXT",
        }
        super().__init__(data=data, properties={**properties, **listener})

    @property
    def is_dead(self) -> bool:
        return self._process is None


@dataclass
class Held:
    """One request that is kept back: `caught` once it came, sent on by `release`, answered in `replies`."""

    api: int
    match: Callable[[Frame], bool]
    caught: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event = field(default_factory=threading.Event)
    answered: threading.Event = field(default_factory=threading.Event)
    replies: "queue.Queue[Frame]" = field(default_factory=queue.Queue)
    version: int = -1

    def release(self, seconds: float = 30) -> Frame:
        """Let the request through, even if its sender is long gone; return the broker's reply."""
        self.gate.set()
        return self.replies.get(timeout=seconds)


def is_commit(frame: Frame) -> bool:
    """Whether an EndTxn (versions 0 to 2, librdkafka's) commits."""
    return frame[-1] == 1


def is_abort(frame: Frame) -> bool:
    """Whether an EndTxn aborts."""
    return frame[-1] == 0


def error_of(held: Held, reply: Frame) -> int:
    """Return the error code in the reply to a transaction's request; the first one, if each partition has one."""
    # The code follows the correlation id; newer versions have tagged fields there, and one-byte lengths of short items.
    flexible = held.version >= _FLEXIBLE[held.api]
    at = 5 if flexible else 4
    if held.api != PRODUCE:
        at += 4  # The throttle time.
    if held.api in _BY_PARTITION:
        at += 1 if flexible else 4  # The number of topics.
        length, size = (reply[at] - 1, 1) if flexible else (struct.unpack(">h", reply[at : at + 2])[0], 2)
        at += size + length + (1 if flexible else 4) + 4  # The topic, the number of partitions, the first one.
    return int(struct.unpack(">h", reply[at : at + 2])[0])


# The first version of each request that is flexible, https://kafka.apache.org/protocol#protocol_messages
_FLEXIBLE = {PRODUCE: 9, INIT_PRODUCER_ID: 2, ADD_PARTITIONS_TO_TXN: 3, END_TXN: 3, TXN_OFFSET_COMMIT: 3}
_BY_PARTITION = {PRODUCE, ADD_PARTITIONS_TO_TXN, TXN_OFFSET_COMMIT}


class Proxy:
    """Listens at `port` and passes on to `target`, both on loopback."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self.requests: Counter[int] = Counter()
        self.lost = 0
        self.refused = 0
        self.delay = 0.0
        self._target = target
        self._losing: set[int] = set()
        self._once = False
        self._held: list[Held] = []
        self._down = threading.Event()
        self._links: set[_Link] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server((HOST, port), backlog=100)
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A thread that waits in accept() would keep the port.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for held in self._held:
            held.gate.set()
        self._close_links()

    def lose_replies(self, api: int, *, once: bool = False) -> None:
        """Lose the reply to each such request from now on, with its connection; the request goes through."""
        self._once = once
        self._losing.add(api)

    def keep_replies(self) -> None:
        """Lose no more replies."""
        self._losing.clear()

    def hold(self, api: int, match: Callable[[Frame], bool] = lambda _: True) -> Held:
        """Hold the next such request, and all that follows it on its connection, even if the client goes away."""
        held = Held(api, match)
        self._held.append(held)
        return held

    def cut(self) -> None:
        """Cut the network: connections break, new ones are refused."""
        self._down.set()
        self._close_links()

    def mend(self) -> None:
        """Bring the network back."""
        self._down.clear()

    def _close_links(self) -> None:
        with self._lock:
            links = tuple(self._links)
        for link in links:
            link.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._down.is_set():
                    self.refused += 1
                    client.close()
                    continue
                try:
                    link = _Link(self, client, socket.create_connection((HOST, self._target)))
                except OSError:
                    client.close()
                    continue
                with self._lock:
                    self._links.add(link)
                link.start()

    def forget(self, link: "_Link") -> None:
        with self._lock:
            self._links.discard(link)

    def take_held(self, api: int, frame: Frame) -> Held | None:
        """Return the order to hold this request, if there is one that no request has met yet."""
        with self._lock:
            for held in self._held:
                if held.api == api and not held.caught.is_set() and held.match(frame):
                    held.caught.set()
                    return held
        return None

    def loses(self, api: int) -> bool:
        """Whether the reply to such a request is to be lost."""
        with self._lock:
            if api not in self._losing:
                return False
            self.lost += 1
            if self._once:
                self._losing.discard(api)
            return True


class _Link:
    """One connection of a client, and its counterpart to the broker."""

    def __init__(self, proxy: Proxy, client: socket.socket, broker: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._broker = broker
        self._asked: dict[int, tuple[int, Held | None]] = {}

    def start(self) -> None:
        for pump in (self._pass_requests, self._pass_replies):
            threading.Thread(target=self._run, args=(pump,), daemon=True).start()

    def close(self) -> None:
        for end in (self._client, self._broker):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._proxy.forget(self)

    def _run(self, pump: Callable[[], None]) -> None:
        with contextlib.suppress(OSError, struct.error):
            pump()
        self.close()

    def _pass_requests(self) -> None:
        while frame := _receive(self._client):
            api, version, correlation = struct.unpack(">hhi", frame[:8])
            self._proxy.requests[api] += 1
            held = self._proxy.take_held(api, frame)
            if held is not None:
                held.version = version
                held.gate.wait()
            time.sleep(self._proxy.delay)
            self._asked[correlation] = (api, held)
            _send(self._broker, frame)
            if held is not None:
                # Its sender may be gone; then the end of the stream, which comes next, ends the link.
                held.answered.wait(60)

    def _pass_replies(self) -> None:
        while frame := _receive(self._broker):
            api, held = self._asked.pop(struct.unpack(">i", frame[:4])[0])
            if held is not None:
                held.replies.put(frame)
                held.answered.set()
            if self._proxy.loses(api):
                return
            time.sleep(self._proxy.delay)
            _send(self._client, frame)


def _receive(end: socket.socket) -> Frame:
    """Receive one frame, without its length; empty at the end of the stream."""
    size = _receive_exactly(end, 4)
    return _receive_exactly(end, struct.unpack(">i", size)[0]) if size else b""


def _receive_exactly(end: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        part = end.recv(min(count, 1 << 20))
        if not part:
            return b""
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _send(end: socket.socket, frame: Frame) -> None:
    end.sendall(struct.pack(">i", len(frame)) + frame)
