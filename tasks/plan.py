"""The plan of a run that is not made: what it would read, write and take, by the run's own checks and snapshot.

Nothing is owned, fenced, created or written, and a living run of the job is not disturbed. What the run would refuse,
the plan refuses with the same error.
"""

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tasks.estimates import Estimates, estimate_run
from tasks.kafka.clients import make_admin
from tasks.manifests import KeyRange, Snapshot
from tasks.outputs import check_former_runs, plan_topics
from tasks.ownership import Onlooker
from tasks.permissions import name_refusals
from tasks.placement import Placement, place_outputs
from tasks.preflight import check_before_lease, take_up_job
from tasks.settings.connection import Connection
from tasks.settings.job import Job
from tasks.settings.sorts import Sort
from tasks.snapshot import has_work, held_back, take_snapshot
from tasks.sorting.cuts import cut_counts, cut_rows
from tasks.sorting.cutting import record_ranges
from tasks.sorting.order import ROW, order_of
from tasks.survey import Survey, take_survey
from tasks.workdir import free_bytes


@dataclass(frozen=True)
class PlannedOutput:
    """An output. `ranges`: rows of the survey for each partition, which estimate its share, its first and last key."""

    topic: str
    columns: str
    ranges: tuple[KeyRange, ...]


@dataclass(frozen=True)
class RunPlan:
    """The plan of one run. `job` has all its types by now.

    `holder`: the living run that owns the job; None if there is none. `has_work`: whether the run would commit at all.
    `held_back`: offsets behind open transactions of other producers. `created`, `grown`: topics that the run would
    create, or give more partitions.
    """

    job: Job
    holder: str | None
    has_work: bool
    snapshot: Snapshot
    estimates: Estimates
    outputs: tuple[PlannedOutput, ...]
    created: tuple[str, ...]
    grown: tuple[str, ...]
    held_back: int
    disk_free_bytes: int | None

    @property
    def runs(self) -> int:
        """The number of runs that what is there now needs, this one included; 0 if there is nothing new."""
        if not self.snapshot.capped:
            return int(self.has_work)
        waiting = sum(self.snapshot.lag.values()) - self.snapshot.behind_end
        return math.ceil(waiting / max(self.snapshot.span, 1))


def plan_run(job: Job, connection: Connection, patience: float = 0) -> RunPlan:
    """Plan the next run of a job; the errors are those of the run."""
    admin = make_admin(connection)
    check_before_lease(job, connection, admin, patience)
    with name_refusals(job, admin):
        view = Onlooker(job, connection, admin)
        take_up_job(view)
        check_former_runs(view)
        snapshot = take_snapshot(view)
        view.job = view.job.with_types(snapshot.types)
        work = has_work(view, snapshot)
        topics = plan_topics(view, has_work=work)
        counts = [topics.partitions[sort.topic] for sort in view.job.sort_list]
        survey = take_survey(view, snapshot, place_outputs(view.job, counts))
    return RunPlan(
        view.job,
        view.holder,
        work,
        snapshot,
        estimate_run(view.job, snapshot, survey, view.ledger.runs.values()),
        _plan_outputs(view.job, survey),
        topics.created,
        topics.grown,
        sum(held_back(view, snapshot).values()),
        free_bytes(view.job),
    )


def _plan_outputs(job: Job, survey: Survey) -> tuple[PlannedOutput, ...]:
    placed = zip(job.sort_list, survey.placements.of_sorts, strict=True)
    return tuple(PlannedOutput(s.topic, s.columns, _cut(job, s, place, survey.rows)) for s, place in placed)


def _cut(job: Job, sort: Sort, place: Placement, rows: pa.Table) -> tuple[KeyRange, ...]:
    """Cut the rows for the output's partitions, as the sort cuts those of the run."""
    order = order_of(job.key_columns, sort)
    by = order.behind(place.partition) if place.partition else order
    arranged = by.sort(rows.select(by.columns).append_column(ROW, pa.array(np.arange(len(rows)))))
    keys = list(zip(*(arranged.column(name).to_pylist() for name in order.columns), strict=True))
    if not place.partition:
        return record_ranges(job, sort, cut_rows(keys, place.count, split_heavy_keys=job.split_heavy_keys))
    counts = np.bincount(np.asarray(arranged.column(place.partition)), minlength=place.count)
    return record_ranges(job, sort, cut_counts(keys, counts.tolist()))
