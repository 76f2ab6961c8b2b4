"""Merges in this process, and the records that outputs must hold behind them, by Python's own sort."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from tasks.merging.merge import Merge
from tasks.merging.plan import plan_merge
from tasks.merging.recorded import merging_job
from tasks.outputs import check_former_runs, prepare_outputs
from tasks.ownership import own_job
from tasks.preflight import check_before_lease, take_up_job
from tasks.publication import Publication
from tasks.run import run_job
from tasks.run_record import RunRecord
from tasks.runners import ThreadRunner
from tasks.settings.connection import use_connection
from tasks.settings.job import Job
from tasks.settlement import take_over
from tasks.sorting.newest import Newest
from tests.cluster import Cluster, Record, sort_key, wait_for
from tests.faults.oracle import in_run
from tests.stages import run_settled


def merge(
    cluster: Cluster,
    job: Job,
    folder: Path,
    newest: Newest | None = None,
    between: Callable[[Publication], None] | None = None,
) -> RunRecord | None:
    """Merge as the flow does; None if there is nothing to merge. `between`: called between sorting and publishing."""
    with use_connection(cluster.connection):
        recorded = merging_job(job, cluster.connection, cluster.admin)
        check_before_lease(recorded, cluster.connection, cluster.admin)
        with own_job(recorded, cluster.connection) as owner:
            take_up_job(owner)
            take_over(owner)
            check_former_runs(owner)
            plan = plan_merge(owner, newest)
            if plan is None:
                return None
            attempt = uuid4().hex
            private = folder / attempt
            private.mkdir()
            runner = _Stepping(between) if between else ThreadRunner()
            run = Merge(owner, runner, lambda _: prepare_outputs(owner), attempt, plan=plan)
            return run_job(run, private).record


class _Stepping(ThreadRunner):
    """Calls a function between sorting and publishing."""

    def __init__(self, between: Callable[[Publication], None]) -> None:
        super().__init__()
        self._between = between

    def publish(self, owner: Any, publication: Publication) -> RunRecord:
        self._between(publication)
        return super().publish(owner, publication)


def must_merge(cluster: Cluster, job: Job, folder: Path, newest: Newest | None = None) -> RunRecord:
    """Merge, where there is something to merge."""
    record = merge(cluster, job, folder, newest)
    assert record is not None
    return record


def read_by(source: Iterable[Record], record: RunRecord) -> list[Record]:
    """Return the records that a run of the source has read, in the order of their partitions and offsets."""
    ranges = {r.partition: range(r.start, r.end) for r in record.read}
    return sorted((r for r in source if r.offset in ranges.get(r.partition, ())), key=lambda r: (r.partition, r.offset))


def by_sort(job: Job, number: int, records: Iterable[Record]) -> list[Record]:
    """Return records of the sample schema in the order of a sort; those with equal keys stay as they are given."""
    return sorted(records, key=lambda r: sort_key(job.sort_list[number], r.value or b""))


def newest_of(records: Sequence[Record], key: Callable[[Record], Any]) -> list[Record]:
    """Return the last record of each key, at the place that it has."""
    last = {key(r): i for i, r in enumerate(records)}
    return [records[i] for i in sorted(last.values())]


def fill(cluster: Cluster, job: Job, folder: Path, batches: Iterable[Sequence[bytes | None]]) -> list[list[Record]]:
    """Make a run of each batch, with an aborted attempt before; return what each run has read, in its order."""
    read: list[list[Record]] = []
    for values in batches:
        for topic in (sort.topic for sort in job.sort_list if read):
            cluster.produce_aborted(topic, [Record(b"9,aborted,x,Asia", partition=p) for p in cluster.ends(topic)])
        cluster.produce(job.source_topic, values, len(cluster.ends(job.source_topic)))
        read.append(read_by(cluster.read(job.source_topic), run_settled(cluster, job, folder)))
    return read


def records_of(cluster: Cluster, topic: str) -> list[Record]:
    """Return the records of an output, once no transaction is open."""
    wait_for(lambda: cluster.ends(topic) == cluster.ends(topic, committed=False))
    return cluster.read(topic)


def assert_outputs(cluster: Cluster, job: Job, *runs: Sequence[Sequence[Record]]) -> None:
    """The outputs hold these current runs and nothing else, each in order.

    `runs`: of each the runs of the source that went into it, oldest first, of which each is in the order it was read.
    """
    last = cluster.ledger(job).last
    assert last is not None
    for number, sort in enumerate(job.sort_list):
        found = records_of(cluster, sort.topic)
        wanted = [by_sort(job, number, (r for of_run in run for r in of_run)) for run in runs]
        current = cluster.ledger(job).current
        for record, expected in zip(current, wanted, strict=True):
            assert in_run(record.sorts[number], found) == expected, (sort.topic, record.run)
        assert len(found) == sum(map(len, wanted))
    assert cluster.group_offsets(job) == last.ends == cluster.ends(job.source_topic)
