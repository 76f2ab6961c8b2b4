"""Formats of keys: the key column that a record's key is, or the reason that it is none."""

import struct

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from tasks.arrow import HEADERS
from tasks.formats.registry import make_format
from tasks.kafka.fetch import Block
from tasks.settings.job import Job

# The letters of `struct` for what Kafka's serializers write.
CODES = {"int32": ">i", "int64": ">q"}
# The outcome of a key: an integer, None where it is null and may be, or the reason that it is none.
Outcome = int | str | None


def outcomes(keys: pa.Array, key_format: str, term: str = "@key:nulls-last") -> list[Outcome]:
    count = len(keys)
    block = Block(pa.nulls(count, pa.binary()), keys, pa.nulls(count, HEADERS), np.arange(count), np.arange(count))
    job = Job.model_validate({"source_topic": "s", "sorts": [term], "format": "none", "key_format": key_format})
    parsed = make_format(job).parse(block.table(0))
    assert parsed.columns["@key"].type == pa.int64()
    found = iter(parsed.columns["@key"].to_pylist())
    return [parsed.rejected[i] if i in parsed.rejected else next(found) for i in range(count)]


@pytest.mark.parametrize("key_format", CODES)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_integers(key_format: str, data: st.DataObject) -> None:
    """A key is what `struct` reads from exactly its bytes, whatever its neighbours."""
    width = struct.calcsize(CODES[key_format])
    limit = 2 ** (8 * width - 1)
    number = st.integers(-limit, limit - 1).map(lambda n: struct.pack(CODES[key_format], n))
    keys = data.draw(st.lists(number | st.none() | st.binary(max_size=9), max_size=12))
    cut = data.draw(st.integers(0, len(keys)))

    def expected(key: bytes | None) -> Outcome:
        if key is None:
            return None
        if len(key) != width:
            return f"@key is no {key_format}: {len(key)} byte{'' if len(key) == 1 else 's'}"
        read: int = struct.unpack(CODES[key_format], key)[0]
        return read

    assert outcomes(pa.array(keys, pa.binary())[cut:], key_format) == [expected(key) for key in keys[cut:]]


def test_null_keys() -> None:
    """A null key is a dead letter unless the sort has a place for it; a short one is one in any case."""
    keys = pa.array([None, b"\0\0\0\7", b"", b"\xff\xff\xff\xfe"], pa.binary())
    assert outcomes(keys, "int32", "@key:desc") == ["@key is null", 7, "@key is no int32: 0 bytes", -2]
    assert outcomes(keys, "int32") == [None, 7, "@key is no int32: 0 bytes", -2]


def test_text_is_read_as_the_type_reads_it() -> None:
    """Without a format a key is text, which a type may read."""
    assert outcomes(pa.array([b"7", None, b"x"], pa.binary()), "text", "@key:int:nulls-last") == [
        7,
        None,
        "@key is not an integer: 'x'",
    ]
