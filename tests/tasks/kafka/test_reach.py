"""Brokers with unreachable names (advertised.listeners): the error says which, why, and what to do, in time."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.broker.embedded import HOST, EmbeddedBroker, _free_port
from tasks.errors import BrokerUnavailableError
from tasks.kafka.clients import make_admin
from tasks.kafka.reach import require_broker, require_leaders
from tasks.kafka.topics import describe_topic
from tasks.settings.connection import Connection
from tests.cluster import Cluster
from tests.faults.three_brokers import ThreeBrokers

# No host has this name, by RFC 6761.
NO_NAME = "kafka.internal.invalid"
KAFKA_SORT = str(Path(sys.executable).with_name("kafka-sort"))


class Listeners:
    """A broker with more listeners, each of which it advertises elsewhere."""

    def __init__(self, advertised: dict[str, str]) -> None:
        self.ports = {name: _free_port() for name in advertised}
        self.broker = EmbeddedBroker(
            properties={
                "listeners": ",".join(f"{name}://{HOST}:{port}" for name, port in self.ports.items()),
                "advertised.listeners": ",".join(f"{name}://{address}" for name, address in advertised.items()),
                "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in advertised),
            }
        )

    def address(self, name: str) -> str:
        return f"{HOST}:{self.ports[name]}"


@contextmanager
def deaf_listener() -> Iterator[int]:
    """A port that neither takes nor refuses a connection, as behind a firewall: its queue is full."""
    with socket.create_server((HOST, 0), backlog=0) as server, socket.socket() as first, socket.socket() as second:
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def listeners() -> Iterator[Listeners]:
    with deaf_listener() as deaf, socket.create_server((HOST, 0)) as other:
        refusing = _free_port()
        advertised = {
            "UNKNOWN": f"{NO_NAME}:9092",
            "REFUSED": f"{HOST}:{refusing}",
            "DEAF": f"{HOST}:{deaf}",
            "OTHER": f"{HOST}:{other.getsockname()[1]}",
        }
        listening = Listeners(advertised)
        with listening.broker:
            yield listening


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("UNKNOWN", f"broker 1 calls itself {NO_NAME}:9092, which cannot be resolved from here"),
        ("REFUSED", "which cannot be reached from here (Connection refused)"),
        pytest.param("DEAF", "which cannot be reached from here (no answer to a connection)", marks=pytest.mark.slow),
        pytest.param("OTHER", "which did not answer as a broker", marks=pytest.mark.slow),
    ],
)
def test_a_name_that_leads_nowhere(listeners: Listeners, name: str, words: str) -> None:
    """The line has the broker, its name, what is wrong with it, and the setting; within the timeout, exit status 2."""
    connection = Connection(listeners.address(name))
    began = time.monotonic()
    with pytest.raises(BrokerUnavailableError) as raised:
        require_broker(make_admin(connection), connection, 2)
    took = time.monotonic() - began
    assert raised.value.exit_code == 2
    assert words in str(raised.value)
    assert "advertised.listeners" in str(raised.value)
    assert listeners.address(name) in str(raised.value)
    # It took its own seconds, not those of a client without a limit.
    assert took < 20


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["generate", "--records", "1"],
        ["load", "/dev/null", "--topic", "t"],
        ["sort", "--start-timeout", "4"],
        ["stream", "--start-timeout", "4"],
        ["verify", "--start-timeout", "4"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_command_says_so(listeners: Listeners, prefect_server: str, tmp_path: Path, arguments: list[str]) -> None:
    """Every command prints one line, with exit status 2."""
    settings = [] if arguments[0] in {"status", "generate", "load"} else ["--workdir", str(tmp_path / "work")]
    command = [KAFKA_SORT, *arguments, *settings, "--bootstrap-servers", listeners.address("UNKNOWN")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("kafka-sort:")]
    assert f"broker 1 calls itself {NO_NAME}:9092" in line
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_one_of_three_has_a_name_that_leads_nowhere() -> None:
    """A cluster that works is not refused; partitions that only the lost broker leads are, with its name."""
    brokers = ThreeBrokers()
    ports = {node: _free_port() for node in brokers.brokers}
    for node, broker in brokers.brokers.items():
        own = f"{NO_NAME}:9092" if node == 1 else f"{HOST}:{ports[node]}"
        broker.properties["listeners"] += f",OUTER://{HOST}:{ports[node]}"
        broker.properties["listener.security.protocol.map"] += ",OUTER:PLAINTEXT"
        broker.properties["advertised.listeners"] = f"OUTER://{own}"
    with brokers:
        inner = Cluster(brokers.bootstrap_servers)
        led_by: dict[int, str] = {}
        while set(led_by) != {1, 2}:
            name = inner.make_topic(1)
            led_by[brokers.leader(name, 0)] = name
            led_by.pop(3, None)
        connection = Connection(",".join(f"{HOST}:{port}" for port in ports.values()))
        admin = make_admin(connection)
        require_broker(admin, connection, 30)
        sound, lost = (describe_topic(admin, led_by[node]) for node in (2, 1))
        assert sound is not None
        assert lost is not None
        require_leaders(admin, connection, [sound], 30)
        with pytest.raises(BrokerUnavailableError, match=f"broker 1 calls itself {NO_NAME}:9092") as raised:
            require_leaders(admin, connection, [sound, lost], 15)
        assert "broker 2" not in str(raised.value)
