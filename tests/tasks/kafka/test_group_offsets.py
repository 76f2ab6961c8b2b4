"""Offsets of a group, on a broker that has never coordinated one."""

import multiprocessing
from multiprocessing.connection import Connection as Pipe

import pytest

from tasks.broker.embedded import EmbeddedBroker
from tasks.kafka.topics import group_offsets
from tasks.settings.connection import Connection


def ask(address: str, parent: Pipe) -> None:
    """Ask for several groups, each of which has a coordinator of its own to load, in a child."""
    parent.send([group_offsets(Connection(address), f"nobody-{i}", "nothing", [0, 1]) for i in range(20)])


@pytest.mark.slow
def test_a_group_that_no_broker_has_coordinated_yet() -> None:
    """The first question about groups is answered; an admin client's would end the process in librdkafka 2.16."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    with EmbeddedBroker() as broker:
        child = spawn.Process(target=ask, args=(broker.bootstrap_servers, theirs))
        child.start()
        child.join(120)
        assert child.exitcode == 0
    assert ours.recv() == [{}] * 20
