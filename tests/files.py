"""A test's view of folders of sorted files, as a reader sees them: runs by name, and what is in their files."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from tasks.folders.base import MARKER
from tasks.manifests import Location
from tasks.run_record import RunRecord, WrittenSort
from tasks.settings.job import Job
from tasks.settings.sorts import Sort
from tests.cluster import Cluster, Record, expected


def runs_of(folder: Path) -> list[str]:
    """Names that a reader looks at."""
    return sorted(path.name for path in folder.iterdir() if path.name[0] not in "._")


def hidden_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name[0] in "._" and path.name != MARKER)


def files_of(folder: Path, run: str) -> list[Path]:
    return sorted((folder / run).iterdir())


def read_rows(folder: Path, run: str) -> list[dict[str, Any]]:
    """Read all rows of a run, file by file."""
    return [row for file in files_of(folder, run) for row in pq.read_table(file).to_pylist()]


def records_of(rows: list[dict[str, Any]]) -> list[Record]:
    """Return rows as the records of the source."""
    return [
        Record(
            row["value"],
            row["key"],
            tuple((h["name"], h["value"]) for h in row["headers"] or ()),
            row["partition"],
            row["offset"],
        )
        for row in rows
    ]


def is_utf8(value: bytes) -> bool:
    return value.decode(errors="replace").encode() == value


def places(records: list[Record]) -> list[tuple[int, int]]:
    return [(r.partition, r.offset) for r in records]


def read_run(written: WrittenSort) -> list[Record]:
    """Return the records of a run, whose digests are the ledger's; the partition of each is that of its file."""
    folder = Path(written.topic.removeprefix("parquet:")) / written.folder
    assert {path.name for path in folder.iterdir()} == {file.name for file in written.files}
    found: list[Record] = []
    for file in written.files:
        assert xxhash.xxh3_128_hexdigest((folder / file.name).read_bytes()) == file.digest
        rows = records_of(pq.read_table(folder / file.name).to_pylist())
        found += [replace(r, partition=file.partition, offset=i) for i, r in enumerate(rows)]
    return found


def assert_only_runs(sort: Sort, records: Iterable[RunRecord]) -> None:
    """A folder holds these runs and its marker, and nothing that an attempt left."""
    folder = Path(sort.topic.removeprefix("parquet:"))
    written = (s for record in records for s in record.sorts if s.topic == sort.topic)
    assert (runs_of(folder), hidden_in(folder)) == (sorted(s.folder for s in written), [])


def assert_placed(cluster: Cluster, job: Job, folder: Path) -> WrittenSort:
    """The last run's files are the expected sequence of what it read, each row with its place; return its entry."""
    last = cluster.ledger(job).last
    assert last is not None
    read = {r.partition: (r.start, r.end) for r in last.read}
    source = [r for r in cluster.read(job.source_topic) if read[r.partition][0] <= r.offset < read[r.partition][1]]
    [sort] = [s for s in job.folder_sorts if s.topic == f"parquet:{folder}"]
    [written] = [s for s in last.sorts if s.topic == sort.topic]
    found = records_of(read_rows(folder, written.folder))
    wanted = [r for r in expected(sort, source) if is_utf8(r.value or b"")]
    assert (places(found), found) == (places(wanted), wanted)
    sizes = {path.name: path.stat().st_size for path in files_of(folder, written.folder)}
    assert {file.name: file.bytes for file in written.files} == sizes
    assert json.loads((folder / MARKER).read_text())["job"] == job.name
    return written


def schema_of(folder: Path, run: str) -> pa.Schema:
    [schema] = {pq.read_schema(file) for file in files_of(folder, run)}
    return schema


def flip(files: Iterable[Location], value: bytes) -> None:
    """Flip one bit of a value in its file."""
    (path,) = (file for file in map(Path, files) if value in file.read_bytes())
    data = bytearray(path.read_bytes())
    data[data.find(value) + len(value) // 2] ^= 1
    path.write_bytes(data)
