"""Order: a sort's output against Python's own sorted(), for keys of every shape."""

import gc
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

from tasks.arrow import HEADERS
from tasks.errors import StoppedError, TerminalError
from tasks.formats.registry import make_format
from tasks.kafka.fetch import Block
from tasks.keys import chunk_schema, encode_keys
from tasks.manifests import Chunk, OffsetRange, SortedRows
from tasks.placement import OutputColumns, place_outputs
from tasks.run_context import run_context
from tasks.settings.budget import MB, Budget
from tasks.settings.job import Job
from tasks.sort import SortRequest, sort_chunks
from tasks.sorting.rows import RowGatherer
from tests.placed import murmur2

Row = tuple[int, bytes]


@dataclass(frozen=True)
class Result:
    values: list[bytes]
    file: SortedRows


def value_of(row: Row) -> bytes:
    return b"%d,%s" % row


def write_chunks(job: Job, chunks: Sequence[Sequence[Row]], folder: Path) -> tuple[Chunk, ...]:
    """Write chunks: chunk i holds partition i, its rows from offset 0 on."""
    return tuple(write_chunk(job, partition, rows, folder) for partition, rows in enumerate(chunks))


def write_chunk(job: Job, partition: int, rows: Sequence[Row], folder: Path) -> Chunk:
    return write_values(job, partition, [value_of(row) for row in rows], folder)


def write_values(job: Job, partition: int, values: Sequence[bytes], folder: Path) -> Chunk:
    fmt = make_format(job)
    offsets = np.arange(len(values))
    absent = pa.nulls(len(values), pa.binary())
    block = Block(pa.array(values, pa.binary()), absent, pa.nulls(len(values), HEADERS), offsets, offsets)
    parsed = fmt.parse(block.table(partition))
    assert not parsed.rejected
    columns = {name: block.table(partition).column(name) for name in ("value", "key", "headers")}
    columns["timestamp"] = pa.nulls(len(values), pa.int64())
    keys = encode_keys(fmt.keys, parsed.columns)
    path = folder / f"chunk-{partition}.parquet"
    if values:
        pq.write_table(pa.table({**columns, **keys}, schema=chunk_schema(fmt.keys)), path, row_group_size=7)
    size = max(map(len, values), default=0)
    return Chunk(path if values else None, OffsetRange(partition, 0, len(values)), len(values), size, 0)


def read_values(rows: SortedRows) -> list[bytes]:
    return [value for batch in RowGatherer().batches(rows) for value in batch.column("value").to_pylist()]


