"""Keys as columns of files: what was encoded comes back as a value of its type."""

import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from tasks.settings.column_types import parse_type
from tasks.types.registry import key_type

VALUES: dict[str, list[tuple[bytes, Any]]] = {
    "int": [(b"-9223372036854775808", -(2**63)), (b"0x1F", 31), (b"0", 0)],
    "decimal": [
        (b"1.10", "1.1"),
        (b"-0", "0"),
        (b"1e-9999", "1e-9999"),
        (b"12345678901234567890", "1234567890123456789e1"),
    ],
    "float": [(b"-inf", -math.inf), (b"1.5", 1.5), (b"-0", 0.0)],
    "bool": [(b"TRUE", True), (b"0", False)],
    "time": [(b"1969-12-31T23:59:59.5Z", datetime(1969, 12, 31, 23, 59, 59, 500_000, UTC))],
    "time(ms)": [(b"-1", datetime(1969, 12, 31, 23, 59, 59, 999_000, UTC))],
    "uuid": [(b"FFFFFFFF-0000-0000-0000-000000000001", UUID("ffffffff-0000-0000-0000-000000000001"))],
    "text(utf8)": [("é\0".encode(), "é\0"), (b"", "")],
}


@pytest.mark.parametrize("name", VALUES)
def test_what_is_stored_comes_back(name: str) -> None:
    """Each value, nulls among them; also from the middle of an array."""
    texts, expected = [text for text, _ in VALUES[name]], [value for _, value in VALUES[name]]
    kind = key_type(parse_type(name))
    stored, refused = kind.encode(pa.array([b"?", *texts, None][1:]))
    assert not refused
    column = kind.to_column(stored)
    assert column.type == kind.column
    found = column.to_pylist()
    if name == "decimal":
        found, expected = [x and Decimal(x) for x in found], [Decimal(str(x)) for x in expected]
    assert found == [*expected, None]
    assert kind.to_column(stored[1:]).to_pylist() == column.to_pylist()[1:]


def test_nan_is_nan() -> None:
    """It is one value, whatever its bits were."""
    kind = key_type(parse_type("float"))
    stored, _ = kind.encode(pa.array([b"nan", b"-NaN"]))
    assert all(math.isnan(x) for x in kind.to_column(stored).to_pylist())


@given(st.lists(st.binary(max_size=6)))
def test_a_text_is_utf8_or_refused(texts: list[bytes]) -> None:
    """`text(utf8)` takes just what Python decodes, and leaves it as it is."""
    kind = key_type(parse_type("text(utf8)"))
    stored, refused = kind.encode(pa.array(texts, pa.binary()))
    for i, text in enumerate(texts):
        try:
            assert (text.decode(), i in refused) == (stored[i].as_py().decode(), False)
        except UnicodeDecodeError:
            assert refused[i].startswith("is not UTF-8")
