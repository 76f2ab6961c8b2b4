"""Verification's own reading of values and keys by a schema registry, beside the sorter's and by hand."""

import base64
import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from hypothesis import given, settings, strategies as st

from tasks.formats.base import used_schemas
from tasks.formats.protobuf.schema import compile_proto
from tasks.formats.registry import describe_format, make_format
from tasks.settings.job import Job
from tasks.settings.paths import format_path
from tasks.verification.formats.base import Columns, Request, Wanted
from tasks.verification.formats.protobuf import ProtobufReader
from tasks.verification.formats.record_fields import RecordFields
from tasks.verification.formats.registry import make_reader
from tasks.verification.formats.schemas import NoSchemaError, Schemas
from tasks.verification.keys import RecordKeys
from tasks.verification.terms import Kind, read_column, read_sort
from tests.avro_values import Schemas as RandomAvro, Writer, number, paths as avro_paths
from tests.framed_records import Headers, framed, records
from tests.protobuf_values import RandomSchema, mutate
from tests.ranks import assert_same_order
from tests.record_blocks import make_block
from tests.registry_server import Registry, serve_registry

pytest.importorskip("confluent_kafka.schema_registry")

C = 'syntax="proto3"; package b; message C { int64 at = 1; }'
ORDER = 'syntax="proto3"; import "b/c.proto"; message Z {} message A { b.C c = 1; message I { sint32 id = 1; } }'
TYPES = ["int", "decimal", "text", "float", "bool", "time", "time(ms)", "uuid"]
Part = tuple[list[bytes | None], list[Headers]]


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with serve_registry() as served:
        yield served


def digest(registry: Registry, schema: int, *references: int) -> str:
    """Return the ledger's item of a schema."""
    texts = [registry.schemas[n]["schema"] for n in (schema, *references)]
    return f"{schema}={hashlib.sha256(chr(0).join(texts).encode()).hexdigest()}"


def wanted(*columns: str) -> list[Wanted]:
    pairs = [column.partition(":") for column in columns]
    return [Wanted(read_column(name, is_csv=False), Kind(kind)) for name, _, kind in pairs]


# ---- by hand


def read(registry: Registry, facts: Mapping[str, str], values: Sequence[Any], *columns: str) -> Columns:
    request = Request(facts, wanted(*columns), schemas=Schemas(registry=registry.address))
    return ProtobufReader(request).read(values, [None] * len(values))


def test_messages_of_several_schemas(registry: Registry) -> None:
    """Each is that of its schema and indexes; what a message lacks is missing, and what is no message is refused."""
    registry.versions["c", 1] = c = registry.add(C, "PROTOBUF")
    order = registry.add(ORDER, "PROTOBUF", [("b/c.proto", "c", 1)])
    broken, other = registry.add("message {", "PROTOBUF"), registry.add('"long"')
    unknown = registry.add(C + " ", "PROTOBUF")
    facts = {"schemas": ",".join([digest(registry, order, c), *(digest(registry, n) for n in (c, broken, other))])}
    values = [
        framed(order, b"\2\2\x0a\2\x08\5"),
        framed(order, b"\4\2\0\x08\6"),
        framed(order, b"\0"),
        framed(order, b"\2\4"),
        framed(order, b"\4\2\2"),
        framed(order, b"\2\2\xff"),
        framed(c, b"\0\x08\7"),
        *(framed(n, b"\0\x08\7") for n in (broken, other, unknown)),
        None,
    ]
    found = read(registry, facts, values, "c.at:int", "id:int", "at:int")
    assert found.refused == {3, 4, 5, 7, 8, 9, 10}
    assert list(zip(*found.columns, strict=True)) == [
        (5, None, None),
        (None, 3, None),
        (None, None, None),
        (None, None, 7),
    ]