def sort(chunks: Sequence[Sequence[Row]], by: str, partitions: int = 3, *, split: bool = False) -> Result:
    """Return the rows in the order of `sort_chunks`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = Job(source_topic="s", columns="id:int,name", sorts=[f"{by}=o"], workdir=folder, split_heavy_keys=split)
        found = write_chunks(job, chunks, folder)
        file = sort_chunks(SortRequest(job, job.sort_list[0], found, partitions, folder))
        return Result(read_values(file), file)


def reverse(data: bytes) -> tuple[int, ...]:
    """Order bytes the other way round: a prefix comes behind."""
    return (*(-byte for byte in data), 1)


# Key of a row for Python's sorted(), by the sort's columns.
ORDERS: dict[str, Any] = {
    "id": lambda row: row[0],
    "id:desc": lambda row: -row[0],
    "name": lambda row: row[1],
    "name:desc": lambda row: reverse(row[1]),
    "id,name": lambda row: row,
    "name,id": lambda row: (row[1], row[0]),
    "id:desc,name": lambda row: (-row[0], row[1]),
    "name:desc,id": lambda row: (reverse(row[1]), row[0]),
    "name:desc,id:desc": lambda row: (reverse(row[1]), -row[0]),
}

# All characters except those with a meaning to CSV; also bytes that are no text, and zeros, which end C's strings.
PLAIN = bytes(byte for byte in range(256) if byte not in b',"\r\n')
NAMES = st.one_of(
    st.binary(max_size=6).map(lambda raw: bytes(PLAIN[byte % len(PLAIN)] for byte in raw)),
    st.sampled_from([b"", b"a", b"aa", b"b", b"\x00", b"\x00\x00", b"\x00\x01", b"\x01", b"\xff", b"\xff\xff"]),
)
IDS = st.one_of(st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1))
FEW = st.tuples(st.integers(0, 2), st.sampled_from([b"x", b"y"]))
ROWS = st.one_of(st.lists(st.tuples(IDS, NAMES), max_size=40), st.lists(FEW, max_size=60))
CHUNKS = st.lists(ROWS, min_size=1, max_size=4)
# A sort takes 20 ms and more on a busy machine.
SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SLOW
@given(CHUNKS, st.sampled_from(sorted(ORDERS)), st.integers(1, 50))
def test_order_and_ties(chunks: list[list[Row]], by: str, partitions: int) -> None:
    """The order is by key, source partition, offset: `sorted` is stable, so equal keys keep their arrival."""
    arrived = [row for rows in chunks for row in rows]
    expected = [value_of(row) for row in sorted(arrived, key=ORDERS[by])]
    result = sort(chunks, by, partitions)
    assert result.values == expected
    assert result.file.rows == len(expected)
    assert [r.partition for r in result.file.ranges] == list(range(partitions))
    assert [i for r in result.file.ranges for i in range(r.first_row, r.end_row)] == list(range(len(expected)))


@SLOW
@given(CHUNKS, st.sampled_from(["id", "name:desc,id"]), st.integers(2, 9))
def test_a_key_is_in_one_partition(chunks: list[list[Row]], by: str, partitions: int) -> None:
    """If heavy keys may be split, partitions differ by one row at the most instead."""
    arrived = sorted((row for rows in chunks for row in rows), key=ORDERS[by])
    seen: set[Any] = set()
    for r in sort(chunks, by, partitions).file.ranges:
        inside = {ORDERS[by](row) for row in arrived[r.first_row : r.end_row]}
        assert not inside & seen
        seen |= inside
    counts = [r.count for r in sort(chunks, by, partitions, split=True).file.ranges]
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("by", ["id", "id:desc", "name", "name:desc"])
@pytest.mark.parametrize("shape", ["sorted", "reversed", "one key", "alternating"])
def test_inputs_with_an_order_of_their_own(by: str, shape: str) -> None:
    """Rows that come sorted, backwards or all alike, in more row groups than one, are ordered."""
    shapes: dict[str, Callable[[int], int]] = {
        "sorted": lambda i: i,
        "reversed": lambda i: 3000 - i,
        "one key": lambda _: 7,
        "alternating": lambda i: i % 2,
    }
    number = shapes[shape]
    chunks = [[(number(i), b"%06d" % number(i)) for i in range(first, 3000, 2)] for first in (0, 1)]
    arrived = [row for rows in chunks for row in rows]
    assert sort(chunks, by).values == [value_of(row) for row in sorted(arrived, key=ORDERS[by])]


@pytest.mark.parametrize("size", [1, 11, 12, 13, 255, 10_000])
@pytest.mark.parametrize("by", ["name", "name:desc"])
def test_keys_that_differ_in_their_last_byte(size: int, by: str) -> None:
    """However long a key, all of it counts; so does a length that differs."""
    stem = b"k" * (size - 1)
    rows = [(i, stem + bytes([end])) for i, end in enumerate(b"z\xff\x00amb\x80")]
    rows += [(7, stem), (8, stem + b"a\x00"), (9, stem + b"a")]
    assert sort([rows], by).values == [value_of(row) for row in sorted(rows, key=ORDERS[by])]


@pytest.mark.parametrize("partitions", [1, 4])
def test_nothing_to_sort(partitions: int) -> None:
    """No rows, in no chunk or in empty ones, make an empty file and empty ranges."""
    nothing: list[list[list[Row]]] = [[], [[], []]]
    for chunks in nothing:
        result = sort(chunks, "id", partitions)
        assert result.values == []
        assert [r.count for r in result.file.ranges] == [0] * partitions
        assert {(r.first_key, r.last_key) for r in result.file.ranges} == {(None, None)}


def test_ranges_name_their_keys_as_text() -> None:
    """The ledger's ranges are JSON, even if the keys are not."""
    (only,) = sort([[(1, b"\xff\x00")]], "name,id", 1).file.ranges
    assert (only.first_key, only.last_key) == (("\\xff\x00", 1), ("\\xff\x00", 1))


