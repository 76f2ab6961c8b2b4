"""The texts in names and artifacts of the run history."""

import pytest

from tasks.errors import StoppedError
from tasks.observe.progress import format_progress
from tasks.observe.report import artifact_key, format_count, workers_table
from tasks.run_context import Progress, Stop, WorkerUse
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


def test_stages_on_workers() -> None:
    """The summary says what stages took on workers, and the progress how many tasks are done; threads have neither."""
    progress = Progress()
    progress.meter("snapshot")
    assert workers_table(progress)[1] == []
    progress.meter("dump", 10).use = WorkerUse(3, 1200, 1100, 2, 130.0, 1_230_000_000)
    assert workers_table(progress)[1] == [("dump", "3", "1,200", "2", "2:10 min", "1.23 GB")]
    assert format_progress(progress.meters).startswith("dump 0 of 10, 1,100 of 1,200 tasks on 3 workers, ")


def test_a_stop_that_came_before() -> None:
    """Work that could not be interrupted any more is not begun."""
    stop = Stop()
    stop.ask(StoppedError("SIGTERM", 15))
    with pytest.raises(StoppedError, match="SIGTERM"), stop.interrupting(lambda: None):
        pytest.fail("begun")
