"""Runs a real Apache Kafka (KRaft, one JVM, loopback only) for as long as its owner lives.

Guarantees: `start` returns when the broker answers, or raises EmbeddedBrokerError with the log's last lines; the JVM
ends with the process that started it, even if that is killed; a temporary data folder is removed with it.
"""

import base64
import contextlib
import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tasks.broker.runtime import Runtime, load_runtime
from tasks.errors import EmbeddedBrokerError, SettingsError
from tasks.signals import add_cleanup, answer, remove_cleanup, stop_event

HOST = "127.0.0.1"
# The range lies below the ports that systems give to outgoing connections: a client that keeps trying such a port while
# the broker is down can connect to itself, and hold the port.
FREE_PORTS = range(20_000, 30_000)
STOP_SECONDS = 10
_LOOK_SECONDS = 0.2
ARCHIVE_SECONDS = 30  # the first stop on a machine leaves the class archive behind
# The JVM takes the place of the shell, so its pid is known from the start. A watcher in the same process group blocks
# on a pipe that closes when the owner exits, in whatever way; then it kills the group. No other process can get the
# group's id while the watcher lives.
SHELL = """
exec 3<&0
(PATH=$PATH:/bin:/usr/bin; trap '' TERM; cat <&3 >/dev/null; kill -TERM 0; sleep 3; rm -rf "$0"; kill -KILL 0) &
exec "$@" </dev/null 3<&-
"""
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "num.partitions": "4",
    # After a kill, the broker's own controller keeps it out for this long (9 s by default).
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "log.cleaner.dedupe.buffer.size": str(16 << 20),  # a part of the heap; 128 MB by default
}
APPENDED = ("listeners", "advertised.listeners", "listener.security.protocol.map")


class EmbeddedBroker:
    """One broker, as a context manager or by `start` and `stop`.

    `port`: None or 0 takes a free one and keeps it over `kill` and `start`. `data`: a folder that is kept, and that the
    next start uses again; None takes a temporary one that `stop` removes. `properties` override the defaults; listeners
    are added to the plain one at host:port instead. `host`: another address than the loopback one, of a closed network
    that tests make; `within`: the command that runs a program there.
    """

    def __init__(
        self,
        port: int | None = None,
        data: Path | None = None,
        properties: Mapping[str, str] | None = None,
        heap: str = "384m",
        host: str = HOST,
        within: Sequence[str] = (),
    ) -> None:
        self.host = host
        self.port = port or _free_port()
        self.properties = dict(properties or {})
        self.heap = heap
        self._within = tuple(within)
        self._kept = data
        self._home: Path | None = data.absolute() if data else None
        self._process: subprocess.Popen[bytes] | None = None
        self._runtime: Runtime | None = None

    @property
    def bootstrap_servers(self) -> str:
        """HOST:PORT, on loopback unless it has another host."""
        return f"{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """The JVM's process id."""
        return self._running().pid

    @property
    def home(self) -> Path:
        """The folder of Kafka's data, the broker's settings and its log."""
        if self._home is None:
            raise EmbeddedBrokerError("the broker has no folder: start it first")
        return self._home

    @property
    def log_path(self) -> Path:
        """The log of the newest start."""
        return self.home / f"broker-{self.port}.log"

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of the broker's log."""
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self if self._process else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, timeout: float = 60) -> Self:
        """Start the broker and return when it answers; the first start on a machine fetches jars, untimed."""
        if self._process:
            raise EmbeddedBrokerError(f"the broker at {self.bootstrap_servers} is started already")
        if self.host == HOST:
            _check_free(self.port)
        _check_folder(self._home)
        try:
            self._runtime = load_runtime()
            add_cleanup(self._discard)
            self._home = self._home or Path(tempfile.mkdtemp(prefix="kafka-sort-broker-"))
            self._write_files(self._runtime)
            self._process = self._spawn(self._runtime)
            self._await_ready(time.monotonic() + timeout)
        except OSError as error:
            self._discard()
            raise EmbeddedBrokerError(
                f"cannot set up the embedded broker (data in {self._home or 'a temporary folder'}): {error}"
            ) from error
        except BaseException:
            self._discard()
            raise
        return self

    def stop(self) -> None:
        """Stop the broker gracefully, after 10 s by force; remove temporary data."""
        try:
            if self._process and self._runtime:
                self._end_in_order(self._process, self._runtime)
        finally:
            self._discard()

    def kill(self) -> None:
        """Kill the broker with SIGKILL and keep its data, for fault tests; `start` takes the data up again."""
        if process := self._process:
            self._process = None
            with contextlib.suppress(ProcessLookupError, PermissionError):  # another process killed the watcher too
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdin:
                process.stdin.close()

    def check_alive(self) -> None:
        """Raise EmbeddedBrokerError with the log's last lines when the broker has ended by itself."""
        if (status := self._running().poll()) is not None:
            free = shutil.disk_usage(self.home).free >> 20
            raise EmbeddedBrokerError(
                f"the broker at {self.bootstrap_servers} ended with status {status} ({free} MB free at {self.home}); "
                f"its log ends:\n{self.log_tail()}"
            )

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise EmbeddedBrokerError(f"the broker at {self.bootstrap_servers} is not started")
        return self._process

    def _write_files(self, runtime: Runtime) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        _check_unused(self.home / "kafka" / ".lock")
        _format_storage(self.home / "kafka", runtime.checkpoint)
        lines = "".join(f"{name}={value}\n" for name, value in self._settings().items()).replace("\\", "\\\\")
        self._settings_path.write_text(lines, encoding="latin-1", errors="backslashreplace")  # by Java's rules

    @property
    def _settings_path(self) -> Path:
        return self.home / f"broker-{self.port}.properties"

    def _settings(self) -> dict[str, str]:
        """Return the settings of one start; each has another controller port, which only the broker itself uses."""
        controller = f"{self.host}:{_free_port()}"
        own = SETTINGS | {
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{self.bootstrap_servers},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap_servers}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self.home / "kafka"),
        }
        added = {name: f"{own[name]},{self.properties[name]}" for name in APPENDED if name in self.properties}
        return own | self.properties | added

    def _spawn(self, runtime: Runtime) -> subprocess.Popen[bytes]:
        command = runtime.command(
            "kafka.Kafka", str(self._settings_path), heap=self.heap, archive_to=self.home / "classes.jsa"
        )
        doomed = "" if self._kept else str(self.home)
        with self.log_path.open("wb") as log:
            return subprocess.Popen(
                [*self._within, "/bin/sh", "-c", SHELL, doomed, *command],
                # Java can name no file beyond ASCII in the locale C.
                env=os.environ | {"LC_ALL": "C.UTF-8"},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # the terminal's Ctrl-C is for the owner, which stops the broker in order
            )

    def _await_ready(self, deadline: float) -> None:
        while not (_listens(self.host, self.port) and _answers(self.bootstrap_servers)):
            self.check_alive()
            if time.monotonic() > deadline:
                raise EmbeddedBrokerError(
                    f"no answer from the broker at {self.bootstrap_servers}; its log ends:\n{self.log_tail()}"
                )
            time.sleep(0.05)

    def _end_in_order(self, process: subprocess.Popen[bytes], runtime: Runtime) -> None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS if runtime.archive.exists() else ARCHIVE_SECONDS)
        if process.returncode == 128 + signal.SIGTERM:
            runtime.keep_archive(self.home / "classes.jsa")

    def _discard(self) -> None:
        self.kill()
        if self._home and not self._kept:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None
        remove_cleanup(self._discard)