def test_ranges_show_keys_as_their_types_do(tmp_path: Path) -> None:
    """Decimals, times and the like are bytes or nanoseconds to the order, and readable in the ledger."""
    job = Job(
        source_topic="s",
        columns="price:decimal,at:time,id:int",
        sorts=["price:desc,at:nulls-last,id=o"],
        workdir=tmp_path,
    )
    rows = [b"1.10,2026-07-01T12:00Z,7", b"-20,,8"]
    chunk = write_values(job, 0, rows, tmp_path)
    (only,) = sort_chunks(SortRequest(job, job.sort_list[0], (chunk,), 1, tmp_path)).ranges
    assert only.first_key == ("1.1", "2026-07-01T12:00:00Z", 7)
    assert only.last_key == ("-20", None, 8)


def test_long_keys_are_shown_in_part() -> None:
    """The ledger stays small, whatever the size of a key."""
    (only,) = sort([[(1, b"k" * 1000)]], "name", 1).file.ranges
    assert only.first_key == ("k" * 100 + "…",)


def test_rows_that_are_missing_are_noticed(tmp_path: Path) -> None:
    """A chunk that lost rows since its manifest was made ends the run."""
    job = Job(source_topic="s", columns="id:int,name", sorts=["id=o"], workdir=tmp_path)
    (chunk,) = write_chunks(job, [[(1, b"a"), (2, b"b")]], tmp_path)
    assert chunk.path is not None
    pq.write_table(pq.read_table(chunk.path).slice(1), chunk.path)
    with pytest.raises(TerminalError, match="gave 1 rows of 2"):
        sort_chunks(SortRequest(job, job.sort_list[0], (chunk,), 1, tmp_path))


def test_a_stop_ends_a_sort(tmp_path: Path) -> None:
    """A sort that is asked to stop leaves no file that looks whole."""
    job = Job(source_topic="s", columns="id:int,name", sorts=["id=o"], workdir=tmp_path)
    chunks = write_chunks(job, [[(i, b"a") for i in range(100)]], tmp_path)
    with run_context() as context:
        context.stop.set()
        with pytest.raises(StoppedError):
            sort_chunks(SortRequest(job, job.sort_list[0], chunks, 1, tmp_path))
    assert not list(tmp_path.glob("*order*"))


def batch_sizes(rows: list[Row], folder: Path, memory_limit: str = "768MB", by: str = "id") -> list[int]:
    job = Job(source_topic="s", columns="id:int,name", sorts=[f"{by}=o"], workdir=folder, memory_limit=memory_limit)
    file = sort_chunks(SortRequest(job, job.sort_list[0], write_chunks(job, [rows], folder), 4, folder))
    return [batch.nbytes for batch in RowGatherer().batches(file)]


def test_batches_of_large_records_are_bounded(tmp_path: Path) -> None:
    """Memory is bounded whatever the records' size: no batch holds more than a share of the limit."""
    sizes = batch_sizes([(i, b"x" * 50_000) for i in range(2000)], tmp_path)
    assert sum(sizes) > 100_000_000
    assert max(sizes) < 40_000_000


def test_batches_are_bounded_where_large_records_follow_one_another(tmp_path: Path) -> None:
    """The mean size says little if the order puts the large records together."""
    rows = [*((i, b"x") for i in range(30_000)), *((30_000 + i, b"x" * 100_000) for i in range(1000))]
    sizes = batch_sizes(rows, tmp_path, "2GB")
    assert sum(sizes) > 100_000_000
    assert max(sizes) < 40_000_000


@pytest.mark.slow
def test_keys_too_large_for_the_memory_are_an_error_that_says_what_to_raise(tmp_path: Path) -> None:
    """DuckDB works with 2048 keys at a time, which must fit into its share; of records it sees the keys alone."""
    rows = [(i, b"x" * 400_000) for i in range(1500)]
    assert sum(batch_sizes(rows, tmp_path)) > 600_000_000
    with pytest.raises(TerminalError, match="raise --memory-limit"):
        batch_sizes(rows, tmp_path, by="name")


PART_ROWS = st.lists(st.tuples(st.integers(0, 9), NAMES), max_size=300)


