"""Verification's own reading of Avro, beside fastavro and beside the sorter's."""

import hashlib
import json
import random
import struct
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import fastavro
import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from tasks.formats.avro.format import ValueReader
from tasks.formats.avro.schema import parse_schema
from tasks.settings.column_types import parse_type
from tasks.settings.paths import format_path
from tasks.settings.sorts import KeyColumn
from tasks.verification.formats.avro import AvroReader
from tasks.verification.formats.base import Columns, Request, Wanted
from tasks.verification.formats.schemas import NoSchemaError, Schemas
from tasks.verification.keys import RecordKeys
from tasks.verification.terms import Column, Kind, Path, read_sort
from tasks.verification.types.times import Instant
from tests.avro_values import Schemas as RandomSchemas, Writer, follow, mutate, number, paths, read as read_whole
from tests.ranks import assert_same_order
from tests.record_blocks import make_block
from tests.registry_server import Registry, serve_registry


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make_reader(schema: Any, *columns: tuple[Path, str]) -> AvroReader:
    text = json.dumps(schema)
    wanted = [Wanted(Column("", path), kind_of(kind)) for path, kind in columns]
    return AvroReader(Request({"schema": sha256(text)}, wanted, schemas=Schemas(text.encode())))


def kind_of(text: str) -> Kind:
    kind = parse_type(text)
    return Kind(kind.name, kind.parameter)


def read(schema: Any, values: Sequence[bytes | None], *columns: tuple[Path, str]) -> Columns:
    return make_reader(schema, *columns).read(values, [None] * len(values))


TYPES = {"int": int, "text": bytes, "float": float, "bool": bool}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_values_are_those_that_fastavro_reads(seed: int) -> None:
    """Schemas, values and paths at random: the same keys, and a refusal where a key is of another type."""
    chance = random.Random(seed)
    schema = RandomSchemas(chance).make()
    columns = [(path, chance.choice(list(TYPES))) for path in paths(chance, schema)]
    writer = Writer(chance, schema)
    values = [writer.value() for _ in range(20)]
    parsed = fastavro.parse_schema(json.loads(json.dumps(schema)))
    reader = make_reader(schema, *columns)
    for value in values:
        expected = expect(parsed, value, columns)
        found = reader.read([value], [None])
        assert found.refused == (set() if expected is not None else {0}), (schema, value, columns)
        if expected is not None:
            assert list(map(packed, (column[0] for column in found.columns))) == list(map(packed, expected))


def packed(value: Any) -> Any:
    return struct.pack("<d", value) if isinstance(value, float) else value


def expect(parsed: Any, value: bytes, columns: Sequence[tuple[Path, str]]) -> list[Any] | None:
    """Return what fastavro reads; None if a key is of another type than its column."""
    accepted, whole = read_whole(parsed, value)
    assert accepted
    keys = [follow(whole, path)[1] for path, _ in columns]
    keys = [key.encode("utf-8", "surrogateescape") if isinstance(key, str) else key for key in keys]
    fits = all(key is None or type(key) is TYPES[kind] for key, (_, kind) in zip(keys, columns, strict=True))
    return keys if fits else None


