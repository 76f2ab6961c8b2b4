"""The keys of whole records compare as the sort does, nulls at their place; others are rejected."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from tasks.verification.keys import Encoded, RecordKeys
from tasks.verification.reading import Block
from tasks.verification.terms import read_sort
from tests.ranks import assert_same_order
from tests.record_blocks import make_block

CSV = {"columns": "id:int,name,place"}
TEXT = st.binary(max_size=4).filter(lambda text: not set(b',"\r\n') & set(text))
NUMBER = st.integers(-(2**63), 2**63 - 1)


def encode(block: Block, facts: Mapping[str, str], *sorts: str, wanted: str = "") -> Encoded:
    """Encode the keys of the sort `wanted`, or of all."""
    keys = [read_sort(sort, facts) for sort in sorts]
    return RecordKeys(facts, [read_sort(wanted, facts)] if wanted else keys, keys).encode(block)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(NUMBER, TEXT, TEXT), min_size=2, max_size=2))
@example([(0, b"a", b""), (0, b"a\0", b"")])
@example([(0, b"a", b"b"), (0, b"", b"ab")])
@pytest.mark.parametrize(
    "sort", ["id", "id:desc", "name", "name:desc", "name,id:desc", "name:desc,place", "place,name,id"]
)
def test_encoded_keys_compare_as_the_sort(sort: str, rows: list[tuple[int, bytes, bytes]]) -> None:
    """Integers sort by value, text by bytes, each column in its direction, the most significant first."""
    keys = encode(make_block([b"%d,%s,%s" % r for r in rows]), CSV, sort).keys[0]
    assert (keys[0] > keys[1]) - (keys[0] < keys[1]) == compare_rows(rows, sort)


def compare_rows(rows: list[tuple[int, bytes, bytes]], sort: str) -> int:
    for term in sort.split(","):
        name, _, direction = term.partition(":")
        pair: list[Any] = [r[["id", "name", "place"].index(name)] for r in rows]
        if pair[0] != pair[1]:
            return (1 if pair[0] > pair[1] else -1) * (-1 if direction else 1)
    return 0


class Reversed:
    """A value in descending order."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __lt__(self, other: "Reversed") -> bool:
        return bool(other.value < self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reversed) and bool(other.value == self.value)

    __hash__ = None  # type: ignore[assignment]  # it is only compared


JSON = {"name": "json", "columns": "n:decimal,a.t:text,b:bool", "fields": "@header.n:int"}
ROWS = st.tuples(
    st.none() | st.decimals(-1000, 1000, places=2),
    st.none() | st.text(alphabet=["\0", "a", "b", "\x7f", "\u0100"], max_size=3),
    st.none() | st.booleans(),
    st.none() | st.integers(-3, 3),
)


@settings(max_examples=120, deadline=None)
@given(
    st.lists(ROWS, min_size=2, max_size=6),
    st.tuples(*[st.sampled_from(["", ":desc"])] * 4),
    st.tuples(*[st.sampled_from(["first", "last"])] * 4),
)
def test_nulls_are_where_the_sort_says(rows: list[Any], directions: tuple[str, ...], nulls: tuple[str, ...]) -> None:
    """In each column nulls are first or last whatever its direction; null and missing are one."""
    names = ("n", "a.t", "b", "@header.n")
    sort = ",".join(f"{n}{d}:nulls-{p}" for n, d, p in zip(names, directions, nulls, strict=True))
    values = [
        b'{"n":%s,"a":%s,"b":%s}'
        % (
            str(n).encode() if n is not None else b"null",
            json.dumps({"t": t} if t is not None else {}).encode(),
            json.dumps(b).encode(),
        )
        for n, t, b, _ in rows
    ]
    headers = [[("n", b"%d" % h)] if h is not None else None for *_, h in rows]
    encoded = encode(make_block(values, headers=headers), JSON, sort)
    assert encoded.rejected == []
    expected = [
        [
            (
                1 if (value is None) == (place == "last") else 0,
                (Reversed(value) if way else value) if value is not None else 0,
            )
            for value, way, place in zip(row, directions, nulls, strict=True)
        ]
        for row in rows
    ]
    assert_same_order(encoded.keys[0], expected)


def test_a_record_that_one_sort_cannot_place_is_in_none() -> None:
    """Whatever sort is asked for: another one's null, or value of another type, rejects the record."""
    values = [
        b'{"n":1,"a":{"t":"x"},"b":true}',
        b'{"n":null,"a":{"t":"x"}}',
        b'{"n":1,"a":{"t":7}}',
        b"{",
        b'{"n":"1"}',
    ]
    values += [b'{"n":1.5,"a":{"t":null},"b":false}']
    sorts = ("n:nulls-first", "n:nulls-last,a.t:nulls-last", "b:nulls-first", "@header.n:nulls-last")
    headers = [None, None, None, None, None, [("n", b"x")]]
    for wanted in ("", "b:nulls-first", "@header.n:nulls-last", "n:nulls-first"):
        encoded = encode(make_block(values, headers=headers), JSON, *sorts, wanted=wanted)
        assert encoded.rejected == [2, 3, 4, 5]
        assert {len(keys) for keys in encoded.keys} == {2}
    for pair in (("n:nulls-first", "n"), ("n", "n:nulls-first")):
        assert encode(make_block(values), JSON, *pair).rejected == [1, 3, 4]
    assert encode(make_block(values), JSON, "b:nulls-first", "a.t", wanted="b:nulls-first").rejected == [2, 3, 4, 5]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.sampled_from([b'{"n":1}', b'{"n":2.50,"b":true}', b'{"n":"x"}', b"no", b'{"b":false}', None]), max_size=6
    ),
    st.data(),
)
def test_a_block_encodes_as_its_records_one_by_one(values: list[bytes | None], data: st.DataObject) -> None:
    """The fate of a record depends on its own bytes only."""
    keys = data.draw(st.lists(st.sampled_from([None, b"\0\0\0\1", b"x"]), min_size=len(values), max_size=len(values)))
    facts = {**JSON, "key_format": "int32", "fields": "@key:int"}
    sorts = ("n:nulls-last,@key:desc", "b:nulls-first,@partition")
    whole = encode(make_block(values, keys), facts, *sorts)
    alone = [encode(make_block([v], [k]), facts, *sorts) for v, k in zip(values, keys, strict=True)]
    assert whole.rejected == [i for i, one in enumerate(alone) if one.rejected]
    assert whole.keys == [[one.keys[at][0] for one in alone if not one.rejected] for at in range(2)]
    assert whole.rejected == [
        i
        for i, (v, k) in enumerate(zip(values, keys, strict=True))
        if k != b"\0\0\0\1" or v is None or v in {b'{"n":"x"}', b"no"}
    ]


def test_values_are_not_read_for_record_fields() -> None:
    """If sorts name record fields only, a value may be anything, and a tombstone is a record like any other."""
    encoded = encode(make_block([None, b"x", b"{"], [b"b", b"a", None]), JSON, "@key:nulls-first")
    assert encoded.rejected == []
    assert_same_order(encoded.keys[0], [2, 1, 0])
    assert encode(make_block([None], [None]), JSON, "@key", "@offset").rejected == [0]


def test_decimals_of_json_are_exact() -> None:
    """Numbers that one double stands for are different keys."""
    numbers = [
        "0.1234567890123456789",
        "0.1234567890123456788",
        "9007199254740993",
        "9007199254740992",
        "1e-30",
        "1.10",
    ]
    keys = encode(make_block([b'{"n":%b}' % n.encode() for n in numbers]), JSON, "n").keys[0]
    assert_same_order(keys, [Decimal(number) for number in numbers])
