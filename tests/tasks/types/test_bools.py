"""The type `bool`."""

import hypothesis.strategies as st
import pyarrow as pa
from hypothesis import given, settings

from tasks.printable import excerpt
from tests.tasks.types.outcomes import assert_as_expected, assert_equal_fate, blocks, outcomes, shown

_TEXTS = st.sampled_from([b"true", b"false", b"TRUE", b"False", b"1", b"0", b" tRue\t", b"t", b"yes", b"00", b"10"])


def expect(text: bytes) -> bool:
    """Read a bool; ValueError has the reason."""
    bare = text.strip(b" \t").lower()
    if bare not in {b"true", b"false", b"1", b"0"}:
        raise ValueError(f"is not a bool: {excerpt(text)}")
    return bare in {b"true", b"1"}


@settings(max_examples=50, deadline=None)
@given(blocks(_TEXTS))
def test_false_is_before_true(texts: list[bytes | None]) -> None:
    """Four words are accepted, in any case."""
    assert_as_expected("bool", texts, expect)
    assert_equal_fate("bool", texts, [b"x"])


def test_bools_are_shown_by_their_names() -> None:
    """The printed form is a word, however it was written."""
    assert [shown("bool", text) for text in (b"1", b"TRUE", b"0")] == ["true", "true", "false"]


def test_native_bools() -> None:
    """Arrow's booleans."""
    assert outcomes("bool", pa.array([True, None, False])) == [1, None, 0]
