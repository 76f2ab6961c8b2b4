"""The format `avro`: types from the schema, reasons of dead letters, and errors before work."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tasks.arrow import HEADERS, RECORD
from tasks.errors import SettingsError
from tasks.formats.avro.schema import parse_schema
from tasks.formats.avro.types import (
    ColumnTypeError,
    NoSuchColumnError,
    find_leaves,
    list_columns,
    resolve_type,
    takes,
)
from tasks.formats.registry import describe_format, make_format
from tasks.settings.column_types import INT, TEXT, ColumnType
from tasks.settings.job import Job, load_job
from tests.avro_values import number

ORDER = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "sku", "type": ["null", "string", "int"]},
        {
            "name": "customer",
            "type": {"type": "record", "name": "Customer", "fields": [{"name": "name", "type": "string"}]},
        },
        {"name": "items", "type": {"type": "array", "items": "int"}},
    ],
}


def order(key: int, sku: bytes, name: bytes, items: bytes = b"\0") -> bytes:
    return number(key) + sku + number(len(name)) + name + items


def records(values: list[bytes | None]) -> pa.Table:
    count = len(values)
    return pa.table(
        {
            "value": pa.array(values, pa.binary()),
            "key": pa.nulls(count, pa.binary()),
            "headers": pa.nulls(count, HEADERS),
            "timestamp": pa.array([0] * count, pa.int64()),
            "partition": pa.array([3] * count, RECORD.field("partition").type),
            "offset": pa.array(range(count), pa.int64()),
        },
        RECORD,
    )


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    file = tmp_path / "order.avsc"
    file.write_text(json.dumps(ORDER))
    return file


def job(schema: Path, *sorts: str, **settings: Any) -> Job:
    return Job(source_topic="orders", format="avro", avro_schema=schema, sorts=list(sorts), **settings)


def test_types_come_from_the_schema(schema: Path) -> None:
    """A column that is given no type has the schema's, the ledger has each, and keys are those of the values."""
    made = job(schema, "id:desc", "customer.name", "sku:text:nulls-last", "items[1]:asc:nulls-first")
    fmt = make_format(made)
    assert describe_format(made)["columns"] == "id:int,customer.name:text,sku:text,items[1]:int"
    assert describe_format(made)["name"] == "avro"
    assert [key.type for key in fmt.keys] == [INT, TEXT, TEXT, INT]
    values = [order(7, b"\2\2a", b"Ada"), order(-1, b"\0", b"", b"\4\2\x0a\0")] * 20
    parsed = fmt.parse(records([*values]))
    assert not parsed.rejected
    assert {name: column.to_pylist()[:2] for name, column in parsed.columns.items()} == {
        "id": [7, -1],
        "customer.name": [b"Ada", b""],
        "sku": [b"a", None],
        "items[1]": [None, 5],
    }


@pytest.mark.parametrize("companions", [0, 50])
def test_reasons(schema: Path, companions: int) -> None:
    """A dead letter's reason is the first column's that refuses it; malformed values have no columns."""
    fmt = make_format(job(schema, "sku:text", "items[0]"))
    values = [
        order(1, b"\2\2a", b"", b"\2\2\0"),
        None,
        order(1, b"\2\2a", b""),
        order(1, b"\0", b"", b"\2\2\0"),
        order(1, b"\4\2", b""),
        order(1, b"\2\2a", b"") + b"x",
        b"",
    ]
    parsed = fmt.parse(records([*values, *values[:1] * companions]))
    assert parsed.rejected == {
        1: "null value",
        2: "column items[0] is missing",
        3: "column sku is null",
        4: "column sku is no text: it is int in its schema",
        5: "the value has bytes behind its end at byte 6",
        6: "the value ends too early, after 0 bytes",
    }
    assert parsed.columns["sku"].to_pylist() == [b"a"] * (1 + companions)


