"""The Prefect server that the commands of one user share, where no setting names another one.

Guarantees: the first command starts it; other commands with the same settings find it, even while it starts. It stays
KAFKA_SORT_PREFECT_LINGER seconds after the last command that used it, in whatever way that ended; then it ends by
itself. Ctrl-C in the terminal does not reach it. Other users cannot use it: it asks for a secret, which lies in a
private file of PREFECT_HOME. A server that does not answer, or that has other settings, is left alone, and another
one starts.
"""

import fcntl
import hashlib
import http.client
import math
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from kafka_sort.server_files import ServerFiles, ServerRecord, lock, open_private, read_record, try_lock
from tasks.errors import SettingsError, TerminalError

LINGER: Final = "KAFKA_SORT_PREFECT_LINGER"
_LINGER_SECONDS: Final = 300.0
_START_SECONDS: Final = 90.0
# How long a command waits while another one starts the server.
_TURN_SECONDS: Final = 60.0
_ANSWER_SECONDS: Final = 5.0
_SHOWN_LINES: Final = 6
# Prefect starts its own temporary server with the same settings, but for the last one: a command silences Prefect's own
# lines on its terminal, and the server's log is where a failure explains itself.
_ENVIRONMENT: Final = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
}
# Words in the server's last lines, and what helps.
_WAYS_OUT: Final = {
    "Can't locate revision": "a newer Prefect wrote the database: install it, or set PREFECT_HOME to another folder",
    "not a database": "the database is damaged: move it away, or set PREFECT_HOME to another folder",
    "malformed": "the database is damaged: move it away, or set PREFECT_HOME to another folder",
    "disk is full": "make space, or set PREFECT_HOME to a folder on another disk",
    "No space left": "make space, or set PREFECT_HOME to a folder on another disk",
    "readonly database": "make the database writable, or set PREFECT_HOME to another folder",
    "unable to open database": "make the database and its folder writable, or set PREFECT_HOME to another folder",
    "database is locked": "another process holds the database: end it, or set PREFECT_HOME to another folder",
}
_ELSE: Final = "set PREFECT_HOME to another folder, or start a server (prefect server start) and set PREFECT_API_URL"

# The descriptors stay open: a lock ends when its descriptor is closed, and the lock shows the server that it is used.
_used: list[int] = []


class PrefectServerError(TerminalError):
    """Prefect's server does not start, or does not answer at `PREFECT_API_URL`."""

    exit_code = 2
    category = "settings"
    action = "Do what the line says about the address, `PREFECT_HOME` or its disk; then start again."
    at_risk = "No: nothing was begun."


@dataclass(frozen=True)
class UsedServer:
    """The server that this process uses until its end."""

    record: ServerRecord
    linger: float
    started: bool


def linger_seconds() -> float:
    """Return how long an unused server stays. SettingsError if the setting is no number of seconds."""
    text = os.environ.get(LINGER) or str(_LINGER_SECONDS)
    with suppress(ValueError):
        if 0 <= (seconds := float(text)) < math.inf:
            return seconds
    raise SettingsError(f"{LINGER}={text}: use a number of seconds; 0 ends Prefect's server with the last command")


def use_server(home: Path, settings: dict[str, str], linger: float) -> UsedServer:
    """Find the server with these settings, or start it to stay `linger` seconds. PrefectServerError if none starts."""
    try:
        folder = _make_folder(home.absolute())
        settings = {name: value for name, value in settings.items() if name.startswith("PREFECT_SERVER_")}
        key = _key(home, settings)
        # Two servers that start at once would both create or migrate the database.
        with try_lock(folder / "start.lock", fcntl.LOCK_EX, _TURN_SECONDS):
            found = _join(folder, key, linger)
            return UsedServer(found or _start(folder, key, settings, linger), linger, started=found is None)
    except OSError as error:
        raise PrefectServerError(
            f"Prefect's server cannot use PREFECT_HOME {home} ({error.strerror or error}): make it a writable folder, "
            "or set PREFECT_HOME to another one"
        ) from error


def staying_servers() -> list[tuple[ServerRecord, float]]:
    """Return the servers in PREFECT_HOME that are alive, each with the seconds that it stays unused."""
    found = []
    # The same rule as Prefect's, whose import takes a second.
    home = Path(os.path.expanduser(os.environ.get("PREFECT_HOME") or "~/.prefect"))  # noqa: PTH111  # raises nothing
    for path in sorted((home / "kafka-sort").glob("*.json")):
        record = read_record(path)
        if record is not None and (files := ServerFiles(path.parent, path.stem, record.id)).is_alive():
            with suppress(OSError, ValueError):
                found.append((record, float(files.users.read_text())))
    return found


