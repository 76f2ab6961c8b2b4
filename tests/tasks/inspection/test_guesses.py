"""Guesses of what values are, by the values alone."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from tasks.formats.schema_registry import SchemaRegistry
from tasks.inspection.fields import describe_keys
from tasks.inspection.framed import FramedGuesser
from tasks.inspection.guesses import Guess, Values
from tasks.inspection.topic import guess_values
from tasks.settings.options import LONGEST_SETTING
from tests.avro_values import number
from tests.framed_records import framed, records
from tests.registry_server import serve_registry


def guess(values: Sequence[bytes | None], registry: SchemaRegistry | None = None) -> Guess:
    return guess_values(Values(records(values)), registry, "source")


def types(found: Guess) -> dict[str, str]:
    return {column.name: column.type for column in found.columns}


ROWS: dict[str, tuple[list[bytes], dict[str, Any]]] = {
    "pipes": ([b"1|a,b|c", b"2|d|e,,"], {"delimiter": "|", "columns": "c1:int,c2,c3"}),
    "blanks": ([b"1 a", b"2 b"], {"delimiter": " ", "columns": "c1:int,c2"}),
    "unit separators": ([b"1\x1fa", b"2\x1fb"], {"delimiter": "\\x1f", "columns": "c1:int,c2"}),
    "Hive's": ([b"1\x01a", b"2\x01b"], {"delimiter": "\\x01", "columns": "c1:int,c2"}),
    "quotes": ([b'"a,b",1', b'c,"2"'], {"columns": "c1,c2:int"}),
    "quotes that are text": ([b'5" pipe,1', b'"7" pipe,2'], {"columns": "c1,c2:int", "csv_quote": "none"}),
    "marks and line breaks": ([b"\xef\xbb\xbf1,a\r\n", b"2,b\n"], {"columns": "c1:int,c2"}),
    "not UTF-8": ([b"1,\xe4", b"2,\xfc"], {"columns": "c1:int,c2"}),
    "empty fields": ([b"1,,x", b",b,y"], {"columns": "c1:int,c2,c3"}),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows(name: str) -> None:
    """Delimiter, quotes and types are those of the rows."""
    values, settings = ROWS[name]
    assert guess(values).settings == {"format": "csv", **settings}


def test_lines_that_two_weak_delimiters_fit() -> None:
    """Blanks divide them, and not the colons within their times."""
    values = [b"2026-01-12T09:00:0%dZ INFO started %d" % (i % 10, i) for i in range(30)]
    assert guess(values).settings == {"format": "csv", "delimiter": " ", "columns": "c1:time,c2,c3,c4:int"}


def test_a_heading() -> None:
    """The first record of a partition names the columns if these are of other types; a row like the others does not."""
    rows = [b"%d,n%d" % (i, i) for i in range(5)]
    found = guess([b"id,name", *rows])
    assert (found.settings["columns"], found.misfits) == ("id:int,name", {0: "it names the columns"})
    assert guess([b"7,name", *rows]).settings["columns"] == "c1:int,c2"
    assert guess([b"id,id", *rows]).settings["columns"] == "c1,c2"
    assert guess([*rows, b"id,name"]).settings["columns"] == "c1,c2"


def test_header_lines() -> None:
    """Fields are found by name, whatever their order; rows that differ in their first line are no header lines."""
    found = guess([b"id,b\n1,x\n", b"b,id\r\ny,2", b"id,b,c\n3,z,7"] * 10)
    assert found.settings == {"format": "csv", "csv_header": True, "columns": "id:int,c:int"}
    assert [(column.name, column.nulls) for column in found.columns] == [("id", 0), ("b", 0), ("c", 20)]
    same = guess([b"id;b\n%d;x" % i for i in range(9)])
    assert same.settings == {"format": "csv", "csv_header": True, "delimiter": ";", "columns": "id:int"}
    assert guess([b"%d,a\n%d,b" % (i, i) for i in range(9)]).settings == {"format": "none"}


def test_more_fields_than_a_setting_holds() -> None:
    """Rows whose fields cannot be named are sorted by record fields."""
    found = guess([b",".join([b"x"] * LONGEST_SETTING)] * 3)
    assert found.settings == {"format": "none"}
    assert "more than --columns can name" in found.notes[0]


def test_documents() -> None:
    """Paths lead to members and first items; a path whose values are of several kinds has no type, but says which."""
    values = [
        json.dumps({"a": {"b": 1}, "c": [{"d": "x"}, {"d": 5}], "m": i if i % 2 else "s", "e": {}, "z": None}).encode()
        for i in range(4)
    ]
    found = guess(values)
    assert types(found) == {"a.b": "int", "c[0].d": "text", "m": "", "e": "", "z": ""}
    notes = {column.name: column.note for column in found.columns}
    assert (notes["m"], notes["e"], notes["z"]) == ("2 strings, 2 numbers", "4 objects", "null wherever it is")
    assert found.settings == {"format": "json", "columns": "a.b:int,c[0].d:text"}


def test_a_path_that_other_documents_go_on_from() -> None:
    """A value that is an object or an array elsewhere has no type; one that is only null elsewhere is no column."""
    values = [b'{"a": 1, "b": "x", "c": null}', b'{"a": {"n": 2}, "b": [3], "c": {"n": 4}}', b'{"a": {}, "c": {}}']
    found = {column.name: (column.type, column.note) for column in guess(values).columns}
    assert found.pop("a") == ("", "2 objects, 1 number")
    assert found.pop("b") == ("", "1 string, 1 array")
    assert found == {"a.n": ("int", ""), "b[0]": ("int", ""), "c.n": ("int", "")}


def test_numbers_of_json() -> None:
    """The type takes the digits as they are written: 1.0 is no int."""
    values = [b'{"i": 1, "d": 1, "w": 1}', b'{"i": -0, "d": 1.0, "w": 123456789012345678901}']
    assert types(guess(values)) == {"i": "int", "d": "decimal", "w": "decimal"}


def test_missing_members() -> None:
    """What some documents lack is null in them."""
    (a, b) = guess([b'{"a": 1, "b": null}', b'{"a": 2}', b'{"a": 3, "b": 1}']).columns
    assert (a.nulls, b.nulls, b.type) == (0, 2, "int")


def test_names_that_are_data() -> None:
    """Documents whose names are ids have no path for each of them."""
    found = guess([json.dumps({f"id-{i}-{j}": j for j in range(10)}).encode() for i in range(100)])
    assert len(found.columns) == 300
    assert found.notes == ["there are more than 300 paths: some names seem to be data"]
    assert len(found.settings["columns"]) <= LONGEST_SETTING


def test_lines_and_documents() -> None:
    """Where some lines are JSON and others are not, all are lines, and the number of documents is told."""
    found = guess([b'{"a": 1}', b"one line", b"2", b"a line, of text", b"{}"])
    assert (found.name, found.notes) == ("lines of text", ["2 of them are JSON"])


def test_deep_and_large_documents() -> None:
    """What is looked at of one document is bounded."""
    deep = b'{"a":' * 400 + b"1" + b"}" * 400
    wide = json.dumps([{f"n{i}": i for i in range(5000)}]).encode()
    assert len(guess([deep, wide]).columns) == 300


BINARY = {
    "gzip": (b"\x1f\x8b\x08\x00abc", "looks like gzip"),
    "UTF-16": ("some text".encode("utf-16"), "looks like text in UTF-16"),
    "bytes": (b"\x03\x04\xff\x00\x02", "looks binary, as Avro or Protobuf without a schema registry"),
}


@pytest.mark.parametrize("name", BINARY)
def test_binary_values(name: str) -> None:
    """Of values that no format reads, the guess says what they look like."""
    value, words = BINARY[name]
    found = guess([value + bytes([i]) for i in range(5)])
    assert (found.name, found.settings) == ("binary", {"format": "none"})
    assert words in found.notes[0]


def test_eight_bytes_are_no_schema_id() -> None:
    """Integers that Kafka's serializers wrote begin with a zero byte, as the wire format does."""
    for first in (0, 1_700_000_000_000):
        values = [(first + i).to_bytes(8, "big") for i in range(50)]
        assert guess(values).name != "Avro or Protobuf of a schema registry"


