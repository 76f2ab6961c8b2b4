"""The error catalogue: current, whole, and every error of it is raised in some test and crosses processes."""

import inspect
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from kafka_sort.catalogue import all_errors, meaning, render
from tasks.errors import KafkaSortError, StoppedError
from tasks.manifests import LostRange
from tasks.run_context import Stop

ROOT = Path(__file__).parents[1]
TESTS = "\n".join(path.read_text() for path in sorted((ROOT / "tests").rglob("test_*.py")))
# `pytest.raises(SomeError)`, or the mark that tests/raised.py holds a test to.
RAISED = {name for names in re.findall(r"\braises\([(\"]?([\w, ]+)", TESTS) for name in names.split(", ")}


def test_the_catalogue_is_current() -> None:
    """`make docs` would change nothing."""
    assert (ROOT / "docs" / "errors.md").read_text() == render()


@pytest.mark.parametrize("kind", all_errors())
def test_an_error_is_documented_and_raised(kind: type[KafkaSortError]) -> None:
    """Each error says what it means and what to do, and a test waits for this very class."""
    assert len(meaning(kind)) > 20
    assert kind.__doc__ != kind.__mro__[1].__doc__
    assert len(kind.action) > 20
    assert kind.at_risk.endswith(".")
    assert kind.__name__ in RAISED, f"no test raises {kind.__name__}: pytest.raises, or @pytest.mark.raises"


def asked() -> Stop:
    stop = Stop()
    stop.ask(StoppedError("SIGINT", 2))
    return stop


# An argument of each kind that an error is made with.
ARGUMENTS: dict[str, Any] = {
    "float": 1.5,
    "int": 7,
    "signal": 15,
    "Iterable": ("replace",),
    "Sequence": (LostRange(1, 2, 3),),
    "Stop": asked(),
    "str": "the topic",
}


@pytest.mark.parametrize("kind", all_errors())
def test_an_error_crosses_processes(kind: type[KafkaSortError]) -> None:
    """Text, facts and exit status are the same on the other side: a worker's error is the run's."""
    own = inspect.isfunction(kind.__init__)
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:] if own else []
    given = [ARGUMENTS[getattr(p.annotation, "__name__", "") if p.name != "signal" else "signal"] for p in parameters]
    error = kind(*given) if own else kind("what happened")
    error.add_note("noted")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (str(copy), copy.args, copy.exit_code) == (str(error), error.args, error.exit_code)
    assert copy.__dict__ == error.__dict__
