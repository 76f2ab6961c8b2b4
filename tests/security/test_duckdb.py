"""DuckDB is a library that reads the attempt's files, and nothing else, whatever the query."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.settings.job import Job
from tasks.sort import SortRequest, _connect

# The attempt's folder, and one beside it whose name begins alike.
REFUSED = [
    "FROM read_parquet('{beside}/chunk.parquet')",
    "FROM read_parquet('{folder}/../work-of-others/chunk.parquet')",
    "FROM read_text('/etc/passwd')",
    "FROM glob('/etc/*')",
    "COPY (SELECT 1) TO '{beside}/out.csv'",
    "COPY (SELECT 1) TO '/tmp/kafka-sort-out.csv'",
    "ATTACH '{beside}/other.db'",
    "FROM read_csv('http://127.0.0.1:1/x.csv')",
    "INSTALL httpfs",
    "LOAD httpfs",
    "FROM chunk",
    "SET memory_limit = '100GB'",
    "SET allowed_directories = ['/']",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
]


@pytest.mark.parametrize("query", REFUSED)
def test_what_it_may_not(tmp_path: Path, query: str) -> None:
    """It gets no files beside the folder, no network, no extensions, no variables of Python, and no new settings."""
    chunk = pa.table({"k0": [1]})
    folder, beside = tmp_path / "work", tmp_path / "work-of-others"
    folder.mkdir()
    beside.mkdir()
    for place in (folder, beside):
        pq.write_table(chunk, place / "chunk.parquet")
    job = Job(source_topic="s", columns="id:int", sorts=["id=o"], workdir=tmp_path)
    with _connect(SortRequest(job, job.sort_list[0], (), 1, folder)) as connection:
        assert connection.sql(f"FROM read_parquet('{folder}/chunk.parquet')").fetchall() == [(1,)]
        with pytest.raises(duckdb.Error, match="disabled|locked|does not exist"):
            connection.sql(query.format(folder=folder, beside=beside)).fetchall()
    assert sorted(path.name for path in beside.iterdir()) == ["chunk.parquet"]
