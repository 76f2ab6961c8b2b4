"""Sort keys of several columns as JSON arrays."""

import json

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from tasks.json_arrays import join_array, quote_texts
from tasks.settings.column_types import parse_type
from tasks.types.registry import key_type

_LETTERS = st.text(st.sampled_from('a"\\\n\t\x00\x1f\x7fäß€\u2028😀'), max_size=5).map(str.encode)
TEXTS = st.lists(st.none() | _LETTERS | st.binary(max_size=4), max_size=8)


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_texts_come_back(texts: list[bytes | None]) -> None:
    """A text is what a JSON reader gets from its string, byte by byte, and beside others as it is alone."""
    quoted = quote_texts(pa.array(texts, pa.binary())).to_pylist()
    assert quoted == [quote_texts(pa.array([text], pa.binary()))[0].as_py() for text in texts]
    read = [None if item is None else json.loads(item).encode(errors="surrogateescape") for item in quoted]
    assert read == texts


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (b"Asia", b'"Asia"'),
        (b'5" \\', rb'"5\" \\"'),
        (b"a\tb\x00", rb'"a\tb\u0000"'),
        ("Köln\u2028".encode(), '"Köln\u2028"'.encode()),
        (b"\xff\xc3", rb'"\udcff\udcc3"'),
        (b"\xed\xb3\xbf", rb'"\udced\udcb3\udcbf"'),
    ],
)
def test_the_form_is_fixed(text: bytes, written: bytes) -> None:
    """What needs no escape has none; what is not UTF-8 is an escape that no UTF-8 has."""
    assert quote_texts(pa.array([text], pa.binary())).to_pylist() == [written]


def test_an_array_has_numbers_literals_and_strings() -> None:
    """Digits are those of the printed form, whatever their number; a null is a null, not an empty text."""
    columns = {
        "int": [b"7", b"-7"],
        "decimal": [b"12345678901234567890.50", None],
        "bool": [b"1", b"false"],
        "float": [b"1.5", b"nan"],
        "time": [b"2026-07-01T14:00+02:00", None],
        "text": [b"a,b", b""],
    }
    arrays = []
    for name, texts in columns.items():
        kind = key_type(parse_type(name))
        arrays.append((kind.print_all(kind.encode(pa.array(texts, pa.binary()))[0]), kind))
    assert join_array(arrays).to_pylist() == [
        b'[7,12345678901234567890.5,true,"1.5","2026-07-01T12:00:00Z","a,b"]',
        b'[-7,null,false,"nan",null,""]',
    ]
