"""The texts in names and artifacts of the run history."""

import pytest

from tasks.errors import StoppedError
from tasks.observe.report import artifact_key, format_count
from tasks.run_context import Stop
from tasks.settings.job import Job


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (9999, "9,999"), (10_000, "10.0k"), (999_949, "999.9k"), (10_000_000, "10.0M"), (2 * 10**9, "2.0G")],
)
def test_counts_in_names(number: int, text: str) -> None:
    """A count is exact while that is short."""
    assert format_count(number) == text


def test_names_of_runs() -> None:
    """A name has source and columns; a sort of several columns differs from several sorts."""
    assert Job().title == "source · id,name,continent"
    assert Job(sorts=["id", "continent,id:desc=x"]).title == "source · id,(continent,id:desc)"


def test_artifact_keys() -> None:
    """Any job's name gives a key that Prefect takes."""
    assert artifact_key("summary", "Orders_v2.eu") == "summary-orders-v2-eu"


def test_a_stop_that_came_before() -> None:
    """Work that could not be interrupted any more is not begun."""
    stop = Stop()
    stop.ask(StoppedError("SIGTERM", 15))
    with pytest.raises(StoppedError, match="SIGTERM"), stop.interrupting(lambda: None):
        pytest.fail("begun")
