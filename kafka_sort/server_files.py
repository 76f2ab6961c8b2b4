"""The files by which the commands of one user share a Prefect server: its record, and the lock of its users.

Guarantees: this user alone can read them; locks are the kernel's, so that a killed process holds none. This module
needs the standard library only: the server's process begins with it.
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
# The longest log that is kept of a server's output.
MOST_LOG_BYTES: Final = 1_000_000


@dataclass(frozen=True)
class ServerRecord:
    """A server that answers. Its clients authenticate with `secret`: other users reach loopback as well."""

    id: str
    pid: int
    port: int
    secret: str

    @property
    def address(self) -> str:
        """The address of its API."""
        return f"http://127.0.0.1:{self.port}/api"


@dataclass(frozen=True)
class ServerFiles:
    """The files of one server. `key` stands for the settings with which the server was started."""

    folder: Path
    key: str
    id: str

    @property
    def record(self) -> Path:
        """The record of the key's server, written when it answers. A server with a replaced record ends when unused."""
        return self.folder / f"{self.key}.json"

    @property
    def users(self) -> Path:
        """The file that each command locks while it uses the server. It holds the seconds that the server stays."""
        return self.folder / f"{self.id}.users"

    @property
    def alive(self) -> Path:
        """The file that the server locks as long as it lives."""
        return self.folder / f"{self.id}.alive"

    @property
    def log(self) -> Path:
        """The file with the server's output."""
        return self.folder / f"{self.id}.log"

    def is_alive(self) -> bool:
        """Whether the server's process exists, in whatever state."""
        if not self.alive.exists():
            return False
        with try_lock(self.alive, fcntl.LOCK_EX) as locked:
            return locked is None

    def remove(self) -> None:
        """Remove the files of a server that ends or has ended."""
        if (record := read_record(self.record)) is not None and record.id == self.id:
            self.record.unlink(missing_ok=True)
        for path in (self.users, self.alive, self.log):
            path.unlink(missing_ok=True)


def write_record(path: Path, record: ServerRecord) -> None:
    """Write the record by rename, so that readers find it whole."""
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(record), file)
    os.replace(part, path)


def read_record(path: Path) -> ServerRecord | None:
    """Read the record; None if there is none that only this user could have written."""
    try:
        with path.open() as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.geteuid() or status.st_mode & 0o077:
                return None
            return ServerRecord(**json.load(file))
    except (OSError, ValueError, TypeError):
        return None


def open_private(path: Path, flags: int = 0) -> int:
    """Open a file of this user's for reading and writing, created if it is absent; return its descriptor."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | flags, 0o600)


@contextmanager
def try_lock(path: Path, kind: int, seconds: float = 0.0) -> Iterator[int | None]:
    """Hold the lock during the block; yield its descriptor, or None if others hold it for the time given."""
    descriptor = open_private(path)
    try:
        yield descriptor if lock(descriptor, kind, seconds) else None
    finally:
        os.close(descriptor)


def lock(descriptor: int, kind: int, seconds: float) -> bool:
    """Lock the file until it is closed; return False if others hold the lock for the time given."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_PAUSE_SECONDS)
