"""Worlds for tests of verification, on the suite's broker."""

from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tasks.broker.embedded import EmbeddedBroker
from tasks.settings.connection import Connection
from tests.world import MakeWorld, World, make_transactional


@pytest.fixture(scope="module")
def producer(broker: EmbeddedBroker) -> Producer:
    return make_transactional(broker)


@pytest.fixture
def make_world(broker: EmbeddedBroker, producer: Producer, tmp_path: Path) -> MakeWorld:
    return partial(World, Connection(broker.bootstrap_servers), tmp_path, producer)


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return make_world()
