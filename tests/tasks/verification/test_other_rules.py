"""Runs whose keys this version cannot judge: counts and contents are compared, and their order is not."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tasks.verification.terms import RULES
from tests.world import COLUMNS, REJECTED, Row, World, change, people, row

BOM = b"\xef\xbb\xbf"
# The format as in ledgers from before rules were recorded, and as a later version may have it.
OTHER_RULES = [{"columns": COLUMNS, "delimiter": ","}, {"columns": COLUMNS, "delimiter": ",", "rules": "99"}]


def publish_by_other_rules(world: World, fmt: dict[str, str], edit: Callable[[list[list[Row]]], None]) -> list[Row]:
    """Publish by rules that make a mark part of the number: one dead letter can be sorted now, one row cannot."""
    marked = Row(BOM + b"7,marked,Asia", key=b"k")
    kept = replace(row(BOM + b"8", b"first of its block", b"Asia"), fields=(b"8", b"", b"Asia"))
    rows = world.fill([*people(60), kept, marked, *REJECTED])
    outputs = world.sorted(rows)
    for parts in outputs.values():
        parts[1].reverse()
    world.publish(rows, change(outputs, world.outputs[0], edit), format=fmt)
    return rows


@pytest.mark.parametrize("fmt", OTHER_RULES, ids=["rules 1", "rules 99"])
def test_a_run_of_other_rules(world: World, fmt: dict[str, str]) -> None:
    """Its counts and contents are checked, dead letters too; its order is not, and the result says why."""
    publish_by_other_rules(world, fmt, lambda _: None)
    verification = world.verify()
    assert verification.differences == ()
    [run] = verification.runs
    assert (run.records, run.dead_letters) == (62 + len(REJECTED), 1 + len(REJECTED))
    [reason] = run.unverifiable
    assert reason.startswith(f"the run parsed values by rules {fmt.get('rules', '1')}, this version has rules {RULES}")
    assert "order of the outputs was not" in reason


@pytest.mark.parametrize("fmt", OTHER_RULES, ids=["rules 1", "rules 99"])
def test_contents_of_a_run_of_other_rules_are_compared(world: World, fmt: dict[str, str]) -> None:
    """A record that is missing and one that is altered are found all the same."""
    lost: list[Row] = []

    def edit(parts: list[list[Row]]) -> None:
        lost.append(parts[0].pop(2))
        parts[0][4] = replace(parts[0][4], value=b"0,other,Asia")

    publish_by_other_rules(world, fmt, edit)
    found = world.differences()
    assert f"source-0: record of source{lost[0].place} is missing" in found
    assert any(text.startswith("source-0/0 offset 4: the record is not in the source range") for text in found)
    assert "source-0: the ledger says 60 records in all partitions, of 61 that were sorted" in found


def test_dead_letters_of_a_run_of_other_rules(world: World) -> None:
    """A dead letter that is missing is a difference; the outputs are not compared without it."""
    rows = world.fill([*people(30), *REJECTED])
    world.publish(rows, letters=world.letters(rows)[1:], format=OTHER_RULES[0])
    assert world.differences() == ["source-dead-letters: the topic has dead letters of 9 records, the ledger says 10"]


def test_dead_letters_of_a_run_of_other_rules_that_are_gone(world: World) -> None:
    """If retention has removed a dead letter, the outputs cannot be compared, which is no difference."""
    rows = world.fill([*people(30), *REJECTED])
    world.publish(rows, format=OTHER_RULES[0])
    world.truncate(world.dead_letters, 0, 1)
    verification = world.verify()
    assert verification.ok
    what = "9 of the run's 10 dead letters are left: the contents of the outputs were not compared"
    assert f"{world.dead_letters}: {what}" in verification.runs[0].unverifiable
