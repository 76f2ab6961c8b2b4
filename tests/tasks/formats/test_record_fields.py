"""Record fields as keys, alone and beside fields of values."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tasks.arrow import HEADERS
from tasks.errors import SettingsError
from tasks.formats.registry import describe_format, make_format
from tasks.kafka.fetch import Block
from tasks.keys import encode_keys
from tasks.settings.job import Job, load_job

VALUES = [b"3,c", None, b"x,b", b"1,a"]
KEYS = [b"k", b"", b"q", None]
TIMES = [30, 20, 10, -1]


def parse(**job: object) -> tuple[dict[str, list[object]], dict[int, str]]:
    made = Job.model_validate({"source_topic": "s", "columns": "id:int,name", "timestamps": "keep", **job})
    values, keys = pa.array(VALUES, pa.binary()), pa.array(KEYS, pa.binary())
    block = Block(values, keys, pa.nulls(4, HEADERS), np.array(TIMES), np.arange(4))
    fmt = make_format(made)
    parsed = fmt.parse(block.table())
    return {n: c.to_pylist() for n, c in encode_keys(fmt.keys, parsed.columns).items()}, parsed.rejected


def test_the_key_of_a_record() -> None:
    """Values are not read: tombstones and values that are no rows have their place; a null key has none."""
    assert parse(sorts=["@key"]) == ({"k0": [b"k", b"", b"q"]}, {3: "@key is null"})
    assert parse(sorts=["@key"], format="none") == parse(sorts=["@key"])


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


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"sorts": ["id"], "format": "none"}, "unknown column 'id': the columns are @key, @timestamp"),
        ({"sorts": ["@offset.x"]}, "there is no record field '@offset.x'"),
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


def test_what_the_ledger_records() -> None:
    """The ledger has the options that decide keys."""
    csv = describe_format(Job(source_topic="s", columns="id:int, name:text", sorts=["id"], delimiter=";"))
    assert csv == {"name": "csv", "columns": "id:int,name", "delimiter": ";", "rules": "2"}
    assert describe_format(Job(source_topic="s", sorts=["@key"], format="none")) == {"name": "none", "rules": "2"}
