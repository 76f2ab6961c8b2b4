"""Messages that are read side by side, beside google.protobuf: what is proven is a message, with the same values."""

import random
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf import descriptor_pb2, message_factory

from tasks.formats.protobuf import cursors, usual
from tasks.formats.protobuf.messages import MessageReader
from tasks.formats.protobuf.paths import resolve
from tasks.formats.protobuf.schema import compile_proto, load_message
from tasks.formats.protobuf.slots import is_plain
from tasks.formats.protobuf.usual import UsualReader
from tests.protobuf_values import RandomSchema, mutate
from tests.tasks.formats.protobuf.test_protobuf import expected

F = descriptor_pb2.FieldDescriptorProto
MIXED = """syntax = "proto3"; message M { int64 id = 1; string name = 2; M inner = 3; repeated M more = 4;
repeated int32 sizes = 5; repeated double weights = 6; bytes raw = 7; map<string, int64> totals = 8; sint32 low = 9;
oneof way { string ship = 10; int64 van = 11; } float ratio = 20; fixed64 hash = 21; bool paid = 22; uint32 small = 23;
repeated string tags = 24; optional int64 there = 25; sint64 zig = 26; int32 kind = 27; fixed32 crc = 28; }
"""


@pytest.fixture(scope="module")
def mixed() -> Any:
    return load_message(compile_proto(MIXED, {}), "M", "test")


def read(message: Any, values: list[bytes], *names: str) -> tuple[list[bool], list[list[Any]]]:
    places = [resolve(message, tuple(name.split("."))).parts[0] for name in names]
    reader = UsualReader(message, places)
    assert reader.reads_places
    proven, found = reader.read(pa.array(values, pa.binary()))
    return list(proven.tolist()), [array.to_pylist() for array in found]


