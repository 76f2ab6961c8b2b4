"""Sorted files: any range of rows is read as it was written, and a file that is gone or cut has its own error."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.manifests import SortedFile
from tasks.sorting.rows import SortedKeys, read_sorted
from tasks.storage.base import FilesGoneError

ROWS = 25


@pytest.fixture
def part(tmp_path: Path) -> SortedFile:
    """A file of rows 0 to 24, seven a row group."""
    path = tmp_path / "sorted.parquet"
    values = pa.array([b"%d" % i for i in range(ROWS)], pa.binary())
    table = pa.table({"value": values, "key": pa.nulls(ROWS, pa.binary()), "k0": pa.array(range(ROWS), pa.int64())})
    pq.write_table(table, path, row_group_size=7)
    return SortedFile(path, ROWS, path.stat().st_size)


@pytest.mark.parametrize("batch", [1, 5, 100])
@pytest.mark.parametrize(
    ("first", "end"), [(0, 25), (0, 7), (7, 14), (6, 8), (13, 25), (24, 25), (5, 5)], ids=lambda n: f"{n}"
)
def test_any_range_of_rows(part: SortedFile, first: int, end: int, batch: int) -> None:
    """Rows come in order, in batches of bounded size, with the columns that were asked for in their order."""
    found = list(read_sorted(part, ("key", "value"), batch, first, end))
    assert [int(value) for b in found for value in b.column("value").to_pylist()] == list(range(first, end))
    assert all(b.schema.names == ["key", "value"] and 0 < len(b) <= batch for b in found)


def test_a_file_that_is_gone(part: SortedFile) -> None:
    """It is an error of its own: the run looks whether another one has removed it."""
    Path(part.location).unlink()
    with pytest.raises(FilesGoneError, match=r"sorted file .*sorted.parquet is gone"):
        list(read_sorted(part, ("value",), 10))


def test_a_file_of_fewer_rows(part: SortedFile) -> None:
    """A file that is not the one that was written is not read."""
    with pytest.raises(OSError, match="has 25 rows of 26"):
        list(read_sorted(SortedFile(part.location, 26, part.bytes), ("value",), 10))


def test_keys_over_several_files(part: SortedFile) -> None:
    """Keys of parts that follow one another are found by their row, one by one and many at once."""
    keys = SortedKeys([part, part], ["k0"])
    assert [keys[row] for row in (0, 24, 25, 49)] == [(0,), (24,), (0,), (24,)]
    rows = pa.array([3, 20, 26, 48]).to_numpy()
    assert [column.to_pylist() for column in keys.take(rows)] == [[3, 20, 1, 23]]