@pytest.mark.parametrize(
    ("column", "is_read"),
    [
        ("c.at:int", True),
        ("c.no:int", True),
        ("c.at:uuid", False),
        ("c.at:float", False),
        ("c:text", False),
        ("c.at.x:int", False),
        ("c[0]:int", False),
    ],
)
def test_columns_that_do_not_fit(registry: Registry, column: str, *, is_read: bool) -> None:
    """All records of a message are refused if it has the column, and its type takes none of what it holds."""
    registry.versions["c", 1] = c = registry.add(C, "PROTOBUF")
    order = registry.add(ORDER, "PROTOBUF", [("b/c.proto", "c", 1)])
    found = read(registry, {"schemas": digest(registry, order, c)}, [framed(order, b"\2\2")], column)
    assert (not found.refused) == is_read


@pytest.mark.parametrize("encoded", [set(), {"order"}, {"c"}, {"order", "c"}])
def test_descriptors_in_base64(registry: Registry, encoded: set[str]) -> None:
    """Schemas that a client registered as descriptors are read, alone or mixed with .proto texts."""
    files = descriptor_pb2.FileDescriptorSet.FromString(compile_proto(ORDER, {"b/c.proto": C})).file
    made = {"c": (C, files[0]), "order": (ORDER, files[1])}
    texts = {
        name: base64.b64encode(file.SerializeToString()).decode() if name in encoded else text
        for name, (text, file) in made.items()
    }
    subject = f"c-{len(registry.schemas)}"
    registry.versions[subject, 1] = c = registry.add(texts["c"], "PROTOBUF")
    order = registry.add(texts["order"], "PROTOBUF", [("b/c.proto", subject, 1)])
    found = read(registry, {"schemas": digest(registry, order, c)}, [framed(order, b"\2\2\x0a\2\x08\5")], "c.at:int")
    assert (found.refused, found.columns) == (set(), [(5,)])


def test_keys(registry: Registry) -> None:
    """Keys of Avro are read whole or by a path, by their own header, also if values are of one schema without frame."""
    long, record = registry.add('"long"'), registry.add({
        "type": "record", "name": "K", "fields": [{"name": "id", "type": "long"}],
    })  # fmt: skip
    facts = {"schema": "bare", "key_format": "avro", "schemas": f"{digest(registry, long)},{digest(registry, record)}"}
    keys = [framed(long, number(5)), None, b"", number(7), framed(record, number(8)), framed(long, b"")]
    headers: list[Headers] = [None] * 6
    headers[3] = [("__key_schema_id", framed(long, b"")), ("__value_schema_id", b"\7")]
    request = Request(facts, wanted("@key:int", "@offset:int"), schemas=Schemas(registry=registry.address))
    found = RecordFields(request, make_reader).read(make_block([None] * 6, keys, headers))
    assert found.refused == {2, 4, 5}
    assert [list(column) for column in found.columns] == [[5, None, 7], [0, 1, 3]]
    request = Request(facts, wanted("@key.id:int"), schemas=Schemas(registry=registry.address))
    found = RecordFields(request, make_reader).read(make_block([None] * 2, keys[3:5], [headers[3], None]))
    assert (found.refused, list(found.columns[0])) == (set(), [None, 8])


def test_keys_whose_schema_cannot_be_had(registry: Registry) -> None:
    """The error says how to give it, for keys as for values."""
    facts = {"key_format": "protobuf", "schemas": digest(registry, registry.add(C, "PROTOBUF"))}
    with pytest.raises(NoSchemaError, match="--key-format, and --schema-registry"):
        RecordFields(Request(facts, wanted("@key.at:int")), make_reader)


