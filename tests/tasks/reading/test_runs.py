"""Runs that are in the ledger, and whose records cannot be read yet: Kafka answers a commit before it is everywhere."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import Producer

from kafka_sort import SortedTopic
from tasks.errors import TransientError
from tasks.kafka.topics import list_offsets
from tasks.settings.connection import Connection
from tests.cluster import wait_for
from tests.command import Command
from tests.world import World, people

Shown = list[tuple[bytes | None, int]]


@contextmanager
def held_open(connection: Connection, topic: str) -> Iterator[Producer]:
    """Hold a transaction of another producer open in partition 0: nothing behind its first record can be read.

    For a reader it is as if the markers of later runs were not written. The block ends the transaction.
    """
    producer = Producer({"bootstrap.servers": connection.bootstrap_servers, "transactional.id": uuid4().hex})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"7,foreign,Asia", partition=0)
    assert producer.flush(30) == 0
    yield producer


def open_topic(world: World, **how: Any) -> SortedTopic:
    return SortedTopic(world.name, "id", bootstrap_servers=world.connection.bootstrap_servers, **how)


def read_all(world: World) -> Shown:
    with open_topic(world) as topic:
        return [(record.value, record.run) for record in topic]


def expected(world: World, count: int) -> Shown:
    """Return the rows of both runs by id, with their run."""
    rows = [(row.value, 1 + i // (count // 2)) for i, row in enumerate(people(count))]
    return sorted(rows, key=lambda row: int((row[0] or b"").split(b",")[0]))


def make_late_run(world: World, count: int) -> None:
    world.publish(world.fill(people(count)[count // 2 :]))


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["commit", "abort"])
def test_markers_that_come_late(world: World, monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    """A run in the ledger that cannot be read to its end is waited for, and then shown whole with the others."""
    world.publish(world.fill(people(60)[:30]))
    looks: list[int] = []
    plain = list_offsets

    def counted(*asked: Any, **how: Any) -> dict[int, int]:
        looks.append(1)
        return plain(*asked, **how)

    with held_open(world.connection, world.outputs[0]) as producer, ThreadPoolExecutor(1) as pool:
        make_late_run(world, 60)
        monkeypatch.setattr("tasks.reading.runs.list_offsets", counted)
        waiting = pool.submit(read_all, world)
        wait_for(lambda: len(looks) > 5)
        assert not waiting.done()
        (producer.commit_transaction if ends == "commit" else producer.abort_transaction)(30)
        assert waiting.result() == expected(world, 60)


@pytest.mark.slow
@pytest.mark.raises("TransientError")
def test_markers_that_do_not_come(world: World, command: Command) -> None:
    """After the time of one answer it is an error that says where, and that another time may do; nothing is shown."""
    world.publish(world.fill(people(60)[:30]))
    with held_open(world.connection, world.outputs[0]) as producer:
        make_late_run(world, 60)
        where = rf"{world.outputs[0]}/0 can be read to offset \d+ of \d+ only, for 0.3 s: an open transaction holds it"
        with pytest.raises(TransientError, match=where):
            open_topic(world, request_timeout=0.3)
        environment = {"KAFKA_SORT_REQUEST_TIMEOUT": "2"}
        flags = ("--job-name", world.name, "--sort", "id")
        told = command.start_flags("read", *flags, environment=environment).finish()
        assert (told.status, told.out, len(told.err.splitlines())) == (1, "", 1), told.err
        assert "an open transaction holds it back; read again later" in told.err
        # What is asked for can be read, so nothing is waited for.
        with open_topic(world, run=1, request_timeout=0.3) as topic:
            assert {record.run for record in topic} == {1}
        producer.abort_transaction(30)
    assert read_all(world) == expected(world, 60)
