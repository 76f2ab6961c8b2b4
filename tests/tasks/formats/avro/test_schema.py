"""Schemas of Avro: what is read, and what is refused with a reason."""

import json
from typing import Any

import pytest

from tasks.formats.avro.schema import (
    Array,
    Enum,
    Fixed,
    Map,
    Primitive,
    Record,
    SchemaError,
    Union,
    is_recursive,
    least_bytes,
    parse_schema,
)


def parsed(schema: Any, *references: Any) -> Any:
    return parse_schema(json.dumps(schema), [json.dumps(item) for item in references])


def test_shapes() -> None:
    """Each shape becomes a type, and a primitive may stand as a bare word, too."""
    assert parse_schema("string") == parsed("string") == parsed({"type": "string"}) == Primitive("string")
    assert parse_schema("null") == parsed("null") == Primitive("null")
    assert parsed({"type": {"type": "array", "items": ["null", {"type": "map", "values": "int"}]}}) == Array(
        Union((Primitive("null"), Map(Primitive("int"))))
    )
    assert parsed({"type": "enum", "name": "E", "symbols": ["A"]}) == Enum(("A",))


def test_names_are_found_by_their_namespace() -> None:
    """A name without dots is one of the namespace around it, or of none; a reference's names are known."""
    inner = {"type": "fixed", "name": "F", "size": 2}
    fields = [{"name": "a", "type": inner}, {"name": "b", "type": "F"}, {"name": "c", "type": "x.y.F"}]
    record = parsed({"type": "record", "name": "R", "namespace": "x.y", "fields": fields})
    assert [kind for _, kind in record.fields] == [Fixed(2)] * 3
    assert record.name == "x.y.R"
    other = {"type": "record", "name": "S", "fields": [{"name": "a", "type": "x.y.F"}]}
    assert parsed(other, {**inner, "namespace": "x.y"}).fields == [("a", Fixed(2))]


def test_a_record_may_hold_itself() -> None:
    """A record that holds itself through a union is one type; its fewest bytes are known."""
    record = parsed({"type": "record", "name": "L", "fields": [{"name": "next", "type": ["null", "L"]}]})
    assert isinstance(record, Record)
    union = record.fields[0][1]
    assert isinstance(union, Union)
    assert union.branches[1] is record
    assert is_recursive(record)
    assert least_bytes(record) == 1


LOGICAL = [
    ({"type": "long", "logicalType": "timestamp-millis"}, "timestamp-millis", 0),
    ({"type": "int", "logicalType": "timestamp-millis"}, "", 0),
    ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, "decimal", 2),
    ({"type": "bytes", "logicalType": "decimal", "precision": 4}, "decimal", 0),
    ({"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 4}, "", 0),
    ({"type": "bytes", "logicalType": "decimal"}, "", 0),
    ({"type": "string", "logicalType": "uuid"}, "uuid", 0),
    ({"type": "fixed", "name": "F", "size": 16, "logicalType": "uuid"}, "uuid", 0),
    ({"type": "fixed", "name": "F", "size": 15, "logicalType": "uuid"}, "", 0),
    ({"type": "string", "logicalType": "nobody-knows"}, "", 0),
    ({"type": {"type": "long", "logicalType": "time-micros"}}, "time-micros", 0),
]


@pytest.mark.parametrize(("schema", "logical", "scale"), LOGICAL)
def test_a_logical_type_counts_if_it_fits(schema: Any, logical: str, scale: int) -> None:
    """A logical type that is unknown or does not fit is ignored, as the specification demands."""
    kind = parsed(schema)
    assert (kind.logical, kind.scale) == (logical, scale)


REFUSED = {
    "{": "is not JSON",
    "7": "7 is no type",
    '"Absent"': 'has no type "Absent"',
    '{"type": "record", "name": "R"}': "has no fields",
    '{"type": "record", "name": "R", "fields": [1]}': "1 is no field",
    '{"type": "record", "name": "1", "fields": []}': '"1" is no name',
    '{"type": "record", "fields": []}': "has no name",
    '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}, {"name": "a", "type": "int"}]}': "twice",
    '["int", {"type": "fixed", "name": "F", "size": -1}]': "-1 is no size",
    '[{"type": "fixed", "name": "F", "size": 1}, {"type": "fixed", "name": "F", "size": 1}]': "is given twice",
    '["int", ["int"]]': "a union is in a union",
    "[" * 100_000: "nested too deeply",
}


@pytest.mark.parametrize("text", REFUSED, ids=[text[:40] for text in REFUSED])
def test_what_is_no_schema(text: str) -> None:
    """A text that is no schema is refused with the part that is wrong."""
    with pytest.raises(SchemaError, match=REFUSED[text]):
        parse_schema(text)
