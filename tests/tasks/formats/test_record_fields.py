"""Record fields as keys, alone and beside fields of values."""

from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from tasks.arrow import HEADERS
from tasks.errors import SettingsError
from tasks.formats.record_fields import read_field
from tasks.formats.registry import describe_format, make_format
from tasks.kafka.fetch import Block
from tasks.keys import encode_keys
from tasks.settings.column_types import parse_type
from tasks.settings.job import Job, load_job
from tasks.settings.sorts import compares_integers
from tasks.types.registry import key_type

VALUES = [b"3,c", None, b"x,b", b"1,a"]
KEYS = [b"k", b"", b"q", None]
TIMES = [30, 20, 10, -1]


# Names may come twice; a value may be null; a record may have none, or an empty list of them.
Headers = list[tuple[str, bytes | None]] | None
HEADED: list[Headers] = [[("n", b"7"), ("m", b"1"), ("n", b"8")], None, [("m", b"2"), ("n", None)], [("N", b"1")]]


def parse(headers: pa.Array | None = None, **job: object) -> tuple[dict[str, list[object]], dict[int, str]]:
    made = Job.model_validate({"source_topic": "s", "columns": "id:int,name", "timestamps": "keep", **job})
    values, keys = pa.array(VALUES, pa.binary()), pa.array(KEYS, pa.binary())
    headers = pa.nulls(4, HEADERS) if headers is None else headers
    block = Block(values, keys, headers, np.array(TIMES), np.arange(10, 14))
    fmt = make_format(made)
    parsed = fmt.parse(block.table([2, 2, 1, 0]))
    return {n: c.to_pylist() for n, c in encode_keys(fmt.keys, parsed.columns).items()}, parsed.rejected


def test_the_key_of_a_record() -> None:
    """Values are not read: tombstones and values that are no rows have their place; a null key has none."""
    assert parse(sorts=["@key"]) == ({"k0": [b"k", b"", b"q"]}, {3: "@key is null"})
    assert parse(sorts=["@key"], format="none", columns=None) == parse(sorts=["@key"])


def test_null_keys_have_a_flag_where_they_are_permitted() -> None:
    """The column itself is never null: the flag orders its filler."""
    columns, rejected = parse(sorts=["@key:nulls-first"])
    assert columns == {"k0": [b"k", b"", b"q", b""], "n0": [0, 0, 0, 1]}
    assert not rejected


def test_a_null_key_is_permitted_by_all_sorts_or_by_none() -> None:
    """A record that one sort cannot place is a dead letter, and in no output."""
    assert parse(sorts=["@key:nulls-last", "@timestamp,@key"])[1] == {3: "@key is null"}


def test_timestamps() -> None:
    """Timestamps are milliseconds; a record without one has no place."""
    assert parse(sorts=["@timestamp:desc"]) == ({"k0": [30, 20, 10]}, {3: "@timestamp is null"})


def test_beside_fields_of_values() -> None:
    """A record is placed if both parts have its key; each reason is given once."""
    columns, rejected = parse(sorts=["@key,id", "name"])
    assert columns == {"k0": [b"k"], "k1": [3], "k2": [b"c"]}
    assert rejected == {1: "null value", 2: "column id is not an integer: 'x'", 3: "@key is null"}


def test_places() -> None:
    """Partition and offset are integers that every record has, and need no setting."""
    assert parse(sorts=["@partition,@offset:desc"], timestamps="new") == (
        {"k0": [2, 2, 1, 0], "k1": [10, 11, 12, 13]},
        {},
    )


def test_headers() -> None:
    """The last header of the name counts, and is null where its value is, or where there is none."""
    headers = pa.array(HEADED, HEADERS)
    expected = {1: "@header.n is null", 2: "@header.n is null", 3: "@header.n is null"}
    assert parse(headers, sorts=["@header.n"]) == ({"k0": [b"8"]}, expected)
    assert parse(headers, sorts=["@header.n:int:nulls-last"]) == ({"k0": [8, 0, 0, 0], "n0": [0, 1, 1, 1]}, {})
    assert parse(sorts=["@header.n:nulls-first"])[0]["n0"] == [1] * 4
    named: list[Headers] = [[('a,b."c', b"1")], [("n", b"2")], None, None]
    assert parse(pa.array(named, HEADERS), sorts=['@header."a,b.""c":int:nulls-last'])[0]["k0"] == [1, 0, 0, 0]


def test_a_header_of_a_type() -> None:
    """A header that is not of the type is a dead letter, and the reason names it."""
    headers = pa.array([[("n", b"x")], [("n", b"0x1F")], [("n", b" -7")], [("n", b"")]], HEADERS)
    assert parse(headers, sorts=["@header.n:int"]) == (
        {"k0": [31, -7]},
        {0: "@header.n is not an integer: 'x'", 3: "@header.n is not an integer: ''"},
    )


