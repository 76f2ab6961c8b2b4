"""The cost model: its arithmetic by hand, the measured points, and the table of docs/scaling.md."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from pydantic import ValidationError

from bench.cost import comparison, describe, lines_of, plan_table, read_arguments, read_points
from bench.cost_model import C, Load, Work, choose, on_threads, on_workers
from tasks.settings.job import Job
from tasks.snapshot import most_records
from tests.documents import text_of

# The sample data, of 52 bytes: a record costs 0.43 µs and 52 times 8 ns in the dump, 0.59 µs and as much in a publish.
SAMPLE = Load(1e7, partitions=4, cores=2)
DUMP, PUBLISH = 0.846e-6, 1.006e-6


def test_work() -> None:
    """Microseconds of a record and nanoseconds of a byte are seconds."""
    assert Work(0.5, 8).seconds(1e6, 1000) == pytest.approx(0.5 + 8.0)


def test_threads() -> None:
    """Stages follow one another; cores divide dump and sort, and two of them publish."""
    cost = on_threads(SAMPLE)
    assert cost.dump == pytest.approx(1e7 * DUMP / 2)
    assert cost.sort == pytest.approx(3e7 * 0.25e-6 / 2)
    assert cost.publish == pytest.approx(3e7 * PUBLISH / 2)
    assert cost.total == pytest.approx(3 + cost.dump + cost.sort + cost.publish)
    wide = on_threads(replace(SAMPLE, cores=8))
    assert wide.dump == pytest.approx(1e7 * DUMP / 4)
    assert wide.sort == pytest.approx(3e7 * 0.25e-6 / 8)
    assert wide.publish == cost.publish


def test_workers() -> None:
    """Workers divide what tasks, parts and publishers permit; the slowest takes a third longer than the mean."""
    load = Load(1e9, partitions=10, cores=8, gbit=100)
    cost = on_workers(load, 4)
    assert cost.dump == pytest.approx(1.33 * (1e9 * DUMP + 3e9 * 0.171e-6) / 32)
    # 52e9 bytes as Parquet are 63.44 GB, and so 127 parts of 0.5 GB for each sort.
    assert load.parts == 3 * 127
    assert cost.sort == pytest.approx(1.33 * 3e9 * (0.102 + 0.25 + 0.382) * 1e-6 / 32)
    assert cost.publishers == load.publishers == math.ceil(3e9 / (400_000 * 630))
    assert cost.publish == pytest.approx(1.33 * 3e9 * (PUBLISH + 0.046e-6) / 24)
    # Three tasks a worker in the dump, and a task a part.
    assert cost.start == pytest.approx(3 + 3 + 0.12 * (96 + 381))
    assert cost.network == pytest.approx(1e9 * (40.04 + 3 * 4 * 63.44 + 3 * 40.04))
    assert cost.storage == pytest.approx(1e9 * 3 * 2 * 63.44)


def test_workers_of_one_machine() -> None:
    """There is no slowest of several machines, and one publisher has the work of both cores."""
    cost = on_workers(SAMPLE, 1)
    assert cost.publishers == 1
    assert cost.publish == pytest.approx(3e7 * (PUBLISH + 0.046e-6) / 2)


def test_what_is_bounded() -> None:
    """Publishers are no more than the setting, the workers and the outputs' partitions permit; parts are 500 a sort."""
    load = Load(1e12, partitions=4000)
    assert load.parts == 1500
    assert on_workers(load, 1000).publishers == 64
    assert on_workers(load, 4).publishers == 32
    assert on_workers(replace(load, most=2000), 1000).publishers == 2000
    assert on_workers(replace(load, partitions=5), 1000).publishers == 15
    assert not on_workers(load, 1000).fits
    with pytest.raises(ValidationError, match="publishers"):
        Job.model_validate({"publishers": load.most + 1})


