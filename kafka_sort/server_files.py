"""The files by which the commands of one user share a Prefect server: its record, and who uses it.

Guarantees: they can be read by this user alone; locks are the kernel's, so that whatever was killed holds none. This
module needs the standard library only: the server's process begins with it.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

_PAUSE_SECONDS: Final = 0.05
# What is kept of a server's output.
MOST_LOG_BYTES: Final = 1_000_000


@dataclass(frozen=True)
class ServerRecord:
    """A server that answers. `secret` is what its clients authenticate with: other users reach loopback as well."""

    id: str
    pid: int
    port: int
    secret: str

    @property
    def address(self) -> str:
        """Of its API."""
        return f"http://127.0.0.1:{self.port}/api"


@dataclass(frozen=True)
class ServerFiles:
    """The files of one server. `key` names the settings that a server was started with."""

    folder: Path
    key: str
    id: str

    @property
    def record(self) -> Path:
        """Written when the server answers. One for each key: a server whose record is another's ends when unused."""
        return self.folder / f"{self.key}.json"

    @property
    def users(self) -> Path:
        """Locked by each command that uses the server; holds the seconds that it stays, as the newest one wants."""
        return self.folder / f"{self.id}.users"

    @property
    def alive(self) -> Path:
        """Locked by the server as long as it lives."""
        return self.folder / f"{self.id}.alive"

    @property
    def log(self) -> Path:
        """What the server prints."""
        return self.folder / f"{self.id}.log"

    def is_alive(self) -> bool:
        """Whether the server's process is there, however it fares."""
        if not self.alive.exists():
            return False
        with try_lock(self.alive, fcntl.LOCK_EX) as locked:
            return locked is None

    def remove(self) -> None:
        """Of a server that ends, or has ended."""
        if (record := read_record(self.record)) is not None and record.id == self.id:
            self.record.unlink(missing_ok=True)
        for path in (self.users, self.alive, self.log):
            path.unlink(missing_ok=True)


def write_record(path: Path, record: ServerRecord) -> None:
    """By rename, so that it is there whole."""
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(record), file)
    os.replace(part, path)


def read_record(path: Path) -> ServerRecord | None:
    """The record; None where there is none that this user alone could have written."""
    try:
        with path.open() as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.geteuid() or status.st_mode & 0o077:
                return None
            return ServerRecord(**json.load(file))
    except (OSError, ValueError, TypeError):
        return None


def open_private(path: Path, flags: int = 0) -> int:
    """A descriptor to read and write a file of this user's, made where it is absent."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | flags, 0o600)


@contextmanager
def try_lock(path: Path, kind: int, seconds: float = 0.0) -> Iterator[int | None]:
    """The lock during the block, as a descriptor; None if others hold it for so long."""
    descriptor = open_private(path)
    try:
        yield descriptor if lock(descriptor, kind, seconds) else None
    finally:
        os.close(descriptor)


def lock(descriptor: int, kind: int, seconds: float) -> bool:
    """Lock it, until it is closed; False if others hold it for so long."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_PAUSE_SECONDS)