def run_foreground(port: int, data: Path | None) -> int:
    """Run a broker until a signal; print `ready HOST:PORT` when it answers. A signal before that ends the command."""
    broker = EmbeddedBroker(port, data).start()
    # It stays until the broker has ended: a signal ends this command in order.
    with stop_event() as stop, broker:
        print(f"ready {broker.bootstrap_servers}", flush=True)
        while not stop.wait(_LOOK_SECONDS):
            broker.check_alive()
    answer()
    return 0


def _check_folder(home: Path | None) -> None:
    """Raise SettingsError for a folder that Kafka cannot use, before Java needs seconds to say so."""
    if home is None:
        return
    name = str(home)
    if "," in name or not name.isprintable():
        raise SettingsError(f"data folder {name!r}: Kafka takes no comma and no control code in a folder's name")
    try:
        home.mkdir(parents=True, exist_ok=True)
        problem = "" if os.access(home, os.R_OK | os.W_OK | os.X_OK) else "it cannot be read and written"
    except OSError as error:
        problem = str(error.strerror)
    if problem:
        raise SettingsError(f"data folder {name!r}: {problem}: make it usable, or take another with --data")


def _check_unused(lock: Path) -> None:
    """Take Kafka's own lock on a data folder for a moment: a second broker would need 10 s to report the first."""
    with contextlib.suppress(FileNotFoundError), lock.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EmbeddedBrokerError(
                f"another broker uses the folder {lock.parent}: stop it or take another"
            ) from error


def _format_storage(folder: Path, checkpoint: Path) -> None:
    """Format a folder as Kafka's StorageTool does, without another JVM; a formatted folder stays as it is."""
    folder.mkdir(exist_ok=True)
    identity = folder / "meta.properties"
    if not identity.exists():
        shutil.copyfile(checkpoint, folder / "bootstrap.checkpoint")
        scratch = folder / "meta.properties.tmp"
        scratch.write_text(f"version=1\nnode.id=1\ncluster.id={_random_id()}\ndirectory.id={_random_id()}\n")
        os.replace(scratch, identity)


def _random_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _free_port() -> int:
    while True:
        port = random.choice(FREE_PORTS)
        with contextlib.suppress(EmbeddedBrokerError):
            _check_free(port)
            return port


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # Java sets it too: closed connections do not count
        try:
            probe.bind((HOST, port))
        except OverflowError as error:
            raise EmbeddedBrokerError(
                f"there is no port {port}: take one from 1 to 65535, or 0 for a free one"
            ) from error
        except PermissionError as error:
            raise EmbeddedBrokerError(f"port {port} on {HOST} is for root alone: take one from 1024 on") from error
        except OSError as error:
            raise EmbeddedBrokerError(
                f"port {port} on {HOST} is in use ({error.strerror}): stop what listens there, or take another port"
            ) from error


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def _answers(servers: str) -> bool:
    with contextlib.suppress(KafkaException):
        admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
        return bool(admin.list_topics(timeout=2).brokers)
    return False
