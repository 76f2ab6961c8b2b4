"""Protobuf values beside google.protobuf: which are messages, and the keys of those that are."""

import hashlib
import random
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.message import DecodeError

from tasks.errors import SettingsError
from tasks.formats.protobuf.columnar import ColumnarReader, is_columnar
from tasks.formats.protobuf.format import ProtobufFormat
from tasks.formats.protobuf.messages import MessageReader
from tasks.formats.protobuf.paths import NoSuchFieldError, resolve
from tasks.formats.protobuf.schema import compile_proto, load_message, message_at
from tasks.keys import Parsed
from tasks.settings.column_types import INT, TEXT, ColumnType, parse_type
from tasks.settings.paths import parse_path
from tasks.settings.sorts import KeyColumn
from tests.protobuf_values import RandomSchema, mutate

SHOP = """syntax = "proto3"; package shop;
import "google/protobuf/timestamp.proto"; import "google/protobuf/wrappers.proto";
enum State { NEW = 0; PAID = 1; }
message Customer { int64 id = 1; optional string name = 2; Customer agent = 3; }
message Item { string sku = 1; int32 count = 2; }
message Order {
  int64 id = 1; optional int64 number = 2; string note = 3; Customer customer = 4; repeated Item items = 5;
  map<string, int64> totals = 6; map<int32, Item> shelves = 7; State state = 8; repeated int32 sizes = 9;
  google.protobuf.Timestamp at = 10; google.protobuf.StringValue nick = 11; uint64 hash = 12; double weight = 13;
  oneof way { string ship = 14; int64 van = 15; } bytes raw = 16; bool paid = 17; message Inner { int32 a = 1; }
  Inner inner = 18;  float ratio = 19; fixed32 crc = 20; map<bool, State> flags = 21;
}
"""


@pytest.fixture(scope="module")
def shop() -> bytes:
    return compile_proto(SHOP, {}, "shop.proto")


def order_class(shop: bytes) -> Any:
    return message_factory.GetMessageClass(load_message(shop, "shop.Order", "test"))


def read(shop: bytes, values: Sequence[bytes], *terms: str) -> tuple[list[list[Any]], dict[int, str]]:
    """Read columns, `PATH` or `PATH:TYPE`, without encoding them."""
    message = load_message(shop, "shop.Order", "test")
    columns = []
    for term in terms:
        name, _, kind = term.partition(":")
        column = resolve(message, parse_path(name))
        columns.append((column, parse_type(kind) if kind else column.default_type))
    found, refused = MessageReader(message, columns).read(pa.array(values, pa.binary()))
    return [found_values(array) for array in found.values()], refused


# ---- any schema, any bytes


def expected(message: Any, path: Sequence[str | int]) -> Any:
    """Return what a path leads to, by google.protobuf alone; None if the message does not have it."""
    value, field = message, None
    for step in path:
        if field is None:
            field = value.DESCRIPTOR.fields_by_name[step]
            if field.has_presence and not value.HasField(step):
                return None
            value, field = getattr(value, str(step)), field if field.is_repeated else None
            continue
        entry = field.message_type if field.message_type and field.message_type.GetOptions().map_entry else None
        is_bool = entry is not None and entry.fields_by_name["key"].type == entry.fields_by_name["key"].TYPE_BOOL
        place: Any = step == "true" if is_bool else step
        if (place not in value) if entry else (place >= len(value)):
            return None
        value, field = value[place], None
    return value


def comparable(value: Any, column: Any) -> Any:
    """Return an expected value as the reader hands it out."""
    if value is None:
        return None
    if column.is_time:
        return value.seconds * 10**9 + value.nanos
    value = getattr(value, "value", value) if hasattr(value, "DESCRIPTOR") else value
    if column.leaf.enum_type is not None:
        known = column.leaf.enum_type.values_by_number.get(value)
        return str(value).encode() if known is None else known.name.encode()
    return value.encode() if isinstance(value, str) else value


