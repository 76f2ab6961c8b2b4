"""Keys of records that are read back; with a broker in tests/flows/test_reading.py."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from tasks.arrow import HEADERS, RECORD
from tasks.formats.base import RecordFormat
from tasks.keys import Parsed
from tasks.reading.keys import KeyReader
from tasks.settings.job import Job

SCHEMA = '{"type": "record", "name": "r", "fields": [{"name": "id", "type": "long"}]}'


def zigzag(number: int) -> bytes:
    """Return the number as Avro writes a long."""
    rest, found = number << 1, bytearray()
    while rest > 127:
        found.append(rest & 127 | 128)
        rest >>= 7
    return bytes([*found, rest])


def records(numbers: range) -> pa.Table:
    count = len(numbers)
    columns = [
        pa.array(list(map(zigzag, numbers)), pa.binary()),
        pa.nulls(count, pa.binary()),
        pa.nulls(count, HEADERS),
        pa.array([1] * count, pa.int64()),
        pa.array(range(count), pa.int64()),
        pa.array([0] * count, RECORD.field("partition").type),
    ]
    return pa.table(columns, RECORD)


def make_reader(folder: Path) -> KeyReader:
    schema = folder / "schema.avsc"
    schema.write_text(SCHEMA)
    job = Job(source_topic="s", format="avro", avro_schema=schema, sorts=["id:int=o"], workdir=folder)
    return KeyReader(job, job.sort_list[0])


def test_threads_that_read_at_once(tmp_path: Path) -> None:
    """Streams are filled side by side: each thread gets the keys of its own records."""
    reader = make_reader(tmp_path)
    wanted = [reader.encode(records(range(n))) for n in range(1, 9)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(60):
            assert list(pool.map(lambda n: reader.encode(records(range(n))), range(1, 9))) == wanted


def test_a_format_parses_for_one_thread_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one thread parses, another one has a format of its own; later both are used again."""
    reader, inside, meet = make_reader(tmp_path), set[int](), threading.Barrier(2, timeout=10)
    make = reader._make

    def watched(fmt: RecordFormat) -> RecordFormat:
        class Watched:
            keys = fmt.keys

            def parse(self, table: pa.Table) -> Parsed:
                assert id(fmt) not in inside
                inside.add(id(fmt))
                meet.wait()
                parsed = fmt.parse(table)
                inside.discard(id(fmt))
                return parsed

        return Watched()  # type: ignore[return-value]  # all that is used of it

    reader._formats = [watched(reader._formats[0])]
    monkeypatch.setattr(reader, "_make", lambda: watched(make()))
    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            list(pool.map(lambda n: reader.encode(records(range(n))), (3, 4)))
    assert len(reader._formats) == 2