def test_a_job_keeps_the_schema_that_it_was_made_with(schema: Path) -> None:
    """Stages of a run have the schema's text, also where its file is not, and its digest is in the ledger."""
    made = job(schema, "id")
    digest = describe_format(made)["schema"]
    copied = made.model_copy()
    schema.unlink()
    assert describe_format(copied)["schema"] == digest
    assert len(digest) == 64


REFUSED: dict[str, str] = {
    "customer.nam": "no Avro schema has a column 'customer.nam': there are id, sku, customer.name, items; did you mean"
    " customer.name",
    "customer": "column customer is record in its Avro schema: sort by a field within it",
    "sku": "column sku is int and string in its Avro schema: give it a type, as sku:text",
    "customer.name:int": "column customer.name is string in its Avro schema, which type int does not take: use text",
    "id:text": "column id is long in its Avro schema, which type text does not take: use int",
}


@pytest.mark.parametrize("sort", REFUSED)
def test_columns_that_the_schema_does_not_have(schema: Path, sort: str) -> None:
    """A column that the schema does not have, or has by another type, is named before any work, with the way out."""
    kind = NoSuchColumnError if sort == "customer.nam" else ColumnTypeError
    with pytest.raises(SettingsError) as caught:
        make_format(job(schema, sort))
    assert type(caught.value) is kind
    assert REFUSED[sort] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_that_do_not_fit(schema: Path, tmp_path: Path) -> None:
    """Avro without a schema, a schema without Avro, a file that is not there, and one that is no schema are refused."""
    wrong = tmp_path / "wrong.avsc"
    wrong.write_text("{}")
    flags = {"source_topic": "s", "sorts": ["id"]}
    needs = "--format avro needs --schema-registry ADDRESS or --avro-schema FILE"
    with pytest.raises(SettingsError, match=rf"avro_schema.* is missing: {needs}"):
        load_job({**flags, "format": "avro"}, {})
    with pytest.raises(SettingsError, match=r"avro_schema.* is for --format avro"):
        load_job({**flags, "avro_schema": schema}, {})
    with pytest.raises(SettingsError, match=r"avro_schema.* cannot be read: .*No such file"):
        load_job({**flags, "format": "avro", "avro_schema": tmp_path / "absent"}, {})
    with pytest.raises(SettingsError, match=r"wrong.avsc is no Avro schema: {} is no type"):
        make_format(load_job({**flags, "format": "avro", "avro_schema": wrong}, {}))


def test_a_type_takes_what_the_table_says() -> None:
    """A number is no text and a text no number; times and uuids may be written as texts."""
    kinds = {
        name: find_leaves([parse_schema(json.dumps({"type": "record", "name": "R", "fields": [field]}))], ("a",))[0]
        for name, field in {
            "long": {"name": "a", "type": "long"},
            "string": {"name": "a", "type": "string"},
            "bytes": {"name": "a", "type": "bytes"},
            "record": {"name": "a", "type": {"type": "record", "name": "S", "fields": []}},
        }.items()
    }
    found = {
        (name, kind)
        for name, leaf in kinds.items()
        for kind in ("int", "text", "time", "time(ms)", "uuid")
        if name != "long" or kind in {"int", "text"}
        if takes(ColumnType(*kind.removesuffix(")").split("(")), leaf)
    }
    assert found == {
        ("long", "int"),
        ("string", "text"),
        ("string", "time"),
        ("string", "uuid"),
        ("bytes", "text"),
    }


def test_schemas_together() -> None:
    """A column that one of several schemas has is known; a record in itself ends the list of columns."""
    first = parse_schema(json.dumps(ORDER))
    fields = [{"name": "note", "type": "string"}, {"name": "next", "type": ["null", "L"]}]
    second = parse_schema(json.dumps({"type": "record", "name": "L", "fields": fields}))
    assert resolve_type([first, second], "note", None) == TEXT
    with pytest.raises(NoSuchColumnError):
        resolve_type([first, second], "not", None)
    with pytest.raises(ColumnTypeError):
        resolve_type([first, second], "note", INT)
    assert list_columns([second]) == ["note"]
    assert resolve_type([first, second], "next.next.note", None) == TEXT
