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
from tasks.publish import Publication
from tasks.run import run_job
from tasks.run_record import RunRecord
from tasks.runners import ThreadRunner
from tasks.settings.connection import use_connection
from tasks.settings.job import Job
from tasks.settlement import take_over
from tasks.sorting.newest import Newest
from tests.cluster import Cluster, Record, sort_key


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
