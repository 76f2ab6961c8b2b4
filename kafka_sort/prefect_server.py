"""The temporary Prefect server of one command, where no setting names another one.

Guarantees: Ctrl-C in the terminal passes it by, so that a flow can report that it stops; it ends with the process that
started it, also when that is killed. Prefect's own temporary server gives neither: after a Ctrl-C the flow asks a
server that is gone again and again, for minutes.
"""

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping
from concurrent.futures import Future
from typing import IO

from tasks.errors import TerminalError

_START_SECONDS = 90.0
# The watcher's standard input ends when the owner does, however that ends. See tasks/broker/embedded.py.
_SHELL = """
exec 3<&0
(trap '' TERM; cat <&3 >/dev/null; kill -TERM 0; sleep 3; kill -KILL 0) &
exec "$0" "$@" </dev/null 3<&-
"""
# As Prefect starts its own temporary server.
_ENVIRONMENT = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
_APP = ("uvicorn", "--factory", "prefect.server.api.server:create_app", "--lifespan", "on", "--log-level", "error")

# Kept: a process object that is collected closes its pipe, which ends the server.
_servers: list[subprocess.Popen[bytes]] = []


def start_prefect() -> Future[None]:
    """In a thread: start the server, and import the flows beside it. Both take seconds; a second call takes none."""
    ready: Future[None] = Future()

    def start() -> None:
        try:
            wait = _start_server()
            import kafka_sort.terminal  # noqa: F401  # imports all flows

            if wait:
                wait_until_healthy(*wait)
            ready.set_result(None)
        except BaseException as error:  # noqa: BLE001  # raised where the result is asked for
            ready.set_exception(error)

    # Not an executor's thread, which would be waited for at the end.
    threading.Thread(target=start, name="prefect", daemon=True).start()
    return ready


def _start_server() -> tuple[subprocess.Popen[bytes], str] | None:
    """The server's process and address; None where the settings name a server, or forbid a temporary one."""
    from prefect.context import refresh_global_settings_context
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    if settings.api.url is not None or not settings.server.ephemeral.enabled:
        return None
    port = free_port()
    command = [sys.executable, "-m", *_APP, "--host", "127.0.0.1", "--port", str(port)]
    server = spawn(command, _ENVIRONMENT, stdout=subprocess.DEVNULL)
    _servers.append(server)
    address = f"http://127.0.0.1:{port}/api"
    os.environ["PREFECT_API_URL"] = address
    refresh_global_settings_context()
    return server, address


def spawn(command: list[str], environment: Mapping[str, str], stdout: int | IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a process that passes Ctrl-C by, and ends with this one, however that ends; or when it is collected."""
    return subprocess.Popen(
        ["/bin/sh", "-c", _SHELL, *command],
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=None if stdout == subprocess.DEVNULL else subprocess.STDOUT,
        start_new_session=True,
    )


def wait_until_healthy(server: subprocess.Popen[bytes], address: str) -> None:
    """Return when the server at this address of its API answers; TerminalError where it has ended, or takes long."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):  # noqa: S310  # our own address
                return
        except OSError:
            time.sleep(0.1)
    raise TerminalError(
        f"the Prefect server did not start within {_START_SECONDS:.0f} s: try again, or start one "
        "(prefect server start) and set PREFECT_API_URL"
    )


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