def found_values(array: pa.Array) -> list[Any]:
    return list((array.cast(pa.int64()) if pa.types.is_timestamp(array.type) else array).to_pylist())


def compare(seed: int) -> int:
    """Read changed and unchanged messages of a random schema; return how many were accepted."""
    chance = random.Random(seed)
    schema = RandomSchema(chance)
    message = load_message(schema.content, "s.Root", "test")
    parse = message_factory.GetMessageClass(message).FromString
    paths = schema.paths()
    columns = [resolve(message, path) for path in paths]
    reader = MessageReader(message, [(column, column.default_type) for column in columns])
    values = [schema.fill(schema.make()).SerializeToString() for _ in range(20)]
    values += [chance.choice(values) + chance.choice(values) for _ in range(10)]
    values += [mutate(chance, chance.choice(values)) for _ in range(60)]
    arrays, refused = reader.read(pa.array(values, pa.binary()))
    accepted = 0
    for i, value in enumerate(values):
        try:
            parsed = parse(value)
        except DecodeError:
            assert refused[i].startswith("is no Root of Protobuf")  # it is not about the error
            continue
        if i in refused:
            assert " a time: " in refused[i] or " 64 bits: " in refused[i]
            continue
        accepted += 1
        for path, column in zip(paths, columns, strict=True):
            wanted = comparable(expected(parsed, path), column)
            assert str(found_values(arrays[column.name])[i]) == str(wanted), (seed, path, value.hex())
    return accepted


@pytest.mark.parametrize("seed", range(25))
def test_any_message_of_any_schema(seed: int) -> None:
    """Acceptance and values are those of google.protobuf, for whole messages, merged ones and broken ones."""
    assert compare(seed) > 5


@pytest.mark.slow
def test_any_message_of_many_schemas() -> None:
    """The same, for hundreds of schemas."""
    assert sum(compare(seed) for seed in range(1000, 1400)) > 5_000


def test_equal_bytes_equal_fate(shop: bytes) -> None:
    """A record's outcome is the same alone, among good ones and among bad ones, whichever way its block takes."""
    chance, make = random.Random(5), order_class(shop)
    whole = make(id=7, customer={"id": 3}, items=[{"sku": "a"}], ship="x", note="n").SerializeToString()
    group = b"\xab\x06\xac\x06"  # one that the schema does not have
    others = [
        b"",
        whole + group,
        whole + make(van=4).SerializeToString(),
        *(mutate(chance, whole) for _ in range(300)),
    ]
    terms = ("id", "customer.id", "items[0].sku", "ship", "van")
    together, refused = read(shop, others * 4, *terms)
    for i, value in enumerate(others):
        alone, why = read(shop, [value], *terms)
        assert why.get(0) == refused.get(i) == refused.get(i + len(others))
        if 0 not in why:
            assert [column[0] for column in alone] == [column[i] for column in together]
    # Both outcomes are among them.
    assert 20 < len(refused) < len(others) * 4 - 20


