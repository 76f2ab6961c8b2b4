"""Confluent's wire format: ids and payloads beside an expectation that reads one value at a time."""

import random
from uuid import UUID

import numpy as np
import pyarrow as pa
from hypothesis import given, strategies as st

from tasks.formats.wire import cut_values, read_schema_header, split_frames, split_indexes

GUID = UUID("12345678-1234-5678-1234-567812345678")
VALUES = st.one_of(
    st.none(),
    st.binary(max_size=8),
    st.builds(lambda i, rest: b"\0" + i.to_bytes(4, "big") + rest, st.sampled_from([0, 7, 2**32 - 1]), st.binary()),
)
PREFIX = st.sampled_from([None, b"", b"\0\0\0\0\x07", b"\0\0\0\1", b"\1" + GUID.bytes + b"\0", b"\1" + GUID.bytes[:-1]])


def expected_schema(value: bytes | None, header: bytes | None) -> int | UUID | None:
    if value is None:
        return None
    if header is not None:
        return read_schema_header(header)
    return int.from_bytes(value[1:5], "big") if value[:1] == b"\0" and len(value) >= 5 else None


@given(rows=st.lists(st.tuples(VALUES, PREFIX), max_size=12), headed=st.booleans(), skipped=st.integers(0, 3))
def test_schema_of_each_record(*, rows: list[tuple[bytes | None, bytes | None]], headed: bool, skipped: int) -> None:
    """The id is that of the header, if there is one, else that in front; the others are refused."""
    values = pa.array([value for value, _ in rows], pa.binary()).slice(skipped)
    headers = pa.array([header for _, header in rows], pa.binary()).slice(skipped) if headed else None
    frames = split_frames(values, headers)
    for i, (value, header) in enumerate(rows[skipped:]):
        expected = expected_schema(value, header if headed else None)
        code = int(frames.codes[i])
        assert (frames.schemas[code] if code >= 0 else None) == expected
        assert (i in frames.refused) == (expected is None)
        if expected is not None:
            assert frames.starts[i] == (0 if headed and header is not None else 5)


def test_reasons() -> None:
    """A refused record's reason says what it begins with."""
    values = pa.array([None, b"", b"{}", b"\0\1"], pa.binary())
    assert split_frames(values).refused == {
        0: "null value",
        1: "empty value",
        2: "begins with the byte 123, and not with the magic byte 0 of a schema registry: '{}'",
        3: r"has 2 bytes, too few for a schema id: '\x00\x01'",
    }
    assert split_frames(values, pa.array([None, b"x", None, None], pa.binary())).refused[1] == (
        "has no schema id in its header: 'x'"
    )


def varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def read_indexes(data: bytes) -> tuple[tuple[int, ...], bytes] | None:
    """Read one list of indexes, with what is behind it; None if there is none."""

    def number(data: bytes) -> tuple[int, bytes] | None:
        value = 0
        for i, byte in enumerate(data[:5]):
            value |= (byte & 127) << (7 * i)
            if byte < 128:
                return (value >> 1) ^ -(value & 1), data[i + 1 :]
        return None

    first = number(data)
    if first is None or not 0 <= first[0] <= 100:
        return None
    count, rest = first
    found: list[int] = []
    for _ in range(count):
        item = number(rest)
        if item is None or item[0] < 0:
            return None
        found.append(item[0])
        rest = item[1]
    return (tuple(found) if count else (0,)), rest


LISTS = st.lists(st.integers(0, 300), max_size=4).map(
    lambda found: b"".join(varint(2 * i) for i in (len(found), *found)) + b"rest"
)


@given(st.lists(st.one_of(st.just(b"\0payload"), LISTS, st.binary(max_size=6)), max_size=10), st.integers(0, 2))
def test_message_indexes(rests: list[bytes], skipped: int) -> None:
    """Indexes and payload of each value are those that a reader of one value finds."""
    values = pa.array([b"\0\0\0\0\1" + rest for rest in rests], pa.binary()).slice(skipped)
    found = split_indexes(values, np.full(len(values), 5, np.int64))
    accepted = [i for i in range(len(values)) if i not in found.refused]
    payloads = cut_values(values, np.where(found.codes >= 0, found.starts, 0))
    for i, rest in enumerate(rests[skipped:]):
        expected = read_indexes(rest)
        assert (i in accepted) == (expected is not None)
        if expected is not None:
            assert found.places[found.codes[i]] == expected[0]
            assert payloads[i].as_py() == expected[1]


def test_many_starts() -> None:
    """Payloads keep their order, whatever is in front of each."""
    chance = random.Random(3)
    starts = np.array([chance.randrange(4) for _ in range(50)], np.int64)
    values = pa.array([b"x" * int(start) + b"%d" % i for i, start in enumerate(starts)], pa.binary())
    assert cut_values(values, starts).to_pylist() == [b"%d" % i for i in range(50)]
