"""The plan of a run that is not made: what it would read, write and take, by the run's own checks and snapshot.

Nothing is owned, fenced, created or written, and a living run of the job is not disturbed. What the run would refuse,
the plan refuses with the same error.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tasks.estimates import Estimates, estimate_run
from tasks.kafka.clients import make_admin
from tasks.manifests import Key, KeyRange, Snapshot
from tasks.outputs import check_former_runs, plan_topics
from tasks.ownership import Onlooker
from tasks.permissions import name_refusals
from tasks.preflight import check_before_lease, take_up_job
from tasks.settings.connection import Connection
from tasks.settings.job import Job
from tasks.settings.sorts import Sort
from tasks.snapshot import has_work, held_back, take_snapshot
from tasks.sort import cut_ranges, order_of
from tasks.sorting.order import ROW
from tasks.survey import Survey, take_survey
from tasks.workdir import free_bytes


@dataclass(frozen=True)
class PlannedOutput:
    """An output and its partitions. `ranges`: rows of the survey, which estimate shares and first and last keys."""

    topic: str
    columns: str
    partitions: int
    ranges: tuple[KeyRange, ...]


@dataclass(frozen=True)
class RunPlan:
    """The plan of one run. `job` has all its types by now.

    `holder`: the living run that owns the job; None if there is none. `has_work`: whether the run would commit at all.
    `held_back`: offsets behind open transactions of other producers. `created`: topics that the run would create.
    """

    job: Job
    holder: str | None
    has_work: bool
    snapshot: Snapshot
    estimates: Estimates
    outputs: tuple[PlannedOutput, ...]
    created: tuple[str, ...]
    held_back: int
    disk_free_bytes: int

    @property
    def runs(self) -> int:
        """The number of runs that what is there now needs, this one included; 0 if there is nothing new."""
        waiting = sum(self.snapshot.lag.values()) - self.snapshot.behind_end
        return max(1, math.ceil(waiting / max(self.snapshot.span, 1))) if self.has_work else 0


def plan_run(job: Job, connection: Connection) -> RunPlan:
    """Plan the next run of a job; the errors are those of the run."""
    admin = make_admin(connection)
    check_before_lease(job, connection, admin)
    with name_refusals(job, admin):
        view = Onlooker(job, connection, admin)
        take_up_job(view)
        check_former_runs(view)
        snapshot = take_snapshot(view)
        view.job = view.job.with_types(snapshot.types)
        topics = plan_topics(view)
        survey = take_survey(view, snapshot)
    return RunPlan(
        view.job,
        view.holder,
        has_work(view.job, view.ledger, snapshot),
        snapshot,
        estimate_run(view.job, snapshot, survey, view.ledger.runs.values()),
        tuple(_plan_output(view.job, sort, topics.partitions[sort.topic], survey) for sort in view.job.sort_list),
        topics.created,
        sum(held_back(view, snapshot).values()),
        free_bytes(view.job),
    )


def _plan_output(job: Job, sort: Sort, partitions: int, survey: Survey) -> PlannedOutput:
    ranges = cut_ranges(job, sort, _sorted_keys(job, sort, survey.rows), partitions)
    return PlannedOutput(sort.topic, sort.columns, partitions, ranges)


def _sorted_keys(job: Job, sort: Sort, rows: pa.Table) -> Sequence[Key]:
    order = order_of(job, sort)
    keys = rows.select(order.columns).append_column(ROW, pa.array(np.arange(len(rows))))
    columns = order.sort(keys).select(order.columns).columns
    return list(zip(*(column.to_pylist() for column in columns), strict=True))
