"""Divided chunks: each row is in the row groups of its part, and in no other."""

from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pytest

from tasks.arrow import DEAD_LETTERS
from tasks.manifests import OffsetRange
from tasks.sorting import divided_chunks
from tasks.sorting.divided_chunks import PartedSort, fetch_part, open_divided, write_plan
from tasks.sorting.encoded import encode_rows
from tasks.sorting.key_parts import KeyParts
from tasks.sorting.order import Order, Term
from tasks.storage.folder import FolderStorage

ORDER = Order((Term("k0"),))
SCHEMA = pa.schema([("value", pa.binary()), ("k0", pa.int64())])
OFFSETS = OffsetRange(0, 0, 100)


def divide(folder: Path, tables: list[pa.Table], bounds: tuple[int, ...]) -> list[pa.Table]:
    """Divide a chunk of these tables at the bounds; return the rows of each part."""
    keys = encode_rows(ORDER, {"k0": pa.array(bounds, pa.int64())}).to_pylist()
    storage = FolderStorage(folder)
    write_plan(storage, [PartedSort(KeyParts(ORDER, tuple(keys)), ("value", "k0"))])
    with open_divided(folder, 1, "t", 10**9).writer(OFFSETS, SCHEMA) as writer:
        for table in tables:
            writer.write(table, DEAD_LETTERS.empty_table())
    files = writer.finish().divided[0]
    parts = [[*fetch_part(storage, files, part, SCHEMA)] for part in range(len(bounds) + 1)]
    return [pa.concat_tables([SCHEMA.empty_table(), *tables]) for tables in parts]


@pytest.mark.parametrize("most", [1, 100, 10**6])
def test_a_large_part(tmp_path: Path, most: int) -> None:
    """A part of many rows of a chunk has several row groups, of a bounded size, and keeps its order."""
    rows = [{"value": b"%05d" % i, "k0": 0 if i % 10 else 9} for i in range(200)]
    with patch.object(divided_chunks, "_GROUP_BYTES", most):
        low, high = divide(tmp_path, [pa.Table.from_pylist(rows, SCHEMA)], (5,))
    assert low.to_pylist() == [row for row in rows if row["k0"] == 0]
    assert high.to_pylist() == [row for row in rows if row["k0"] == 9]
    largest = max(len(chunk) for chunk in low.column(0).chunks)
    assert largest == {1: 1, 100: 6, 10**6: 180}[most]
