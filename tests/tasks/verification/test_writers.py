"""Outputs have one writer: verification finds the records of others."""

from dataclasses import replace

from tests.world import World, people, row


def test_a_record_behind_the_run_is_found(world: World) -> None:
    """Outputs have one writer: a record that no run of the ledger wrote is a difference."""
    rows = world.fill(people(60))
    world.publish(rows)
    world.send(world.outputs[0], [row(b"5000", b"x", b"Asia")])
    assert world.differences() == ["source-0/0 offset 21: the record was written by no run of the job"]


def test_a_record_between_runs_is_found(world: World) -> None:
    """A stray record is found even if later runs follow; runs before it stay verified."""
    world.publish(world.fill(people(30)))
    world.send(world.outputs[1], [replace(row(b"5000", b"x", b"Asia"), partition=2)])
    world.publish(world.fill(people(30, seed=2)))
    verification = world.verify()
    assert [len(r.differences) for r in verification.runs] == [0, 1]
    assert (verification.differences[0].partition, verification.differences[0].offset) == (2, 11)
    assert [r.run for r in world.verify(1).runs] == [2]


def test_a_record_before_the_first_run_is_found(world: World) -> None:
    """A record in an output from before the job's first run is a difference."""
    world.send(world.outputs[0], [row(b"5000", b"x", b"Asia")])
    world.publish(world.fill(people(30)))
    assert world.differences() == ["source-0/0 offset 0: the record was written by no run of the job"]


def test_a_job_that_appends(world: World) -> None:
    """A job that may append does not answer for records from before its first run."""
    world.send(world.outputs[0], [row(b"5000", b"x", b"Asia")])
    world.publish(world.fill(people(30)), options={"append": True})
    assert world.verify().lines() == []
