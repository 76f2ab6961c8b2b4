"""The JSON format: every value is accepted with its typed keys, or rejected with a reason, by its own bytes alone."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings

from tasks.formats import json_reader, json_search
from tasks.formats.json import JsonFormat
from tasks.formats.json_reader import JsonReader
from tasks.formats.json_strict import MOST_LEVELS, read_tokens
from tasks.formats.key_formats import JsonKeys
from tasks.formats.registry import describe_format, make_format
from tasks.settings.column_types import ColumnType, parse_type
from tasks.settings.job import Job
from tasks.settings.paths import format_path, parse_path
from tasks.settings.sorts import KeyColumn
from tests.json_values import BOM, Missing, Number, blocks, documents, expect, mutated

PATHS = ["a", "b", "n.a", "items[0]", "items[1].b", '"a.b"', '""', "n.nan"]
KINDS = ["int", "decimal", "bool", "text", "time", "uuid", "float", "time(ms)"]
Outcome = tuple[bytes | None, ...] | str


def read(keys: list[tuple[str, str]], values: list[bytes | None], *, nulls: bool = True) -> list[Outcome]:
    """Return the texts that each value's types would read, or the reason of its refusal."""
    columns = [KeyColumn(path, parse_type(kind), nulls) for path, kind in keys]
    return outcomes(JsonReader(columns, [parse_path(path) for path, _ in keys]), pa.array(values, pa.binary()))


def outcomes(reader: JsonReader, values: pa.Array) -> list[Outcome]:
    columns, rejected = reader.read(values)
    assert {column.type for column in columns.values()} == {pa.binary()}
    for column in columns.values():
        column.validate(full=True)
        assert len(column) == len(values)
    rows = zip(*(column.to_pylist() for column in columns.values()), strict=True)
    return [rejected.get(i, row) for i, row in enumerate(rows)]


def one(value: bytes, kind: str = "text", path: str = "a", *, nulls: bool = True) -> bytes | str | None:
    (outcome,) = read([(path, kind)], [value], nulls=nulls)
    return outcome if isinstance(outcome, str) else outcome[0]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_equal_bytes_have_an_equal_fate(data: st.DataObject) -> None:
    """A value has the keys or the reason that it has alone: whatever its neighbours, its place, the block, the path."""
    block = data.draw(blocks())
    keys = [(path, data.draw(st.sampled_from(KINDS))) for path in data.draw(st.permutations(PATHS))[:3]]
    nulls = data.draw(st.booleans())
    columns = [KeyColumn(path, parse_type(kind), nulls) for path, kind in keys]
    reader = JsonReader(columns, [parse_path(path) for path, _ in keys])
    alone = {value: outcomes(reader, pa.array([value], pa.binary()))[0] for value in block}
    for order in (block, data.draw(st.permutations(block))):
        whole, cut = pa.array(order, pa.binary()), data.draw(st.integers(0, len(order)))
        expected = [alone[value] for value in order]
        assert outcomes(reader, whole) == expected
        assert outcomes(reader, whole.slice(0, cut)) + outcomes(reader, whole.slice(cut)) == expected


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.one_of(documents(), mutated()), min_size=1, max_size=12),
    path=st.sampled_from(PATHS),
    kind=st.sampled_from(KINDS),
)
def test_agreement_with_a_strict_parser(values: list[bytes], path: str, kind: str) -> None:
    """What is no JSON for Python's parser is refused; else the key is what it finds, with all digits of a number."""
    for value, outcome in zip(values, read([(path, kind)], list(values)), strict=True):
        assert_agreement(value, path, kind, outcome if isinstance(outcome, str) else outcome[0])


def assert_agreement(value: bytes, path: str, kind: str, outcome: bytes | str | None) -> None:
    try:
        found = expect(value, parse_path(path))
    except ValueError:
        assert isinstance(outcome, str)
        assert outcome.startswith(("not JSON (", "empty value"))
        return
    if not accepts(kind, found):
        assert isinstance(outcome, str)
        assert outcome.startswith(f"column {path} is not ")
    elif found is Missing or found is None:
        assert outcome is None
    elif isinstance(found, Number):
        assert isinstance(outcome, bytes)
        assert_same_number(kind, outcome, found)
    else:
        assert outcome == (found.encode() if isinstance(found, str) else json.dumps(found).encode())


def accepts(kind: str, found: Any) -> bool:
    """Whether the table of types takes it."""
    if found is Missing or found is None:
        return True
    if isinstance(found, Number):
        is_integer = not set(found) & set(".eE")
        return kind in {"decimal", "float"} or (kind in {"int", "time(ms)"} and is_integer)
    if isinstance(found, bool):
        return kind == "bool"
    return isinstance(found, str) and kind in {"text", "time", "uuid"}


