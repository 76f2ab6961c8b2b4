"""The Avro decoder: columns and refusals as fastavro has them, side by side with others and alone."""

import json
import random
import struct
from decimal import Decimal, localcontext
from typing import Any

import fastavro
import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import example, given, settings

from tasks.formats.avro.decoder import Decoded, Decoder, Wanted
from tasks.formats.avro.schema import parse_schema
from tests.avro_values import Schemas, Writer, follow, mutate, number, paths, read

# What fastavro lets pass, or reads by Python's rules of lists: numbers below zero of symbols and branches, integers
# of any length, and a count of items that has no positive one.
STRICTER = ("integer of more than 10", "symbol that is not", "branch of a union", "number of items")
MANY = 40


def decode(schema: Any, wanted: list[Wanted], values: list[bytes]) -> Decoded:
    return Decoder(parse_schema(json.dumps(schema)), wanted).decode(pa.array(values, pa.binary()))


def everything(*found: tuple[str | int, ...]) -> list[Wanted]:
    return [Wanted(path, lambda _: True) for path in found]


KINDS: dict[str, tuple[pa.DataType, type[Any]]] = {
    "number": (pa.int64(), int),
    "text": (pa.binary(), bytes),
    "float": (pa.float64(), float),
    "bool": (pa.bool_(), bool),
}


def outcomes(decoded: Decoded, count: int) -> list[Any]:
    """Return one outcome for each value: the reason, or what is at each path."""
    found: list[Any] = []
    columns = [column.to_pylist() for column in decoded.columns]
    assert {len(column) for column in columns} <= {count}
    for row in range(count):
        if row in decoded.refused:
            found.append(decoded.refused[row])
            continue
        keys = [
            f"wrong {decoded.wrong[i][row]}" if row in decoded.wrong[i] else bits(column[row])
            for i, column in enumerate(columns)
        ]
        found.append([(bool(decoded.missing[i][row]), key) for i, key in enumerate(keys)])
    return found


def bits(value: Any) -> Any:
    return struct.pack("<d", value) if isinstance(value, float) else value


def expect(parsed: Any, value: bytes, wanted: list[tuple[tuple[str | int, ...], str]]) -> Any:
    """Return the same by fastavro."""
    accepted, whole = read(parsed, value)
    if not accepted:
        return None
    keys = []
    for path, kind in wanted:
        there, key = follow(whole, path)
        key = key.encode("utf-8", "surrogateescape") if isinstance(key, str) else key
        if key is not None and type(key) is not KINDS[kind][1]:
            key = "wrong"
        keys.append((not there, bits(key)))
    return keys


def agree(found: Any, expected: Any) -> bool:
    if isinstance(found, str):
        return expected is None or any(words in found for words in STRICTER)
    return (
        expected is not None
        and [(missing, "wrong" if str(key).startswith("wrong ") else key) for missing, key in found] == expected
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_random_values_have_the_keys_that_fastavro_reads(seed: int) -> None:
    """Schemas, values, mutations and paths at random: the same accepts, rejects and keys, side by side and alone."""
    compare(seed)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_many_random_values_have_the_keys_that_fastavro_reads(seed: int) -> None:
    """The same, for hours of a machine that has them."""
    compare(seed)


def compare(seed: int) -> None:
    chance = random.Random(seed)
    schema = Schemas(chance).make()
    kinds = [(path, chance.choice(list(KINDS))) for path in paths(chance, schema)]
    wanted = [Wanted(path, lambda leaf, kind=kind: leaf.arrow == KINDS[kind][0]) for path, kind in kinds]  # type: ignore[misc]
    writer = Writer(chance, schema)
    good = [writer.value() for _ in range(MANY)]
    values = good + [mutate(chance, value) for value in good]
    chance.shuffle(values)
    parsed = fastavro.parse_schema(json.loads(json.dumps(schema)))
    decoder = Decoder(parse_schema(json.dumps(schema)), wanted)
    found = outcomes(decoder.decode(pa.array(values, pa.binary())), len(values))
    for value, outcome in zip(values, found, strict=True):
        assert agree(outcome, expect(parsed, value, kinds)), (schema, value, kinds, outcome)
        assert outcomes(decoder.decode(pa.array([value])), 1) == [outcome], (schema, value, kinds)
    accepted = {value for value, outcome in zip(values, found, strict=True) if not isinstance(outcome, str)}
    assert set(good) <= accepted


LIST = {
    "type": "record",
    "name": "List",
    "fields": [{"name": "id", "type": "int"}, {"name": "next", "type": ["null", "List"]}],
}
ITEMS = {
    "type": "record",
    "name": "Order",
    "fields": [
        {
            "name": "items",
            "type": {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "Item",
                    "fields": [{"name": "sku", "type": "string"}, {"name": "number", "type": "long"}],
                },
            },
        },
        {"name": "id", "type": "long"},
    ],
}


