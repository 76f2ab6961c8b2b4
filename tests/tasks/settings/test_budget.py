"""The division of one limit among the users of memory."""

import pytest
from hypothesis import given, strategies as st

from tasks.errors import SettingsError
from tasks.settings.budget import MB, SMALLEST_LIMIT, Budget
from tasks.settings.job import Job


def make(limit: int, dumps: int = 2, sorts: int = 1) -> Budget:
    return Budget.of(Job(memory_limit=str(limit), dump_concurrency=dumps, sort_concurrency=sorts))


@given(st.integers(SMALLEST_LIMIT, 64_000 * MB), st.integers(1, 64), st.integers(1, 16))
def test_no_stage_gets_more_than_the_limit(limit: int, dumps: int, sorts: int) -> None:
    """Stages follow one another: each needs no more at once than the limit."""
    budget = make(limit, dumps, sorts)
    assert budget.duckdb_bytes * sorts <= limit
    assert (budget.consumer_queue_bytes + budget.chunk_buffer_bytes) * dumps <= limit
    assert budget.part_bytes + budget.producer_queue_bytes <= limit
    # Arrow's binary arrays end there.
    assert budget.part_bytes < 2**31


def test_more_memory_is_never_less_for_anyone() -> None:
    """A user who raises the limit does not make a share smaller."""
    small, large = make(SMALLEST_LIMIT), make(4000 * MB)
    assert all(getattr(large, name) >= getattr(small, name) for name in small.__dataclass_fields__)


def test_too_little() -> None:
    """The error names the least limit."""
    with pytest.raises(SettingsError, match="give at least 768 MB"):
        make(SMALLEST_LIMIT - 1)