def assert_same_number(kind: str, outcome: bytes, digits: str) -> None:
    from decimal import Decimal

    if kind == "float":
        assert float(outcome) == float(digits)
    else:
        assert Decimal(outcome.decode()) == Decimal(digits)


EDGES: list[tuple[bytes, str, bytes | str | None]] = [
    (b'{"a":9007199254740993}', "int", b"9007199254740993"),
    (b'{"a":9223372036854775807}', "int", b"9223372036854775807"),
    (b'{"a":18446744073709551616}', "int", b"18446744073709551616"),
    (b'{"a":-0}', "int", b"0"),
    (b'{"a":1.0}', "int", "column a is not an integer: '1.0'"),
    (b'{"a":1e3}', "int", "column a is not an integer: '1e3'"),
    (b'{"a":"7"}', "int", "column a is not an integer: '\"7\"'"),
    (b'{"a":true}', "int", "column a is not an integer: 'true'"),
    (b'{"a":{"b":1}}', "int", "column a is not an integer: an object"),
    (b'{"a":[1]}', "text", "column a is not a string: an array"),
    (b'{"a":7}', "text", "column a is not a string: '7'"),
    (b'{"a":"true"}', "bool", "column a is not a bool: '\"true\"'"),
    (b'{"a":false}', "bool", b"false"),
    (b'{"a":0.12345678901234567890123}', "decimal", b"0.12345678901234567890123"),
    (b'{"a":1.0000000000000000001}', "decimal", b"1.0000000000000000001"),
    (b'{"a":1.10}', "decimal", b"1.1"),
    (b'{"a":1e400}', "float", b"1e400"),
    (b'{"a":1e-400}', "decimal", b"1e-400"),
    (b'{"a":0.0}', "decimal", b"0.0"),
    (b'{"a":1,"a":2}', "int", b"1"),
    (b'{"\\u0061":1,"a":2}', "int", b"1"),
    (b'{"a\\u0000b":1,"a":2}', "int", b"2"),
    (b'{"a":"x\\u0000y"}', "text", b"x\x00y"),
    (b'{"a":"\\ud83d\\ude00"}', "text", "😀".encode()),
    (b'{"a":"a\\/b\\n\\"\\\\"}', "text", b'a/b\n"\\'),
    (BOM + b' {\r\n\t"a" : "x" }\n', "text", b"x"),
    (b'{"a":null}', "text", None),
    (b"{}", "text", None),
    (b"[]", "text", None),
    (b"5", "text", None),
    (b'{"a":{"b":1}}', "bool", "column a is not a bool: an object"),
]
BROKEN: list[tuple[bytes, int]] = [
    (b'{"b":NaN}', 5),
    (b'{"b":-Infinity}', 5),
    (b'{"b":nan}', 5),
    (b'{"b":[inf]}', 6),
    (b'{"b":-INF}', 5),
    (b'{"a":1,}', 6),
    (b'{"b":[1,2 , ]}', 10),
    (b'{"a":1}//x', 7),
    (b'{"a":/**/1}', 5),
    (b'{"a":1} {"a":2}', 8),
    (b'{"b":"\\ud800"}', 6),
    (b'{"\\udc00":1}', 2),
    (b'{"b":"\xff"}', 6),
    (BOM + b'{"b":"\xff"}', 9),
    (b'{"\xc0\x80":1}', 2),
    (b'{"b":"\xed\xa0\x80"}', 6),
    (b'{"b":"\x01"}', 6),
    (b'{"b":01}', 5),
    (b'{"b":.5}', 5),
    (b'{"b":+1}', 5),
    (b'{"b":0x10}', 6),
    (b'{"b":1', 6),
    (b"{'a':1}", 1),
    (BOM + BOM + b"{}", 3),
    (b'{"a":1}\x00', 7),
    (b'{"b":"\xc3\xa9",}', 9),
    (b" ", 1),
    (b"1,2,3", 1),
    (b'{"b":' + b"[" * MOST_LEVELS + b"]" * MOST_LEVELS + b"}", 4 + MOST_LEVELS),
]


@pytest.mark.parametrize(("value", "kind", "expected"), EDGES)
def test_edges(value: bytes, kind: str, expected: bytes | str | None) -> None:
    """Each has the key of docs/formats.md, alone and in a block with broken ones."""
    assert one(value, kind) == expected
    wanted = expected if isinstance(expected, str) else (expected,)
    assert read([("a", kind)], [b'{"a":', value, b"x", value]) == [
        one(b'{"a":', kind),
        wanted,
        one(b"x", kind),
        wanted,
    ]


