"""Values made to burst a parser: each is a dead letter or a row, and memory stays within its limit."""

import re
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tasks.formats.csv import CsvFormat
from tasks.formats.csv_header import HeaderFormat
from tasks.people.make import SCHEMAS, WRITERS, make_people
from tasks.settings.job import Job
from tasks.settings.sorts import KeyColumn, parse_columns
from tests.cluster import Cluster, Record, assert_sorted, sample_values
from tests.command import Command
from tests.csv_values import key_columns

MB = 1_000_000
# A value of `size` bytes, and the reason it is no row.
BOMBS: dict[str, tuple[Callable[[int], bytes], str]] = {
    "quotes": (lambda size: b'"' * (size | 1), "unexpected end of data"),
    "quoted fields": (lambda size: b'"",' * (size // 3), "fields, expected 4"),
    "line breaks": (lambda size: b"\n" * size, "rows in one value"),
    "rows": (lambda size: b"1,a,b,Asia\n" * (size // 11), "rows in one value"),
    "delimiters": (lambda size: b"," * size, "fields, expected 4"),
    "a number": (lambda size: b"9" * size + b",a,b,Asia", "column id overflows 64 bits"),
    "a quoted number": (lambda size: b'"' + b"9" * size + b'",a,b,Asia', "column id overflows 64 bits"),
    "an open quote": (lambda size: b'1,"' + b"a\n" * (size // 2), "unexpected end of data"),
    "doubled quotes": (lambda size: b'x,"' + b'""' * (size // 2) + b'",b,Asia', "column id is not an integer"),
    "zeros": (lambda size: b"\0" * size, "1 fields, expected 4"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_one_value(bomb: str) -> None:
    """A value is rejected with a short reason; parsing takes a bounded multiple of its size."""
    make, reason = BOMBS[bomb]
    fmt = CsvFormat(
        parse_columns("id:int,name,address,continent"), key_columns("id:int,name,address,continent", ["id", "name"])
    )
    value = make(MB)
    tracemalloc.start()
    parsed = fmt.parse_values(pa.array([value, b"1,a,b,Asia"]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert list(parsed.rejected) == [0]
    assert reason in parsed.rejected[0]
    assert len(parsed.rejected[0]) < 100
    assert parsed.columns["id"].to_pylist() == [1]
    assert peak < 25 * MB, f"{peak / MB:.0f} MB for a value of 1 MB"


@pytest.mark.parametrize("before", [b"", b"id,name\n"], ids=["alone", "row"])
@pytest.mark.parametrize("bomb", BOMBS)
def test_one_value_with_a_header_line(bomb: str, before: bytes) -> None:
    """A header line or a row that is too much is rejected with a short reason; memory is bounded."""
    types = parse_columns("id:int,name")
    for quotes in (True, False):
        fmt = HeaderFormat(types, [KeyColumn(name, kind) for name, kind in types.items()], quotes=quotes)
        value = before + BOMBS[bomb][0](MB)
        tracemalloc.start()
        parsed = fmt.parse_values(pa.array([value, b"id,name\n1,a"]))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert list(parsed.rejected) == [0]
        assert len(parsed.rejected[0]) < 120
        assert parsed.columns["id"].to_pylist() == [1]
        assert peak < 25 * MB, f"{peak / MB:.0f} MB for a value of 1 MB"


@pytest.mark.slow
def test_a_topic_of_them(cluster: Cluster, command: Command) -> None:
    """A run over bombs of 4 MB among rows stays within the least memory that is permitted, and loses nothing."""
    source = cluster.make_topic(2, max_message_bytes=str(10 * MB))
    bombs = [make(4 * MB) for make, _ in BOMBS.values()]
    large = [b"%d,%s,%s,Asia" % (i, b"n" * 10, bytes([65 + i]) * (4 * MB)) for i in range(4)]
    values = [*sample_values(500), *bombs, *large, *sample_values(500, seed=2), *bombs]
    records = [Record(value, partition=i % 2) for i, value in enumerate(values)]
    cluster.produce_records(source, records, **{"message.max.bytes": 10 * MB})
    job: Job = command.job(source, memory_limit="768MB")
    outcome = command.run(job)
    assert outcome.status == 0, outcome.err
    assert_sorted(cluster, job)
    assert len(cluster.read(job.dead_letters)) == 2 * len(BOMBS)
    peaks = re.findall(r"peak_memory_mb=(\d+)", outcome.err)
    assert [int(peak) <= 768 for peak in peaks] == [True], outcome.err


FLAGS: dict[str, dict[str, Any]] = {
    "csv": {},
    "json": {"format": "json", "columns": "id:int,name:text"},
    "avro": {"format": "avro", "avro_schema": str(SCHEMAS["avro"])},
    "protobuf": {
        "format": "protobuf",
        "protobuf_descriptor": str(SCHEMAS["protobuf"]),
        "protobuf_message": "kafka_sort.Person",
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("fmt", FLAGS)
def test_large_records_of_each_format(cluster: Cluster, command: Command, fmt: str) -> None:
    """Records of 10 MB among small ones, in any format, stay within the least memory that is permitted."""
    source = cluster.make_topic(2, max_message_bytes=str(11 * MB))
    people = dict(make_people(1, 0, 600))
    large = pa.array([None if i % 50 else b"n" * (10 * MB) for i in range(600)], pa.binary())
    values = WRITERS[fmt]({**people, "address": pc.coalesce(large, people["address"])}).to_pylist()
    records = [Record(value, partition=i % 2) for i, value in enumerate(values)]
    cluster.produce_records(source, records, **{"message.max.bytes": 11 * MB})
    sorts = [f"id={source}-by-id", f"name:desc={source}-by-name"]
    outcome = command.run(command.job(source, sorts=sorts, memory_limit="768MB", **FLAGS[fmt]))
    assert outcome.status == 0, outcome.err
    order = np.argsort(np.asarray(people["id"]), kind="stable")
    assert [record.value for record in cluster.read(f"{source}-by-id")] == [values[i] for i in order]
    peaks = re.findall(r"peak_memory_mb=(\d+)", outcome.err)
    assert [int(peak) <= 768 for peak in peaks] == [True], outcome.err
