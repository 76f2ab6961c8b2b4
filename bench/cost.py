"""What a job takes: machines, cores, seconds, network and storage, from its size; and the model beside measured points.

    python -m bench.cost --records 1e9 --bytes 52 --sorts 3 --partitions 64 [--cores 8] [--within 60]
    python -m bench.cost --plan        the table of docs/scaling.md, from 1e7 to 1e12 records
    python -m bench.cost --compare     the model beside bench/cost_points.toml

Without `--machines` it takes the fewest that end in time: threads of one machine, or else workers of Dask.
All numbers are in `Constants`. They are of one kind of machine; skew and slow machines are one factor. A plan is a
first guess for a purchase: measure a tenth of the job before.
"""

import argparse
import math
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

POINTS: Final = Path(__file__).with_name("cost_points.toml")
_MOST_MACHINES: Final = 4096
_PUBLISHING_CORES: Final = 2
_RAISED: Final = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Work:
    """CPU of one step: µs of a core for a record, and ns for a byte of it."""

    record: float
    byte: float

    def seconds(self, records: float, size: float) -> float:
        """Return the CPU seconds for so many records of `size` bytes."""
        return records * (self.record * 1e-6 + self.byte * size * 1e-9)


@dataclass(frozen=True)
class Constants:
    """All fitted numbers. `dump` is for a record, the others for a record and sort.

    All are fitted to the points of bench/cost_points.toml, which are whole commands on two cores, and to the seconds of
    their stages. Kafka's own work is in dump and publish. divide, fetch, gather, reread: what sorted files on shared
    storage take besides, half of it counted by record and half by byte.
    """

    dump: Work = Work(0.43, 8)
    order: Work = Work(0.25, 0)
    publish: Work = Work(0.59, 8)
    divide: Work = Work(0.08, 1.75)
    fetch: Work = Work(0.05, 1)
    gather: Work = Work(0.2, 3.5)
    reread: Work = Work(0.02, 0.5)
    # Seconds: a run that finds nothing new; workers that wait, until their first task ends; a task of Prefect and Dask.
    start: float = 3.0
    workers: float = 3.0
    task: float = 0.12
    # Tasks of a dump for each worker, and the most of a stage; the most parts of a sort.
    ranges: int = 3
    most_tasks: int = 1000
    most_parts: int = 500
    # The slowest task against the mean one, among several machines: skew and slow machines.
    spread: float = 1.33
    # Bytes of a part that a worker sorts at a memory limit of 2 GB.
    part: float = 0.5e9
    # Bytes on the wire against bytes of a record, with lz4; bytes of a row in Parquet against those of its record.
    wire: float = 0.77
    parquet: float = 1.22
    # Bytes a second that a broker writes, its replicas' together; replicas.
    broker: float = 1e9
    replicas: int = 3
    # What a run counts on before it begins, for each publisher: records and bytes a second, bytes beside each record.
    # Then the part of a transaction's time that it uses.
    planned_records: float = 400_000
    planned_bytes: float = 40e6
    planned_overhead: float = 40
    share: float = 0.7


C: Final = Constants()


@dataclass(frozen=True)
class Load:
    """A job and its site.

    `size`: bytes of a record; `partitions`: of the source and of each output; `timeout`: of a transaction, in minutes;
    `gbit`: of a machine; `most`: publishers at most, 64 by the setting.
    """

    records: float
    size: float = 52
    sorts: int = 3
    partitions: int = 64
    cores: int = 8
    timeout: float = 15
    gbit: float = 10
    most: int = 64

    @property
    def rows(self) -> float:
        """Records that are published, over all sorts."""
        return self.records * self.sorts

    @property
    def transaction(self) -> float:
        """Seconds of a transaction that a run may use."""
        return self.timeout * 60 * C.share

    @property
    def publishers(self) -> int:
        """The fewest with which the run takes the whole job into one transaction."""
        rate = min(C.planned_records, C.planned_bytes / (self.size + C.planned_overhead))
        return math.ceil(self.rows / (rate * self.transaction))

    @property
    def brokers(self) -> int:
        """The fewest that write the outputs within the transaction; three, for the replicas, at least."""
        return max(C.replicas, math.ceil(self.written / (C.broker * self.transaction)))

    @property
    def written(self) -> float:
        """Bytes that the brokers write, replicas included."""
        return self.rows * self.size * C.wire * C.replicas

    @property
    def parts(self) -> int:
        """Parts of all sorts, each as large as a worker's memory bears, unless they are too many."""
        return self.sorts * min(C.most_parts, math.ceil(self.records * self.size * C.parquet / C.part))


