"""Verification of outputs sorted by typed keys, in other formats, fails when one of them is altered."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import pytest

from tasks.verification.terms import RULES
from tests.world import MakeWorld, Outputs, Row, World, change, divide

Sorter = Callable[[Row], Any]


@dataclass(frozen=True)
class Case:
    """A sort, the facts of its format, and distinct values in order of their keys, of which neighbours differ least."""

    sort: str
    facts: dict[str, str]
    values: tuple[bytes, ...]


def documents(name: str, tokens: list[str]) -> tuple[bytes, ...]:
    return tuple(b'{"a":[{"%b":%b}],"x":%d}' % (name.encode(), t.encode(), 9 - i) for i, t in enumerate(tokens))


JSON = {"name": "json", "rules": RULES}
CASES = {
    "decimal": Case(
        "a[0].n",
        JSON | {"columns": "a[0].n:decimal"},
        documents("n", ["-1e20", "0", "0.12345678901234567", "0.12345678901234568", "9.5", "10", "1E2"]),
    ),
    "float": Case(
        "a[0].n", JSON | {"columns": "a[0].n:float"}, documents("n", ["-5e-324", "0", "5e-324", "1", "9", "10"])
    ),
    "int": Case(
        "a[0].n:desc", JSON | {"columns": "a[0].n:int"}, documents("n", ["100", "20", "3", "-3", "-20", "-100"])
    ),
    "bool": Case(
        "a[0].n,x:desc", JSON | {"columns": "a[0].n:bool,x:int"}, documents("n", ["false", "false", "true", "true"])
    ),
    "time": Case(
        'a[0]."t.t"',
        JSON | {"columns": 'a[0]."t.t":time'},
        documents(
            "t.t",
            [
                '"2024-01-01T09:00:00+09:00"',
                '"2024-01-01T01:00:00+00:59"',
                '"2024-01-01 00:01:00.000000001Z"',
                '"2023-12-31t23:02:00-01"',
            ],
        ),
    ),
    "time(s)": Case("a[0].n", JSON | {"columns": "a[0].n:time(s)"}, documents("n", ["-10", "-9", "0", "9", "10"])),
    "text": Case(
        "a[0].s", JSON | {"columns": "a[0].s:text"}, documents("s", ['"A"', '"B"', '"a"', '"\\u00e4"', '"\\u0100"'])
    ),
    "nocase": Case(
        "a[0].s", JSON | {"columns": "a[0].s:text(nocase)"}, documents("s", ['"A"', '"b"', '"C"', '"\\u00c4"'])
    ),
    "collation": Case(
        "a[0].s", JSON | {"columns": "a[0].s:text(de)"}, documents("s", ['"a"', '"\\u00e4"', '"B"', '"z"'])
    ),
    "nulls": Case("a[0].n:desc:nulls-first", JSON | {"columns": "a[0].n:int"}, (b"{}", *documents("n", ["2", "1"]))),
    "csv header": Case(
        "n:desc",
        {"name": "csv", "rules": RULES, "columns": "n:decimal,s", "delimiter": ";", "header": "yes"},
        (b's;n\n"1\n";1e1', b"n;s\r\n9.90;2", b"n;s;x\n9.89;3;", b"s;n\n4;-1\n"),
    ),
    "csv uuid": Case(
        "u",
        {"name": "csv", "rules": RULES, "columns": "u:uuid,s", "delimiter": ",", "quote": "none"},
        (
            b'00000000-0000-0000-0000-00000000000A,"',
            b'0000000000000000000000000000000b,"a',
            b"F0000000-0000-0000-0000-000000000000,",
        ),
    ),
}


def publish(world: World, case: Case, edit: Callable[[list[list[Row]]], None] = lambda _: None) -> list[Row]:
    """Publish the values of a case, three times each, with one that cannot be sorted; edit the output before."""
    bad = [Row(b'{"a":[{"n":"no"'), Row(None)]
    rows = world.fill([Row(value, (value,)) for value in case.values[::-1] * 3] + bad)
    by_key = [
        r for value in case.values for r in sorted(rows, key=lambda r: (r.partition, r.offset)) if r.value == value
    ]
    outputs: Outputs = {world.outputs[0]: divide(by_key)}
    world.publish(rows, change(outputs, world.outputs[0], edit), format=case.facts)
    return by_key


@pytest.mark.parametrize("name", CASES)
def test_what_is_sorted_by_its_type_is_verified(make_world: MakeWorld, name: str) -> None:
    """Order, ties and dead letters are as the type of the key wants them."""
    case = CASES[name]
    world = make_world(sorts=(case.sort,))
    publish(world, case)
    assert world.verify().lines() == []


@pytest.mark.parametrize("name", CASES)
def test_neighbours_by_a_type_that_changed_places_are_found(make_world: MakeWorld, name: str) -> None:
    """Two neighbours of the least difference in the wrong order are found, for each pair of them at its place."""
    case = CASES[name]
    world = make_world(sorts=(case.sort,))
    places = [(p, i) for p, part in enumerate(divide(list(range(3 * len(case.values))))) for i in range(len(part))]  # type: ignore[arg-type]  # numbers in place of rows
    found: list[str] = []

    def edit(parts: list[list[Row]]) -> None:
        for at in range(2, len(places) - 1, 3):
            (p, i), (q, j) = places[at], places[at + 1]
            parts[p][i], parts[q][j] = parts[q][j], parts[p][i]
            found.append(f"source-0/{q} offset {j}")

    publish(world, case, edit)
    assert [text.partition(":")[0] for text in world.differences()][: len(found)] == found
    assert all("out of order" in text for text in world.differences()[: len(found)])


def test_a_key_that_lost_a_digit_is_found(make_world: MakeWorld) -> None:
    """A number that a double would not tell from the source's is another record."""
    case = CASES["decimal"]
    world = make_world(sorts=(case.sort,))

    def edit(parts: list[list[Row]]) -> None:
        at = next(i for i, r in enumerate(parts[1]) if r.value and b"567}" in r.value)
        value = (parts[1][at].value or b"").replace(b"4567}", b"45671}")
        parts[1][at] = replace(parts[1][at], value=value)

    publish(world, case, edit)
    assert any("is not in the source range" in text for text in world.differences())