def compare(schema: Any, values: list[bytes], terms: dict[Path, str], nulls: Sequence[str]) -> int:
    """Read by the sorter and by verification; return how many records both accept."""
    text = json.dumps(schema)
    names = {format_path(path): kind for path, kind in terms.items()}
    keys = [
        KeyColumn(name, parse_type(kind), bool(null)) for (name, kind), null in zip(names.items(), nulls, strict=True)
    ]
    parsed = ValueReader(parse_schema(text), keys).parse(pa.array(values, pa.binary()))
    facts = {"name": "avro", "schema": sha256(text), "columns": ",".join(f"{n}:{kind}" for n, kind in names.items())}
    sorts = [read_sort(name + null, facts) for name, null in zip(names, nulls, strict=True)]
    encoded = RecordKeys(facts, sorts, sorts, Schemas(text.encode())).encode(make_block(values))
    assert encoded.rejected == sorted(parsed.rejected), (schema, values, terms)
    for key, found in zip(keys, encoded.keys, strict=True):
        column = parsed.columns[key.name].to_pylist()
        filler = b"" if any(isinstance(item, bytes) for item in column) else 0
        assert_same_order(found, [(item is None, filler if item is None else item) for item in column])
    return len(values) - len(encoded.rejected)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_sorter_reads_alike(seed: int) -> None:
    """Two readers that share no code refuse the same of many broken values, and order the others alike."""
    chance = random.Random(seed)
    schema = RandomSchemas(chance).make()
    terms = {path: chance.choice(list(TYPES)) for path in paths(chance, schema) or [("a",)]}
    writer = Writer(chance, schema)
    good = [writer.value() for _ in range(20)]
    values = good + [mutate(chance, value) for value in good * 2]
    compare(schema, values, terms, [chance.choice(["", ":nulls-last"]) for _ in terms])


