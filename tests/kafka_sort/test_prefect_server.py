"""The Prefect server of a command: prefect_server.py, shared_server.py, serve_prefect.py, prefect_api.py."""

import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil
import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from kafka_sort.prefect_api import check_api, check_form
from kafka_sort.server_files import ServerRecord, read_record
from kafka_sort.shared_server import LINGER, PrefectServerError, linger_seconds, use_server
from tasks.errors import SettingsError
from tests.cluster import Cluster, wait_for

# The address of a company's proxy, which is not there.
PROXIES = dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"), "http://127.0.0.1:9")


class Home:
    """A PREFECT_HOME, and commands that start a server of their own there."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.folder = folder
        self._cluster = cluster

    def start(self, environment: dict[str, str], *command: str) -> "subprocess.Popen[str]":
        names = ("PREFECT_API_URL", "PREFECT_HOME")
        inherited = {name: value for name, value in os.environ.items() if name not in names}
        program = [sys.executable, "-m", "kafka_sort.process", *(command or ("generate", "--records", "1"))]
        return subprocess.Popen(
            [*program, "--bootstrap-servers", self._cluster.bootstrap_servers],
            env=inherited | {"PREFECT_HOME": str(self.folder)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, environment: dict[str, str] | None = None, *command: str) -> str:
        """Run a command to the end of its output, which no process that stays may hold open; return its output."""
        out, err = self.finish(self.start(environment or {}, *command))
        return out + err

    def finish(self, command: "subprocess.Popen[str]", status: int = 0) -> tuple[str, str]:
        out, err = command.communicate(timeout=180)
        assert command.returncode == status, err
        assert "Traceback" not in err
        return out, err

    def servers(self) -> list[ServerRecord]:
        found = map(read_record, (self.folder / "kafka-sort").glob("*.json"))
        return [record for record in found if record is not None]

    def server(self) -> ServerRecord:
        (record,) = self.servers()
        return record

    def end(self) -> None:
        for record in self.servers():
            if psutil.pid_exists(record.pid):
                os.kill(record.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def home(broker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    made = Home(tmp_path_factory.mktemp("home"), Cluster(broker.bootstrap_servers))  # type: ignore[attr-defined]
    yield made
    made.end()


@pytest.fixture
def fresh(cluster: Cluster, tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "home", cluster)
    yield made
    made.end()


@pytest.mark.slow
def test_a_server_stays_for_the_next_command(home: Home) -> None:
    """The first command starts it, past the proxies of the environment, and says so; the second one finds it."""
    first = home.run(PROXIES)
    server = home.server()
    assert f"pid {server.pid}, ends 300 s after" in first
    second = home.run(PROXIES)
    assert "Prefect's server" not in second
    assert home.server() == server
    assert f"pid {server.pid}, ends 300 s after" in home.run({}, "status")
    # It has its own process group: the next command's Ctrl-C does not reach it.
    assert os.getsid(server.pid) == server.pid
    assert not any(name.startswith("KAFKA_") for name in psutil.Process(server.pid).environ())


@pytest.mark.slow
def test_a_server_is_for_its_user_alone(home: Home) -> None:
    """Every user reaches loopback: without the secret, which lies in a private file, the server refuses."""
    if not home.servers():
        home.run()
    server = home.server()
    folder = home.folder / "kafka-sort"
    assert not stat.S_IMODE(folder.stat().st_mode) & 0o077
    assert all(not stat.S_IMODE(path.stat().st_mode) & 0o077 for path in folder.iterdir())
    refused = httpx.post(f"{server.address}/flows/filter", json={}, trust_env=False)
    assert refused.status_code == 401
    assert server.secret not in " ".join(psutil.Process(server.pid).cmdline())


@pytest.mark.slow
def test_a_server_that_was_killed_is_replaced(home: Home) -> None:
    """Its record is stale: nobody waits for it, or sends a request to another program at its port."""
    home.run()
    killed = home.server()
    os.kill(killed.pid, signal.SIGKILL)
    wait_for(lambda: not is_running(killed.pid))
    home.run()
    assert home.server().pid != killed.pid
    assert not list((home.folder / "kafka-sort").glob(f"{killed.id}.*"))


@pytest.mark.slow
def test_a_server_that_hangs_is_passed_by(home: Home) -> None:
    """It ends once it wakes and nobody uses it, since another server has replaced its record."""
    home.run()
    hung = home.server()
    os.kill(hung.pid, signal.SIGSTOP)
    try:
        home.run()
        assert home.server().pid != hung.pid
    finally:
        os.kill(hung.pid, signal.SIGCONT)
    wait_for(lambda: not is_running(hung.pid), 60)


@pytest.mark.slow
def test_a_server_ends_after_the_last_command(fresh: Home) -> None:
    """In whatever way that ends, no process, file or line is left; other settings have another server."""
    command = fresh.start({LINGER: "0"}, "generate", "--records", "100000000")
    wait_for(lambda: bool(fresh.servers()), 120)
    server = fresh.server()
    command.kill()
    command.communicate()
    wait_for(lambda: not is_running(server.pid), 60)
    assert [path.name for path in (fresh.folder / "kafka-sort").iterdir()] == ["start.lock"]
    assert "Prefect's server" not in fresh.run({LINGER: "0"})
    fresh.run()
    fresh.run({"PREFECT_SERVER_API_DEFAULT_LIMIT": "100"})
    assert len(fresh.servers()) == 2


@pytest.mark.slow
def test_three_first_starts_at_once(fresh: Home) -> None:
    """With a PREFECT_HOME that does not exist yet, one start makes the database, and all use its server."""
    commands = [fresh.start({}, "generate", "--records", "1", "--topic", f"three-{i}") for i in range(3)]
    said = [fresh.finish(command)[1] for command in commands]
    assert sum("Prefect's server" in err for err in said) == 1


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def damage(home: Path) -> None:
    (home / "prefect.db").write_bytes(b"no database" * 1000)


def renew(home: Path) -> None:
    with sqlite3.connect(home / "prefect.db") as database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)")
        database.execute("INSERT INTO alembic_version VALUES ('ffffffffffff')")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        pytest.param(damage, "the database is damaged: move it away", id="damaged"),
        pytest.param(renew, "a newer Prefect wrote the database", id="newer", marks=pytest.mark.slow),
    ],
)
def test_a_server_that_ends_says_why(
    spoil: Callable[[Path], None], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error comes at once, with advice and the server's last lines, whatever a command shows of Prefect's own."""
    monkeypatch.setenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    spoil(tmp_path)
    with pytest.raises(PrefectServerError, match=told) as error:
        use_server(tmp_path, {}, 0)
    assert error.value.exit_code == 2
    assert "its output ends:\n" in str(error.value)
    assert [path.name for path in (tmp_path / "kafka-sort").iterdir()] == ["start.lock"]