def test_blocks_that_the_fast_way_does_not_read(shop: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the fast way gives up on a block, its parts are read by it or a message at a time, with the same values."""
    make = order_class(shop)
    values = [make(id=i, items=[{"sku": f"{i}"}] * (i % 2)).SerializeToString() for i in range(700)]
    plain = read(shop, values, "id", "items[0].sku")
    usual, given = ColumnarReader.read, list[int]()

    def fail_with_the_third(reader: ColumnarReader, block: pa.Array) -> Any:
        given.append(len(block))
        return None if values[2] in block.to_pylist() else usual(reader, block)

    monkeypatch.setattr(ColumnarReader, "read", fail_with_the_third)
    assert read(shop, values, "id", "items[0].sku") == plain
    assert given == [700, 256, 256, 188]


# ---- places and their values


def test_places(shop: bytes) -> None:
    """Nested messages, items, maps by key, oneofs, wrappers, times: the value, or null where the message has none."""
    order = order_class(shop)(
        id=1, customer={"agent": {"id": 9}}, items=[{"sku": "a"}, {"count": 2}], totals={"eu": 5},
        shelves={3: {"sku": "s"}}, sizes=[4, 5], at={"seconds": 1, "nanos": 2}, nick={"value": ""}, van=0,
        raw=b"\xff", flags={True: 1},
    ).SerializeToString()  # fmt: skip
    present = ["customer.agent.id", "items[1].count", "items[1].sku", "totals.eu", "shelves[3].sku", "shelves.3.sku"]
    present += ["sizes[1]", "at.seconds", "nick", "van", "flags.true", "at"]
    found, refused = read(shop, [order, b""], *present)
    assert not refused
    assert found.pop() == [1_000_000_002, None]
    assert [values[0] for values in found] == [9, 2, b"", 5, b"s", b"s", 5, 1, b"", 0, b"PAID"]
    assert [values[1] for values in found] == [None] * len(found)


def test_presence(shop: bytes) -> None:
    """A field with presence that was not sent is missing; one without has its default, if its message is there."""
    found, _ = read(
        shop, [b""], "id", "note", "state", "paid", "weight", "number", "customer.id", "customer.name", "ship"
    )
    assert [values[0] for values in found] == [0, b"", b"NEW", False, 0.0, None, None, None, None]
    found, _ = read(shop, [order_class(shop)(customer={}).SerializeToString()], "customer.id", "customer.name")
    assert found == [[0], [None]]


def test_last_member_of_a_oneof(shop: bytes) -> None:
    """Of a oneof the last member sent counts, and the others are missing."""
    make = order_class(shop)
    both = make(ship="x").SerializeToString() + make(van=4).SerializeToString()
    assert read(shop, [both], "ship", "van")[0] == [[None], [4]]
    assert read(shop, [both], "ship")[0] == [[None]]


def test_enums(shop: bytes) -> None:
    """An enum is its symbol's name, digits if the schema does not have the number, or the number as int."""
    values = [order_class(shop)(state=number).SerializeToString() for number in (0, 1, 9, -1)]
    assert read(shop, values, "state", "state:int")[0] == [[0, 1, 9, -1]]
    assert read(shop, values, "state")[0] == [[b"NEW", b"PAID", b"9", b"-1"]]


def test_times_at_the_edges(shop: bytes) -> None:
    """Times that 64 bits of nanoseconds hold are exact; others overflow; nanoseconds beyond a second are no time."""
    make = order_class(shop)
    pairs = [divmod(2**63 - 1, 10**9), divmod(2**63, 10**9), divmod(-(2**63), 10**9), divmod(-(2**63) - 1, 10**9)]
    pairs += [(0, -1), (0, 10**9), (253_402_300_800, 0), (-62_135_596_801, 0), (253_402_300_799, 999_999_999)]
    message = load_message(shop, "shop.Order", "test")
    reader = MessageReader(message, [(resolve(message, ("at",)), ColumnType("time"))])
    values = [make(at={"seconds": s, "nanos": n}).SerializeToString() for s, n in pairs]
    found, refused = reader.read(pa.array(values, pa.binary()))
    assert found["at"].cast(pa.int64()).to_pylist() == [2**63 - 1, None, -(2**63), *[None] * 6]
    kinds = {i: why.partition(":")[0] for i, why in refused.items()}
    over, none = "column at overflows a time", "column at is not a time"
    assert kinds == {1: over, 3: over, 4: none, 5: none, 6: none, 7: none, 8: over}


def test_unsigned(shop: bytes) -> None:
    """A number of 64 bits without sign is exact as decimal, and overflows as int from 2^63."""
    values = [order_class(shop)(hash=number).SerializeToString() for number in (2**63 - 1, 2**63, 2**64 - 1)]
    assert read(shop, values, "hash")[0] == [[2**63 - 1, 2**63, 2**64 - 1]]
    found, refused = read(shop, values, "hash:int")
    assert found == [[2**63 - 1, None, None]]
    assert refused[1] == "column hash overflows 64 bits: '9223372036854775808'"


def test_text_that_is_not_utf_8(shop: bytes) -> None:
    """proto3 permits only UTF-8 in a string: the value is refused, whether or not a sort names the field."""
    value = order_class(shop)(note="ab").SerializeToString().replace(b"ab", b"\xff\xfe")
    assert read(shop, [value], "note")[1].keys() == {0}
    assert read(shop, [value], "id")[1].keys() == {0}


def test_types_of_fields(shop: bytes) -> None:
    """A column without a type has that of its field."""
    message = load_message(shop, "shop.Order", "test")
    kinds = {
        "id": "int", "sizes[0]": "int", "crc": "int", "weight": "float", "ratio": "float", "paid": "bool",
        "note": "text", "raw": "text", "state": "text", "at": "time", "nick": "text", "hash": "decimal",
        "flags.true": "text",
    }  # fmt: skip
    assert {name: str(resolve(message, parse_path(name)).default_type) for name in kinds} == kinds


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("custmer.id", "there is no such field, 'custmer': the fields of shop.Order are id, number, note, customer,"),
        ("customer.nam", "the fields of shop.Customer are id, name, agent; did you mean name?"),
        ("customer", "is a message, shop.Customer: name a field of it, as customer.id"),
        ("items", "items is repeated: write for example items[0]"),
        ("items.sku", "items is repeated: write for example items[0]"),
        ("items[0]", "is a message, shop.Item: name a field of it, as items[0].sku"),
        ("totals", 'totals is a map: write for example totals."key"'),
        ("shelves.x.sku", "'x' is no key of shelves, whose keys are int32"),
        ("flags.yes", "'yes' is no key of flags, whose keys are bool"),
        ("id.x", "id is no message, and has no fields or items"),
        ("customer[0]", "customer is not repeated"),
    ],
)
def test_paths_that_there_are_not(shop: bytes, path: str, error: str) -> None:
    """A path that the message does not have is refused with what there is."""
    with pytest.raises(SettingsError) as refused:
        resolve(load_message(shop, "shop.Order", "test"), parse_path(path))
    assert error in str(refused.value)
    assert f"column {path!r}" in str(refused.value)


