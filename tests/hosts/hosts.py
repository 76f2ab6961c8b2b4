"""Hosts of a test: network namespaces on a bridge, each with an address and processes of its own, which can die.

The test's own process is at the bridge's address. All hosts have this machine's disks, so a folder of a test is the
file system that they share. Names and addresses are those of one process; only what it made is removed.
"""

import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from uuid import uuid4

from tests.cluster import wait_for

# The addresses of a bridge: 10.64.0.0/10, which has 16,384 networks of 254 hosts each.
_NETWORKS = 64 * 256


class HostsUnavailableError(Exception):
    """This machine gives the process no network namespaces."""


def ip(*arguments: str) -> str:
    """Run `ip`; AssertionError has what it says if it fails."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr.strip()}"
    return done.stdout


@dataclass(frozen=True)
class Host:
    """A host by its network namespace; `link` is the bridge's end of its line."""

    namespace: str
    address: str
    link: str

    def within(self, *command: str) -> list[str]:
        """Return the command that runs this one on the host."""
        return ["ip", "netns", "exec", self.namespace, *command]

    def pids(self) -> list[int]:
        """Return the ids of its processes."""
        return [int(pid) for pid in ip("netns", "pids", self.namespace).split()]

    def kill(self) -> list[int]:
        """Kill all its processes at once, then cut its line; return their ids."""
        killed = self._kill_all()
        self.cut()
        return killed

    def lose(self) -> list[int]:
        """Cut its line, then kill its processes: no peer hears of their end, as with a loss of power."""
        self.cut()
        return self._kill_all()

    def _kill_all(self) -> list[int]:
        killed: list[int] = []

        def is_empty() -> bool:
            found = self.pids()
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            killed.extend(found)
            return not found

        wait_for(is_empty, 30)
        return killed

    def cut(self) -> None:
        """Cut its line: connections to it time out."""
        ip("link", "set", self.link, "down")

    def mend(self) -> None:
        """Mend its line."""
        ip("link", "set", self.link, "up")


@dataclass(frozen=True)
class Hosts:
    """The hosts, and the address at which they reach this process."""

    address: str
    hosts: tuple[Host, ...]


def require_namespaces() -> None:
    """Make a namespace and a bridge, and remove them. HostsUnavailableError has the reason if that is not permitted."""
    if shutil.which("ip") is None:
        raise HostsUnavailableError("the program ip is not installed (apt-get install iproute2)")
    name = f"ks{uuid4().hex[:8]}"
    for added, removed in (
        (("netns", "add", name), ("netns", "del", name)),
        (("link", "add", name, "type", "bridge"), ("link", "del", name)),
    ):
        done = subprocess.run(["ip", *added], capture_output=True, text=True, check=False)
        if done.returncode:
            raise HostsUnavailableError(f"network namespaces are not permitted: {done.stderr.strip()}")
        ip(*removed)


@contextmanager
def make_hosts(count: int = 3) -> Iterator[Hosts]:
    """Make the hosts for the time of the block, and remove them with all their processes, also after a failed start."""
    require_namespaces()
    token, network = uuid4().hex[:8], free_network()
    bridge, address = f"ks{token}b", f"{network}.254"
    with ExitStack() as made:
        add(made, ("link", "add", bridge, "type", "bridge"), ("link", "del", bridge))
        ip("addr", "add", f"{address}/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        yield Hosts(address, tuple(add_host(made, bridge, token, f"{network}.{n}", n) for n in range(1, count + 1)))


def add_host(made: ExitStack, bridge: str, token: str, address: str, number: int) -> Host:
    """Add a host to the bridge."""
    host = Host(f"ks{token}h{number}", address, f"ks{token}v{number}")
    add(made, ("netns", "add", host.namespace), ("netns", "del", host.namespace))
    made.callback(host._kill_all)
    ends = ("link", "add", host.link, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
    add(made, ends, ("link", "del", host.link))
    ip("link", "set", host.link, "master", bridge, "up")
    ip("-n", host.namespace, "addr", "add", f"{address}/24", "dev", "eth0")
    for device in ("lo", "eth0"):
        ip("-n", host.namespace, "link", "set", device, "up")
    return host


def add(made: ExitStack, added: tuple[str, ...], removed: tuple[str, ...]) -> None:
    """Add something, which is removed at the end. It may be gone by then, as a link is with its namespace."""
    ip(*added)
    made.callback(lambda: subprocess.run(["ip", *removed], capture_output=True, check=False))


def free_network() -> str:
    """Return the first three bytes of a network that no device has."""
    taken = {info["local"].rpartition(".")[0] for d in json.loads(ip("-4", "-j", "addr")) for info in d["addr_info"]}
    while True:
        number = random.randrange(_NETWORKS)
        network = f"10.{64 + number // 256}.{number % 256}"
        if network not in taken:
            return network
