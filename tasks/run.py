"""One run of a job, written once: steps 4 to 6 of the protocol, for every runner of its stages.

Guarantee 2 (all or nothing, exactly once): nothing is written to Kafka before step 6, so the stages before it may be
retried freely; step 6 publishes all of the run in one transaction, or nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from tasks.attempts import explaining_loss, storage_of
from tasks.layouts.base import StageRunner, Work, measure_stage
from tasks.layouts.registry import choose_layout
from tasks.manifests import Chunk, Snapshot
from tasks.observe.metrics import current_metrics
from tasks.ownership import Owner
from tasks.placement import place_outputs
from tasks.publication import Publication
from tasks.run_record import RunRecord
from tasks.settlement import settle
from tasks.snapshot import BatchLimits, has_work
from tasks.targets.base import Target


class Runner(StageRunner, Protocol):
    """The interface that runs the stages of a run; it decides where, and how often each is tried.

    Snapshot and publish need the owner, so they run in its process.
    """

    def snapshot(self, owner: Owner, limits: BatchLimits | None) -> Snapshot:
        """Note the offset range of every source partition."""

    def publish(self, owner: Owner, publication: Publication) -> RunRecord:
        """Publish the run and commit, or find it committed."""


@dataclass(frozen=True)
class Run:
    """An owned job on its way through one run. `attempt`: its name in the ledger.

    `open_target`: creates absent outputs, and partitions that the snapshot needs. It is called once there is work to
    do, so that a run that refuses what it would read leaves no topic.
    """

    owner: Owner
    runner: Runner
    open_target: Callable[[Snapshot], Target]
    attempt: str
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    def take_snapshot(self, limits: BatchLimits | None = None) -> Snapshot:
        """Do step 4. `limits`: those of a micro-batch."""
        snapshot = self.runner.snapshot(self.owner, limits)
        # From here on the job has all its types, for dump, sort and ledger.
        self.owner.job = self.owner.job.with_types(snapshot.types)
        current_metrics().note_lag(snapshot.lag)
        return snapshot

    def has_work(self, snapshot: Snapshot) -> bool:
        """Whether there is something to publish, or at least to record."""
        return has_work(self.owner, snapshot)

    def prepare(self, snapshot: Snapshot, folder: Path) -> Publication:
        """Do step 5, dump and sort: afterwards all is there for publishing. Only sorts of the target are made."""
        job, target = self.owner.job, self.open_target(snapshot)
        counts = [target.partitions(sort.name) if sort.name in target.sorts else 1 for sort in job.sort_list]
        placements = place_outputs(job, counts)
        placed = [p for p in zip(job.sort_list, placements.of_sorts, strict=True) if p[0].name in target.sorts]
        with explaining_loss(self.owner):
            prepared = choose_layout(job, snapshot.publishers).prepare(self.work(snapshot, folder), placements, placed)
        return Publication(self.attempt, snapshot, prepared.chunks, prepared.sorts, target, self.started)

    def work(self, snapshot: Snapshot, folder: Path) -> Work:
        """Return the work of the stages between snapshot and publish."""
        return Work(self.owner, self.runner, snapshot, folder, storage_of(self.owner, folder, self.attempt))

    def publish(self, publication: Publication) -> RunRecord:
        """Do step 6, publish and commit."""
        snapshot = publication.snapshot
        total = sum(rows.rows for rows in publication.sorts)
        with measure_stage("publish", snapshot, total), explaining_loss(self.owner):
            record = self.runner.publish(self.owner, publication)
        current_metrics().count_committed(record, publication.record_bytes, snapshot.lag_left)
        return record


@dataclass(frozen=True)
class RunResult:
    """The result of a run. `record`: None if there was nothing to do."""

    snapshot: Snapshot
    chunks: tuple[Chunk, ...] = ()
    record: RunRecord | None = None


def _show_nothing(_: Snapshot) -> None:
    """Show nothing: no person could read a micro-batch's plan in time."""


def run_job(
    run: Run, folder: Path, limits: BatchLimits | None = None, show_plan: Callable[[Snapshot], None] = _show_nothing
) -> RunResult:
    """Snapshot ▶ dump ▶ sort ▶ publish and commit ▶ settle. `folder`: private, for this run's own files.

    FilesNotPlacedError or DeletionError if the run is committed, and the last step failed.
    """
    snapshot = run.take_snapshot(limits)
    if not run.has_work(snapshot):
        return RunResult(snapshot)
    show_plan(snapshot)
    publication = run.prepare(snapshot, folder)
    record = run.publish(publication)
    settle(run.owner)
    return RunResult(snapshot, publication.chunks, record)
