"""Texts and UUIDs encode to bytes that compare as the type does."""

import uuid

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given, settings

from tasks.verification.terms import Kind
from tasks.verification.types.registry import make_type
from tests.ranks import assert_same_order, encode_all, refused

TEXTS = st.lists(st.text(max_size=4), min_size=2, max_size=6)


@given(st.lists(st.binary(max_size=4) | st.sampled_from([b"", b"\0", b"\0\xff", b"a\0", b"a"]), min_size=2, max_size=6))
def test_text_compares_by_bytes(texts: list[bytes]) -> None:
    """Whatever the bytes are, NUL among them, and with another column behind."""
    keys, bad = make_type(Kind("text")).encode(texts)
    assert bad == []
    assert_same_order(keys, texts)
    assert_same_order([key + b"\xff" for key in keys], texts)


def test_texts_of_other_formats() -> None:
    """Python's texts encode like their bytes; anything else is refused."""
    text = make_type(Kind("text"))
    assert text.encode(["ä", "", "a"]) == text.encode(["ä".encode(), b"", b"a"])
    assert text.encode([b"a", 7, "b"]) == ([b"a\0\0", b"", b"b\0\0"], [1])


@settings(deadline=None)
@given(TEXTS)
def test_without_case(texts: list[str]) -> None:
    """Each character counts by its simple lower case."""
    lowers = [text.encode() for text in pc.utf8_lower(pa.array(texts)).to_pylist()]
    assert_same_order(encode_all("text", texts, "nocase"), lowers)


def test_every_character_has_the_case_that_arrow_knows() -> None:
    """The case of a letter depends neither on the version of Python's Unicode nor on that of Arrow's."""
    characters = [chr(code) for code in range(1, 0x110000) if not 0xD800 <= code < 0xE000]
    keys, refused_ones = make_type(Kind("text", "nocase")).encode([c.encode() for c in characters])
    assert refused_ones == []
    lowers = pc.utf8_lower(pa.array(characters)).to_pylist()
    assert [c for c, key, lower in zip(characters, keys, lowers, strict=True) if key != lower.encode() + b"\0\0"] == []


def test_letters_without_case() -> None:
    """Letters of all scripts, each for itself: no rule looks at its neighbours, and none becomes two."""
    pairs = [
        ("STRASSE", "strasse"),
        ("ÄÖ", "äö"),
        ("ΟΔΟΣ", "οδοσ"),
        ("İ", "i"),
        ("Ж", "ж"),
        ("\U00010400", "\U00010428"),
    ]
    for upper, lower in pairs:
        assert encode_all("text", [upper], "nocase") == encode_all("text", [lower], "nocase")
    assert_same_order(encode_all("text", ["ß", "ss", "\u03c2", "\u03c3"], "nocase"), [1, 0, 2, 3])


@settings(deadline=None, max_examples=20)
@given(st.lists(st.binary(max_size=3), max_size=6))
def test_only_utf8_has_case_or_language(texts: list[bytes]) -> None:
    """What is not UTF-8 is refused, its neighbours are not."""
    for order in ("nocase", "de"):
        found = make_type(Kind("text", order)).encode(texts)[1]
        expected = []
        for i, text in enumerate(texts):
            try:
                text.decode()
            except UnicodeDecodeError:
                expected.append(i)
        assert found == expected


def test_a_language_has_its_order() -> None:
    """German has ä beside a, Swedish behind z; equal bytes are equal keys."""
    assert_same_order(encode_all("text", ["a", "ä", "b", "z"], "de"), [0, 1, 2, 3])
    assert_same_order(encode_all("text", ["a", "z", "ä", "ö"], "sv"), [0, 1, 2, 3])
    many = [str(number) for number in range(5000)]
    keys, _ = make_type(Kind("text", "sv")).encode([text.encode() for text in many])
    assert [many[i] for i in sorted(range(5000), key=keys.__getitem__)] == sorted(many)


@given(st.lists(st.uuids(), min_size=2, max_size=5))
def test_uuids(drawn: list[uuid.UUID]) -> None:
    """They compare by their bytes; with or without dashes, in any case, and as Python's own."""
    keys = make_type(Kind("uuid")).encode(drawn)[0]
    assert_same_order(keys, [number.int for number in drawn])
    for form in (str, lambda u: u.hex.upper(), lambda u: f" {str(u).upper()}\t"):
        assert encode_all("uuid", [form(number) for number in drawn]) == keys


def test_what_is_no_uuid() -> None:
    """No braces, no prefix, no dashes elsewhere."""
    text = str(uuid.UUID(int=7))
    bad = [
        "",
        text[:-1],
        text + "0",
        f"{{{text}}}",
        f"urn:uuid:{text}",
        text.replace("-", "", 1),
        text.replace("0", "g", 1),
    ]
    assert refused("uuid", bad) == bad
    assert make_type(Kind("uuid")).encode(["text", 7])[1] == [0, 1]
