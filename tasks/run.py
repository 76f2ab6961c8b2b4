"""One run of a job, written once: steps 4 to 6 of the protocol, for every runner of its stages.

Guarantee 2 (all or nothing, exactly once): nothing is written to Kafka before step 6, so the stages before it may be
retried freely; step 6 publishes all of the run in one transaction, or nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from tasks.chunks import drop_divided
from tasks.dump import DUMP, DumpRequest, refuse_lost
from tasks.formats.known_schemas import describe_schemas
from tasks.manifests import Chunk, Dumped, Snapshot, SortedRows
from tasks.observe.logs import log_context
from tasks.observe.metrics import current_metrics
from tasks.ownership import Owner
from tasks.placement import Placements, place_outputs
from tasks.publication import Publication
from tasks.run_context import current_run
from tasks.run_record import RunRecord
from tasks.settlement import settle
from tasks.snapshot import BatchLimits, has_work
from tasks.sort import SORT, SortRequest
from tasks.stage import Q, R, Stage
from tasks.targets.base import Target


class Runner(Protocol):
    """The interface that runs the stages of a run; it decides where, and how often each is tried.

    Requests of the stages between snapshot and publish are picklable and hold all that these need, and their facts are
    returned; snapshot and publish need the owner, so they run in its process.
    """

    def snapshot(self, owner: Owner, limits: BatchLimits | None) -> Snapshot:
        """Note the offset range of every source partition."""

    def run(self, stage: Stage[Q, R], requests: Sequence[Q]) -> list[R]:
        """Do each request of a stage; return the results in the order of the requests."""

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
        chunks = self._dump(snapshot, folder, placements)
        placed = [p for p in zip(job.sort_list, placements.of_sorts, strict=True) if p[0].name in target.sorts]
        sorts = self.sort_all(
            snapshot, [SortRequest(job, sort, chunks, place.count, folder, place) for sort, place in placed]
        )
        drop_divided(chunks, sorts)
        return Publication(self.attempt, snapshot, chunks, sorts, target, self.started)

    def publish(self, publication: Publication) -> RunRecord:
        """Do step 6, publish and commit."""
        snapshot = publication.snapshot
        with _stage("publish", snapshot, sum(rows.rows for rows in publication.sorts)):
            record = self.runner.publish(self.owner, publication)
        current_metrics().count_committed(record, publication.record_bytes, snapshot.lag_left)
        return record

    def dump_all(self, snapshot: Snapshot, requests: Sequence[DumpRequest]) -> list[Dumped]:
        """Read each range into chunks; return the results in the order of the requests."""
        with _stage("dump", snapshot, sum(request.range.span for request in requests)):
            dumped = self.runner.run(DUMP, requests)
        for part in dumped:
            current_metrics().count("dump", part.records, part.record_bytes, partition=part.range.partition)
        return dumped

    def sort_all(self, snapshot: Snapshot, requests: Sequence[SortRequest]) -> tuple[SortedRows, ...]:
        """Make each sort of its chunks; return the results in the order of the requests."""
        with _stage("sort", snapshot, sum(chunk.records for request in requests for chunk in request.chunks)):
            sorts = tuple(self.runner.run(SORT, requests))
        for request, done in zip(requests, sorts, strict=True):
            size = sum(chunk.record_bytes for chunk in request.chunks)
            current_metrics().count("sort", done.rows, size, sort=done.sort)
        return sorts

    def _dump(self, snapshot: Snapshot, folder: Path, placements: Placements) -> tuple[Chunk, ...]:
        job, ranges = self.owner.job, [r for r in snapshot.ranges if r.span]
        requests = [DumpRequest(job, snapshot.run, snapshot.source_topic_id, r, folder, placements) for r in ranges]
        chunks = tuple(chunk for part in self.dump_all(snapshot, requests) for chunk in part.chunks)
        refuse_lost(job, chunks)
        # The publish does so as well: by then an earlier batch may have met more.
        describe_schemas(self.owner.recorded_format, chunks)
        return chunks


@contextmanager
def _stage(name: str, snapshot: Snapshot, total: int) -> Iterator[None]:
    """Measure the stage's progress and duration, and put the run's number on each of its log lines."""
    with log_context(run=snapshot.run), current_run().progress.stage(name, total) as meter:
        try:
            yield
        finally:
            current_metrics().observe_stage(name, meter.seconds)


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
