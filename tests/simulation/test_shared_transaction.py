"""Several publishers in one transaction: whatever is killed, late or lost, each run is visible whole and once, or not.

Thousands of schedules of a model, each from a seed. They are not all that there are, so wrong protocols show what they
are worth: each is caught.
"""

from collections import Counter
from dataclasses import replace

import pytest

from tests.simulation.model import BrokerRules
from tests.simulation.protocol import Mutation
from tests.simulation.schedule import Outcome, Setting, simulate

OLDER, NEWER = BrokerRules(), BrokerRules(end_raises_epoch=True)
UNVERIFIED = BrokerRules(verifies_partitions=False)
HARM = {"kills", "sleeps", "lost answers", "late requests", "deadlines", "timeouts", "starts"}
# A mutation that is not caught by so many seeds is not caught.
MOST_SEEDS = 1000

SETTINGS = [
    pytest.param(Setting(OLDER), id="an end keeps the epoch"),
    pytest.param(Setting(NEWER), id="an end raises the epoch"),
]
# With the number of their schedules.
LARGER = [
    pytest.param(Setting(OLDER), 2500, id="an end keeps the epoch"),
    pytest.param(Setting(NEWER), 2500, id="an end raises the epoch"),
    pytest.param(Setting(OLDER, publishers=3, rows=40, steps=600), 800, id="three publishers"),
    pytest.param(Setting(NEWER, publishers=4, rows=40, steps=800), 400, id="four publishers"),
]
# Each of these shows wrong rows to a reader; the one beside it has the error mended.
CAUGHT = [
    pytest.param(mutated, sound, id=name)
    for name, mutated, sound in [
        ("read before fence", Setting(mutation=Mutation.READ_BEFORE_FENCE), Setting()),
        ("commit without every report", Setting(mutation=Mutation.MISSING_REPORTS), Setting()),
        ("no init by the driver", Setting(mutation=Mutation.NO_DRIVER_INIT), Setting()),
        ("abort in place of an init", Setting(mutation=Mutation.END_BY_ABORT), Setting()),
        (
            "abort on a broker without partition verification",
            Setting(UNVERIFIED, Mutation.ABORT_AND_INIT),
            Setting(OLDER, Mutation.ABORT_AND_INIT),
        ),
    ]
]


def assert_exact(setting: Setting, seeds: range) -> list[Outcome]:
    outcomes = [simulate(seed, setting) for seed in seeds]
    assert [found for found in outcomes if not found.is_exact] == []
    return outcomes


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_schedule_is_exact(setting: Setting) -> None:
    """Some hundred schedules, in which each kind of harm is done, and which commit runs all the same."""
    outcomes = assert_exact(setting, range(120))
    assert sum((found.harm for found in outcomes), Counter()).keys() == HARM
    assert all(found.runs >= 3 for found in outcomes)


@pytest.mark.slow
@pytest.mark.parametrize(("setting", "schedules"), LARGER)
def test_thousands_of_schedules_are_exact(setting: Setting, schedules: int) -> None:
    """The same, with more of everything."""
    assert_exact(setting, range(schedules))


@pytest.mark.parametrize(("mutated", "sound"), CAUGHT)
def test_a_wrong_protocol_is_caught(mutated: Setting, sound: Setting) -> None:
    """Some seed shows a reader wrong rows, and the protocol without the error passes all seeds up to that one."""
    caught = next((seed for seed in range(MOST_SEEDS) if simulate(seed, mutated).wrong), None)
    assert caught is not None
    assert_exact(sound, range(caught + 1))


def test_an_init_behind_the_door_never_finishes() -> None:
    """A publisher that inits once more fences its own driver, always: no row is wrong, and no run is committed."""
    seeds = range(8)
    assert_exact(Setting(), seeds)
    outcomes = [simulate(seed, Setting(mutation=Mutation.LATE_INIT)) for seed in seeds]
    assert {(found.is_finished, found.wrong, found.runs) for found in outcomes} == {(False, "", 0)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        pytest.param(Setting(NEWER, Mutation.END_BY_ABORT), id="an abort that raises the epoch"),
        pytest.param(Setting(UNVERIFIED), id="a broker without partition verification"),
    ],
)
def test_what_makes_up_for_an_error(setting: Setting) -> None:
    """An abort that raises the epoch is as good as an init, and where inits alone abort, a late row is always fenced.

    So partition verification is a second line: the markers of an init carry its epoch to each partition that was added.
    """
    assert_exact(setting, range(600))


def test_a_schedule_is_the_same_each_time() -> None:
    """A seed is all that it takes to see a schedule again."""
    setting = replace(Setting(), mutation=Mutation.MISSING_REPORTS)
    assert [simulate(seed, setting) for seed in range(10)] == [simulate(seed, setting) for seed in range(10)]
