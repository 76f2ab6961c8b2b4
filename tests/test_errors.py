"""The error catalogue: current, whole, and every error of it comes up in some test."""

import re
from pathlib import Path

import pytest

from kafka_sort.catalogue import all_errors, meaning, render
from tasks.errors import KafkaSortError

ROOT = Path(__file__).parents[1]
TESTS = "\n".join(path.read_text() for path in sorted((ROOT / "tests").rglob("test_*.py")))
# `pytest.raises(SomeError)`, or the mark that tests/raised.py holds a test to.
RAISED = {name for names in re.findall(r"\braises\([(\"]?([\w, ]+)", TESTS) for name in names.split(", ")}


def test_the_catalogue_is_current() -> None:
    """`make docs` would change nothing."""
    assert (ROOT / "docs" / "errors.md").read_text() == render()


@pytest.mark.parametrize("kind", all_errors())
def test_an_error_is_documented_and_raised(kind: type[KafkaSortError]) -> None:
    """It says what it means and what to do, and a test waits for this very class."""
    assert len(meaning(kind)) > 20
    assert kind.__doc__ != kind.__mro__[1].__doc__
    assert len(kind.action) > 20
    assert kind.at_risk.endswith(".")
    assert kind.__name__ in RAISED, f"no test raises {kind.__name__}: pytest.raises, or @pytest.mark.raises"
