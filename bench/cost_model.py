"""The model of what a job takes: CPU of each step, machines, brokers, publishers and bytes, from the job's size.

All numbers are in `Constants`. They are of one kind of machine; skew and slow machines are one factor.
"""

import math
from dataclasses import dataclass
from typing import Final

_MOST_MACHINES: Final = 4096
_PUBLISHING_CORES: Final = 2


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
