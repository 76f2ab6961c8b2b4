"""The process of a shared Prefect server: `python -m kafka_sort.serve_prefect FOLDER KEY ID`.

It takes a free port of 127.0.0.1, and writes its record when it answers. It ends by SIGTERM, some seconds after the
last command that used it, or at once when its record is gone or belongs to another server.
"""

import fcntl
import gc
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Final

from kafka_sort.server_files import (
    MOST_LOG_BYTES,
    ServerFiles,
    ServerRecord,
    lock,
    open_private,
    read_record,
    try_lock,
    write_record,
)

_APP: Final = "prefect.server.api.server:create_app"
_SECRET: Final = "PREFECT_SERVER_API_AUTH_STRING"  # noqa: S105  # the name of a setting
_LOOK_SECONDS: Final = 0.5
_START_LOOK_SECONDS: Final = 0.02
_END_SECONDS: Final = 10.0
# uvicorn's exit status for an application that does not start.
_STARTUP_FAILURE: Final = 3


def main(files: ServerFiles) -> int:
    """Serve until it is time to end; return the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # The folder where the command was started may be unmounted or removed.
    os.chdir(files.folder)
    lock(open_private(files.alive), fcntl.LOCK_EX, _END_SECONDS)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    # Imports are most of the start, and the garbage collector takes a fifth of their time.
    gc.disable()
    import uvicorn

    config = uvicorn.Config(_APP, factory=True, lifespan="on", log_level="error", timeout_graceful_shutdown=3)
    server = uvicorn.Server(config)
    record = ServerRecord(files.id, os.getpid(), listener.getsockname()[1], os.environ[_SECRET])
    threading.Thread(target=watch, args=(server, files, record), daemon=True).start()
    try:
        server.run(sockets=[listener])
    finally:
        if server.started:
            files.remove()
    return 0 if server.started else _STARTUP_FAILURE


def watch(server: "uvicorn.Server", files: ServerFiles, record: ServerRecord) -> None:  # type: ignore[name-defined]  # noqa: F821
    """Write the record when the server answers; end the process when nobody has used it for long enough."""
    recorded, unused_since = False, time.monotonic()
    while True:
        time.sleep(_LOOK_SECONDS if recorded else _START_LOOK_SECONDS)
        if server.started and not recorded:
            write_record(files.record, record)
            recorded = True
            gc.freeze()
            gc.enable()
        _bound_log()
        with try_lock(files.users, fcntl.LOCK_EX) as unused:
            if unused is None:
                unused_since = time.monotonic()
            elif (recorded and read_record(files.record) != record) or is_over(unused, unused_since):
                # The lock is held: a command that comes now waits, finds no record, and starts another server.
                files.remove()
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(_END_SECONDS)
                os._exit(0)


def is_over(users: int, unused_since: float) -> bool:
    """Return whether the server has been unused for as long as the newest command wants it to stay."""
    try:
        stays = float(os.pread(users, 100, 0))
    except ValueError:
        stays = 0.0
    return time.monotonic() - unused_since >= stays


def _bound_log() -> None:
    """Empty a log that has grown too large. Output is appended, so that it goes on at the beginning."""
    if os.fstat(sys.stderr.fileno()).st_size > MOST_LOG_BYTES:
        os.ftruncate(sys.stderr.fileno(), 0)


if __name__ == "__main__":
    sys.exit(main(ServerFiles(Path(sys.argv[1]), sys.argv[2], sys.argv[3])))
