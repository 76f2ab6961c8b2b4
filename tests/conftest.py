"""One broker and one Prefect server for the whole suite."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import raised
from tests.cluster import Cluster
from tests.command import Command
from tests.deployed import Deployments, Server
from tests.faults.proxy import ProxiedBroker
from tests.features import NEWEST, OLDER, format_folder
from tests.history import History

# A dead owner's lease passes on sooner than Kafka's default minimum of 6 s, so that tests of kills wait less.
# A transaction beyond its timeout is aborted sooner than after the 10 s between two checks.
BROKER_PROPERTIES = {
    "group.min.session.timeout.ms": "1000",
    "log.retention.check.interval.ms": "1000",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
}


def pytest_configure() -> None:
    raised.watch()
    # A machine with other work takes its time.
    settings.register_profile("patient", deadline=None)
    settings.load_profile("patient")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A test marked `raises` fails unless the error came up, here or in a command it ran."""
    raised.names.clear()
    yield
    for mark in item.iter_markers("raises"):
        assert set(mark.args) <= raised.names


@pytest.fixture(scope="session")
def broker() -> Iterator[ProxiedBroker]:
    with ProxiedBroker(BROKER_PROPERTIES) as running:
        yield running


@pytest.fixture(scope="session")
def older_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedBroker]:
    """A broker with transaction.version 1, where the end of a transaction raises no epoch."""
    data = format_folder(tmp_path_factory.mktemp("older") / "data", OLDER)
    with ProxiedBroker(BROKER_PROPERTIES, data) as running:
        yield running


@pytest.fixture
def transaction_version() -> int:
    """The transaction.version of the test's broker; BOTH_TRANSACTION_VERSIONS of tests/features.py asks for each."""
    return NEWEST


@pytest.fixture
def versioned_broker(request: pytest.FixtureRequest, transaction_version: int) -> ProxiedBroker:
    """The broker with the version that the test asks for; one that is not asked for is not started."""
    found: ProxiedBroker = request.getfixturevalue("broker" if transaction_version == NEWEST else "older_broker")
    return found


@pytest.fixture
def cluster(versioned_broker: ProxiedBroker) -> Cluster:
    return Cluster(versioned_broker.bootstrap_servers)


@pytest.fixture
def command(cluster: Cluster, prefect_server: str, tmp_path: Path) -> Command:
    workdir = tmp_path / "work"
    workdir.mkdir(0o700)
    return Command(cluster, workdir)


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the suite's own Prefect server, to which the flows of this and all child processes report."""
    server = Server(tmp_path_factory.mktemp("prefect"))
    try:
        server.start()
        # The environment is set before the server that forks commands starts: it hands its environment on.
        with pytest.MonkeyPatch.context() as patch:
            for name, value in server.environment.items():
                patch.setenv(name, value)
            yield server.api
    finally:
        server.stop()


@pytest.fixture
def history(prefect_server: str) -> History:
    return History(prefect_server)


@pytest.fixture(scope="session")
def prefect(
    prefect_server: str, broker: ProxiedBroker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployments]:
    """All deployments, and a worker that runs them."""
    deployments = Deployments(
        broker.bootstrap_servers, tmp_path_factory.mktemp("worker"), {"PREFECT_API_URL": prefect_server}
    )
    deployments.deploy()
    deployments.start_worker()
    yield deployments
    deployments.stop_worker()
