"""The files of a sort as readers of tables find them: row groups, order, statistics that skip, none where they lie."""

import io
import json
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import xxhash

from tasks.file_columns import FileColumns, file_columns
from tasks.folders.base import DigestSink
from tasks.manifests import SortedPart, SortedRows
from tasks.settings.column_types import ColumnType
from tasks.settings.job import Job
from tasks.targets.parquet_files import GROUP_ROWS, SortFiles, columns_with_nan
from tasks.types.registry import key_type

ROWS = 2 * GROUP_ROWS + 1000


def make_columns(sort: str, columns: str) -> FileColumns:
    job = Job(source_topic="s", columns=columns, sorts=[f"{sort}=parquet:/nowhere"])
    return file_columns(job, job.sort_list[0])


def make_rows(count: int, **keys: Any) -> dict[str, pa.Array]:
    return {
        "value": pa.array([b"v%d" % i for i in range(count)]),
        "timestamp": pa.array(np.arange(count)),
        "partition": pa.array(np.zeros(count, np.int32)),
        "offset": pa.array(np.arange(count)),
        **keys,
    }


class Folder:
    """A stage in memory's stead: a folder of the test."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def create(self, name: str) -> Iterator[DigestSink]:
        with (self.path / name).open("wb") as file:
            yield DigestSink(file)


def write_files(
    folder: Path, columns: FileColumns, parts: list[Mapping[str, pa.Array]], plain: frozenset[str] = frozenset()
) -> SortFiles:
    files = SortFiles(Folder(folder).create, columns, plain)
    for partition, rows in enumerate(parts):
        # They come in batches, whose ends are not those of row groups.
        count = len(rows["value"])
        for first in range(0, count, 70_000):
            files.write(partition, {name: column[first : first + 70_000] for name, column in rows.items()})
    files.end_file()
    return files


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the numbers from 0 on, sorted by them."""
    folder = tmp_path_factory.mktemp("numbers")
    rows = make_rows(ROWS, k0=pa.array(np.arange(ROWS)))
    write_files(folder, make_columns("id", "id:int,name"), [rows])
    return folder / "part-00000.parquet"


def test_row_groups_and_order(numbers: Path) -> None:
    """Row groups have DuckDB's number of rows, whatever the batches; each says its order and has a page index."""
    metadata = pq.read_metadata(numbers)
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    assert [group.num_rows for group in groups] == [GROUP_ROWS, GROUP_ROWS, 1000]
    assert all(group.sorting_columns == (pq.SortingColumn(0, False, False),) for group in groups)
    by_name = {groups[0].column(i).path_in_schema: groups[0].column(i) for i in range(groups[0].num_columns)}
    assert {column.compression for column in by_name.values()} == {"ZSTD"}
    assert by_name["id"].has_column_index
    assert by_name["id"].has_offset_index
    counted = {name for name, column in by_name.items() if column.is_stats_set and column.statistics.has_min_max}
    assert counted == {"id", "timestamp", "partition", "offset"}


def test_duckdb_reads_only_the_row_groups_of_a_range(numbers: Path) -> None:
    """A query for a range of keys finds its rows, and scans one row group."""
    with duckdb.connect() as connection:
        wanted = f"FROM '{numbers}' WHERE id BETWEEN 150000 AND 150009"
        found = connection.execute(f'SELECT "offset" {wanted} ORDER BY id').fetchall()
        assert [row[0] for row in found] == list(range(150_000, 150_010))
        assert scanned_groups(connection, f"SELECT count(value) {wanted}") == (1, 3)
        assert scanned_groups(connection, f"SELECT count(value) FROM '{numbers}' WHERE id >= 0") == (3, 3)


def scanned_groups(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[int, int]:
    """Return how many row groups the query read, and how many there are."""
    [(_, text)] = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}").fetchall()
    nodes = json.loads(text)["operator"]
    while "row_groups_scanned" not in nodes[-1]:
        nodes += nodes.pop()["children"]
    return nodes[-1]["row_groups_scanned"], nodes[-1]["total_row_groups_to_scan"]


def test_pyarrow_reads_only_the_row_groups_of_a_range(numbers: Path) -> None:
    """So does Arrow."""
    wanted = (pc.field("id") >= 150_000) & (pc.field("id") < 150_010)
    [fragment] = ds.dataset(numbers).get_fragments(filter=wanted)
    [part] = fragment.split_by_row_group(wanted)
    assert [group.id for group in part.row_groups] == [1]
    assert fragment.to_table(filter=wanted).column("offset").to_pylist() == list(range(150_000, 150_010))


def test_a_file_for_each_partition_with_rows(tmp_path: Path) -> None:
    """A partition without rows has no file; each file is known with its bytes and their digest."""
    rows = make_rows(10, k0=pa.array(range(10)))
    none = {name: column[:0] for name, column in rows.items()}
    files = write_files(tmp_path, make_columns("id", "id:int"), [rows, none, rows]).files
    assert [(file.partition, file.name) for file in files] == [(0, "part-00000.parquet"), (2, "part-00002.parquet")]
    for file in files:
        data = (tmp_path / file.name).read_bytes()
        assert (file.bytes, file.digest) == (len(data), xxhash.xxh3_128_hexdigest(data))


def test_large_records_make_smaller_row_groups(tmp_path: Path) -> None:
    """Memory holds one row group: its bytes bound it where records are large."""
    value = bytes(8_000_000)
    files = SortFiles(Folder(tmp_path).create, make_columns("id", "id:int"), frozenset())
    for i in range(20):
        files.write(0, {**make_rows(1, k0=pa.array([i])), "value": pa.array([value])})
    files.end_file()
    metadata = pq.read_metadata(tmp_path / "part-00000.parquet")
    assert (metadata.num_row_groups, metadata.num_rows) == (3, 20)


@pytest.mark.parametrize("direction", ["", ":desc"])
def test_nan_is_found_by_readers(tmp_path: Path, direction: str) -> None:
    """A column with NaN has no smallest and largest value, which would leave NaN out; DuckDB finds it, and the rest."""
    texts = [b"1.5", b"nan", b"-inf", b"7", None]
    columns = make_columns(f"x{direction}:nulls-last,y", "x:float,y:float")
    encoded, _ = key_type(ColumnType("float")).encode(pa.array(texts))
    keys = {"k0": encoded.fill_null(0), "n0": encoded.is_null().cast(pa.int64()), "k1": pa.array([0] * 5)}
    pq.write_table(pa.table(keys), tmp_path / "chunk")
    part = SortedPart((tmp_path / "chunk",), tmp_path / "order", 5)
    assert columns_with_nan(columns, SortedRows("s", 5, (part,), (), 1)) == {"x"}
    write_files(tmp_path, columns, [make_rows(5, **keys)], frozenset({"x"}))
    path = tmp_path / "part-00000.parquet"
    group = pq.read_metadata(path).row_group(0)
    assert not group.column(0).is_stats_set or not group.column(0).statistics.has_min_max
    assert group.column(1).statistics.has_min_max
    with duckdb.connect() as connection:
        query = f"SELECT count(*) FILTER (isnan(x)), count(*) FROM '{path}' WHERE x > 5"
        assert connection.execute(query).fetchone() == (1, 2)


def test_a_sink_counts_and_digests() -> None:
    """What is written is what is digested, in whatever pieces."""
    raw = io.BytesIO()
    sink = DigestSink(raw)
    for piece in (b"abc", memoryview(array("q", [1, 2, 3])), b""):
        sink.write(piece)
    assert (sink.tell(), sink.bytes) == (27, 27)
    assert sink.digest == xxhash.xxh3_128_hexdigest(raw.getvalue())