@pytest.mark.parametrize(("value", "byte"), BROKEN)
def test_what_is_not_json(value: bytes, byte: int) -> None:
    """It is refused wherever it is broken, and the reason names the byte; a good neighbour keeps its key."""
    reason, good = read([("a", "int")], [value, b'{"a":5}'])
    assert isinstance(reason, str)
    assert reason.startswith("not JSON (")
    assert f"byte {byte})" in reason
    assert good == (b"5",)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" + "0" * 400, "0." + "1" * 400])
def test_numbers_beyond_a_double(number: str) -> None:
    """They are JSON, with all their digits, though the parser that explains refusals cannot read them."""
    assert read_tokens(f'{{"b":"NaN","a":{number}}}'.encode(), [("a",)]) == [number]


def test_values_that_are_not_utf_8_cost_no_second_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they are few the others of their block are read by the usual query; where many are beyond ASCII, not."""
    queries = list[str]()
    usual = JsonReader._query

    def note(reader: JsonReader, tokens: str, view: pa.Array) -> pa.Table:
        queries.append(tokens.split("(", maxsplit=1)[0])
        return usual(reader, tokens, view)

    monkeypatch.setattr(JsonReader, "_query", note)
    plain, bad, foreign = b'{"a":1}', b'{"a":1,"b":"\xff"}', '{"a":1,"b":"é"}'.encode()
    few, many = [*[plain] * 98, foreign, bad], [*[foreign] * 99, bad]
    found = read([("a", "int")], list(few))
    assert found[:99] == [(b"1",)] * 99
    assert "not UTF-8, byte 12)" in str(found[99])
    assert queries == ["json_extract", "json_extract"]
    assert read([("a", "int")], list(many)) == found
    assert queries[2:] == ["json_extract", "CASE WHEN json_valid"]


def test_missing_and_null() -> None:
    """The reason tells them apart; the first column that refuses gives it."""
    assert one(b'{"a":null}', nulls=False) == "column a is null"
    assert one(b'{"b":1}', nulls=False) == "column a is missing"
    assert one(b'{"a":{"b":{}}}', path="a.b.c", nulls=False) == "column a.b.c is missing"
    assert one(b'{"a":[1]}', "int", "a[1]", nulls=False) == "column a[1] is missing"
    assert read([("a", "int"), ("b", "int")], [b"{}"], nulls=False) == ["column a is missing"]
    fmt = JsonFormat({}, [KeyColumn("a", ColumnType("int"))])
    parsed = fmt.parse_values(pa.array([None, b"", b'{"a":1}'], pa.binary()))
    assert parsed.rejected == {0: "null value", 1: "empty value"}
    assert parsed.columns["a"].to_pylist() == [1]


@pytest.mark.parametrize(
    "name",
    ["a.b", 'q"x', "b\\s", "*", "**", "$", "#", "", "0", "[0]", "a~/b", "é", " ", "'", '\\"', "#-1", "n\nl", "{}"],
)
@pytest.mark.parametrize("nested", [False, True])
def test_any_name_is_a_path(name: str, nested: bool) -> None:  # noqa: FBT001
    """Names with signs of DuckDB's own notation are names; an index is not a name, nor a name an index."""
    path: tuple[str | int, ...] = ("list", 1, name) if nested else (name,)
    inner = {name + "x": 2, "x": 3, "*y": 4} | {name: 1}
    value = json.dumps({"list": [0, inner]} if nested else inner).encode()
    reader = JsonReader([KeyColumn(format_path(path), ColumnType("int"), nulls=True)], [path])
    assert outcomes(reader, pa.array([value, b"[1,2]", b"{}"], pa.binary())) == [(b"1",), (None,), (None,)]
    assert parse_path(format_path(path)) == path


def test_an_index_and_a_name_differ() -> None:
    """`a[0]` is an item, `a."0"` a member."""
    values: list[bytes | None] = [b'{"a":[5]}', b'{"a":{"0":6}}']
    assert read([("a[0]", "int"), ("a.0", "int")], values) == [(b"5", None), (None, b"6")]


def test_levels_of_nesting() -> None:
    """500 are permitted, brackets in strings are none, and siblings do not count."""
    deep = b'{"b":' + b"[" * (MOST_LEVELS - 1) + b"]" * (MOST_LEVELS - 1) + b',"a":1}'
    assert one(deep, "int") == b"1"
    assert one(b'{"b":[' + deep + b'],"a":1}', "int") == one(b'{"b":[' + deep + b'],"a":1}', "text")
    text = b'{"b":"' + b'[{\\"' * 600 + b'","a":1}'
    assert one(text, "int") == b"1"
    assert one(b'{"a":1,"b":[' + b",".join([b"[{}]"] * 600) + b"]}", "int") == b"1"


