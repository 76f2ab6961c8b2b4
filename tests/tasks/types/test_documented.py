"""The examples of docs/types.md: what keys are read as, and how they compare."""

import re
from itertools import pairwise
from typing import Any

import pytest

from tasks.settings.column_types import parse_type
from tasks.types.registry import key_type
from tests.documents import text_of
from tests.tasks.types.outcomes import outcomes_of, read

_TYPES = text_of("docs/types.md")
_CODE = r"`([^`]+)`"
_EXAMPLES = re.findall(rf"^\| {_CODE} \| {_CODE} \| {_CODE} \|$", _TYPES, re.MULTILINE)
_ORDERS = re.findall(rf"^\| {_CODE} \| (`[^|]+`) \|$", _TYPES, re.MULTILINE)
_NAMES = {"int", "decimal", "float", "bool", "time", "uuid", "text"}


@pytest.mark.parametrize(("kind", "text", "expected"), _EXAMPLES)
def test_examples(kind: str, text: str, expected: str) -> None:
    """Each text has the printed form or the reason that the page says."""
    outcome, is_reason = read(kind, text.encode()), ": " in expected
    assert isinstance(outcome, str) == is_reason
    assert (outcome if is_reason else str(key_type(parse_type(kind)).show(outcome))) == expected


@pytest.mark.parametrize(("kind", "chain"), _ORDERS)
def test_orders(kind: str, chain: str) -> None:
    """Each text is before or equal to the next, as the page says."""
    texts, signs = re.findall(_CODE, chain), re.findall("` ([<=]) `", chain)
    stored: list[Any] = [*outcomes_of(kind, [text.encode() for text in texts])]
    assert not {text for text, outcome in zip(texts, stored, strict=True) if isinstance(outcome, str)}
    found = ["=" if a == b else "<" if a < b else ">" for a, b in pairwise(stored)]
    assert found == signs


def test_the_page_has_each_type() -> None:
    """Every type has an example of a key, of a refusal if there is one, and of its order."""
    table = re.findall(r"^\| (`[^|]+`) \| [^|]+ \| [^|]+ \| [^|]+ \|$", _TYPES, re.MULTILINE)
    assert {re.sub(r"\(.*", "", kind) for row in table for kind in re.findall(_CODE, row)} == _NAMES
    assert {kind.partition("(")[0] for kind, _, _ in _EXAMPLES} == _NAMES
    assert {kind.partition("(")[0] for kind, _ in _ORDERS} == _NAMES
    assert {kind for kind, _, shown in _EXAMPLES if ": " in shown} == {"time(s)", *_NAMES} - {"text"}
