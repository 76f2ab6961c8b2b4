"""The suite's broker, behind a proxy, or to be killed; and a cluster of three others."""

from collections.abc import Iterator

import pytest

from tests.cluster import Cluster
from tests.command import Command
from tests.faults.proxy import ProxiedBroker, Proxy
from tests.faults.three_brokers import ThreeBrokers


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="of the random faults; default: another each time")
    parser.addoption("--minutes", type=float, help="of random faults; default: one")


@pytest.fixture
def mortal(versioned_broker: ProxiedBroker) -> Iterator[ProxiedBroker]:
    """The suite's broker, which a test may kill; it is alive again for the next test."""
    yield versioned_broker
    if versioned_broker.is_dead:
        versioned_broker.start()


@pytest.fixture
def proxy(versioned_broker: ProxiedBroker) -> Iterator[Proxy]:
    with Proxy(versioned_broker.proxy_port, versioned_broker.proxied_port) as proxy:
        yield proxy


@pytest.fixture
def through(proxy: Proxy) -> Cluster:
    """The broker behind the proxy."""
    return Cluster(proxy.address)


@pytest.fixture
def proxied_command(through: Cluster, command: Command) -> Command:
    """`kafka-sort` on the broker behind the proxy."""
    return Command(through, command.workdir)


@pytest.fixture(scope="session")
def three_brokers() -> Iterator[ThreeBrokers]:
    with ThreeBrokers() as brokers:
        yield brokers
