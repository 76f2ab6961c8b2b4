"""The types `text`, `text(nocase)` and texts by a collation."""

import subprocess
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import duckdb
import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from tasks.printable import excerpt
from tests.tasks.types.outcomes import Outcome, assert_as_expected, assert_equal_fate, blocks, outcomes_of, read, shown

_WORDS = st.text("aAbBzZäÄöß éåÅŁłΣςσİıİǅﬁ日\u0301\u0308\0😀", max_size=5)
_TEXTS = (_WORDS | st.text(max_size=3)).map(str.encode)
_BROKEN = [
    b"\xff",
    b"\xc3",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"a\xe2\x82",
    b"\xf5\x80\x80\x80",
    b"\x80",
]
_ANY = _TEXTS | st.builds(bytes.__add__, _TEXTS, st.sampled_from(_BROKEN))


def fold(text: bytes) -> bytes:
    """Return the lower case of each character alone; ValueError has the reason."""
    try:
        characters = text.decode()
    except UnicodeDecodeError:
        raise ValueError(f"is not UTF-8: {excerpt(text)}") from None
    # Of İ, Python gives two characters; the simple lower case is the first.
    return "".join(character.lower()[0] for character in characters).encode()


def test_text_is_its_bytes() -> None:
    """Any bytes are a text; those that are not UTF-8 are shown as escapes."""
    assert outcomes_of("text", [b"\xff\0", None, b""]) == [b"\xff\0", None, b""]
    assert shown("text", b"\xffa") == "\\xffa"


@settings(max_examples=100, deadline=None)
@given(blocks(_ANY))
def test_nocase(texts: list[bytes | None]) -> None:
    """Texts compare by the simple lower case of each character, and must be UTF-8."""
    # Python may know an older Unicode.
    known = [text for text in texts if text is None or _is_known(text)]
    assert_as_expected("text(nocase)", known, fold)
    assert_equal_fate("text(nocase)", texts, [b"\xff", "ÄẞΣ".encode()])


def _is_known(text: bytes) -> bool:
    return all(unicodedata.category(character) != "Cn" for character in text.decode(errors="ignore"))


def test_nocase_of_every_character() -> None:
    """The lower case of a character is Python's, except of those that Python's Unicode does not know."""
    everything = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    found = outcomes_of("text(nocase)", [character.encode() for character in everything])
    other = {c for c, folded in zip(everything, found, strict=True) if folded != fold(c.encode())}
    assert {character for character in other if _is_known(character.encode())} == set()
    assert all(len(folded.decode()) == 1 for folded in found if isinstance(folded, bytes))


@pytest.mark.parametrize(
    ("text", "expected"), [("\u0391\u03a3", "\u03b1\u03c3"), ("İ", "i"), ("ẞ", "ß"), ("I", "i"), ("Ⱥ", "ⱥ")]
)
def test_nocase_takes_no_notice_of_neighbours_and_languages(text: str, expected: str) -> None:
    """A sigma at the end of a word, the Turkish i, and characters of which the lower case is longer."""
    assert shown("text(nocase)", text.encode()) == expected


@pytest.mark.parametrize("collation", ["de", "sv", "de_AT", "zh", "tr"])
@settings(max_examples=10, deadline=None)
@given(texts=st.lists(_WORDS, min_size=1, max_size=12))
def test_sort_keys_compare_as_duckdb_collates(collation: str, texts: list[str]) -> None:
    """The order of the stored keys is that of ORDER BY … COLLATE; equal keys are equal under the collation."""
    keys = outcomes_of(f"text({collation})", [text.encode() for text in texts])
    with duckdb.connect() as connection:
        table = pa.table({"text": texts, "key": pa.array(keys, pa.binary())})
        ranked = connection.from_arrow(table).project(
            f"dense_rank() OVER (ORDER BY text COLLATE {collation}), dense_rank() OVER (ORDER BY key)"
        )
        assert all(by_text == by_key for by_text, by_key in ranked.fetchall())


@settings(max_examples=5, deadline=None)
@given(blocks(_ANY))
def test_collated_texts_must_be_utf8(texts: list[bytes | None]) -> None:
    """Others are refused, and leave those beside them alone."""
    expected = [text is None or text.decode(errors="replace").encode() == text for text in texts]
    found = outcomes_of("text(de)", texts)
    assert [not isinstance(outcome, str) for outcome in found] == expected
    assert_equal_fate("text(de)", texts, [b"\xff"])


def test_languages_have_orders_of_their_own() -> None:
    """A German ä is near a, a Swedish one is behind z."""
    assert read("text(de)", "ä".encode()) < read("text(de)", b"z") < read("text(sv)", "ä".encode())
    assert read("text(de)", b"a") < read("text(de)", b"B") < read("text(de)", b"c")
    assert read("text(de)", "é".encode()) == read("text(de)", "e\u0301".encode())


def test_a_collated_text_is_shown_by_its_sort_key() -> None:
    """The text cannot be had back: digits stand for it."""
    assert bytes.fromhex(str(shown("text(de)", b"Otto"))) == read("text(de)", b"Otto")


def test_threads_collate_side_by_side() -> None:
    """Partitions are dumped by threads: each gets its own keys."""

    def encode(prefix: int) -> list[Outcome]:
        return outcomes_of("text(de)", [f"{prefix} {i}".encode() for i in range(2000)])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(encode, range(8))) == [encode(prefix) for prefix in range(8)]


# Like Prefect, a thread that lives until the process ends holds the project's functions.
_KEEPS = """
import threading
import pyarrow as pa
from tasks.settings.column_types import parse_type
from tasks.types.registry import key_type

assert not key_type(parse_type("text(de)")).encode(pa.array([b"a"]))[1]
threading.Thread(target=lambda kept: threading.Event().wait(), args=[key_type], daemon=True).start()
"""


def test_a_process_that_collated_ends_in_silence() -> None:
    """The process prints nothing, though DuckDB's binding prints a line for each of its objects that still lives."""
    done = subprocess.run([sys.executable, "-c", _KEEPS], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
