"""Fills a topic with the sample data, made and sent a block at a time.

Guarantee: record i is a function of the seed and of i alone, and goes to partition i mod the number of partitions. When
a call returns, each record is in the topic once, acknowledged by all in-sync replicas, behind the records that were
there before.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import pyarrow as pa

from tasks.errors import SettingsError, StoppedError
from tasks.fill import Filler, Part, check_topic, deal
from tasks.people.make import WRITERS, make_people
from tasks.run_context import Stop, current_run
from tasks.settings.connection import Connection

# Seed, first record, count → the records, as an Arrow binary array.
BlockMaker = Callable[[int, int, int], pa.Array]

BLOCK_RECORDS: Final = 50_000
MAX_SEED: Final = 2**64 - 1


class GenerationStoppedError(StoppedError):
    """The generation stopped between two blocks. `sent` records stay in the topic."""

    action = "Start again for more records."
    at_risk = "No: what was sent stays in the topic."

    def __init__(self, topic: str, sent: int, stop: Stop) -> None:
        asked = stop.asked or StoppedError()
        super().__init__(asked.reason, asked.signal)
        self.args = (
            f"{asked.reason}: " * bool(asked.reason) + f"stopped after {sent:,} records, which stay in topic {topic}",
        )
        self.sent = sent


def generate_records(
    connection: Connection,
    topic: str,
    records: int,
    seed: int,
    partitions: int,
    replication_factor: int | None = None,
    make: BlockMaker | None = None,
) -> int:
    """Append sample records to `topic`; return how many were delivered.

    `make` makes other records than the sample data. An absent topic is created with `partitions` partitions; an
    existing one keeps its own. TerminalError if it did not grow by what was sent, which another writer also causes.
    """
    _check_settings(topic, records, seed)
    with Filler(connection, topic, partitions, replication_factor) as filler:
        _send_all(filler, records, seed, make or make_block)
        filler.finish("delete the topic and generate again")
    return records


def make_block(seed: int, first: int, count: int, fmt: str = "csv") -> pa.Array:
    """Make the records `first` to `first + count` of a seed, as an Arrow binary array."""
    return WRITERS[fmt](make_people(seed, first, count))


def _check_settings(topic: str, records: int, seed: int) -> None:
    check_topic(topic)
    if records < 0:
        raise SettingsError(f"records {records}: give 0 or more")
    if not 0 <= seed <= MAX_SEED:
        raise SettingsError(f"seed {seed}: give a number from 0 to {MAX_SEED}")


def _send_all(filler: Filler, records: int, seed: int, make: BlockMaker) -> None:
    stop, meter = current_run().stop, current_run().progress.meter("generate", records)
    for first in range(0, records, BLOCK_RECORDS):
        if stop.is_set():
            filler.flush()
            raise GenerationStoppedError(filler.topic.name, first, stop)
        count = min(BLOCK_RECORDS, records - first)
        values, numbers = make(seed, first, count), np.arange(count)
        filler.send(Part(p, values.take(pa.array(numbers[rows]))) for p, rows in deal(first, filler.topic.partitions))
        meter.add(count)