def list_of(levels: int) -> bytes:
    return b"".join(number(level) + b"\2" for level in range(levels - 1)) + number(levels - 1) + b"\0"


def order(items: int, key: int) -> bytes:
    rows = b"".join(number(4) + b"%04d" % (i % 1000) + number(i) for i in range(items))
    return (number(items) + rows if items else b"") + b"\0" + number(key)


@pytest.mark.parametrize("companions", [0, 100])
def test_a_record_in_itself_ends_at_500_levels(companions: int) -> None:
    """A list of records is read to 500 levels, alone and beside others; a longer one is refused, and ends nothing."""
    values = [*(list_of(n) for n in (1, 2, 17, 499, 500, 501, 200_000)), *[list_of(3)] * companions]
    decoded = decode(LIST, everything(("id",), ("next", "next", "id")), values)
    assert {row: why.partition(" at ")[0] for row, why in decoded.refused.items()} == {
        5: "is nested more than 500 levels",
        6: "is nested more than 500 levels",
    }
    assert decoded.columns[0].to_pylist() == [0, 0, 0, 0, 0, None, None, *[0] * companions]
    assert decoded.columns[1].to_pylist() == [None, None, 2, 2, 2, None, None, *[2] * companions]


def test_a_long_array_is_read_like_a_short_one() -> None:
    """One record of very many items has the keys of its own, and so have its neighbours."""
    values = [order(n % 4, n) for n in range(200)]
    values[70] = order(20_000, 70)
    decoded = decode(ITEMS, everything(("id",), ("items", 2, "number"), ("items", 19_999, "sku")), values)
    assert not decoded.refused
    assert decoded.columns[0].to_pylist() == list(range(200))
    assert decoded.columns[1].to_pylist() == [2 if n % 4 == 3 or n == 70 else None for n in range(200)]
    assert [row for row, there in enumerate(~decoded.missing[2]) if there] == [70]
    assert decoded.columns[2][70].as_py() == b"0999"


def test_items_without_bytes_cost_nothing() -> None:
    """An array of nulls may have any number of items: it is stepped over at once, and what follows is read."""
    schema = {
        "type": "record",
        "name": "R",
        "fields": [{"name": "nulls", "type": {"type": "array", "items": "null"}}, {"name": "id", "type": "int"}],
    }
    values = [number(2**62) + number(-5) + number(0) + b"\0" + number(n) for n in range(50)]
    for some in (values, values[:3]):
        decoded = decode(schema, everything(("id",), ("nulls", 0)), some)
        assert decoded.columns[0].to_pylist() == list(range(len(some)))
        assert decoded.missing[1].all()
        assert not decoded.refused


def field(kind: Any) -> Any:
    return {"type": "record", "name": "R", "fields": [{"name": "a", "type": kind}]}