def test_fast_and_slow_places(shop: bytes) -> None:
    """Maps and very large field numbers take the slow way; what is common does not."""
    message = load_message(shop, "shop.Order", "test")
    fast = {
        path: is_columnar(resolve(message, parse_path(path)).parts[0]) for path in ("items[0].sku", "ship", "totals.a")
    }
    assert fast == {"items[0].sku": True, "ship": True, "totals.a": False}


# ---- the format


def make_format(shop: bytes, *keys: KeyColumn, given: dict[str, ColumnType] | None = None) -> ProtobufFormat:
    return ProtobufFormat(shop, "shop.Order", keys, given or {}, "--protobuf-descriptor x")


def parse(fmt: ProtobufFormat, values: Sequence[bytes | None]) -> Parsed:
    return fmt.parse(pa.table({"value": pa.array(values, pa.binary())}))


def test_keys_and_rejects_of_a_block(shop: bytes) -> None:
    """Accepted records have their keys in order; tombstones, broken values and missing keys have their reasons."""
    make = order_class(shop)
    values = [make(number=5, note="a").SerializeToString(), None, b"\xff", b"", make(number=4).SerializeToString()]
    parsed = parse(make_format(shop, KeyColumn("number", TEXT), KeyColumn("note", TEXT)), values)
    assert {name: column.to_pylist() for name, column in parsed.columns.items()} == {
        "number": [5, 4],
        "note": [b"a", b""],
    }
    assert parsed.rejected == {
        1: "null value",
        2: "is no Order of Protobuf (Wire format was corrupt): 'ff'",
        3: "column number is missing",
    }
    nulls = parse(make_format(shop, KeyColumn("number", INT, nulls=True)), values)
    assert nulls.columns["number"].to_pylist() == [5, None, 4]