ONE = {"type": "record", "name": "A", "fields": [{"name": "id", "type": "long"}, {"name": "x", "type": "int"}]}
TWO = {"type": "record", "name": "A", "fields": [{"name": "id", "type": "long"}, {"name": "x", "type": "string"}]}


def test_schemas_that_differ() -> None:
    """Columns are those of all schemas; one of several types is not offered."""
    with serve_registry() as server:
        one, two = server.add(ONE), server.add(TWO)
        values = [framed(one, number(i) + number(i)) for i in range(5)] + [framed(two, number(7) + b"\2x")] * 5
        found = guess(values, SchemaRegistry(server.address, {}, 0))
    assert types(found) == {"id": "int", "x": ""}
    assert found.columns[1].note == "int or text"
    assert found.notes == ["schema id 100 (5 records), 101 (5 records)"]
    assert not found.misfits


def test_an_id_that_is_unknown() -> None:
    """Its records are told, and the job makes them dead letters; where no id is known there is no format."""
    with serve_registry() as server:
        registry, known = SchemaRegistry(server.address, {}, 0), server.add(ONE)
        values = [framed(known, number(i) + number(i)) for i in range(9)]
        found = guess([*values, framed(7, b"x"), None], registry)
        assert found.settings["unknown_schema"] == "dead-letter"
        assert list(found.misfits) == [9]
        other = guess([framed(7, b"xy")] * 3, registry)
    assert (other.name, other.settings) == ("values of another schema registry", {"format": "none"})


