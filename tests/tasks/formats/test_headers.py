"""Headers of records."""

import pyarrow as pa

from tasks.arrow import HEADERS
from tasks.formats.headers import find_header


def test_last_header_of_a_name() -> None:
    """Of several headers of one name the last counts; a record without headers has none."""
    rows = [None, [("a", b"1"), ("b", b"2"), ("a", b"3")], [], [("a", None)], [("b", b"4")], [("a", b"5")]]
    headers = pa.array([None if row is None else [{"name": n, "value": v} for n, v in row] for row in rows], HEADERS)
    assert find_header(headers, "a").to_pylist() == [None, b"3", None, None, None, b"5"]
    assert find_header(headers.slice(2), "a").to_pylist() == [None, None, None, b"5"]
    assert find_header(headers, "c").to_pylist() == [None] * 6
