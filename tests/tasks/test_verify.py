"""Verification of a whole job, by a real broker: what is right has no difference, and counts are compared."""

import pytest

from tasks.errors import SettingsError
from tasks.settings.job import Job
from tasks.verify import verify_job
from tests.world import REJECTED, World, people


def test_a_sorted_run_is_verified(world: World) -> None:
    """A sorted, whole and unaltered output has no difference, with composite and descending keys, keys and headers."""
    rows = world.fill(people(200))
    world.publish(rows)
    verification = world.verify()
    assert verification.lines() == []
    assert [(r.run, r.records, r.outputs) for r in verification.runs] == [(1, 200, tuple(world.outputs))]


def test_counts_of_the_ledger_are_compared(world: World) -> None:
    """Records and dead letters are as many as the ledger says."""
    rows = world.fill([*people(30), *REJECTED])
    world.publish(rows, records=41, dead_letters=11)
    assert world.differences() == [
        "source: the source range has 40 records, the ledger says 41",
        "source-dead-letters: the source range has 10 records that cannot be sorted, the ledger says 11",
    ]


def test_nothing_to_verify(world: World) -> None:
    """A job that found nothing so far has nothing wrong; one that never started is a wrong setting."""
    found = world.verify()
    assert found.ok
    assert found.table() == []
    assert "has no run yet, so there is nothing to verify" in found.headline()
    nobody = Job(source_topic=world.name, job_name="nobody", workdir=world.workdir)
    with pytest.raises(SettingsError, match="has no ledger kafka-sort.nobody.ledger.*--job-name"):
        verify_job(nobody, world.connection)
    with pytest.raises(SettingsError, match="0 runs"):
        world.verify(0)
