"""The formats by name: each takes a block as it comes, also as a slice of a larger one."""

import json
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf import message_factory

from tasks.arrow import RECORD
from tasks.formats.protobuf.schema import compile_proto, load_message
from tasks.formats.registry import make_format
from tasks.settings.job import Job
from tests.avro_values import number

AVRO = {"type": "record", "name": "R", "fields": [{"name": "id", "type": "long"}, {"name": "name", "type": "string"}]}
PROTO = 'syntax = "proto3"; message R { optional int64 id = 1; string name = 2; }'
ROWS = [(i * 37 % 11 - 5, "xyz"[i % 3] * (i % 4)) for i in range(12)]


def make_records(values: list[bytes | None]) -> pa.Table:
    """Make records of a block, of which each third has no key and each fourth no headers."""
    count = range(len(values))
    columns = {
        "value": values,
        "key": [None if i % 3 == 0 else struct.pack(">q", -i) for i in count],
        "headers": [None if i % 4 == 0 else [{"name": "h", "value": b"%d" % i}] * (i % 3) for i in count],
        "timestamp": [1000 - i for i in count],
        "offset": list(count),
        "partition": [3 for _ in count],
    }
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in RECORD}, RECORD)


def case(name: str, folder: Path) -> tuple[dict[str, Any], list[bytes]]:
    """Return the settings of a format, and values with the fields `id` and `name` of ROWS."""
    if name == "csv":
        return {"columns": "id:int,name"}, [f"{i},{text}".encode() for i, text in ROWS]
    if name == "csv_header":
        return {"csv_header": True, "columns": "id:int"}, [f"id,name\n{i},{text}".encode() for i, text in ROWS]
    if name == "json":
        return {"format": "json", "columns": "id:int"}, [json.dumps({"id": i, "name": t}).encode() for i, t in ROWS]
    if name == "avro":
        (folder / "r.avsc").write_text(json.dumps(AVRO))
        values = [number(i) + number(len(text)) + text.encode() for i, text in ROWS]
        return {"format": "avro", "avro_schema": folder / "r.avsc"}, values
    content = compile_proto(PROTO, {})
    (folder / "r.desc").write_bytes(content)
    make = message_factory.GetMessageClass(load_message(content, "R", "test"))
    given = {"format": "protobuf", "protobuf_descriptor": folder / "r.desc", "protobuf_message": "R"}
    return given, [make(id=i, name=text).SerializeToString() for i, text in ROWS]


@pytest.mark.parametrize("name", ["csv", "csv_header", "json", "avro", "protobuf"])
def test_a_slice_is_parsed_like_a_block_of_its_own(name: str, tmp_path: Path) -> None:
    """Keys and rejects are those of the slice's records: a block may be any part of what Arrow holds."""
    given, good = case(name, tmp_path)
    sorts = ["id", "name", "@key:nulls-last", "@header.h:int:nulls-first", "@timestamp"]
    job = Job(source_topic="s", sorts=sorts, key_format="int64", timestamps="keep", **given)
    fmt = make_format(job)
    values = [*good[:5], None, b"\xff", *good[5:]]
    rows = [*ROWS[:5], None, None, *ROWS[5:]]
    table = make_records(values)
    for start in range(len(values)):
        for count in (1, 4, len(values)):
            part = fmt.parse(table.slice(start, count))
            wanted = [i for i in range(start, min(start + count, len(values))) if rows[i] is not None]
            assert sorted(part.rejected) == [i - start for i in (5, 6) if start <= i < start + count]
            found = {key: column.to_pylist() for key, column in part.columns.items()}
            assert list(zip(found["id"], found["name"], strict=True)) == [
                (row[0], row[1].encode()) for i in wanted if (row := rows[i])
            ]
            assert found["@key"] == [None if i % 3 == 0 else -i for i in wanted]
            assert found["@header.h"] == [None if i % 4 == 0 or i % 3 == 0 else i for i in wanted]
            assert found["@timestamp"] == [1000 - i for i in wanted]