def test_a_slow_network_is_the_bound() -> None:
    """Bytes through a machine's network bound a stage whose CPU would be done before."""
    slow = on_workers(Load(1e9, partitions=64, gbit=1), 4)
    assert slow.dump == pytest.approx(1.33 * 1e9 * (40.04 + 3 * 63.44) / (4 * 0.125e9))


def test_slow_brokers_are_the_bound() -> None:
    """Brokers write each replica: publishing takes as long as that, however many publishers there are."""
    load = Load(1e9, partitions=64, timeout=120)
    assert load.brokers == 3
    assert on_workers(replace(load, timeout=15), 100).publish >= load.written / 3e9 == pytest.approx(120.12)
    assert Load(1e10).brokers == math.ceil(3e10 * 52 * 0.77 * 3 / (1e9 * 630))


@pytest.mark.parametrize(("size", "sorts", "minutes"), [(52, 3, 15), (1000, 1, 15), (60, 2, 60)])
def test_publishers_are_what_a_run_would_plan(size: int, sorts: int, minutes: int) -> None:
    """A snapshot takes what one publisher is planned to send; so many of these are the whole job."""
    records = 1e9
    load = Load(records, size, sorts, timeout=minutes)
    assert load.publishers == math.ceil(records / most_records(size, sorts, minutes * 60))


def test_the_fewest_machines_are_chosen() -> None:
    """Threads if they do it; else the fewest machines that end in time; one fewer would not."""
    assert choose(SAMPLE, 1).machines == 1
    large = Load(1e10, partitions=256, timeout=60)
    chosen = choose(large, 60)
    assert chosen.machines > 2
    assert chosen.fits
    assert chosen.total <= 3600
    fewer = on_workers(large, chosen.machines - 1)
    assert not fewer.fits or fewer.total > 3600
    # A transaction that one publisher fills is a reason, too.
    assert not on_threads(Load(1e9)).fits
    assert choose(Load(1e9), 60).machines > 1


def test_what_cannot_be() -> None:
    """More publishers than there may be: the error says what is needed, and what to change."""
    with pytest.raises(
        ValueError, match=r"not within 60 minutes.*64 publishers, and 120 are needed.* 15 minutes; give"
    ):
        choose(Load(1e10), 60)


def test_measured_points() -> None:
    """The model is within a fifth of each measured point, and the points are those of the page."""
    points = read_points()
    assert len(points) >= 5
    for point in points:
        assert 0.8 < point.model / point.seconds < 1.25, point
        assert f"{point.seconds:g}" in text_of(point.source)
    assert len(comparison()) == len(points) + 2


@pytest.mark.parametrize("table", [plan_table, comparison])
def test_the_page_has_what_the_script_prints(table: Callable[[], list[str]]) -> None:
    """The tables of docs/scaling.md are those of the script, line for line."""
    assert "\n".join(table()) in text_of("docs/scaling.md")


def test_constants_of_the_page() -> None:
    """Seconds that the page names are the model's."""
    page = text_of("docs/scaling.md")
    for shown in (f"{C.task:g} s", f"{C.workers:g} s"):
        assert shown in page


def test_arguments() -> None:
    """Flags are the load's; without machines these are chosen, with one it is threads."""
    flags = ["--records", "1e9", "--bytes", "100", "--sorts", "1", "--partitions", "8"]
    (first, *rest) = lines_of(read_arguments([*flags, "--machines", "1"]))
    assert "threads of one machine, 8 cores" in first
    assert any("DOES NOT FIT" in line for line in rest)
    chosen = lines_of(read_arguments(flags))
    assert chosen == list(describe(choose(Load(1e9, 100, 1, 8), 60)))
    assert "fits" in "\n".join(chosen)


@pytest.mark.parametrize("flags", [[], ["--records", "0"], ["--records", "1e9", "--cores", "0"], ["--records", "inf"]])
def test_what_is_no_argument(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A job without records, or on nothing, is refused."""
    with pytest.raises(SystemExit):
        read_arguments(flags)
    assert "error" in capsys.readouterr().err