def describe_server(record: ServerRecord, linger: float) -> str:
    """Describe the server to a person, in one line."""
    return (
        f"Prefect's server for the next commands: pid {record.pid}, ends {linger:g} s after the last one "
        f"(kill {record.pid} ends it now; {LINGER}=0 lets it end with the command)"
    )


def _make_folder(home: Path) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    folder = home / "kafka-sort"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _key(home: Path, settings: dict[str, str]) -> str:
    """Return a hash of all that a server and its clients must have in common: a command finds only a server that fits.

    Processes of another network do not reach the server. A service manager kills it with the group that started it.
    """
    parts = [f"{name}={value}" for name, value in sorted(settings.items())]
    parts += [str(home.absolute()), sys.prefix, version("prefect"), version("kafka-sorting-pipeline"), *_surroundings()]
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()[:16]


def _surroundings() -> Iterator[str]:
    with suppress(OSError):
        yield str(Path("/proc/self/ns/net").readlink())
        yield str(Path("/proc/self/ns/pid").readlink())
        yield Path("/proc/self/cgroup").read_text()


def _join(folder: Path, key: str, linger: float) -> ServerRecord | None:
    """Return the record of a server that lives and answers; from then on the server knows of this user."""
    path = folder / f"{key}.json"
    record = read_record(path)
    if record is None or not (files := ServerFiles(folder, key, record.id)).is_alive():
        return None
    users = open_private(files.users)
    # The server may have been about to end.
    if lock(users, fcntl.LOCK_SH, _ANSWER_SECONDS) and read_record(path) == record and _answers(record):
        _use(users, linger)
        return record
    os.close(users)
    path.unlink(missing_ok=True)
    return None


def _use(users: int, linger: float) -> None:
    os.ftruncate(users, 0)
    os.pwrite(users, f"{linger:g}".encode(), 0)
    _used.append(users)


def _answers(record: ServerRecord) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", record.port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _start(folder: Path, key: str, settings: dict[str, str], linger: float) -> ServerRecord:
    _remove_dead(folder)
    files = ServerFiles(folder, key, secrets.token_hex(8))
    users = open_private(files.users)
    lock(users, fcntl.LOCK_SH, 0)
    _use(users, linger)
    log = open_private(files.log, os.O_APPEND)
    try:
        server = subprocess.Popen(
            # -P: a file in the present folder may have the name of a module.
            [sys.executable, "-P", "-m", "kafka_sort.serve_prefect", str(folder), key, files.id],
            env=_environment(folder.parent, settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    finally:
        os.close(log)
    return _await_record(server, files)


def _environment(home: Path, settings: dict[str, str]) -> dict[str, str]:
    """Leave out the way to Kafka, since the server outlives the command; add settings from files of the folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KAFKA_")}
    secret = f"kafka-sort:{secrets.token_urlsafe(32)}"
    return kept | settings | _ENVIRONMENT | {"PREFECT_HOME": str(home), "PREFECT_SERVER_API_AUTH_STRING": secret}


def _await_record(server: "subprocess.Popen[bytes]", files: ServerFiles) -> ServerRecord:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        record = read_record(files.record)
        if record is not None and record.id == files.id:
            return record
        time.sleep(0.02)
    status = server.poll()
    what = f"did not start within {_START_SECONDS:.0f} s" if status is None else f"ended with status {status}"
    server.kill()
    tail = files.log.read_text(errors="replace").splitlines()
    files.remove()
    free = shutil.disk_usage(files.folder).free >> 20
    if not free:
        # Its output finds no space either.
        tail.append("No space left")
    advice = next((way for word, way in _WAYS_OUT.items() if any(word in line for line in tail)), _ELSE)
    last = "\n".join(line for line in tail if line.strip()).splitlines()[-_SHOWN_LINES:]
    raise PrefectServerError(
        f"Prefect's server {what} (PREFECT_HOME {files.folder.parent}, {free} MB free): {advice}"
        + ("; its output ends:\n" + "\n".join(last) if last else "")
    )


def _remove_dead(folder: Path) -> None:
    """Remove the files of servers that were killed."""
    for path in folder.glob("*.users"):
        files = ServerFiles(folder, "", path.stem)
        if not files.is_alive():
            files.remove()
    for path in folder.glob("*.json"):
        record = read_record(path)
        if record is None or not ServerFiles(folder, path.stem, record.id).is_alive():
            path.unlink(missing_ok=True)
