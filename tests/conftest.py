"""One broker and one Prefect server for the whole suite."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from kafka_sort.main import PREFECT_DEFAULTS
from tasks.broker.embedded import EmbeddedBroker
from tests.cluster import Cluster
from tests.command import Command

# A dead owner's lease passes on sooner than Kafka's default minimum of 6 s, so that tests of kills wait less.
BROKER_PROPERTIES = {"group.min.session.timeout.ms": "1000", "log.retention.check.interval.ms": "1000"}


@pytest.fixture(scope="session")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(properties=BROKER_PROPERTIES) as running:
        yield running


@pytest.fixture
def cluster(broker: EmbeddedBroker) -> Cluster:
    return Cluster(broker.bootstrap_servers)


@pytest.fixture
def command(cluster: Cluster, prefect_server: str, tmp_path: Path) -> Command:
    workdir = tmp_path / "work"
    workdir.mkdir()
    return Command(cluster, workdir)


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Prefect server of the suite's own, to which the flows of this and all child processes report."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("prefect")
    environment = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        **PREFECT_DEFAULTS,
    }
    prefect = str(Path(sys.executable).with_name("prefect"))
    command = [prefect, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log)
    try:
        _wait_until_healthy(environment["PREFECT_API_URL"], server, home / "server.log")
        # Before the server that forks commands starts: it hands its environment on.
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            yield environment["PREFECT_API_URL"]
    finally:
        server.terminate()
        server.wait(20)


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the Prefect server did not start: {log.read_text()[-2000:]}")
