"""Verification finds records that are out of order, within a partition, across partitions and among equals."""

from tests.world import CONTINENTS, MakeWorld, Row, World, change, people, row


def test_neighbours_that_changed_places_are_found(world: World) -> None:
    """Two neighbours in the wrong order are found at the second, where the order breaks."""
    rows = world.fill(people(60))

    def edit(parts: list[list[Row]]) -> None:
        parts[1][5], parts[1][6] = parts[1][6], parts[1][5]

    world.publish(rows, change(world.sorted(rows), world.outputs[0], edit))
    assert world.differences() == [
        "source-0/1 offset 6: the record is out of order: its key belongs before that of source-0/1 offset 5"
    ]


def test_a_record_in_another_partition_is_found(world: World) -> None:
    """Order holds across partitions: a record at the end of the next one breaks it there."""
    rows = world.fill(people(60))

    def edit(parts: list[list[Row]]) -> None:
        parts[1].append(parts[0].pop(3))

    world.publish(rows, change(world.sorted(rows), world.outputs[0], edit))
    assert world.differences() == [
        "source-0/1 offset 20: the record is out of order: its key belongs before that of source-0/1 offset 19"
    ]


def test_a_first_record_below_the_partition_before_is_found(world: World) -> None:
    """Order holds from the last record of a partition to the first one of the next that is not empty."""
    rows = world.fill(people(60))

    def edit(parts: list[list[Row]]) -> None:
        parts[2], parts[1] = [parts[0].pop(), *parts[1], *parts[2]], []
        parts[0].append(parts[2].pop(1))

    world.publish(rows, change(world.sorted(rows), world.outputs[0], edit))
    assert world.differences() == [
        "source-0/2 offset 0: the record is out of order: its key belongs before that of source-0/0 offset 19"
    ]


def test_ties_that_changed_places_are_found(make_world: MakeWorld) -> None:
    """Records with equal keys keep their order of arrival: two that changed places are both named."""
    world = make_world(sorts=("continent",))
    rows = world.fill(people(60))
    outputs = world.sorted(rows)
    first, second = outputs[world.outputs[0]][0][4:6]

    def edit(parts: list[list[Row]]) -> None:
        parts[0][4:6] = [second, first]

    world.publish(rows, change(outputs, world.outputs[0], edit))
    assert first.fields
    assert second.fields
    assert first.fields[2] == second.fields[2]
    what = f"record of source{second.place} stands before that of source{first.place}, of equal key, which came first"
    assert world.differences() == [f"source-0/0 offset 4: {what}"]


def test_order_is_verified_without_the_source(world: World) -> None:
    """If the source is gone, outputs out of order are a difference all the same."""
    rows = world.fill(people(60))
    world.publish(rows, change(world.sorted(rows), world.outputs[0], lambda parts: parts[1].reverse()))
    world.truncate(world.name, 0, 1)
    assert "source-0/1 offset 1: the record is out of order" in world.differences()[0]


def test_text_is_compared_by_bytes(make_world: MakeWorld) -> None:
    """Text that is not UTF-8, holds NUL, quotes or line breaks, or is empty, sorts by its bytes, descending too."""
    world = make_world(sorts=("name", "name:desc,id", "continent:desc,name"))
    names = [
        b"",
        b"\0",
        b"\0\0",
        b"\0\xff",
        b"a",
        b"a\0",
        b"a\0b",
        b"ab",
        b"\xff",
        b"\xff\xfe",
        b"\xc3\xa4",
        b"A",
        b"a\xff",
    ]
    plain = [row(b"%d" % (i % 7), name, CONTINENTS[i % 3]) for i, name in enumerate(names * 4)]
    quoted = [Row(b'%d,"a""b,\n",Asia' % i, (b"%d" % i, b'a"b,\n', b"Asia")) for i in range(5)]
    world.publish(world.fill(plain + quoted))
    assert world.verify().lines() == []