def test_long_strings_and_numbers_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long numbers of other members, and texts like NaN or commas at an end, cost no strict look."""
    values = [b'{"a":1.5,"id":"12345678901234567890","f":0.1234567890123456789,"t":"info, nan,] ,}","i":"information"}']
    monkeypatch.setattr(json_reader, "read_tokens", lambda *_: pytest.fail("read strictly"))
    assert read([("a", "decimal"), ("t", "text")], list(values)) == [(b"1.5", b"info, nan,] ,}")]


def test_search_over_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies across the border of two windows, or of two blocks, is found."""
    monkeypatch.setattr(json_search, "_WINDOW", 7)
    monkeypatch.setattr(json_reader, "_BLOCK_BYTES", 40)
    for padding in range(9):
        values: list[bytes | None] = [b'{"a":%d}' % i for i in range(9)]
        values[4] = b'{"a":1,"%s":[NaN]}' % (b"p" * padding)
        values[6] = b'{"a":1%s,}' % (b" " * padding)
        found = read([("a", "int")], values)
        assert [i for i, outcome in enumerate(found) if isinstance(outcome, str)] == [4, 6]
        assert found[8] == (b"8",)


def test_a_huge_record() -> None:
    """An array of a million items is a value like others, also where it must be read strictly."""
    huge = b'{"items":[' + b",".join([b"1234567"] * 1_000_000) + b'],"a":0.1234567890123456789}'
    good, bad, small = read([("a", "decimal")], [huge, huge[:-1], b'{"a":2}'])
    assert (good, small) == ((b"0.1234567890123456789",), (b"2",))
    assert isinstance(bad, str)
    assert f"byte {len(huge) - 1})" in bad


def test_threads_have_readers_of_their_own() -> None:
    """Two dumps at once, each with its format, do not disturb each other."""
    barrier = threading.Barrier(4)

    def work(number: int) -> bool:
        fmt = JsonFormat({}, [KeyColumn("a", ColumnType("int"))])
        block = pa.array([b'{"a":%d}' % (number * 1000 + i) for i in range(1000)], pa.binary())
        barrier.wait()
        want = np.arange(1000) + number * 1000
        return all(np.array_equal(np.asarray(fmt.parse_values(block).columns["a"]), want) for _ in range(10))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_what_the_ledger_records() -> None:
    """The columns that sorts name, each with its type; other columns are not of this job's."""
    job = Job(
        source_topic="s", format="json", sorts=["customer.id:desc=t", "sku:text=u"], columns="customer.id:int,x:int"
    )
    assert describe_format(job) == {"name": "json", "columns": "customer.id:int,sku:text", "rules": "2"}
    assert [key.name for key in make_format(job).keys] == ["customer.id", "sku"]


def test_keys_that_are_documents() -> None:
    """`@key` is the whole document, and a path leads into it; a null key is missing, an odd one is named."""
    columns = [KeyColumn("@key", ColumnType("int"), nulls=True), KeyColumn("@key.id", ColumnType("text"), nulls=True)]
    keys = pa.array([b" 7\n", None, b"null", b'{"id":"x"}', b"", b"{"], pa.binary())
    read_keys = JsonKeys().read
    numbers, odd = read_keys(keys, columns[:1])
    assert numbers["@key"].to_pylist()[:3] == [b"7", None, None]
    assert odd == {
        3: "@key is not an integer: an object",
        4: "@key is empty",
        5: "@key is not JSON (unexpected end, byte 1): '{'",
    }
    texts, odd = read_keys(keys, columns[1:])
    assert texts["@key.id"].to_pylist()[:4] == [None, None, None, b"x"]
    assert odd.keys() == {4, 5}
    exact, _ = read_keys(pa.array([b"0.12345678901234567890"]), [KeyColumn("@key", ColumnType("decimal"))])
    assert exact["@key"].to_pylist() == [b"0.12345678901234567890"]


@example(BOM)
@example(b'{"a":nan')
@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40))
def test_bytes_that_are_anything(value: bytes) -> None:
    """The reader survives any bytes, and a good neighbour keeps its key."""
    assert read([("a", "int"), ("b[1]", "text")], [value, b'{"a":5,"b":[1,"x"]}'])[1] == (b"5", b"x")
