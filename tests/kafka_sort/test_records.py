"""The forms in which records are printed, whatever their bytes are."""

import base64
import csv
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings

from kafka_sort.records import COLUMNS, FORMS, print_records
from kafka_sort.streams import _Output
from tasks.reading.sorted_topic import SCHEMA
from tests.documents import assert_documented

TEXTS = st.one_of(
    st.none(), st.text(max_size=4).map(str.encode), st.binary(max_size=4), st.sampled_from([b'"\\\n', b"\x00", b"\xff"])
)
HEADERS = st.lists(st.tuples(st.text(max_size=3), TEXTS), max_size=3)
Row = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]


def table(rows: Sequence[Row]) -> pa.Table:
    records = [
        {
            "key": key,
            "value": value,
            "headers": [{"name": name, "value": text} for name, text in headers] or None,
            "timestamp": 1000 + i,
            "run": 7,
            "partition": 1,
            "offset": i,
        }
        for i, (key, value, headers) in enumerate(rows)
    ]
    return pa.Table.from_pylist(records, SCHEMA)


class Output(io.TextIOWrapper):
    """Standard output that is kept."""

    @property
    def content(self) -> bytes:
        return self.buffer.getvalue()  # type: ignore[attr-defined,no-any-return]


def printed(rows: Sequence[Row], form: str, limit: int | None = None) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", output := Output(io.BytesIO()))
        whole = table(rows)
        # A block may be a slice of a larger one.
        count = print_records(iter([whole.slice(0, 1), whole.slice(1)]), form, limit)
        assert count == len(rows[:limit])
        return output.content


def read_text(member: Any) -> bytes | None:
    if isinstance(member, dict):
        text = base64.b64decode(member["base64"])
        with pytest.raises(UnicodeDecodeError):
            text.decode()
        return text
    return None if member is None else str(member).encode()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXTS, TEXTS, HEADERS), min_size=1, max_size=6))
def test_json_lines_hold_the_records(rows: list[Row]) -> None:
    """Each line is one JSON object, from which key, value and headers come back byte for byte."""
    lines = [json.loads(line) for line in printed(rows, "jsonl").decode().removesuffix("\n").split("\n")]
    assert len(lines) == len(rows)
    for i, (line, (key, value, headers)) in enumerate(zip(lines, rows, strict=True)):
        assert (read_text(line["key"]), read_text(line["value"])) == (key, value)
        assert [(read_text(h["name"]), read_text(h["value"])) for h in line["headers"]] == [
            (name.encode(), text) for name, text in headers
        ]
        assert [line[name] for name in ("timestamp", "run", "partition", "offset")] == [1000 + i, 7, 1, i]


def test_raw_values() -> None:
    """A value a line, as kcat prints them; null and the empty value are empty lines."""
    assert (
        printed([(None, b"a", []), (b"k", None, []), (None, b"", []), (None, b"\xff", [])], "raw") == b"a\n\n\n\xff\n"
    )


@pytest.mark.parametrize("form", FORMS)
def test_a_form_takes_its_columns_alone(form: str) -> None:
    """A table with the columns that a form names is enough for it; rows that are no rows print nothing."""
    whole = table([(b"k", b"v", [("h", None)])]).select(COLUMNS[form])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", output := Output(io.BytesIO()))
        assert print_records(iter([whole.slice(0, 0), whole]), form) == 1
        assert output.content.count(b"\n") == 1


def test_csv_rows() -> None:
    """Key, value, timestamp and place; a text is in quotes, so that a null one is no empty one."""
    content = printed([(None, b'a,"b"', []), (b"", b"x\ny", [])], "csv")
    assert content == b',"a,""b""",1000,7,1,0\n"","x\ny",1001,7,1,1\n'
    assert [row[1] for row in csv.reader(io.StringIO(content.decode(), newline=""))] == ['a,"b"', "x\ny"]


@pytest.mark.parametrize("form", FORMS)
def test_a_limit(form: str) -> None:
    """No more records than asked for."""
    rows: list[Row] = [(None, b"%d" % i, []) for i in range(5)]
    assert printed(rows, form, 3) == printed(rows[:3], form)


def test_the_members_are_documented() -> None:
    """docs/output.md has each member of a line, and no other."""
    assert_documented("get and read", json.loads(printed([(b"k", b"v", [("name", b"text")])], "jsonl")))


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_read_for_nobody(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the reader of the pipe has gone, no further block is asked for."""
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(_Output(writer))))
    taken: list[int] = []

    def blocks() -> Iterator[pa.Table]:
        for i in range(5):
            taken.append(i)
            yield table([(b"k", b"v", [])])

    print_records(blocks(), form)
    os.close(writer)
    assert taken == [0]
