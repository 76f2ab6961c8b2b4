"""Dead letters are the records that cannot be sorted: each once, unaltered."""

from dataclasses import replace

from tests.world import REJECTED, Row, World, people


def test_dead_letters_are_verified(world: World) -> None:
    """Records that cannot be sorted are expected in the dead-letter topic, byte for byte, and in no output."""
    rows = world.fill(people(60) + REJECTED)
    world.publish(rows)
    # They are of another range, another topic, and another job: not ours.
    strange = {"offset": b"999999", "topic": b"elsewhere", "connector.name": b"another"}
    letter = world.letters(rows)[0]
    others = [
        replace(letter, headers=(*letter.headers, (f"__connect.errors.{name}", text))) for name, text in strange.items()
    ]
    world.send(world.dead_letters, others)
    verification = world.verify()
    assert verification.lines() == []
    assert verification.runs[0].dead_letters == len(REJECTED)


def test_a_missing_dead_letter_is_found(world: World) -> None:
    """A record in no output and not in the dead-letter topic is a difference."""
    rows = world.fill(people(60) + REJECTED)
    world.publish(rows, letters=world.letters(rows)[1:])
    assert world.differences() == [f"source-dead-letters: the dead letter of source{rows[60].place} is missing"]


def test_a_dead_letter_of_another_time_is_found(world: World) -> None:
    """Dead letters keep their timestamps, whatever the outputs do."""
    rows = world.fill([*people(30), Row(b"no row")])
    (letter,) = world.letters(rows)
    world.publish(rows, letters=[replace(letter, time=letter.time + 7)])
    what = f"has the timestamp {letter.time + 7} in place of {letter.time}"
    assert world.differences() == [f"source-dead-letters/0 offset 0: the dead letter of source/0 offset 10 {what}"]


def test_altered_and_doubled_dead_letters_are_found(world: World) -> None:
    """A dead letter is byte for byte what came in, and there once."""
    rows = world.fill(people(60) + REJECTED)
    letters = world.letters(rows)
    letters[3] = replace(letters[3], value=b"1,2,3,5")
    letters.append(letters[1])
    world.publish(rows, letters=letters)
    assert world.differences() == [
        f"source-dead-letters/0 offset 3: the dead letter of source{rows[63].place} is altered",
        "source-dead-letters/0 offset 10: the dead letter is there again",
    ]


def test_a_dead_letter_that_can_be_sorted_is_found(world: World) -> None:
    """A record must not be a dead letter without reason."""
    rows = world.fill(people(60))
    world.publish(rows, letters=[replace(rows[5], partition=0, headers=world.errors(rows[5]))])
    assert world.differences() == ["source-dead-letters/0 offset 0: the dead letter is of a record that can be sorted"]


def test_dead_letters_of_dead_letters(world: World) -> None:
    """A source that is itself a dead-letter topic: error headers that a record brings along are not overwritten."""
    brought = tuple((f"__connect.errors.{name}", b"elsewhere") for name in ("topic", "partition", "offset"))
    others = tuple((f"__connect.errors.{name}", b"other") for name in ("topic.id", "connector.name"))
    bad = [Row(b"no row", headers=brought), Row(b"no row", headers=(*brought, *others))]
    rows = world.fill([*people(30), *bad])
    world.publish(rows, letters=[replace(row, partition=0) for row in rows[30:]])
    assert world.verify().lines() == []


def test_a_dead_letter_that_is_returned(world: World) -> None:
    """A dead letter that is in its own source again is another record there, with a dead letter of its own."""
    rows = world.fill([*people(30), Row(b"no row")])
    world.publish(rows)
    (letter,) = world.letters(rows)
    returned = world.fill([Row(letter.value, headers=letter.headers)])
    world.publish(returned, letters=[])
    assert world.differences() == [f"source-dead-letters: the dead letter of source{returned[0].place} is missing"]
    world.send(world.dead_letters, world.letters(returned))
    assert world.verify().lines() == []
