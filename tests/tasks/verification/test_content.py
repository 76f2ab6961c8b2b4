"""Digests of records depend on each part of a record, and on nothing else."""

import hypothesis.strategies as st
from hypothesis import given

from tasks.verification.content import Headers, digest_records

PART = st.none() | st.binary(max_size=2)
RECORD = st.tuples(PART, PART, st.none() | st.lists(st.tuples(st.sampled_from(["a", "b"]), PART), max_size=2))
Record = tuple[bytes | None, bytes | None, Headers]


def digest(records: list[Record]) -> list[int]:
    values, keys, headers = ([record[i] for record in records] for i in range(3))
    return list(digest_records(values, keys, headers).tolist())  # type: ignore[arg-type]  # each part has its type


@given(st.lists(RECORD, max_size=20))
def test_equal_digests_are_of_equal_records(records: list[Record]) -> None:
    """Null, empty and absent differ, value and key are not the same; no headers are no headers, null or empty."""
    digests = digest(records)
    assert digests == [digest([record])[0] for record in records]
    contents = [(value, key, list(headers or ())) for value, key, headers in records]
    for i, content in enumerate(contents):
        for other, found in zip(contents, digests, strict=True):
            assert (content == other) == (digests[i] == found)