def logical(kind: str, logical_type: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": logical_type, **more}


LOGICAL: list[Any] = [
    "null",
    logical("int", "date"),
    logical("int", "time-millis"),
    logical("long", "time-micros"),
    *(
        logical("long", f"{local}timestamp-{unit}")
        for local in ("", "local-")
        for unit in ("millis", "micros", "nanos")
    ),
    logical("bytes", "decimal", precision=40, scale=3),
    logical("fixed", "decimal", name="d", size=9, precision=20, scale=0),
    logical("bytes", "decimal", precision=60, scale=45),
    logical("bytes", "unknown"),
    logical("string", "uuid"),
    logical("fixed", "uuid", name="u", size=16),
    logical("fixed", "uuid", name="v", size=4),
    logical("string", "date"),
    {"type": {"type": "long"}},
    {"type": "enum", "name": "e", "symbols": ["X", "Y"]},
    *("int", "long", "string", "bytes", "float", "double", "boolean"),
]
KINDS = ["int", "decimal", "float", "bool", "time", "time(ms)", "time(ns)", "uuid", "text", "text(nocase)"]
TEXTS = [b"2026-07-01T12:00:00.5Z", b"00112233-4455-6677-8899-aabbccddeeff", b"7", b"\xff", b"Ab"]


def write_logical(chance: random.Random, kind: Any) -> bytes:
    """Write a value of a type of LOGICAL."""
    inner = kind["type"] if isinstance(kind, dict) else kind
    if inner == "string":
        text = chance.choice(TEXTS)
        return number(len(text)) + text
    if inner == "bytes":
        digits = chance.randbytes(chance.choice([0, 1, 8, 9, 16, 17, 20, 2000]))
        return number(len(digits)) + digits
    if isinstance(inner, dict) or inner in {"int", "long"}:
        most = chance.choice([10, 2**31 - 1, 2**45, 2**63 - 1] if inner != "int" else [10, 2**31 - 1])
        return number(chance.randint(-most - 1, most))
    return Writer(chance, kind).value()


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_sorter_reads_logical_types_alike(seed: int) -> None:
    """Branches of all logical types as columns of all types: the same refusals and the same order."""
    chance = random.Random(seed)
    named = {json.dumps(kind) if isinstance(kind, dict) else kind: kind for kind in chance.sample(LOGICAL, 4)}
    branches = list(named.values())
    kind = chance.choice(KINDS)
    schema = {"type": "record", "name": "R", "fields": [{"name": f"f{i}", "type": b} for i, b in enumerate(branches)]}
    rows = [[write_logical(chance, branch) for branch in branches] for _ in range(8)]
    values = [b"".join(row) for row in rows]
    for i in range(len(branches)):
        compare(schema, values, {(f"f{i}",): kind}, [":nulls-first"])


def test_what_each_logical_type_is() -> None:
    """A key has the exact value: no digit of a decimal and no nanosecond is lost."""
    day, uuid = 86_400 * 10**9, UUID(int=7)
    digits = (-(10**40)).to_bytes(18, "big", signed=True)
    for kind, value, column, expected in [
        (logical("int", "date"), number(-1), "time", -day),
        (logical("long", "timestamp-millis"), number(3), "time", 3 * 10**6),
        (logical("long", "local-timestamp-micros"), number(3), "time", 3000),
        (logical("long", "timestamp-nanos"), number(2**60 + 1), "time", 2**60 + 1),
        (
            logical("bytes", "decimal", precision=41, scale=2),
            number(18) + digits,
            "decimal",
            Decimal("-1E40").scaleb(-2),
        ),
        (logical("fixed", "uuid", name="u", size=16), uuid.bytes, "uuid", uuid),
        (logical("string", "uuid"), number(1) + b"x", "uuid", b"x"),
        ({"type": "enum", "name": "e", "symbols": ["X", "Y"]}, number(1), "text", b"Y"),
        ("boolean", b"\x80", "bool", True),
        ("float", struct.pack("<f", 0.1), "float", struct.unpack("<f", struct.pack("<f", 0.1))[0]),
    ]:
        found = read(kind, [value], ((), column))
        assert not found.refused
        assert found.columns[0][0] == expected
        assert isinstance(found.columns[0][0], Instant) == (column == "time")


LIST = {
    "type": "record",
    "name": "List",
    "fields": [{"name": "id", "type": "int"}, {"name": "next", "type": ["null", "List"]}],
}


def list_of(levels: int) -> bytes:
    return b"".join(number(level) + b"\2" for level in range(levels - 1)) + number(levels - 1) + b"\0"


def test_a_record_in_itself_ends_at_500_levels() -> None:
    """No depth of data ends the program."""
    values = [list_of(n) for n in (1, 3, 499, 500, 501, 200_000)]
    found = read(LIST, values, (("next", "next", "id"), "int"))
    assert found.refused == {4, 5}
    assert list(found.columns[0]) == [None, 2, 2, 2]


NULLS = {
    "type": "record",
    "name": "N",
    "fields": [{"name": "a", "type": {"type": "array", "items": "null"}}, {"name": "b", "type": "int"}],
}


@pytest.mark.parametrize(
    ("schema", "value", "is_read"),
    [
        (NULLS, number(2**63 - 1) + b"\0" + number(7), True),
        (NULLS, number(-(2**62)) + number(0) + b"\0" + number(7), True),
        (NULLS, number(-(2**63)) + number(0) + b"\0" + number(7), False),
        ("long", b"\xff" * 9 + b"\x01", True),
        ("long", b"\x80" * 9 + b"\x00", True),
        ("long", b"\x80" * 10 + b"\x00", False),
        ("long", b"\2\2", False),
        ("long", b"", False),
        ("long", b"\x80", False),
        (["null", "long"], number(-1) + b"\2", False),
        (["null", "long"], number(2) + b"\2", False),
        ({"type": "enum", "name": "e", "symbols": ["X"]}, number(-1), False),
        ("string", number(-1), False),
        ("string", number(2) + b"a", False),
        ("double", b"\0" * 7, False),
        ({"type": "array", "items": "long"}, number(2**62), False),
        ("null", b"", True),
    ],
)
def test_limits(schema: Any, value: bytes, is_read: bool) -> None:  # noqa: FBT001  # a column of the table
    """What fastavro lets pass or never ends to read is read or refused by the rules."""
    assert (not read(schema, [value]).refused) == is_read


def test_null_values_and_empty_ones() -> None:
    """A tombstone is refused; an empty value is a value of a schema without bytes."""
    assert read("null", [None, b""]).refused == {0}


def test_the_last_entry_of_a_map_counts() -> None:
    """Also if it is null, or of another type than an earlier one."""
    schema = {"type": "map", "values": ["null", "int", "string"]}
    entries = {"null": b"\2a\0", "int": b"\2a\2" + number(7), "text": b"\2a\4\2x", "other": b"\2b\2" + number(9)}
    values = [
        number(2) + entries[first] + entries[last] + b"\0"
        for first, last in (("int", "null"), ("text", "int"), ("int", "text"), ("int", "other"))
    ]
    found = read(schema, values, (("a",), "int"))
    assert found.refused == {2}
    assert list(found.columns[0]) == [None, 7, 7]


# ---- which schema


@pytest.fixture
def registry() -> Iterator[Registry]:
    pytest.importorskip("confluent_kafka.schema_registry")
    with serve_registry() as served:
        yield served


def test_values_of_a_registry(registry: Registry) -> None:
    """Each value is read by its own schema, named in front or in a header; one that the run did not know is refused."""
    inner = {"type": "record", "name": "In", "fields": [{"name": "id", "type": "long"}]}
    registry.versions["in", 1] = registry.add(inner)
    outer = {"type": "record", "name": "Out", "fields": [{"name": "s", "type": "string"}, {"name": "i", "type": "In"}]}
    first, second = registry.add({**inner, "name": "First"}), registry.add(outer, references=[("In", "in", 1)])
    texts = [registry.schemas[n]["schema"] for n in (first, second, registry.versions["in", 1])]
    guid = registry.guid(first)
    both = sha256(f"{texts[1]}\0{texts[2]}")
    facts = {"schemas": f"{first}={sha256(texts[0])},{second}={both},{guid}={sha256(texts[0])}"}
    wanted = [Wanted(Column("", ("id",)), Kind("int")), Wanted(Column("", ("i", "id")), Kind("int"))]
    reader = AvroReader(Request(facts, wanted, schemas=Schemas(registry=registry.address)))
    head, name = {n: b"\0" + n.to_bytes(4, "big") for n in (first, second, 9)}, "__value_schema_id"
    found = reader.read(
        [
            head[first] + number(1),
            head[second] + b"\2x" + number(2),
            number(3),
            number(4),
            head[second] + b"\2x" + number(5),
            *(head[9] + number(6), b"\1" + head[first], b"\0\0", b"", None, number(7)),
        ],
        [
            None,
            None,
            [(name, b"\1" + guid.bytes)],
            [(name, head[9]), (name, head[first])],
            [(name, None)],
            *[None] * 5,
            [(name, b"\2")],
        ],
    )
    assert list(zip(*found.columns, strict=True)) == [(1, None), (None, 2), (3, None), (4, None), (None, 5)]
    assert found.refused == {5, 6, 7, 8, 9, 10}


def test_a_schema_that_cannot_be_had(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which one it is: none is given, or it is not that of the run."""
    from tasks.formats import schema_registry

    monkeypatch.setattr(schema_registry, "PATIENCE_SECONDS", 0.0)
    schema_id, address = registry.add('"long"'), registry.address
    for facts, schemas, error in [
        ({"schema": sha256("x")}, Schemas(), "give the job's --format avro --avro-schema FILE"),
        ({"schema": sha256("x")}, Schemas(b"y"), "another schema, of SHA-256"),
        ({"schemas": f"{schema_id}={sha256('x')}"}, Schemas(registry=address), "has another text"),
        ({"schemas": f"{schema_id}={sha256('x')}"}, Schemas(), "are in a registry"),
    ]:
        with pytest.raises(NoSchemaError, match=error):
            AvroReader(Request(facts, [], schemas=schemas))


def test_a_schema_that_is_none() -> None:
    """A text that fastavro does not read is a ValueError, which ends in a line about the run."""
    for text in ('{"type":"record"}', "{", '"no.such"', '{"type":"array"}'):
        with pytest.raises(ValueError, match=r".+"):
            AvroReader(Request({"schema": sha256(text)}, [], schemas=Schemas(text.encode())))
