"""Sample data in other shapes, at which a sorter may be slow."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.generate import BlockMaker, make_block

COMMA = pa.scalar(b",", pa.binary())
KILOBYTE = b"x" * 940


@dataclass(frozen=True)
class Shape:
    """Records of one shape: `make` as in tasks/generate.py, partitions of source and outputs, records a plain one."""

    make: BlockMaker
    partitions: int = 4
    share: float = 1.0


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
