"""The Prefect server of a command: the one that the settings name, or one that this user's commands share.

Guarantees: an address that does not serve is reported in one line before any work; the way to a server on this machine
never leads through a proxy. `kafka_sort.shared_server` has the shared one.
"""

import gc
import os
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import IO, TypeVar

from kafka_sort.prefect_api import check_api, check_form
from kafka_sort.shared_server import PrefectServerError, UsedServer, describe_server, linger_seconds, use_server
from tasks.errors import SettingsError
from tasks.observe.logs import get_logger
from tasks.settings.proxies import bypass_proxies

_START_SECONDS = 90.0
# The watcher's standard input ends when the owner does, in whatever way. See tasks/broker/embedded.py.
_SHELL = """
exec 3<&0
(trap '' TERM; cat <&3 >/dev/null; kill -TERM 0; sleep 3; kill -KILL 0) &
exec "$0" "$@" </dev/null 3<&-
"""
_LOOPBACK = "http://127.0.0.1"

T = TypeVar("T")


def start_prefect(*, stays: bool = True) -> Future[None]:
    """Find or start the server and import the flows, in a thread. Both take seconds; a second call takes none.

    A server that this call starts stays for the next command, unless `stays` is false.
    """
    linger = linger_seconds() if stays else 0.0
    return _in_thread(lambda: _prepare(linger))


def _in_thread(work: Callable[[], T]) -> Future[T]:
    """Start a daemon thread: the interpreter would wait for an executor's thread at its end."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  # raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, name="prefect", daemon=True).start()
    return future


def _prepare(linger: float) -> None:
    url = _named_server()
    if url is not None:
        check_form(url)
        bypass_proxies(url)
        _import_flows()
    else:
        bypass_proxies(_LOOPBACK)
        server = _in_thread(lambda: _share_server(linger))
        _import_flows()
        url = _connect_to(server.result())
    check_api(url)


def _import_flows() -> None:
    # The garbage collector takes a fifth of the import's time.
    collects = gc.isenabled()
    gc.disable()
    try:
        import kafka_sort.terminal  # noqa: F401  # imports all flows
    finally:
        if collects:
            gc.enable()


def _named_server() -> str | None:
    """Return the address that environment or profile name; SettingsError if none is, and none may be started."""
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    if settings.api.url is None and not settings.server.ephemeral.enabled:
        raise SettingsError(
            "no Prefect server is named, and the settings forbid one of the command's own: set PREFECT_API_URL, or "
            "PREFECT_SERVER_EPHEMERAL_ENABLED=true"
        )
    return settings.api.url


def _share_server(linger: float) -> UsedServer:
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    wanted = settings.to_environment_variables(exclude_unset=True, include_secrets=True)
    return use_server(settings.home, wanted, linger)


def _connect_to(server: UsedServer) -> str:
    from prefect.context import refresh_global_settings_context

    os.environ["PREFECT_API_URL"] = server.record.address
    os.environ["PREFECT_API_AUTH_STRING"] = server.record.secret
    refresh_global_settings_context()
    if server.started and server.linger:
        get_logger().info(describe_server(server.record, server.linger))
    return server.record.address


def spawn(command: list[str], environment: Mapping[str, str], stdout: int | IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a process that Ctrl-C does not reach; it ends with this one, in whatever way, or when it is collected."""
    return subprocess.Popen(
        ["/bin/sh", "-c", _SHELL, *command],
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=None if stdout == subprocess.DEVNULL else subprocess.STDOUT,
        start_new_session=True,
    )


def wait_until_healthy(server: subprocess.Popen[bytes], address: str) -> None:
    """Return when the server at this API address answers. PrefectServerError if it ends first, or takes too long."""
    # No proxy of the environment: the server is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with opener.open(f"{address}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise PrefectServerError(
        f"the Prefect server did not start within {_START_SECONDS:.0f} s: try again, or start one "
        "(prefect server start) and set PREFECT_API_URL"
    )


def free_port() -> int:
    """Return a free port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