def test_json_with_a_schema() -> None:
    """JSON behind an id is no format; with its id in a header it is JSON."""
    with serve_registry() as server:
        registry, known = SchemaRegistry(server.address, {}, 0), server.add("{}", "JSON")
        found = guess([framed(known, b'{"a": 1}')] * 3, registry)
        assert (found.name, found.settings) == ("JSON Schema of a schema registry", {"format": "none"})
        headers = [[("__value_schema_id", b"\0" + known.to_bytes(4, "big"))]] * 3
        bare = Values(records([b'{"a": 1}'] * 3, headers))
        assert FramedGuesser(registry, "s").guess(bare) is None
        assert guess_values(bare, registry, "s").settings == {"format": "json", "columns": "a:int"}


KEYS: dict[str, tuple[list[bytes | None], str, str]] = {
    "none": ([None, None], "none", ""),
    "text": ([b"a", b"b", None], "text", "text"),
    "numbers": ([b"1", b"2"], "text", "int"),
    "eight letters": ([b"abcdefgh"] * 2, "text", "text"),
    "int32": ([b"\0\0\0\7", b"\xff\xff\xff\xff"], "int32", "int"),
    "int64": ([b"\0\0\0\0\0\0\0\7"], "int64", "int"),
    "uuid bytes": ([bytes(range(16)), bytes(range(100, 116))], "binary", "text"),
    "json": ([b'{"id": 1}', b'{"id": 2}'], "json", "text"),
    "framed": ([framed(7, b"abc"), framed(7, b"de")], "of a schema registry", "text"),
}


@pytest.mark.parametrize("name", KEYS)
def test_keys(name: str) -> None:
    """The format of keys is told, with the type that a sort by them takes."""
    given, kind, column_type = KEYS[name]
    found = describe_keys(records([b"x"] * len(given), keys=given), None)
    assert (found.kind, found.column.type, found.column.nulls) == (kind, column_type, given.count(None))


def test_keys_of_a_registry() -> None:
    """With a registry the language of keys is told."""
    with serve_registry() as server:
        known = server.add('"long"')
        found = describe_keys(records([b"x"], keys=[framed(known, b"\2")]), SchemaRegistry(server.address, {}, 0))
    assert found.kind == "avro"
    assert "--key-format avro" in found.note