# ---- beside the sorter


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), part=st.sampled_from(["value", "key"]))
def test_the_sorter_reads_protobuf_alike(registry: Registry, seed: int, part: str) -> None:
    """Random schemas, types that fit or do not, good and broken messages in front or in headers: one outcome."""
    chance = random.Random(seed)
    schemas = [RandomSchema(chance) for _ in range(2)]
    texts = [descriptor_pb2.FileDescriptorSet.FromString(s.content).file[-1].SerializeToString() for s in schemas]
    ids = [registry.add(base64.b64encode(text).decode(), "PROTOBUF") for text in texts]
    payloads = [
        (number, b"\0" + chance.choice([payload, mutate(chance, payload)]))
        for number, schema in zip(ids, schemas, strict=True)
        for payload in (schema.fill(schema.make()).SerializeToString() for _ in range(16))
    ]
    payloads += [(chance.choice(ids), chance.choice([b"\2\2", b"\2\4", b"\1", b""])) for _ in range(3)]
    name = format_path(chance.choice(schemas[0].paths() or [("f1",)]))
    compare(registry, chance, "protobuf", part, name, payloads)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), part=st.sampled_from(["value", "key"]))
def test_the_sorter_reads_avro_alike(registry: Registry, seed: int, part: str) -> None:
    """The sorter and verification agree on values of random Avro schemas: their keys, and which are refused."""
    chance = random.Random(seed)
    schemas = [RandomAvro(chance).make() for _ in range(2)]
    ids = [registry.add(schema) for schema in schemas]
    writers = [Writer(chance, schema) for schema in schemas]
    payloads = [(n, writer.value()) for n, writer in zip(ids, writers, strict=True) for _ in range(16)]
    payloads += [(n, payload + b"\0") for n, payload in chance.sample(payloads, 3)]
    path = next((path for path in avro_paths(chance, schemas[0]) if path), ("a",))
    compare(registry, chance, "avro", part, format_path(path), payloads)


def frame(registry: Registry, chance: random.Random, part: str, payloads: list[tuple[int, bytes]]) -> Part:
    """Return the payloads with their ids in front, or in headers; Protobuf's indexes go along."""
    contents, headers = list[bytes | None](), list[Headers]()
    for schema, payload in chance.sample(payloads, len(payloads)):
        place = chance.randrange(6)
        head = b"\1" + registry.guid(schema).bytes if place else framed(schema, b"")
        contents.append(framed(schema, payload) if place > 1 else payload[1:])
        headers.append(None if place > 1 else [(f"__{part}_schema_id", head + payload[:1])])
    return [*contents, None, b"", b"\7"], [*headers, None, None, None]


def compare(
    registry: Registry, chance: random.Random, name: str, part: str, column: str, payloads: list[tuple[int, bytes]]
) -> None:
    if name == "avro":
        contents: list[bytes | None] = [framed(*pair) for pair in payloads]
        contents += [None, b"", b"\7"]
        headers: list[Headers] = [None] * len(contents)
    else:
        contents, headers = frame(registry, chance, part, payloads)
    column = column if part == "value" else f"@key.{column}"
    term = f"{column}:{chance.choice(TYPES)}{chance.choice(['', ':nulls-last'])}"
    given = {"format": name} if part == "value" else {"format": "none", "key_format": name}
    job = Job.model_validate({"source_topic": "s", "sorts": [term], "schema_registry": registry.address, **given})
    fmt, nothing = make_format(job), [None] * len(contents)
    values, keys = (contents, nothing) if part == "value" else (nothing, contents)
    parsed = fmt.parse(records(values, headers, keys))
    facts = {**describe_format(job), "schemas": ",".join(f"{n}={sha}" for n, sha in used_schemas(fmt))}
    sort = read_sort(":".join([column, *term.split(":")[2:]]), facts)
    encoder = RecordKeys(facts, [sort], [sort], Schemas(registry=registry.address))
    encoded = encoder.encode(make_block(values, keys, headers))
    assert encoded.rejected == sorted(parsed.rejected), (term, parsed.rejected)
    found = parsed.columns[job.key_columns[0].name].to_pylist()
    filler = b"" if any(isinstance(item, bytes) for item in found) else 0
    assert_same_order(encoded.keys[0], [(item is None, filler if item is None else item) for item in found])
