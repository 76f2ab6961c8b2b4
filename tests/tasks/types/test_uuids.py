"""The type `uuid` beside Python's."""

import uuid

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from tasks.printable import excerpt
from tests.tasks.types.outcomes import assert_as_expected, assert_equal_fate, blocks, outcomes, shown

_IDS = st.uuids() | st.integers(0, 2).map(lambda n: uuid.UUID(int=n << 120))
_FORMS = [str, lambda i: i.hex, lambda i: str(i).upper()]
_TEXTS = st.builds(lambda form, i: str(form(i)).encode(), st.sampled_from(_FORMS), _IDS)
_ONE = "00112233-4455-6677-8899-aabbccddeeff"


def expect(text: bytes) -> int:
    """Read a uuid; ValueError has the reason."""
    try:
        bare = text.strip(b" \t").decode().lower()
        found = uuid.UUID(bare)
    except ValueError:
        raise ValueError(f"is not a uuid: {excerpt(text)}") from None
    if bare not in {str(found), found.hex}:
        raise ValueError(f"is not a uuid: {excerpt(text)}")
    return found.int


@settings(max_examples=100, deadline=None)
@given(blocks(_TEXTS))
def test_uuids_compare_as_numbers_without_sign(texts: list[bytes | None]) -> None:
    """Both forms are accepted, in any case, and compare by their bytes."""
    assert_as_expected("uuid", texts, expect)


@settings(max_examples=30, deadline=None)
@given(blocks(_TEXTS))
def test_equal_bytes_have_an_equal_fate(texts: list[bytes | None]) -> None:
    """The outcome of a text does not depend on what is beside it."""
    assert_equal_fate("uuid", texts, [b"x", _ONE.encode(), b"0" * 31, b"0" * 33, b" " + b"f" * 32])


@pytest.mark.parametrize(
    "text",
    [
        "{" + _ONE + "}",
        "urn:uuid:" + _ONE,
        _ONE.replace("-", "", 1),
        "0-0112233-4455-6677-8899-aabbccddeef"[:36],
        "-" * 4 + _ONE.replace("-", ""),
        _ONE.replace("f", "g"),
        _ONE.replace("ee", "é"),
        "",
    ],
)
def test_other_forms_are_refused(text: str) -> None:
    """Braces, prefixes, dashes elsewhere and other digits."""
    assert_as_expected("uuid", [text.encode()], expect)
    with pytest.raises(ValueError, match="is not a uuid"):
        expect(text.encode())


def test_uuids_are_shown_with_dashes() -> None:
    """The printed form is the usual one, in small letters."""
    assert shown("uuid", _ONE.replace("-", "").upper().encode()) == _ONE


def test_native_uuids() -> None:
    """Arrow's binary of 16 bytes."""
    one = uuid.UUID(_ONE).bytes
    assert outcomes("uuid", pa.array([one, None], pa.binary(16))) == [one, None]