NONE = {"name": "none", "rules": RULES, "fields": "@header.n:decimal,@key:int", "key_format": "int32"}


def test_record_fields_are_verified(make_world: MakeWorld) -> None:
    """Keys of Kafka's serializers and headers have types too; a record without one is a dead letter."""
    world = make_world(sorts=("@header.n,@key:desc:nulls-last",))
    keys = [(-1).to_bytes(4, "big", signed=True), (256).to_bytes(4, "big"), (2).to_bytes(4, "big"), None]
    headers = [(("n", b"9"), ("n", b"%d.5" % n)) for n in (-10, 9, 10)]
    good = [Row(None, (b"",), key, header) for key in keys for header in headers]
    bad = [Row(b"v", None, b"\0\0\1", headers[0]), Row(b"v", None, keys[0]), Row(b"v", None, keys[0], (("n", b"x"),))]
    rows = world.fill(good + bad)

    def order(r: Row) -> tuple[Decimal, float]:
        number = int.from_bytes(r.key, "big", signed=True) if r.key is not None else float("-inf")
        return Decimal(dict(r.headers)["n"].decode()), -number  # type: ignore[union-attr]  # each has one

    expected = divide(sorted(rows[: len(good)], key=order))
    world.publish(rows, {world.outputs[0]: expected}, format=NONE)
    assert world.verify().lines() == []
    second = make_world(sorts=world.sorts)
    rows = second.fill(good + bad)
    expected = divide(sorted(rows[: len(good)], key=order))
    expected[1][0], expected[1][1] = expected[1][1], expected[1][0]
    second.publish(rows, {second.outputs[0]: expected}, format=NONE)
    what = "the record is out of order: its key belongs before that of source-0/1 offset 0"
    assert second.differences() == [f"source-0/1 offset 1: {what}"]


