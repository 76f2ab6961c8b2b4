"""Keys that verification encodes, beside values that compare by themselves."""

from collections.abc import Sequence
from typing import Any

from tasks.verification.terms import Kind
from tasks.verification.types.registry import make_type


def assert_same_order(keys: Sequence[Any], values: Sequence[Any]) -> None:
    """Fail unless each pair compares alike, equality included."""
    for key, value in zip(keys, values, strict=True):
        for other_key, other in zip(keys, values, strict=True):
            assert (key < other_key, key == other_key) == (value < other, value == other), (value, other)


def encode_all(name: str, texts: Sequence[str], parameter: str = "") -> list[bytes]:
    """Return the keys of texts that the type takes, and check that each encodes alike alone."""
    kind = make_type(Kind(name, parameter))
    keys, bad = kind.encode([text.encode() for text in texts])
    assert bad == [], [texts[i] for i in bad]
    assert keys == [kind.encode([text.encode()])[0][0] for text in texts]
    return keys


def refused(name: str, texts: Sequence[str | bytes], parameter: str = "") -> list[str | bytes]:
    """Return the texts that the type refuses."""
    found = make_type(Kind(name, parameter)).encode([t.encode() if isinstance(t, str) else t for t in texts])[1]
    return [texts[i] for i in found]