def test_a_home_that_is_no_folder(tmp_path: Path) -> None:
    """The error says how to name another folder."""
    (tmp_path / "file").touch()
    with pytest.raises(PrefectServerError, match="set PREFECT_HOME to another one"):
        use_server(tmp_path / "file" / "home", {}, 0)


@pytest.mark.parametrize("text", ["soon", "-1", "inf", "nan"])
def test_a_stay_that_is_no_number(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a wrong setting, which the line names."""
    monkeypatch.setenv(LINGER, text)
    with pytest.raises(SettingsError, match=LINGER):
        linger_seconds()


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:4200/api", "localhost:4200/api", "http:///api", "ftp://h/api", "http://h:port/api", "h", "http://[::1"],
)
def test_an_address_of_another_form(url: str) -> None:
    """It is a wrong setting, and the line says how to write an address."""
    with pytest.raises(SettingsError, match="write it as http://HOST:4200/api"):
        check_form(url)


class Answers(BaseHTTPRequestHandler):
    """Answers as the path says: with a page, a status, or the version of an old server."""

    def do_GET(self) -> None:
        kind = self.path.split("/")[1]
        status, body = {"page": (200, b"<html>"), "old": (200, b'"2.20.1"')}.get(kind, (0, b""))
        self.send_response(status or int(kind))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Print no log line."""


@pytest.fixture(scope="module")
def other_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/401/api", "refuses this client"),
        ("/403/api", "refuses this client"),
        ("/404", "the address ends in /api"),
        ("/503/api", "status 503"),
        ("/page", "the address ends in /api"),
        ("/page/api", "correct the address"),
        ("/old/api", "first numbers must be equal"),
    ],
)
def test_an_address_that_is_not_prefects(path: str, told: str, other_server: str) -> None:
    """The error says what is there instead of a fitting Prefect API."""
    url = other_server + path
    with temporary_settings({PREFECT_API_URL: url}), pytest.raises(PrefectServerError, match=told):
        check_api(url)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_address_that_does_not_answer(scheme: str, other_server: str) -> None:
    """The address may be dead, or of the other scheme; the part before the @ is not shown."""
    host = "user:hidden@127.0.0.1:1" if scheme == "http" else other_server.removeprefix("http://")
    url = f"{scheme}://{host}/api"
    with temporary_settings({PREFECT_API_URL: url}), pytest.raises(PrefectServerError, match="be reached") as error:
        check_api(url)
    assert "hidden" not in str(error.value)


def test_an_address_that_serves(prefect_server: str) -> None:
    """The address may also end in a slash."""
    for url in (prefect_server, f"{prefect_server}/"):
        with temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: "unused:there"}):
            check_api(url)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["generate", "sort", "stream", "verify"])
def test_commands_with_a_dead_address(command: str, fresh: Home, cluster: Cluster, tmp_path: Path) -> None:
    """Each command prints one line, exits with status 2, and starts no server of its own."""
    arguments = ["--source-topic", cluster.make_topic(), "--workdir", str(tmp_path / "work")]
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/api"
        command_line = [command] if command == "generate" else [command, *arguments]
        _, err = fresh.finish(fresh.start({"PREFECT_API_URL": address}, *command_line), 2)
    assert err.startswith(f"kafka-sort: PREFECT_API_URL {address} cannot be reached")
    assert len(err.splitlines()) == 1
    assert not fresh.servers()
