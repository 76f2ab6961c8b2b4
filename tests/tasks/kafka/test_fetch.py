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
    block = Block(
        pa.array(values, pa.binary()), pa.nulls(count, pa.binary()), pa.nulls(count, HEADERS), numbers, numbers
    )
    parts = list(block.split(100))
    assert [value for part in parts for value in part.values.to_pylist()] == values
    assert [offset for part in parts for offset in part.offsets.tolist()] == list(range(count))
    sizes = [[len(value or b"") for value in part.values.to_pylist()] for part in parts]
    assert all(sum(part) - max(part) <= 100 for part in sizes)
    assert len(parts) == 4
    assert [len(part) for part in block.split(10_000)] == [count]