def test_facts(shop: bytes) -> None:
    """The ledger has the columns with their types, the message and the digest of the schema."""
    keys = (KeyColumn("customer.id", TEXT), KeyColumn("state", TEXT))
    assert make_format(shop, *keys, given={"state": INT}).facts() == {
        "name": "protobuf",
        "columns": "customer.id:int,state:int",
        "message": "shop.Order",
        "schema": hashlib.sha256(shop).hexdigest(),
        "rules": "2",
    }


def test_types_that_a_field_does_not_have(shop: bytes) -> None:
    """A type that cannot compare the field's values is refused with the one that can."""
    with pytest.raises(SettingsError, match="column 'weight' is of type double in the schema, which does not compare"):
        make_format(shop, KeyColumn("weight", INT), given={"weight": INT})


def test_schemas_that_are_none(shop: bytes) -> None:
    """A file that is no schema, lacks an import or a message is refused with the way out."""
    with pytest.raises(SettingsError, match="test has no message 'Order': it has .*; did you mean shop.Order"):
        load_message(shop, "Order", "test")
    for content in (b"", b"syntax = 1", b"\x0a\x00"):
        with pytest.raises(SettingsError, match="test is no set of descriptors: make it with protoc"):
            load_message(content, "shop.Order", "test")
    files = descriptor_pb2.FileDescriptorSet.FromString(shop)
    del files.file[0]
    with pytest.raises(SettingsError, match="lacks google/protobuf/.*, which shop.proto imports"):
        load_message(files.SerializeToString(), "shop.Order", "test")
    files = descriptor_pb2.FileDescriptorSet.FromString(shop)
    files.file.reverse()
    assert load_message(files.SerializeToString(), "shop.Order", "test").full_name == "shop.Order"


def test_fields_that_a_schema_lacks_are_an_error_of_their_own(shop: bytes) -> None:
    """Readers of several schemas tell a field that one lacks from a path that is wrong."""
    with pytest.raises(NoSuchFieldError):
        resolve(load_message(shop, "shop.Order", "test"), ("other",))


def test_texts_of_schemas() -> None:
    """A .proto text with references compiles, and indexes find its messages; errors name the line."""
    imports = 'import "b/c.proto"; import "google/type/date.proto";'
    text = f'syntax="proto3"; package a; {imports} message M {{ b.C c = 1; message N {{ google.type.Date d = 1; }} }}'
    content = compile_proto(text, {"b/c.proto": 'syntax="proto3"; package b; message C { int32 x = 1; }'})
    file = descriptor_pb2.FileDescriptorSet.FromString(content).file[-1]
    assert [message_at(file, indexes) for indexes in ((0,), (0, 0))] == ["a.M", "a.M.N"]
    for wrong in ((1,), (0, 1), ()):
        with pytest.raises(LookupError):
            message_at(file, wrong)
    with pytest.raises(SettingsError, match=r"schema schema.proto does not compile: schema.proto:1:.*Expected"):
        compile_proto('syntax="proto3"; message {', {})
    with pytest.raises(SettingsError, match="leads out of its folder"):
        compile_proto(text, {"../../x.proto": ""})


# ---- large


@pytest.mark.parametrize("path", ["id", "items[999999].sku", "totals.a"])
def test_large_records(shop: bytes, path: str) -> None:
    """A record of 10 MB, and one with 1,000,000 items, are read among small ones."""
    make = order_class(shop)
    item = make(items=[{"sku": "s"}]).SerializeToString()
    large = [make(id=2, raw=bytes(10_000_000)).SerializeToString(), make(id=3).SerializeToString() + item * 1_000_000]
    small = make(id=1, totals={"a": 4}).SerializeToString()
    found, refused = read(shop, [small, *large, small], path)
    assert not refused
    expected = {"id": [1, 2, 3, 1], "items[999999].sku": [None, None, b"s", None], "totals.a": [4, None, None, 4]}
    assert found == [expected[path]]
