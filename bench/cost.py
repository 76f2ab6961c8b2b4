"""Computes what a job takes from its size, and compares the model with measured points.

    python -m bench.cost --records 1e9 --bytes 52 --sorts 3 --partitions 64 [--cores 8] [--within 60]
    python -m bench.cost --plan        the table of docs/scaling.md, from 1e7 to 1e12 records
    python -m bench.cost --compare     the model beside bench/cost_points.toml

Without `--machines` it takes the fewest that end in time: threads of one machine, or else workers of Dask. A plan is a
first guess for a purchase: measure a tenth of the job before. The model is `bench/cost_model.py`.
"""

import argparse
import math
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from bench.cost_model import C, Cost, Load, choose, on_threads, on_workers

POINTS: Final = Path(__file__).with_name("cost_points.toml")
_RAISED: Final = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def describe(cost: Cost) -> Iterator[str]:
    """Describe a cost for a person, a line a fact."""
    load = cost.load
    where = "threads of one machine" if cost.machines == 1 else f"{cost.machines:,} machines"
    yield f"machines            {where}, {cost.machines * load.cores:,} cores; brokers: {cost.brokers:,} or more"
    yield f"stages              dump {cost.dump:,.0f} s, sort {cost.sort:,.0f} s, publish {cost.publish:,.0f} s"
    yield f"whole run           {cost.total:,.0f} s, {cost.cpu / load.records * 1e6:.1f} µs of CPU a record"
    used = "fits" if cost.fits else "DOES NOT FIT"
    usable = f"{load.transaction:,.0f} s, {C.share:.0%} of {load.timeout:g} min"
    yield f"transaction         {cost.publish:,.0f} s of {usable}: {used}"
    yield f"publishers          {cost.publishers:,} of {load.publishers:,} that the whole job needs in one transaction"
    yield f"network of workers  {cost.network / 1e9:,.0f} GB"
    yield f"work folder         {cost.storage / 1e9:,.0f} GB"
    yield f"brokers' disks      {load.written / 1e9:,.0f} GB, {C.replicas} replicas"


# Rows of the plan: records, partitions, minutes for the whole run, minutes of a transaction, publishers at most.
PLAN: Final = (
    (1e7, 16, 10, 15, 64),
    (1e8, 16, 10, 20, 64),
    (1e9, 64, 30, 15, 64),
    (1e10, 128, 60, 30, 64),
    (1e11, 256, 240, 300, 64),
    (1e12, 1000, 360, 240, 1024),
)


def plan_table() -> list[str]:
    """Make the table of docs/scaling.md: sample data, three sorts, machines of 8 cores and 10 Gbit/s."""
    header = (
        *("records", "partitions", "machines, cores each", "brokers", "publishers", "dump, sort"),
        *("publish, of the usable", "whole run", "network", "work folder"),
    )
    return table(header, [plan_row(*wanted) for wanted in PLAN])


def plan_row(records: float, partitions: int, within: float, timeout: float, most: int) -> list[str]:
    load = Load(records, partitions=partitions, timeout=timeout, most=most)
    cost = choose(load, within)
    return [
        f"10{str(round(math.log10(records))).translate(_RAISED)}",
        f"{partitions:,}",
        "threads" if cost.machines == 1 else f"{cost.machines:,}, {load.cores}",
        f"{cost.brokers:,}",
        f"{cost.publishers:,}",
        f"{cost.dump:,.0f} s, {cost.sort:,.0f} s",
        f"{cost.publish:,.0f} of {load.transaction:,.0f} s",
        f"{cost.total / 60:,.1f} min",
        f"{cost.network / 1e12:,.2f} TB",
        f"{cost.storage / 1e12:,.2f} TB",
    ]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Make the lines of a table in Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in (header, *rows)]
    return [lines[0], f"|{'---|' * len(header)}", *lines[1:]]


@dataclass(frozen=True)
class Point:
    """A measured run of one machine with `cores` cores, the broker on them too; on threads or `workers` of Dask."""

    source: str
    date: str
    machine: str
    records: float
    bytes: float
    seconds: float
    sorts: int = 3
    cores: int = 2
    workers: bool = False

    @property
    def where(self) -> str:
        """The machine, and what the stages ran on if it was not threads."""
        return f"{self.machine}, workers" if self.workers else self.machine

    @property
    def model(self) -> float:
        """Seconds by the model."""
        load = Load(self.records, self.bytes, self.sorts, partitions=4, cores=self.cores)
        return (on_workers(load, 1) if self.workers else on_threads(load)).total


def read_points(path: Path = POINTS) -> list[Point]:
    """Read the measured points."""
    return [Point(**fields) for fields in tomllib.loads(path.read_text())["point"]]


def comparison() -> list[str]:
    """Make the table of measured points, each with the model's seconds and their ratio."""
    rows = [
        (
            f"{p.records:,}",
            f"{p.bytes}",
            f"{p.seconds:g} s",
            f"{p.model:.1f} s",
            f"{p.model / p.seconds:.2f}",
            p.where,
        )
        for p in read_points()
    ]
    return table(("records", "bytes", "measured", "model", "model / measured", "machine"), rows)


def read_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    defaults = Load(0)
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--plan", action="store_true", help="print the table of docs/scaling.md")
    parser.add_argument("--compare", action="store_true", help="print the model beside the measured points")
    parser.add_argument("--records", type=_positive, help="records of the source, as 1e9")
    parser.add_argument("--bytes", type=_positive, default=defaults.size, dest="size", help="of a record, key included")
    for name, text in (
        ("sorts", "sorts of the job"),
        ("partitions", "partitions of the source and of each output"),
        ("cores", "cores of a machine"),
        ("most", "publishers at most"),
    ):
        parser.add_argument(
            f"--{'publishers' if name == 'most' else name}",
            dest=name,
            type=_count,
            default=getattr(defaults, name),
            help=text,
        )
    parser.add_argument("--gbit", type=_positive, default=defaults.gbit, help="Gbit/s of a machine's network")
    parser.add_argument("--timeout", type=_positive, default=defaults.timeout, help="of a transaction, in minutes")
    parser.add_argument("--within", type=_positive, default=60, help="minutes that the run may take")
    parser.add_argument("--machines", type=_count, help="so many, whatever time they take; 1: threads")
    given = parser.parse_args(arguments)
    if given.records is None and not (given.plan or given.compare):
        parser.error("give --records, --plan or --compare")
    return given


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise ValueError(text)
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def lines_of(given: argparse.Namespace) -> list[str]:
    """Return what the script prints."""
    if given.plan:
        return plan_table()
    if given.compare:
        return comparison()
    fields: dict[str, Any] = {name: getattr(given, name) for name in Load.__dataclass_fields__}
    load = replace(Load(0), **fields)
    if given.machines is None:
        return list(describe(choose(load, given.within)))
    return list(describe(on_threads(load) if given.machines == 1 else on_workers(load, given.machines)))


def main() -> None:
    try:
        print("\n".join(lines_of(read_arguments())))
    except ValueError as error:
        raise SystemExit(f"cost: {error}") from None


if __name__ == "__main__":
    main()