def test_a_key_of_a_type() -> None:
    """Keys of text are integers if the sort says so."""
    assert parse(sorts=["@key:int:nulls-last"])[1] == {
        0: "@key is not an integer: 'k'",
        1: "@key is not an integer: ''",
        2: "@key is not an integer: 'q'",
    }


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_the_last_header_of_a_name(data: st.DataObject) -> None:
    """Each record's header is the one that a loop over its own headers finds, wherever in a block it is."""
    pair = st.tuples(st.sampled_from(["", "n", "m", "nn"]), st.none() | st.binary(max_size=3))
    block = data.draw(st.lists(st.none() | st.lists(pair, max_size=4), max_size=8))
    cut = data.draw(st.integers(0, len(block)))
    count = len(block) - cut
    columns = (pa.nulls(count, pa.binary()), pa.nulls(count, pa.binary()), pa.array(block, HEADERS)[cut:])
    records = Block(*columns, np.zeros(count, np.int64), np.zeros(count, np.int64)).table(0)
    expected = [dict(headers or ()).get("n") for headers in block[cut:]]
    assert read_field(records, "@header.n").to_pylist() == expected


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"sorts": ["id"], "format": "none"}, "unknown column 'id': the columns are @key, @timestamp"),
        ({"sorts": ["@offset.x"]}, "there is no record field '@offset.x'"),
        ({"sorts": ["@header"]}, "there is no record field '@header': they are .*@header.NAME"),
        ({"sorts": ["@header."]}, "write @header.NAME"),
        ({"sorts": ["@header.a\tb"]}, r"'@header.a\\tb': use letters and signs that can be printed"),
        ({"sorts": ["@header.n:number"]}, "there is no type 'number'"),
        ({"sorts": ["@header.n:int", "@header.n:uuid,id"]}, "'@header.n' is given two types: int and uuid"),
        ({"sorts": ["@offset:text"]}, "@offset is an integer, which type text does not take: use int"),
        ({"sorts": ["@offset:time"]}, "which type time does not take"),
        ({"sorts": ["@key:uuid"], "key_format": "int64"}, "@key is an integer, which type uuid does not take"),
        ({"sorts": ["@key.id"]}, "'@key.id', but keys of --key-format text have no fields: sort by @key"),
        ({"sorts": ["@key.id"], "key_format": "int32"}, "keys of --key-format int32 have no fields"),
        ({"sorts": ["id"], "key_format": "int64"}, "key_format .*no sort names @key, so keys are not read"),
        ({"sorts": ["@key"], "key_format": "int16"}, "key_format"),
        ({"sorts": ["@keys"]}, "did you mean '?@key"),
        ({"sorts": ["@timestamp"]}, "--timestamps keep"),
        ({"sorts": ["@key:nulls-middle"]}, "write COLUMN"),
        ({"sorts": ["@key:nulls-first:desc"]}, "write COLUMN"),
        ({"columns": "@key,id", "sorts": ["id"]}, "names that begin with @"),
        ({"format": "xml"}, "format"),
    ],
)
def test_what_is_refused(flags: dict[str, object], message: str, tmp_path: Path) -> None:
    """One line refuses it, and says how to write it."""
    with pytest.raises(SettingsError, match=message):
        load_job({"source_topic": "s", "columns": "id:int,name", "workdir": tmp_path, **flags}, {})


def test_default_outputs() -> None:
    """A topic's name has no @."""
    assert Job(source_topic="s", sorts=["@key"]).sort_list[0].topic == "s-by-key"
    assert Job(source_topic="s", sorts=['@header."a b":int:desc']).sort_list[0].topic == "s-by-header.a-b"


def test_what_the_ledger_records() -> None:
    """The ledger has the options that decide keys."""
    csv = describe_format(Job(source_topic="s", columns="id:int, name:text", sorts=["id"], delimiter=";"))
    assert csv == {"name": "csv", "columns": "id:int,name", "delimiter": ";", "rules": "2"}
    assert describe_format(Job(source_topic="s", sorts=["@key"], format="none")) == {"name": "none", "rules": "2"}


@pytest.mark.parametrize(
    ("job", "facts"),
    [
        ({"sorts": ["@key:text,@timestamp:int,@header.n:text"], "timestamps": "keep"}, {}),
        ({"sorts": ["@offset,@key:int", "@header.n:int:desc,@key"]}, {"fields": "@header.n:int,@key:int"}),
        ({"sorts": ["@key"], "key_format": "int64"}, {"fields": "@key:int", "key_format": "int64"}),
        ({"sorts": ['@header."a,b":uuid']}, {"fields": '@header."a,b":uuid'}),
    ],
)
@pytest.mark.parametrize("fmt", ["csv", "none"])
def test_facts_of_record_fields(fmt: str, job: dict[str, object], facts: dict[str, str]) -> None:
    """Every format has them: types other than the fields' own, and the format of keys."""
    found = describe_format(Job.model_validate({"source_topic": "s", "format": fmt, **job}))
    assert {name: found[name] for name in found.keys() & {"fields", "key_format"}} == facts


def test_a_type_that_compares_integers() -> None:
    """The settings know which types take integers that are no text, as the types themselves do."""
    for text in ("int", "text"):
        kind = parse_type(text)
        assert compares_integers(kind) == key_type(kind).accepts(pa.int64())