@dataclass(frozen=True)
class Cost:
    """What a run takes. Times are seconds; `network` and `storage` are bytes: through workers, in the work folder."""

    load: Load
    machines: int
    publishers: int
    brokers: int
    start: float
    dump: float
    sort: float
    publish: float
    cpu: float
    network: float
    storage: float

    @property
    def total(self) -> float:
        return self.start + self.dump + self.sort + self.publish

    @property
    def fits(self) -> bool:
        """Whether publishing ends within its transaction, and the run would plan it so."""
        return self.publish <= self.load.transaction and self.publishers >= self.load.publishers


def on_threads(load: Load) -> Cost:
    """Return the cost in threads of one machine, with local files. One publisher has two cores' work."""
    dump = C.dump.seconds(load.records, load.size)
    order = C.order.seconds(load.rows, load.size)
    publish = C.publish.seconds(load.rows, load.size)
    storage = load.records * load.size * C.parquet
    return Cost(
        load,
        machines=1,
        publishers=1,
        brokers=1,
        start=C.start,
        dump=dump / min(load.cores, load.partitions),
        sort=order / load.cores,
        publish=publish / min(load.cores, _PUBLISHING_CORES),
        cpu=dump + order + publish,
        network=0,
        # A job that does not fit the memory is divided: each sort has its rows once more.
        storage=storage * (1 + load.sorts),
    )


def on_workers(load: Load, machines: int) -> Cost:
    """Return the cost on so many machines of Dask workers, with sorted files on shared storage.

    As on threads, one publisher has two cores' work.
    """
    workers, brokers = machines * load.cores, load.brokers
    ranges = min(C.ranges * workers, C.most_tasks)
    # An output partition has one publisher.
    publishers = min(load.publishers, load.most, workers, load.sorts * load.partitions)
    divide = C.dump.seconds(load.records, load.size) + C.divide.seconds(load.rows, load.size)
    order = sum(step.seconds(load.rows, load.size) for step in (C.fetch, C.order, C.gather))
    publish = sum(step.seconds(load.rows, load.size) for step in (C.reread, C.publish))
    read = load.records * load.size * C.wire
    files = load.rows * load.size * C.parquet
    published = load.rows * load.size * C.wire
    through, spread = machines * load.gbit / 8 * 1e9, C.spread if machines > 1 else 1.0

    def stage(cpu: float, at_once: int, moved: float) -> float:
        return spread * max(cpu / min(workers, at_once), moved / through)

    return Cost(
        load,
        machines,
        publishers,
        brokers,
        start=C.start + C.workers + C.task * (ranges + load.parts),
        dump=stage(divide, ranges, read + files),
        sort=stage(order, load.parts, 2 * files),
        publish=max(
            stage(publish, publishers * _PUBLISHING_CORES, files + published), load.written / (C.broker * brokers)
        ),
        cpu=divide + order + publish,
        network=read + 4 * files + published,
        storage=2 * files,
    )


def choose(load: Load, within: float) -> Cost:
    """Return the cheapest cost that ends within so many minutes; ValueError says what forbids any."""
    alone = on_threads(load)
    if alone.total <= within * 60 and alone.fits:
        return alone
    costs = (on_workers(load, machines) for machines in range(2, _MOST_MACHINES))
    found = next((cost for cost in costs if cost.total <= within * 60 and cost.fits), None)
    if found is None:
        least = on_workers(load, _MOST_MACHINES)
        raise ValueError(
            f"not within {within:g} minutes: with {_MOST_MACHINES} machines the run takes {least.total / 60:,.0f} "
            f"minutes, of these {least.publish / 60:,.0f} for {least.publishers} publishers, and {load.publishers} are "
            f"needed for a transaction of {load.timeout:g} minutes; give more time, a longer transaction, or more "
            "partitions, or make several runs"
        )
    return found


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