def column_of(kind: Any, values: list[bytes]) -> pa.Array:
    """Return the column of field `a`; values take turns among others, and are read alone as well."""
    many = values * (MANY // len(values) + 1)
    decoded = decode(field(kind), everything(("a",)), many)
    assert not decoded.refused
    alone = decode(field(kind), everything(("a",)), values)
    assert decoded.columns[0].slice(0, len(values)).equals(alone.columns[0])
    return alone.columns[0]


def logical(kind: str, name: str, **facts: int) -> dict[str, Any]:
    return {"type": kind, "logicalType": name, **facts}


TIMES = {
    "timestamp-millis": pa.timestamp("ms", "UTC"),
    "timestamp-micros": pa.timestamp("us", "UTC"),
    "timestamp-nanos": pa.timestamp("ns", "UTC"),
    "local-timestamp-millis": pa.timestamp("ms", "UTC"),
    "local-timestamp-micros": pa.timestamp("us", "UTC"),
    "local-timestamp-nanos": pa.timestamp("ns", "UTC"),
    "time-micros": pa.int64(),
    "unheard-of": pa.int64(),
}


@pytest.mark.parametrize("name", TIMES)
def test_times(name: str) -> None:
    """A time has its unit, and the number that was written; a logical type that nobody knows is none."""
    column = column_of(logical("long", name), [number(-(2**63)), number(-1), number(2**63 - 1)])
    assert column.type == TIMES[name]
    assert column.cast(pa.int64()).to_pylist() == [-(2**63), -1, 2**63 - 1]


def test_dates() -> None:
    """A date is a day; one beyond Arrow's days is the last there is, which is none of a time."""
    column = column_of(logical("int", "date"), [number(0), number(-719_162), number(2**40), number(-(2**40))])
    assert column.type == pa.date32()
    assert column.cast(pa.int32()).to_pylist() == [0, -719_162, 2**31 - 1, -(2**31)]


def twos_complement(value: int, size: int) -> bytes:
    return value.to_bytes(size, "big", signed=True)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-(10**40), 10**40), st.integers(0, 20)), min_size=1, max_size=60),
    st.sampled_from([0, 2, 38]),
)
@example([(10**38 - 1, 0), (-(10**38), 0), (2**127 - 1, 0), (0, 0), (-1, 30)], 2)
def test_decimals_are_exact(numbers: list[tuple[int, int]], scale: int) -> None:
    """A decimal of bytes has the value of its bytes, however many are in front of it."""
    texts = [twos_complement(n, (n.bit_length() + 8) // 8 + extra) for n, extra in numbers]
    column = column_of(logical("bytes", "decimal", precision=38, scale=scale), [number(len(t)) + t for t in texts])
    with localcontext(prec=60):
        expected = [Decimal(n).scaleb(-scale) for n, _ in numbers]
        found = column.to_pylist()
        assert [Decimal(value.decode()) if isinstance(value, bytes) else value for value in found] == expected


def test_a_decimal_may_have_no_bytes_or_a_fixed_number() -> None:
    """No bytes are 0, as Java and Python read them; a fixed decimal has its sign in the first byte."""
    assert column_of(logical("bytes", "decimal", precision=9, scale=1), [b"\0", b"\2\xff"]).to_pylist() == [
        Decimal("0.0"),
        Decimal("-0.1"),
    ]
    fixed = {"type": "fixed", "name": "F", "size": 20, "logicalType": "decimal", "precision": 40, "scale": 3}
    numbers = [10**37, -(10**37), 0, -1]
    column = column_of(fixed, [twos_complement(n, 20) for n in numbers])
    assert column.type == pa.decimal128(38, 3)
    assert column.to_pylist() == [Decimal(n).scaleb(-3) for n in numbers]


def test_other_leaves() -> None:
    """Symbols are texts, a uuid is text or 16 bytes, a fixed is bytes, and text need not be UTF-8."""
    enum = {"type": "enum", "name": "E", "symbols": ["RED", "GREEN"]}
    assert column_of(enum, [number(1), number(0)]).to_pylist() == [b"GREEN", b"RED"]
    uuid = {"type": "fixed", "name": "F", "size": 16, "logicalType": "uuid"}
    assert column_of(uuid, [bytes(range(16))]).type == pa.binary(16)
    assert column_of(logical("string", "uuid"), [number(2) + b"ab"]).to_pylist() == [b"ab"]
    assert column_of({"type": "fixed", "name": "F", "size": 3}, [b"abc", b"\0\0\0"]).to_pylist() == [b"abc", b"\0\0\0"]
    assert column_of("string", [number(2) + b"\xff\0"]).to_pylist() == [b"\xff\0"]


def test_branches_of_several_types_become_texts() -> None:
    """A path whose branches have several types that a key takes has the text form of each."""
    fixed = {"type": "fixed", "name": "F", "size": 2, "logicalType": "decimal", "precision": 4, "scale": 1}
    found = column_of(["null", "long", fixed], [b"\0", b"\2" + number(-7), b"\4\x00\x0f"])
    assert found.to_pylist() == [None, b"-7", b"1.5"]
    times = [b"\0" + number(1), b"\2" + number(1500)]
    assert column_of([logical("int", "date"), logical("long", "timestamp-millis")], times).to_pylist() == [
        b"1970-01-02 00:00:00Z",
        b"1970-01-01 00:00:01.500Z",
    ]


def test_a_branch_that_is_no_key_is_wrong() -> None:
    """A branch of another type than the key's is named, and its neighbours have their keys."""
    kind = ["null", "int", "string", {"type": "record", "name": "S", "fields": [{"name": "b", "type": "int"}]}]
    values = [b"\0", b"\2\x0e", b"\4\2a", b"\6\x10"] * 10
    wanted = [Wanted(("a",), lambda leaf: leaf.arrow == pa.int64()), Wanted(("a", "b"), lambda _: True)]
    decoded = decode(field(kind), wanted, values)
    assert decoded.columns[0].to_pylist() == [None, 7, None, None] * 10
    assert decoded.columns[1].to_pylist() == [None, None, None, 8] * 10
    assert {row % 4: why for row, why in decoded.wrong[0].items()} == {2: "string", 3: "record"}
    assert decoded.missing[1].tolist() == [True, True, True, False] * 10
    assert decoded.missing[0].sum() == 0


def test_of_two_entries_of_one_name_the_last_counts() -> None:
    """An entry of a map replaces an earlier one of the same name, also if its value is null."""
    values = [number(2) + number(1) + b"k" + b"\2\x0e" + number(1) + b"k" + last + b"\0" for last in (b"\2\x10", b"\0")]
    decoded = decode(field({"type": "map", "values": ["null", "int"]}), everything(("a", "k")), values * MANY)
    assert decoded.columns[0].to_pylist() == [8, None] * MANY
    assert not decoded.missing[0].any()


PLAIN = {
    "type": "record",
    "name": "R",
    "fields": [
        {"name": "text", "type": "string"},
        {"name": "union", "type": ["null", "int"]},
        {"name": "enum", "type": {"type": "enum", "name": "E", "symbols": ["A", "B"]}},
        {"name": "array", "type": {"type": "array", "items": "string"}},
    ],
}
REFUSED = {
    "": "ends too early, after 0 bytes",
    "80": "ends too early, after 1 bytes",
    "ff" * 10: "has an integer of more than 10 bytes at byte 0",
    "ff" * 9: "ends too early, after 9 bytes",
    "0661": "ends too early, after 2 bytes",
    "05": "has a negative length at byte 1",
    "026104": "names a branch of a union that is not there at byte 3",
    "026103": "names a branch of a union that is not there at byte 3",
    "02610004": "names a symbol that is not there at byte 4",
    "02610001": "names a symbol that is not there at byte 4",
    "0261000006": "has a number of items that cannot be at byte 5",
    "02610000" + "ff" * 9 + "01" + "00": "has a number of items that cannot be at byte 15",
    "026100000100": "has a number of items that cannot be at byte 6",
    "026100000000": "has bytes behind its end at byte 5",
}


@pytest.mark.parametrize("companions", [0, 100])
@pytest.mark.parametrize("text", REFUSED)
def test_reasons(text: str, companions: int) -> None:
    """The reason says what is wrong, and at which byte, side by side with others and alone."""
    values = [bytes.fromhex(text), *[bytes.fromhex("0261000000")] * companions]
    decoded = decode(PLAIN, everything(("text",)), values)
    assert decoded.refused == {0: REFUSED[text]}
    assert decoded.columns[0].to_pylist() == [None, *[b"a"] * companions]


def test_a_decimal_of_thousands_of_digits_is_read() -> None:
    """It comes as text, of which its type says that it has too many digits; its neighbours are as they were."""
    kind = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
    digits = b"\x11" * 2000
    decoded = decode(kind, everything(()), [number(len(digits)) + digits, b"\2\1"])
    found = [Decimal(text.decode()) for text in decoded.columns[0].to_pylist()]
    assert found == [Decimal((0, Decimal(int.from_bytes(digits, "big")).as_tuple().digits, -2)), Decimal("0.01")]
