"""Sample data in other shapes, at which a sorter may be slow."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.generate import BLOCK_RECORDS, BlockMaker, make_block
from tasks.kafka.clients import make_admin, make_producer
from tasks.kafka.sender import Sender
from tasks.kafka.topics import create_topic
from tasks.people.make import SCHEMAS, make_people
from tasks.settings.connection import Connection

COMMA = pa.scalar(b",", pa.binary())
KILOBYTE = b"x" * 940


@dataclass(frozen=True)
class Shape:
    """Records of one shape: `make` as in tasks/generate.py, partitions of source and outputs, records a plain one.

    `flags` and `sorts` of the job; `keys`: makes the record keys.
    """

    make: BlockMaker
    partitions: int = 4
    share: float = 1.0
    flags: str = ""
    sorts: tuple[str, ...] = ("id", "name", "continent")
    keys: BlockMaker | None = None


def formats() -> dict[str, Shape]:
    """Return the same people in each format."""
    typed = "--columns id:int,name:text,continent:text"
    avro = f"--format avro --avro-schema {SCHEMAS['avro']}"
    protobuf = f"--format protobuf --protobuf-descriptor {SCHEMAS['protobuf']} --protobuf-message kafka_sort.Person"
    return {
        "csv": Shape(make_block),
        "json": Shape(partial(make_block, fmt="json"), flags=f"--format json {typed}"),
        "avro": Shape(partial(make_block, fmt="avro"), flags=avro),
        "protobuf": Shape(partial(make_block, fmt="protobuf"), flags=protobuf),
        # The same topic twice: what it costs to look for the key in the value.
        "csv by name": Shape(make_block, sorts=("name", "name:desc", "name,id"), keys=names),
        "none": Shape(make_block, flags="--format none", sorts=("@key", "@key:desc", "@key,@offset"), keys=names),
    }


def names(seed: int, first: int, count: int) -> pa.Array:
    """Make record keys: the names."""
    return make_people(seed, first, count)["name"]


def fill_with_keys(connection: Connection, topic: str, records: int, shape: Shape) -> int:
    """Fill a topic with records that have keys."""
    assert shape.keys is not None
    create_topic(make_admin(connection), topic, shape.partitions)
    producer = make_producer(
        connection, **{"queue.buffering.max.messages": 400_000, "delivery.report.only.error": True}
    )
    sender = Sender(producer, f"records of topic {topic}", 60)
    for first in range(0, records, BLOCK_RECORDS):
        count = min(BLOCK_RECORDS, records - first)
        values, keys = shape.make(1, first, count), shape.keys(1, first, count)
        for partition in range(shape.partitions):
            rows = pa.array(np.arange(partition, count, shape.partitions))
            sender.send(topic, partition, values.take(rows), keys.take(rows))
    sender.flush()
    sender.close()
    return records


def shapes(records: int) -> dict[str, Shape]:
    """Return the shapes by name, for topics of about `records` records."""
    return {
        "plain": Shape(make_block),
        "one heavy key": Shape(heavy),
        "sorted": Shape(partial(ordered, int)),
        "reversed": Shape(partial(ordered, lambda i: records - 1 - i)),
        "1 KB records": Shape(wide, share=0.4),
        "16 partitions": Shape(make_block, partitions=16),
    }


def heavy(seed: int, first: int, count: int) -> pa.Array:
    """Make records of which 99 in 100 have the same id, name and continent."""
    plain = make_block(seed, first, count)
    light = np.arange(first, first + count) % 100 == 0
    return pc.if_else(pa.array(light), plain, pa.scalar(b"7,SameNameAlways,One address of all,Asia", pa.binary()))


def ordered(place: Callable[[int], int], _: int, first: int, count: int) -> pa.Array:
    """Make records that ascend by every column, from the record's number after `place`."""
    rows = [b"%d,N%011d,Address of somebody,C%d" % (n, n, n >> 21) for n in map(place, range(first, first + count))]
    return pa.array(rows, pa.binary())


def wide(seed: int, first: int, count: int) -> pa.Array:
    """Make records of 1,000 bytes: the address is long."""
    parts = pc.split_pattern(make_block(seed, first, count).cast(pa.string()), ",")
    id_, name, address, continent = (pc.list_element(parts, i).cast(pa.binary()) for i in range(4))
    long = pc.binary_join_element_wise(address, pa.scalar(KILOBYTE, pa.binary()), pa.scalar(b"", pa.binary()))
    return pc.binary_join_element_wise(id_, name, long, continent, COMMA)