def as_read(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


def compare(seed: int) -> int:
    """Read messages of a random schema, changed and unchanged, one cursor if need be; return how many are proven."""
    chance = random.Random(seed)
    schema = RandomSchema(chance)
    columns = [(path, column) for path in schema.paths() for column in (resolve(schema.root, path),)]
    plain = [(path, column) for path, column in columns if column.is_time is False and is_plain(column.parts[0])]
    reader = UsualReader(schema.root, [column.parts[0] for _, column in plain])
    whole = [schema.fill(schema.make()).SerializeToString() for _ in range(30)]
    values = whole + [mutate(chance, chance.choice(whole)) for _ in range(200)]
    proven, arrays = reader.read(pa.array(values, pa.binary()))
    found = [array.to_pylist() for array in arrays]
    for i, value in enumerate(values):
        wanted = [None] * len(plain)
        if proven[i]:
            parsed = schema.make.FromString(value)
            wanted = [as_read(unwrap(expected(parsed, path))) for path, _ in plain]
        assert str([column[i] for column in found]) == str(wanted), (seed, value.hex())
    return int(proven.sum())


def unwrap(value: Any) -> Any:
    return value.value if hasattr(value, "DESCRIPTOR") else value


@pytest.fixture
def _any_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read also few records side by side."""
    monkeypatch.setattr(cursors, "FEW", 1)
    monkeypatch.setattr(usual, "_LEAST_ROWS", 1)
    monkeypatch.setattr(usual, "_LEAST_SHARE", 0)


@pytest.mark.usefixtures("_any_count")
def test_proven_messages_of_any_schema() -> None:
    """Of changed and unchanged messages those that are proven are messages to google.protobuf, with equal values."""
    assert sum(compare(seed) for seed in range(50)) > 1_000


@pytest.mark.slow
@pytest.mark.usefixtures("_any_count")
def test_proven_messages_of_many_schemas() -> None:
    """The same, for hundreds of schemas."""
    assert sum(compare(seed) for seed in range(1000, 1800)) > 10_000


def make_rows(make: Any, count: int) -> list[bytes]:
    """Make messages of all kinds of fields, of which each has some."""
    chance = random.Random(3)

    def fill(depth: int) -> Any:
        number = chance.randrange
        there: dict[str, Any] = {
            "id": number(2**40), "name": f"name {number(1000)}", "sizes": [number(300) for _ in range(number(9))],
            "weights": [chance.random()] * number(3), "raw": chance.randbytes(number(20)),
            "totals": {f"k{number(4)}": number(9) for _ in range(number(3))}, "low": number(100) - 50,
            "ship": "x" * 200, "ratio": 0.5,
            "hash": number(2**64), "paid": True, "small": number(2**32), "tags": ["a", "b"] * number(2),
            "there": number(2) - 1, "zig": -number(2**50), "kind": -number(3), "crc": number(2**32),
        }  # fmt: skip
        made = make(**{name: value for name, value in there.items() if chance.random() < 0.8})
        if depth:
            made.inner.CopyFrom(fill(depth - 1))
            made.more.extend(fill(depth - 1) for _ in range(number(3)))
        return made

    return [fill(2).SerializeToString() for _ in range(count)]


@pytest.mark.usefixtures("_any_count")
def test_usual_messages_are_proven(mixed: Any) -> None:
    """Of messages with all kinds of fields all are read side by side, and have their values."""
    make = message_factory.GetMessageClass(mixed)
    values = make_rows(make, 500)
    names = ("id", "inner.name", "inner.inner.zig", "there", "ratio", "low", "raw", "crc", "paid", "hash", "small")
    proven, found = read(mixed, values, *names)
    assert all(proven)
    for i, value in enumerate(values):
        parsed = make.FromString(value)
        wanted = [as_read(expected(parsed, name.split("."))) for name in names]
        assert [column[i] for column in found] == wanted


@pytest.mark.usefixtures("_any_count")
@pytest.mark.parametrize(
    "end",
    [
        b"\x12\x01a",  # a name behind the other fields
        b"\xa8\x08\x00",  # a field that the schema does not have
        b"\xd0\x01" + b"\xff" * 9 + b"\x02",  # a number of more than 64 bits
        b"\xd0\x01" + b"\xff" * 10 + b"\x01",
        b"\xd0\x01",
        b"\xd5\x01\x00",
        b"\xc2\x01\x02\xc3\xa9",  # a text beyond ASCII
        b"\xc2\x01\x02\xff\xfe",
        b"\xc2\x01\x05a",
        b"\xc2\x01\x80\x80\x01a",
        b"\xc2\x01\x80\x80\x00" + bytes((1 << 14) - 1),  # a length of 0 in three bytes, of which two are 16384
        b"\x00",
        b"\xff",
    ],
)
def test_other_messages_are_not(mixed: Any, end: bytes) -> None:
    """A record with anything unusual is not proven, and changes nothing of its neighbours."""
    value = message_factory.GetMessageClass(mixed)(id=7, name="a", inner={"id": 3}).SerializeToString()
    values = [value, value + end] * 300
    assert read(mixed, values, "id", "inner.id") == ([True, False] * 300, [[7, None] * 300, [3, None] * 300])


def test_parts_of_a_message_are_merged(mixed: Any) -> None:
    """A field that is sent twice is for google.protobuf to read: it merges messages, and takes the last number."""
    make = message_factory.GetMessageClass(mixed)
    twice = make(inner={"id": 3}).SerializeToString() + make(inner={"name": "a"}).SerializeToString()
    again = make(id=1).SerializeToString() + make(id=2).SerializeToString()
    assert read(mixed, [twice, again, b""] * 400, "id", "inner.id")[0] == [False, False, True] * 400


def test_blocks_of_unusual_messages_are_left_soon(mixed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """If most of the first records are unusual, the others are not tried."""
    sizes = list[int]()
    prove = cursors.Block.prove

    def note(block: cursors.Block, plan: Any) -> Any:
        sizes.append(len(block.edges) - 1)
        return prove(block, plan)

    monkeypatch.setattr(cursors.Block, "prove", note)
    text = message_factory.GetMessageClass(mixed)(name="é").SerializeToString()
    assert read(mixed, [text] * 20_000, "id")[0] == [False] * 20_000
    assert sizes == [4096]


def test_usual_messages_among_others(mixed: Any) -> None:
    """In a large block each record has the outcome that it has alone, whichever way it is read."""
    make = message_factory.GetMessageClass(mixed)
    columns = [resolve(mixed, path) for path in (("id",), ("name",), ("inner", "id"), ("there",))]
    reader = MessageReader(mixed, [(column, column.default_type) for column in columns])
    usual = [make(id=i, name=f"n{i}", inner={"id": -i}).SerializeToString() for i in range(5000)]
    odd = [b"\xff", b"\x12\x02\xff\xfe", b"\xab\x06\xac\x06", "é".encode(), b"\x1a\x02\x08\x05", b"\xc8\x01\x03", b""]
    values = [value + (odd[i % 7] if i % 10 == 0 else b"") for i, value in enumerate(usual)]
    values[7] = b""
    found, refused = reader.read(pa.array(values, pa.binary()))
    for i in {7, *range(0, 5000, 10), *range(1, 5000, 100)}:
        alone, why = reader.read(pa.array([values[i]], pa.binary()))
        assert [column[i] for column in found.values()] == [column[0] for column in alone.values()]
        assert refused.get(i) == why.get(0)
    kept = [i for i in range(5000) if i % 10 and i != 7]
    assert refused.keys().isdisjoint(kept)
    rows = zip(*(column.take(kept).to_pylist() for column in found.values()), strict=True)
    assert list(rows) == [(i, f"n{i}".encode(), -i, None) for i in kept]
    # Some of each kind of bytes are refused.
    assert 100 < len(refused) < 300
