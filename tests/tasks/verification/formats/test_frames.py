"""Frames of a schema registry, beside those that the test writes."""

from uuid import UUID

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tasks.verification.formats.frames import FrameError, find_header, split_frame, split_message
from tests.avro_values import number

GUID = UUID(int=2**120 + 7)
INDEXES = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=5)


@given(schema=st.integers(0, 2**32 - 1), indexes=INDEXES, payload=st.binary(max_size=4))
def test_messages(schema: int, indexes: list[int], payload: bytes) -> None:
    """Id and indexes are in front of the payload, or in the header, which goes before what is in front."""
    place = number(len(indexes)) + b"".join(map(number, indexes))
    front = b"\0" + schema.to_bytes(4, "big") + place
    assert split_message(front + payload, None) == (schema, tuple(indexes), len(front))
    assert split_message(payload, front) == (schema, tuple(indexes), 0)
    assert split_message(front, b"\1" + GUID.bytes + place) == (GUID, tuple(indexes), 0)


def test_the_first_message() -> None:
    """It has a byte 0 in place of a list."""
    assert split_message(b"\0\0\0\0\5\0x", None) == (5, (0,), 6)


@pytest.mark.parametrize(
    "rest",
    [b"", b"\1", b"\2", b"\2\1", b"\4\2", b"\x80", b"\x80" * 5 + b"\0", number(101) + b"\0" * 101, b"\2\x80\x80"],
)
def test_no_message(rest: bytes) -> None:
    """A list that ends early, is too long, or has a number below zero is none."""
    with pytest.raises(FrameError):
        split_message(b"\0\0\0\0\5" + rest, None)


@pytest.mark.parametrize(
    ("value", "header"), [(b"", None), (b"\0\0\0\0", None), (b"\1" + GUID.bytes, None), (b"\0" * 6, b"\1"), (b"", b"")]
)
def test_no_frame(value: bytes, header: bytes | None) -> None:
    """Too few bytes, another magic byte, and a GUID in front."""
    with pytest.raises(FrameError):
        split_frame(value, header)


def test_headers() -> None:
    """Values and keys have headers of their own, of which the last counts; one that is null is none."""
    headers: list[tuple[str, str | bytes | None]] = [("__value_schema_id", b"a"), ("__key_schema_id", "b")]
    assert (find_header(headers, "value"), find_header(headers, "key")) == (b"a", b"b")
    assert find_header([*headers, ("__key_schema_id", None)], "key") is None
    assert find_header(None, "key") is None
