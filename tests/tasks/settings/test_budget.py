"""The division of one limit among the users of memory."""

import pytest
from hypothesis import given, strategies as st

from tasks.errors import SettingsError
from tasks.settings.budget import (
    BASE_BYTES,
    MB,
    SMALLEST_LIMIT,
    Budget,
    bytes_of_worker,
    check_limit,
    job_of_workers,
    most_workers,
)
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


@given(st.integers(SMALLEST_LIMIT + BASE_BYTES, 640_000 * MB), st.integers(1, 64))
def test_workers_of_a_machine_share_its_limit(limit: int, wanted: int) -> None:
    """All workers, and a driver beside them, take no more than the limit; no part is too large to be published."""
    job = Job(memory_limit=str(limit))
    workers = min(wanted, most_workers(job))
    whole, own = Budget.of(job), Budget.of(job_of_workers(job, workers))
    each = max(own.duckdb_bytes, own.consumer_queue_bytes + own.chunk_buffer_bytes)
    assert BASE_BYTES + workers * (BASE_BYTES + each) <= limit
    assert BASE_BYTES + each <= bytes_of_worker(job, workers)
    assert BASE_BYTES + workers * bytes_of_worker(job, workers) <= limit + workers
    assert own.part_bytes <= whole.part_bytes


def test_the_limit_of_workers_that_was_computed_before() -> None:
    """The divided limit counts, also if the job's own was asked for before."""
    job = Job(memory_limit="4GB", sorts=["id"])
    assert job.memory_bytes == 4000 * MB
    own = job_of_workers(job, 3)
    assert own.memory_bytes == Job(memory_limit=own.memory_limit).memory_bytes == 4000 * MB - 3 * BASE_BYTES
    assert (own.dump_concurrency, own.sort_concurrency, own.sorts) == (3, 3, ["id"])


def test_too_little_for_workers() -> None:
    """The error names the least limit for so many workers; one worker is the least there is."""
    with pytest.raises(SettingsError, match=r"too small for 3 workers on one machine: give at least 2028 MB"):
        job_of_workers(Job(memory_limit="2GB"), 3)
    check_limit(Job(memory_limit="768MB"))
    with pytest.raises(SettingsError, match=r"too small for 1 workers on one machine: give at least 1188 MB"):
        check_limit(Job(memory_limit="768MB", runner="dask"))
