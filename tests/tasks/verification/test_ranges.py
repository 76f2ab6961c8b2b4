"""What cannot be read any more is named; gaps that are no records, and lost ranges, are no difference."""

from dataclasses import replace

import pytest

from tasks.broker.embedded import EmbeddedBroker
from tasks.errors import TransientError
from tasks.kafka.topics import create_topic, describe_topic
from tasks.manifests import LostRange
from tests.world import OUTPUT_PARTITIONS, PATIENCE, World, make_transactional, people


def test_an_output_cut_by_retention_is_not_verifiable(world: World) -> None:
    """Records that retention removed from an output are named, no difference; the other outputs are verified."""
    rows = world.fill(people(60))
    world.publish(rows)
    world.truncate(world.outputs[0], 1, 5)
    verification = world.verify()
    assert verification.ok
    assert verification.runs[0].unverifiable == (f"{world.outputs[0]}: partition 1 offsets 0 to 4 are gone",)


def test_a_source_cut_by_retention_is_not_verifiable(world: World) -> None:
    """Records that retention removed from the source are named, no difference; a later run is verified."""
    world.publish(world.fill(people(60)))
    world.publish(world.fill(people(60, seed=2)))
    world.truncate(world.name, 2, 3)
    verification = world.verify()
    assert verification.ok
    assert [r.unverifiable for r in verification.runs] == [(f"{world.name}: partition 2 offsets 0 to 2 are gone",), ()]


def test_lost_ranges_are_no_difference(world: World) -> None:
    """Offsets that the run itself recorded as lost are not expected."""
    rows = world.fill(people(60))
    world.truncate(world.name, 1, 4)
    left = [r for r in rows if r.partition != 1 or r.offset >= 4]
    world.publish(left, lost=(LostRange(1, 0, 4),))
    assert world.verify().lines() == []


def test_gaps_are_no_records(world: World) -> None:
    """Aborted transactions and control records in the source, also at its end or as a whole range, are no gap."""
    rows = world.fill(people(30))
    world.send(world.name, [replace(r, partition=p) for r in people(20) for p in range(2)], commit=False)
    more = world.fill(people(30, seed=2))
    world.send(world.name, [replace(r, partition=p) for r in people(20) for p in range(3)], commit=False)
    world.publish([*rows, *more])
    world.send(world.name, [replace(r, partition=1) for r in people(20)], commit=False)
    world.publish([])
    verification = world.verify()
    assert verification.lines() == []
    assert [r.records for r in verification.runs] == [60, 0]


def test_aborted_publishing_is_no_record(world: World) -> None:
    """A run that was published at the second attempt holds its records once for a committed reader."""
    rows = world.fill(people(60))
    world.send(world.outputs[0], [replace(r, partition=2) for r in rows], commit=False)
    world.publish(rows)
    assert world.verify().lines() == []


def test_an_output_that_was_made_again_is_a_difference(world: World) -> None:
    """A deleted output is a difference, and so is another topic of the same name, even if it is empty."""
    world.publish(world.fill(people(30)))
    topic = world.outputs[0]
    world.admin.delete_topics([topic])[topic].result(PATIENCE)
    while describe_topic(world.admin, topic) is not None:
        pass
    assert world.differences() == ["source-0: the topic does not exist any more"]
    create_topic(world.admin, topic, OUTPUT_PARTITIONS)
    found = world.differences()
    assert "source-0: the topic was deleted and recreated since the run: its id differs" in found
    assert "source-0/1 offset 0: the partition ends before offset 9, the run's last" in found


def test_a_source_that_was_made_again_is_not_verifiable(world: World) -> None:
    """A run of a source that is gone cannot be compared, which is no difference."""
    world.publish(world.fill(people(30)), source_topic_id="another")
    verification = world.verify()
    assert verification.ok
    assert "deleted and recreated" in verification.headline()


def test_an_open_transaction_is_waited_for(world: World, broker: EmbeddedBroker) -> None:
    """A commit is answered before its markers are written: unreadable offsets are an error, not a difference."""
    producer = make_transactional(broker)
    producer.begin_transaction()
    producer.produce(world.outputs[0], b"1,a,b", partition=1)
    producer.flush(PATIENCE)
    world.publish(world.fill(people(30)))
    world.job = world.job.model_copy(update={"request_timeout": 1.0})
    with pytest.raises(TransientError, match=r"-0/1 can be read to offset 0 of 11 only"):
        world.verify()
    producer.abort_transaction(PATIENCE)
    assert "the record was written by no run" not in str(world.verify().lines())