ARRIVAL = {"name": "csv", "rules": RULES, "columns": "id:int,s", "delimiter": ","}


def arrived(world: World) -> tuple[list[Row], list[Row]]:
    """Fill the source; return all rows, and those that can be sorted by id and then from the newest.

    If a sort names no field of values, all of them can.
    """
    is_parsed = "id" in world.sorts[0]
    bad = Row(b"no", None if is_parsed else (b"",))
    rows = world.fill([Row(b"%d,x" % (i % 4), (b"",)) for i in range(40)] + [bad])
    good = [r for r in rows if r.fields is not None]
    newest = sorted(good, key=lambda r: (r.partition, r.offset), reverse=True)
    return rows, sorted(newest, key=lambda r: int((r.value or b"")[:1])) if is_parsed else newest[::-1]


@pytest.mark.parametrize("sort", ["id,@partition:desc,@offset:desc", "@offset"])
def test_an_order_that_its_records_do_not_tell(make_world: MakeWorld, sort: str) -> None:
    """Contents are compared, and the order by what stands before; what is not judged is named."""
    world = make_world(sorts=(sort,))
    rows, expected = arrived(world)
    if sort == "@offset":
        expected = sorted(expected, key=lambda r: (r.offset, r.partition))
    world.publish(rows, {world.outputs[0]: divide(expected)}, format=ARRIVAL)
    verification = world.verify()
    assert verification.ok
    lost = "@offset" if sort == "@offset" else "@partition, @offset"
    assert verification.runs[0].unverifiable == (
        f"{world.outputs[0]}: its order by {lost}, which its records do not have; their contents were compared",
    )


def test_what_an_output_without_its_key_still_tells(make_world: MakeWorld) -> None:
    """A record that is altered, and one that is out of order by the columns in front, are found all the same."""
    world = make_world(sorts=("id,@partition:desc,@offset:desc",))
    rows, expected = arrived(world)
    parts = divide(expected)
    parts[0][3] = replace(parts[0][3], value=b"0,y")
    parts[2][-1], parts[0][-1] = parts[0][-1], parts[2][-1]
    world.publish(rows, {world.outputs[0]: parts}, format=ARRIVAL)
    found = world.differences()
    assert any(text.startswith("source-0/0 offset 3: the record is not in the source range") for text in found)
    assert any(text.startswith("source-0/1 offset 0: the record is out of order") for text in found)
    assert any(text.startswith("source-0/0 offset 10: record of source") and "is missing" in text for text in found)
    assert len(found) == 4


def test_a_dead_letter_by_its_type_is_expected(make_world: MakeWorld) -> None:
    """Whether a record must be a dead letter is judged by its type: one that has no key must not be in an output."""
    world = make_world(sorts=("n",))
    facts = JSON | {"columns": "n:int"}
    rows = world.fill([Row(json.dumps({"n": n}).encode(), (b"",)) for n in range(9)] + [Row(b'{"n":1.0}', (b"",))])
    world.publish(rows, {world.outputs[0]: divide(rows)}, format=facts)
    found = world.differences()
    assert any("cannot be sorted" in text for text in found)
    assert any("the source range has 1 records that cannot be sorted, the ledger says 0" in text for text in found)


@pytest.mark.parametrize(
    "change_of_facts",
    [{"name": "future"}, {"columns": "n:future"}, {"columns": "m:int"}],
    ids=["format", "type", "column"],
)
def test_what_this_version_does_not_know(make_world: MakeWorld, change_of_facts: dict[str, str]) -> None:
    """A run of an unknown format or type is compared by counts and contents, and the result says so."""
    world = make_world(sorts=("n",))
    rows = world.fill([Row(json.dumps({"n": n}).encode(), (b"",)) for n in range(9)])
    world.publish(rows, {world.outputs[0]: divide(rows)}, format=JSON | {"columns": "n:int"} | change_of_facts)
    verification = world.verify()
    assert verification.ok
    [reason] = verification.runs[0].unverifiable
    assert reason.startswith("this version cannot read the keys of the run: ")
