"""Verification's own reading of Protobuf, beside google.protobuf by hand and beside the sorter's."""

import hashlib
import random
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf import message_factory
from hypothesis import given, settings, strategies as st

from tasks.errors import SettingsError
from tasks.formats.protobuf.format import ProtobufFormat
from tasks.formats.protobuf.schema import compile_proto, load_message
from tasks.settings.column_types import parse_type
from tasks.settings.paths import format_path
from tasks.settings.sorts import KeyColumn
from tasks.verification.formats.base import Columns, Request, Wanted
from tasks.verification.formats.protobuf import ProtobufReader
from tasks.verification.formats.schemas import NoSchemaError, Schemas
from tasks.verification.keys import RecordKeys
from tasks.verification.terms import Column, Kind, read_path, read_sort
from tasks.verification.types.times import Instant
from tests.protobuf_values import RandomSchema, mutate
from tests.ranks import assert_same_order
from tests.record_blocks import make_block

SHOP = """syntax = "proto3"; package shop;
import "google/protobuf/timestamp.proto"; import "google/protobuf/wrappers.proto";
enum State { option allow_alias = true; NEW = 0; FIRST = 0; PAID = 1; }
message Customer { int64 id = 1; optional string name = 2; }
message Order {
  int64 id = 1; optional int64 number = 2; Customer customer = 3; repeated Customer items = 4;
  map<string, int64> totals = 5; map<int32, Customer> shelves = 6; State state = 7; map<bool, State> flags = 8;
  google.protobuf.Timestamp at = 9; google.protobuf.StringValue nick = 10; uint64 hash = 11; bytes raw = 12;
  oneof way { string ship = 13; int64 van = 14; }
}
"""


@pytest.fixture(scope="module")
def shop() -> bytes:
    return compile_proto(SHOP, {}, "shop.proto")


def facts_of(schema: bytes, message: str) -> dict[str, str]:
    return {"name": "protobuf", "schema": hashlib.sha256(schema).hexdigest(), "message": message}


def read(shop: bytes, values: Sequence[bytes | None], path: str, kind: str = "text") -> Columns:
    wanted = [Wanted(Column("", read_path(path)), Kind(kind))]
    return ProtobufReader(Request(facts_of(shop, "shop.Order"), wanted, schemas=Schemas(shop))).read(
        values, [None] * len(values)
    )


def make_order(shop: bytes, **fields: Any) -> bytes:
    made = message_factory.GetMessageClass(load_message(shop, "shop.Order", "test"))(**fields)
    return bytes(made.SerializeToString())


@pytest.mark.parametrize(
    ("path", "kind", "fields", "expected"),
    [
        ("id", "int", {}, 0),
        ("number", "int", {}, None),
        ("number", "int", {"number": 0}, 0),
        ("customer.id", "int", {}, None),
        ("customer.id", "int", {"customer": {}}, 0),
        ("customer.name", "text", {"customer": {"name": "é"}}, "é".encode()),
        ("items[1].id", "int", {"items": [{}]}, None),
        ("items[1].id", "int", {"items": [{}, {"id": 7}]}, 7),
        ("totals.eu", "int", {"totals": {"eu": 5}}, 5),
        ("totals.eu", "int", {"totals": {"us": 5}}, None),
        ("shelves.-7.id", "int", {"shelves": {-7: {"id": 2}}}, 2),
        ("shelves[7].id", "int", {"shelves": {8: {"id": 2}}}, None),
        ("flags.true", "text", {"flags": {True: 1}}, b"PAID"),
        ("state", "text", {}, b"NEW"),
        ("state", "text", {"state": 5}, b"5"),
        ("state", "int", {"state": 1}, 1),
        ("at", "time", {}, None),
        ("at", "time", {"at": {"seconds": -1, "nanos": 1}}, Instant(-(10**9) + 1)),
        ("at.nanos", "int", {"at": {"nanos": 3}}, 3),
        ("nick", "text", {}, None),
        ("nick", "text", {"nick": {}}, b""),
        ("hash", "decimal", {"hash": 2**64 - 1}, 2**64 - 1),
        ("raw", "text", {"raw": b"\xff"}, b"\xff"),
        ("van", "int", {"ship": "x"}, None),
    ],
)
def test_what_a_path_leads_to(shop: bytes, path: str, kind: str, fields: dict[str, Any], expected: Any) -> None:
    """Fields that tell of their presence are missing or there, others have their default."""
    found = read(shop, [make_order(shop, **fields)], path, kind)
    assert not found.refused
    assert list(found.columns[0]) == [expected]
    assert type(found.columns[0][0]) is type(expected)


def test_refusals(shop: bytes) -> None:
    """What is no message or no time is refused, an empty value is a message, and a message sent twice is merged."""
    late, bad = make_order(shop, at={"seconds": 253_402_300_800}), make_order(shop, at={"nanos": 10**9})
    twice = make_order(shop, customer={"id": 3}) + make_order(shop, customer={"name": "x"})
    assert read(shop, [b"", None, b"\xff", late, bad, twice], "at", "time").refused == {1, 2, 3, 4}
    assert list(read(shop, [twice], "customer.id", "int").columns[0]) == [3]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_sorter_reads_alike(seed: int) -> None:
    """Random schemas, messages and broken ones: the same refusals, and the same order."""
    chance = random.Random(seed)
    schema = RandomSchema(chance)
    values = [schema.fill(schema.make()).SerializeToString() for _ in range(12)]
    values += [chance.choice(values) + chance.choice(values) for _ in range(6)]
    values += [mutate(chance, chance.choice(values)) for _ in range(20)]
    for path in schema.paths():
        compare(schema.content, values, format_path(path), chance.choice(["", ":nulls-last"]), chance)


def compare(schema: bytes, values: list[bytes], name: str, nulls: str, chance: random.Random) -> None:
    key = KeyColumn(name, parse_type("text"), bool(nulls))
    given = chance.choice([{}, {name: parse_type("int")}, {name: parse_type("decimal")}])
    try:
        fmt = ProtobufFormat(schema, "s.Root", [key], given, "test")
    except SettingsError:
        fmt = ProtobufFormat(schema, "s.Root", [key], {}, "test")
    parsed = fmt.parse(pa.table({"value": pa.array(values, pa.binary())}))
    sort = read_sort(name + nulls, fmt.facts())
    encoded = RecordKeys(fmt.facts(), [sort], [sort], Schemas(schema)).encode(make_block(values))
    assert encoded.rejected == sorted(parsed.rejected)
    column = parsed.columns[name].to_pylist()
    filler = b"" if any(isinstance(item, bytes) for item in column) else 0
    assert_same_order(encoded.keys[0], [(item is None, filler if item is None else item) for item in column])


def test_a_schema_that_cannot_be_had(shop: bytes) -> None:
    """The error says what is missing: the file, that of the run, or what the run read of it."""
    wanted, known = [Wanted(Column("", ("no",)), Kind("int"))], facts_of(shop, "shop.Order")
    for facts, schemas, error in [
        (known, Schemas(), "--protobuf-descriptor FILE"),
        (known, Schemas(b"x"), "had another schema"),
        ({"schemas": "1=x"}, Schemas(), "are in a registry"),
        (known | {"message": "shop.No"}, Schemas(shop), "has no message shop.No"),
        (known, Schemas(shop), "has no field no"),
    ]:
        with pytest.raises(ValueError, match=error) as raised:
            ProtobufReader(Request(facts, wanted, schemas=schemas))
        assert isinstance(raised.value, NoSchemaError) == (schemas.content != shop)
