"""Topics of all kinds, and the jobs that an inspection must propose for them."""

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.avro_values import number
from tests.cluster import Record
from tests.framed_records import framed
from tests.registry_server import Registry

COUNT = 60


@dataclass(frozen=True)
class Case:
    """A topic. `settings`: those of the job that must be proposed, without topics and the registry's address.

    `dead_letters`: of the job's first run; `topic`: properties of the topic.
    """

    make: Callable[[Registry], Sequence[Record]]
    sort: str
    settings: dict[str, Any] = field(default_factory=dict)
    dead_letters: int = 0
    topic: dict[str, str] = field(default_factory=dict)
    has_registry: bool = False


def spread(values: Sequence[bytes | None], keys: Sequence[bytes | None] | None = None) -> list[Record]:
    """Make records over two partitions."""
    given = keys or [None] * len(values)
    return [Record(value, key, (), i % 2) for i, (value, key) in enumerate(zip(values, given, strict=True))]


def rows(mark: str = ",") -> list[bytes]:
    return [mark.join((f"{i * 37 % 1000}", f"name {i}", "Kenya", f"{i}.50")).encode() for i in range(COUNT)]


def documents() -> list[bytes]:
    made = [
        {"customer": {"id": i * 37 % 1000, "odd.name": "x"}, "items": [{"sku": f"s{i}"}], "ok": i % 2 == 0, "n": None}
        for i in range(COUNT)
    ]
    return [json.dumps(item).encode() for item in made]


def keys() -> list[bytes]:
    return [b"key-%d" % (i * 37 % 1000) for i in range(COUNT)]


ORDER = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "name", "type": ["null", "string"]},
        {"name": "id", "type": "long"},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
    ],
}
PERSON = 'syntax = "proto3"; message Person { repeated string tags = 1; sint64 id = 2; string name = 3; }'


def avro(registry: Registry) -> list[Record]:
    schema = registry.add(ORDER)
    names = (b"\0" if i % 3 == 0 else b"\2\2%c" % (97 + i % 26) for i in range(COUNT))
    return spread([framed(schema, name + number(i * 37 % 1000) + b"\0") for i, name in enumerate(names)])


def protobuf(registry: Registry) -> list[Record]:
    schema = registry.add(PERSON, "PROTOBUF")
    return spread([framed(schema, b"\0\x10" + number(i * 37 % 1000 + 1) + b"\x1a\x01n") for i in range(COUNT)])


def compacted(_: Registry) -> list[Record]:
    values: list[bytes | None] = [value if i % 5 else None for i, value in enumerate(documents())]
    return spread(values, keys())


CSV = {"format": "csv", "columns": "c1:int,c2,c3,c4:decimal"}
JSON = {"format": "json", "columns": 'customer.id:int,customer."odd.name":text,items[0].sku:text,ok:bool'}
CASES = {
    "csv": Case(lambda _: spread(rows()), "c1", CSV),
    "csv with a heading": Case(
        lambda _: spread([b'order,"total, net",country,price', *rows()]),
        "order",
        {"format": "csv", "columns": 'order:int,"total, net",country,price:decimal'},
        dead_letters=1,
    ),
    "csv with a header line": Case(
        lambda _: spread([b'id,"total, net"\n%d,x' % i for i in range(COUNT)]),
        "id",
        {"format": "csv", "csv_header": True, "columns": "id:int"},
    ),
    "tsv": Case(lambda _: spread(rows("\t")), "c1", {**CSV, "delimiter": "tab"}),
    "semicolons": Case(lambda _: spread(rows(";")), "c1", {**CSV, "delimiter": ";"}),
    "json": Case(lambda _: spread(documents()), "customer.id", JSON),
    "avro": Case(avro, "id", {"format": "avro"}, has_registry=True),
    "protobuf": Case(protobuf, "id", {"format": "protobuf"}, has_registry=True),
    "avro without a registry": Case(avro, "@timestamp", {"format": "none", "timestamps": "keep"}),
    "bare avro": Case(
        lambda _: spread([number(i * 37) + b"\4ab\0\xff" for i in range(COUNT)], keys()), "@key", {"format": "none"}
    ),
    "lines of text": Case(
        lambda _: spread([b"line %d%s" % (i, b", and more" * (i % 7)) for i in range(COUNT)]),
        "line",
        {"format": "csv", "columns": "line", "delimiter": "\\x1f", "csv_quote": "none"},
    ),
    "numbers": Case(
        lambda _: spread([b"%d" % (i * 37 % 1000) for i in range(COUNT)]),
        "line",
        {"format": "csv", "columns": "line:int", "delimiter": "\\x1f", "csv_quote": "none"},
    ),
    "no values": Case(lambda _: spread([None] * COUNT, keys()), "@key", {"format": "none"}),
    "neither values nor keys": Case(
        lambda _: spread([None] * COUNT), "@timestamp", {"format": "none", "timestamps": "keep"}
    ),
    "compacted, with tombstones": Case(compacted, "@key", JSON, topic={"cleanup_policy": "compact"}),
    "mixed": Case(
        lambda _: spread([*rows(), *documents(), *[b"\0\1\2" * 5] * COUNT]),
        "@timestamp",
        {"format": "none", "timestamps": "keep"},
    ),
    "a few others": Case(lambda _: spread([*documents(), b"no JSON", b""]), "customer.id", JSON, dead_letters=2),
    "binary keys": Case(
        lambda _: spread([b"\xff\xfe%c" % i for i in range(COUNT)], [uuid.uuid4().bytes for _ in range(COUNT)]),
        "@key",
        {"format": "none"},
    ),
    "integer keys": Case(
        lambda _: spread([None] * COUNT, [(i * 37 - 900).to_bytes(8, "big", signed=True) for i in range(COUNT)]),
        "@key",
        {"format": "none", "key_format": "int64"},
    ),
    "numbers as keys, some absent": Case(
        lambda _: spread([None] * COUNT, [b"%d" % i if i % 4 else None for i in range(COUNT)]),
        "@key:int:nulls-last",
        {"format": "none"},
    ),
    "one record": Case(lambda _: [Record(b'{"a": 1}')], "a", {"format": "json", "columns": "a:int"}),
}
