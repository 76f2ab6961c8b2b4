"""Record fields are read as Kafka and its serializers write them."""

from collections.abc import Mapping
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tasks.verification.formats.base import Columns, Request, Wanted
from tasks.verification.formats.record_fields import RecordFields
from tasks.verification.formats.registry import make_reader
from tasks.verification.reading import Block
from tasks.verification.terms import Kind, read_column
from tests.record_blocks import make_block


def read(block: Block, columns: str, facts: Mapping[str, str] | None = None, kind: str = "text") -> Columns:
    wanted = [Wanted(read_column(name, is_csv=False), Kind(kind)) for name in columns.split(",")]
    return RecordFields(Request(facts or {}, wanted), make_reader).read(block)


def columns_of(found: Columns) -> list[list[Any]]:
    return [list(column) for column in found.columns]


def test_fields() -> None:
    """Key, time, place and headers; a record without time has none, and the last header of a name counts."""
    headers = [[("n", b"1"), ("n", b"2"), ("m", b"3")], None, [("n", None)], [("n", b"1"), ("n", None)], [("N", b"4")]]
    times = [5, -1, 0, 7, 8]
    block = make_block([None] * 5, [b"k", None, b"", b"\xff", b"k"], headers, times, first=40)
    found = read(block, "@key,@timestamp,@partition,@offset,@header.n,@header.m")
    assert found.refused == set()
    assert columns_of(found) == [
        [b"k", None, b"", b"\xff", b"k"],
        [5, None, 0, 7, 8],
        [3] * 5,
        [40, 41, 42, 43, 44],
        [b"2", None, None, None, None],
        [b"3", None, None, None, None],
    ]


@pytest.mark.parametrize(("name", "width"), [("int32", 4), ("int64", 8)])
@given(numbers=st.lists(st.integers(-(2**63), 2**63 - 1) | st.none() | st.binary(max_size=9)))
def test_integer_keys(name: str, width: int, numbers: list[int | bytes | None]) -> None:
    """They are big-endian and of their exact length; a key of another length is refused, a null one is none."""
    bound = 2 ** (8 * width - 1)
    drawn = [(n + bound) % (2 * bound) - bound if isinstance(n, int) else n for n in numbers]
    keys = [n.to_bytes(width, "big", signed=True) if isinstance(n, int) else n for n in drawn]
    block = make_block([None] * len(keys), keys)
    found = read(block, "@key,@offset", {"key_format": name}, "int")
    refused = {i for i, key in enumerate(keys) if key is not None and len(key) != width}
    assert found.refused == refused
    good = [i for i in range(len(keys)) if i not in refused]
    numbers_left = [None if (key := keys[i]) is None else int(key.hex(), 16) for i in good]
    expected = [n if n is None or n < bound else n - 2 * bound for n in numbers_left]
    assert columns_of(found) == [expected, good]


def test_keys_in_json() -> None:
    """A key is a document like a value, and a path leads into it; a null one is no document, and not refused."""
    keys = [b'{"id":"x","at":{"n":"y"}}', None, b"", b'{"id":7}', b'{"at":null}', b"\xff", b"7"]
    block = make_block([None] * 7, keys)
    found = read(block, "@key.id,@offset,@key.at.n", {"key_format": "json"})
    assert found.refused == {2, 3, 5}
    assert columns_of(found) == [[b"x", None, None, None], [0, 1, 4, 6], [b"y", None, None, None]]
    whole = read(make_block([None] * 3, [b'"x"', b"null", b"{}"]), "@key", {"key_format": "json"})
    assert (whole.refused, columns_of(whole)) == ({2}, [[b"x", None]])


def test_an_unknown_format_of_keys() -> None:
    """A later version may have one that this one does not know."""
    with pytest.raises(ValueError, match="there is no format future"):
        read(make_block([None]), "@key", {"key_format": "future"})