@settings(SLOW, max_examples=30)
@given(st.lists(PART_ROWS, min_size=1, max_size=3), st.sampled_from(sorted(ORDERS)), st.sampled_from([100, 1000, 5000]))
def test_rows_that_do_not_fit_are_sorted_part_by_part(chunks: list[list[Row]], by: str, most_bytes: int) -> None:
    """Whatever the parts' size, the order is the same, and every part is within it or a single row."""
    expected = [value_of(row) for row in sorted((row for rows in chunks for row in rows), key=ORDERS[by])]
    with patch("tasks.sort.Budget.of", lambda _: Budget(200 * MB, 16 * MB, 16 * MB, 8 * MB, most_bytes)):
        result = sort(chunks, by)
    assert result.values == expected
    sizes = [part.rows for part in result.file.parts]
    assert sum(sizes) == len(expected)
    # A row takes 8 bytes beside its own.
    assert max(sizes, default=0) <= max(1, most_bytes // 8)


def sort_hashed(
    chunks: Sequence[Sequence[Row]], by: str, partitions: int
) -> tuple[SortedRows, list[bytes], list[bytes]]:
    """Return the rows of a sort by hash of its own keys, with their values and their record keys."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = Job(source_topic="s", columns="id:int,name", sorts=[f"{by}=o"], workdir=folder)
        job = base.model_copy(update={"partition_by": "hash", "output_key": "sort"})
        placements, found = place_outputs(job, [partitions]), write_chunks(job, chunks, folder)
        outputs = OutputColumns(job, placements)
        for chunk in (chunk for chunk in found if chunk.path is not None):
            rows = outputs.add(pq.read_table(chunk.path).combine_chunks(), chunk.range.partition)
            pq.write_table(rows, chunk.path, row_group_size=7)
        file = sort_chunks(SortRequest(job, job.sort_list[0], found, partitions, folder, placements.of_sorts[0]))
        batches = list(RowGatherer().batches(file))
    values, keys = ([item for batch in batches for item in batch.column(name).to_pylist()] for name in ("value", "o0"))
    return file, values, keys


@settings(SLOW, max_examples=15)
@given(
    st.lists(PART_ROWS, min_size=1, max_size=3), st.sampled_from(["id", "name:desc,id"]), st.sampled_from([1000, 10**6])
)
def test_partitions_lead_the_order(chunks: list[list[Row]], by: str, most_bytes: int) -> None:
    """By hash of the sort key, each partition has its rows in order, also if they do not fit the memory."""
    with patch("tasks.sort.Budget.of", lambda _: Budget(200 * MB, 16 * MB, 16 * MB, 8 * MB, most_bytes)):
        file, values, keys = sort_hashed(chunks, by, 3)
    arrived = [row for rows in chunks for row in rows]
    ordered = [value_of(row) for row in sorted(arrived, key=ORDERS[by])]
    assert sorted(values) == sorted(ordered)
    assert [r.partition for r in file.ranges] == [0, 1, 2]
    assert [i for r in file.ranges for i in range(r.first_row, r.end_row)] == list(range(len(values)))
    for r in file.ranges:
        inside = values[r.first_row : r.end_row]
        assert {murmur2(key) % 3 for key in keys[r.first_row : r.end_row]} <= {r.partition}
        # Equal rows have equal keys, so they are all here or none is.
        assert inside == [value for value in ordered if value in set(inside)]


@pytest.mark.slow
def test_a_sort_keeps_no_memory() -> None:
    """A sort's memory is free at its end, without the cyclic garbage collector."""
    gc.collect()
    gc.disable()
    try:
        before = pa.total_allocated_bytes()
        for _ in range(3):
            sort([[(number, b"name") for number in range(20_000)]], "name,id")
        assert pa.total_allocated_bytes() == before
    finally:
        gc.enable()


# Like Prefect, a thread that lives until the process ends holds the flow's functions, and the error of a failed one.
KEEPS = """
import threading
from unittest.mock import patch
from tasks.errors import TerminalError
from tests.tasks import test_sort

kept = [test_sort.sort_chunks]
test_sort.sort([[(2, b"b"), (1, b"a")]], "id")
with patch("tasks.sort._LOCKED", "SET memory_limit = '100KB'"):
    try:
        test_sort.sort([[(2, b"b"), (1, b"a")]], "id")
    except TerminalError as error:
        kept.append(error)
assert len(kept) == 2
threading.Thread(target=lambda kept: threading.Event().wait(), args=[kept], daemon=True).start()
"""


def test_a_process_that_sorted_ends_in_silence() -> None:
    """The process prints nothing, though DuckDB's binding prints a line for each of its objects that still lives."""
    done = subprocess.run([sys.executable, "-c", KEEPS], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
