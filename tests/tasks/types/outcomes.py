"""Outcomes of texts under a type, beside an independent expectation; and texts that are nearly right."""

from collections.abc import Callable, Sequence
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
from hypothesis.strategies import SearchStrategy

from tasks.settings.column_types import parse_type
from tasks.types.registry import key_type

# The key of a text, which compares as the type does; ValueError with the reason where it has none.
Expectation = Callable[[bytes], Any]
Texts = Sequence[bytes | None]
Outcome = int | bytes | str | None

_BYTES = st.sampled_from([bytes([byte]) for byte in b" \t\n\0+-._,:0159xXeEaTtZz\xff\x80\xc3"])


def _mutate(text: bytes, place: float, removed: int, added: bytes) -> bytes:
    at = int(place * len(text))
    return text[:at] + added + text[at + removed :]


def nearly(texts: SearchStrategy[bytes]) -> SearchStrategy[bytes]:
    """Texts that are mostly right: as they are, within blanks, or with a byte more, less or other."""
    blanks = st.sampled_from([b"", b"", b" ", b"\t ", b"\n"])
    around = st.builds(lambda a, text, b: a + text + b, blanks, texts, blanks)
    spoilt = st.builds(_mutate, texts, st.floats(0, 1), st.integers(0, 1), _BYTES | st.just(b""))
    return texts | around | spoilt | st.binary(max_size=5)


def blocks(texts: SearchStrategy[bytes]) -> SearchStrategy[list[bytes | None]]:
    """Columns of them, some of right texts alone, which are encoded at once, some with nulls."""
    right: SearchStrategy[list[bytes | None]] = st.lists(texts, max_size=8).map(list)
    return right | st.lists(nearly(texts) | st.none(), max_size=8)


def outcomes(kind: str, column: pa.Array) -> list[Outcome]:
    """Return the stored value of each, or the reason."""
    encoder = key_type(parse_type(kind))
    stored, reasons = encoder.encode(column)
    assert stored.type == encoder.stored
    assert len(stored) == len(column)
    stored.validate(full=True)
    values: list[Outcome] = stored.to_pylist()
    if parse_type(kind).name != "text":
        printed = [None if value is None else str(encoder.show(value)).encode() for value in values]
        assert encoder.print_all(stored).to_pylist() == printed
    for row, reason in reasons.items():
        assert values[row] is None
        values[row] = reason
    assert [value is None for value in values] == column.is_null().to_pylist()
    return values


def outcomes_of(kind: str, texts: Texts) -> list[Outcome]:
    return outcomes(kind, pa.array(texts, pa.binary()))


def read(kind: str, text: bytes) -> Any:
    """Return the stored value of one text, or the reason."""
    return outcomes_of(kind, [text])[0]


def expected_outcome(text: bytes, expect: Expectation) -> Any:
    """Return what `read` should, if keys are stored as they are."""
    reason, key = _expected(text, expect)
    return key if reason is None else reason


def shown(kind: str, text: bytes) -> int | str:
    return key_type(parse_type(kind)).show(read(kind, text))


def assert_as_expected(kind: str, texts: Texts, expect: Expectation) -> None:
    """Refusals and reasons are those expected, and stored values compare as the expected keys do."""
    expected = [_expected(text, expect) for text in texts if text is not None]
    found = [outcome for outcome in outcomes_of(kind, texts) if outcome is not None]
    reasons = [outcome if isinstance(outcome, str) else None for outcome in found]
    assert reasons == [reason for reason, _ in expected]
    stored = [outcome for outcome in found if not isinstance(outcome, str)]
    assert _ranks(stored) == _ranks([key for reason, key in expected if reason is None])


def _expected(text: bytes, expect: Expectation) -> tuple[str | None, Any]:
    """Return the reason or the key that is expected."""
    try:
        return None, expect(text)
    except ValueError as error:
        return str(error), None


def _ranks(values: Sequence[Any]) -> list[int]:
    """Return the places of values among the different ones, in their order."""
    places = {value: place for place, value in enumerate(sorted(set(values)))}
    return [places[value] for value in values]


def assert_equal_fate(kind: str, texts: Texts, companions: Sequence[bytes]) -> None:
    """A text has the outcome that it has alone: beside others, in a slice, and beside any one companion."""
    alone = [outcomes_of(kind, [text])[0] for text in texts]
    column = pa.array(texts, pa.binary())
    middle = len(texts) // 2
    assert outcomes(kind, column) == alone
    assert outcomes(kind, column.slice(0, middle)) + outcomes(kind, column.slice(middle)) == alone
    for companion in companions:
        assert outcomes_of(kind, [companion, *texts, companion])[1:-1] == alone
