"""Blocks of records."""

import numpy as np
import pyarrow as pa

from tasks.arrow import HEADERS
from tasks.kafka.fetch import Block


def test_a_block_of_large_records_is_split() -> None:
    """Each part has the wanted bytes beside its largest record; together they are the block, in its order."""
    values = [b"a" * 40, b"b" * 90, b"", None, b"c" * 500, b"d", b"e" * 99, b"f"]
    count = len(values)
    numbers = np.arange(count)
    keys = pa.array([None] * (count - 1) + [b"k" * 300], pa.binary())
    block = Block(pa.array(values, pa.binary()), keys, pa.nulls(count, HEADERS), numbers, numbers)
    parts = list(block.split(100))
    assert [value for part in parts for value in part.values.to_pylist()] == values
    assert [offset for part in parts for offset in part.offsets.tolist()] == list(range(count))
    pairs = [zip(part.values.to_pylist(), part.keys.to_pylist(), strict=True) for part in parts]
    sizes = [[len(value or b"") + len(key or b"") for value, key in part] for part in pairs]
    assert all(sum(part) - max(part) <= 100 for part in sizes)
    assert len(parts) == 5
    assert [len(part) for part in block.split(10_000)] == [count]
