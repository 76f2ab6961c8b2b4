"""The test bed's own promises: hosts are apart, they die as hosts do, and nothing of them is left."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from unittest.mock import patch

import pytest

from tests.cluster import wait_for
from tests.hosts import hosts as bed
from tests.hosts.hosts import Hosts, HostsUnavailableError, ip, make_hosts, require_namespaces

SERVE = "import socket, sys; s = socket.create_server((sys.argv[1], 8000)); [s.accept() for _ in iter(int, 1)]"


@pytest.fixture
def permitted() -> None:
    try:
        require_namespaces()
    except HostsUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def two(permitted: None) -> Iterator[Hosts]:
    with make_hosts(2) as hosts:
        yield hosts


def names() -> str:
    return ip("netns", "list") + ip("-br", "link")


def answers(address: str) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((address, 8000)) == 0


def test_a_host_dies(two: Hosts) -> None:
    """A host is reached at its address alone; once killed, it has no process, and not even a refusal comes from it."""
    first, second = two.hosts
    serving = subprocess.Popen(first.within(sys.executable, "-c", SERVE, first.address))
    try:
        wait_for(lambda: answers(first.address), 30)
        assert not answers(second.address)
        assert first.pids() == [serving.pid]
        assert first.kill() == [serving.pid]
        assert serving.wait(10) == -9
        with pytest.raises(TimeoutError):
            socket.create_connection((first.address, 8000), 0.5)
        first.mend()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((first.address, 8000), 5)
    finally:
        serving.kill()
        serving.wait()


def test_nothing_is_left(permitted: None) -> None:
    """Namespaces, links and processes go with the block, whatever ends it, and those of others stay."""
    started: list[tuple[Hosts, subprocess.Popen[bytes]]] = []

    def fail() -> None:
        with make_hosts(2) as hosts:
            started.append((hosts, subprocess.Popen(hosts.hosts[0].within("sleep", "600"))))
            wait_for(lambda: bool(hosts.hosts[0].pids()))
            raise ZeroDivisionError

    with make_hosts(1) as others:
        (other,) = others.hosts
        with pytest.raises(ZeroDivisionError):
            fail()
        ((hosts, process),) = started
        assert hosts.address != others.address
        assert process.wait(10) == -9
        found = names()
        assert not [name for host in hosts.hosts for name in (host.namespace, host.link) if name in found]
        assert other.namespace in found
        assert other.link in found
    assert other.namespace not in names()


def test_a_start_that_fails(permitted: None) -> None:
    """Hosts that were made before the failure are removed."""
    before, real, made = names(), bed.ip, []

    def fail(*arguments: str) -> str:
        made.append(arguments)
        assert "veth" not in arguments, "no more"
        return real(*arguments)

    with patch.object(bed, "ip", fail), pytest.raises(AssertionError, match="no more"), make_hosts(2):
        pass
    assert any(arguments[:2] == ("netns", "add") for arguments in made[2:])
    assert names() == before


def test_where_it_is_not_permitted() -> None:
    """The reason is told, for those who wonder why tests are skipped."""
    refused = subprocess.CompletedProcess([], 1, "", "mount --make-shared /run/netns failed: Operation not permitted\n")
    with (
        patch("subprocess.run", return_value=refused),
        patch("shutil.which", return_value="/sbin/ip"),
        pytest.raises(HostsUnavailableError, match="not permitted: mount .*Operation not permitted$"),
    ):
        require_namespaces()
    with patch("shutil.which", return_value=None), pytest.raises(HostsUnavailableError, match="iproute2"):
        require_namespaces()
