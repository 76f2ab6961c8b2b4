"""Of records with equal keys the newest is kept, as it is; sums and counts are those of what is left."""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tasks.arrow import HEADERS
from tasks.checksum import hash_records, sum_hashes
from tasks.chunks import TableWriter
from tasks.manifests import Chunk, OffsetRange
from tasks.sorting.newest import Newest, keep_newest

Row = tuple[int | None, bytes | None, bytes | None]
ROWS = st.tuples(
    st.none() | st.integers(0, 3), st.sampled_from([None, b"", b"k", b"other"]), st.none() | st.binary(max_size=3)
)
SCHEMA = pa.schema([("value", pa.binary()), ("key", pa.binary()), ("headers", HEADERS), ("k0", pa.int64())])


def table_of(rows: Sequence[Row]) -> pa.Table:
    keys, record_keys, values = zip(*rows, strict=True)
    return pa.table([values, record_keys, pa.nulls(len(rows), HEADERS), keys], schema=SCHEMA)


def checksum(table: pa.Table) -> int:
    columns = [table.column(name).combine_chunks() for name in ("value", "key", "headers")]
    return sum_hashes(hash_records(*columns)) % 2**64 if len(table) else 0


def chunk_of(folder: Path, number: int, groups: Sequence[Sequence[Row]]) -> Chunk:
    """Write row groups as a chunk."""
    with TableWriter(folder / f"chunk-{number}.parquet", SCHEMA) as writer:
        for rows in filter(None, groups):
            writer.write(table_of(rows))
        path = writer.finish()
    rows = [row for group in groups for row in group]
    sums = (("key", checksum(table_of(rows)) if rows else 0),)
    return Chunk(path=path, range=OffsetRange(0, 0, len(rows)), records=len(rows), largest_bytes=9, checksum=0,
                 has_keys=True, has_headers=False, dead_letters=0, published=sums)  # fmt: skip


def newest_rows(rows: Sequence[Row], *, drop: bool) -> list[Row]:
    """Return the last row of each key, at its place."""
    last = {key: i for i, (key, _, _) in enumerate(rows)}
    return [rows[i] for i in sorted(last.values()) if not drop or rows[i][2] is not None]


@pytest.mark.parametrize("drop", [False, True], ids=["kept", "dropped"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(chunks=st.lists(st.lists(st.lists(ROWS, max_size=6), max_size=3), max_size=4))
def test_the_last_of_each_key(tmp_path: Path, chunks: list[list[list[Row]]], *, drop: bool) -> None:
    """Nulls are one key; a row keeps its place, its record key and its value; a chunk without rows has no file."""
    made = [chunk_of(tmp_path, i, groups) for i, groups in enumerate(chunks)]
    with duckdb.connect() as connection:
        kept = keep_newest(connection, made, ["k0"], Newest(drop), lambda i: tmp_path / f"newest-{i}.parquet")
    tables = [pq.read_table(chunk.path) if chunk.path else SCHEMA.empty_table() for chunk in kept]
    rows = [row for groups in chunks for group in groups for row in group]
    found = [(row["k0"], row["key"], row["value"]) for table in tables for row in table.to_pylist()]
    assert found == newest_rows(rows, drop=drop)
    assert [chunk.range for chunk in kept] == [chunk.range for chunk in made]
    for chunk, table in zip(kept, tables, strict=True):
        assert (chunk.records, dict(chunk.published)["key"]) == (len(table), checksum(table))


def test_several_columns_are_one_key(tmp_path: Path) -> None:
    """Rows are alike only if all columns of the key are."""
    schema = pa.schema([*SCHEMA, ("k1", pa.binary())])
    columns = [[b"%d" % i for i in range(6)], [None] * 6, pa.nulls(6, HEADERS), [1, 1, 1, 2, 1, 2]]
    table = pa.table([*columns, [b"a", b"b", b"a", b"a", None, b"a"]], schema=schema)
    path = tmp_path / "chunk.parquet"
    pq.write_table(table, path)
    chunk = Chunk(path=path, range=OffsetRange(0, 0, 6), records=6, largest_bytes=1, checksum=0, has_keys=False,
                  has_headers=False, dead_letters=0, published=(("key", 0),))  # fmt: skip
    with duckdb.connect() as connection:
        [kept] = keep_newest(connection, [chunk], ["k0", "k1"], Newest(), lambda _: tmp_path / "newest.parquet")
    assert kept.path is not None
    assert pq.read_table(kept.path).column("value").to_pylist() == [b"1", b"2", b"4", b"5"]


def test_more_rows_than_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row numbers that come in many batches, across row groups and files, are each used once."""
    monkeypatch.setattr("tasks.sorting.newest._BATCH_ROWS", 7)
    rows: list[Row] = [(i * 7919 % 401, None, b"%d" % i) for i in range(900)]
    groups = [rows[i : i + 50] for i in range(0, 900, 50)]
    made = [chunk_of(tmp_path, i, groups[i * 6 : i * 6 + 6]) for i in range(3)]
    with duckdb.connect() as connection:
        kept = keep_newest(connection, made, ["k0"], Newest(), lambda i: tmp_path / f"newest-{i}.parquet")
    found = [row["value"] for chunk in kept if chunk.path for row in pq.read_table(chunk.path).to_pylist()]
    assert found == [value for _, _, value in newest_rows(rows, drop=False)]
