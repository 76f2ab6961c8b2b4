"""The interface of a layout, and the work that it does: the stages of one run between snapshot and publish."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tasks.dump import DUMP, DumpRequest
from tasks.manifests import Chunk, Dumped, Location, Snapshot, SortedRows
from tasks.observe.logs import log_context
from tasks.observe.metrics import current_metrics
from tasks.ownership import Owner
from tasks.placement import Placement, Placements
from tasks.run_context import Meter, current_run
from tasks.settings.job import Job
from tasks.settings.sorts import Sort
from tasks.stage import Capacity, Q, R, Stage


class StageRunner(Protocol):
    """The interface that runs stages between snapshot and publish."""

    def capacity(self, job: Job) -> Capacity:
        """Return how many tasks run at once, and the job whose limits are those of one."""

    def run(self, stage: Stage[Q, R], requests: Sequence[Q]) -> list[R]:
        """Do each request of a stage; return the results in the order of the requests.

        Requests are picklable and hold all that the stage needs, and its facts are returned.
        """


@dataclass(frozen=True)
class Work:
    """The work of one run. `folder`: private, of this machine; `storage`: where tasks leave files for each other."""

    owner: Owner
    runner: StageRunner
    snapshot: Snapshot
    folder: Path
    storage: Location

    @property
    def job(self) -> Job:
        """The job, with all its types."""
        return self.owner.job

    def dump(self, requests: Sequence[DumpRequest]) -> list[Dumped]:
        """Read each range into chunks; return the results in the order of the requests."""
        with measure_stage("dump", self.snapshot, sum(request.range.span for request in requests)):
            dumped = self.runner.run(DUMP, requests)
        for part in dumped:
            current_metrics().count("dump", part.records, part.record_bytes, partition=part.range.partition)
        return dumped

    def sort(self, stage: Stage[Q, R], requests: Sequence[Q], records: int) -> list[R]:
        """Do a stage that sorts so many records in all."""
        with measure_stage("sort", self.snapshot, records):
            return self.runner.run(stage, requests)


def count_sorted(done: SortedRows, chunks: Sequence[Chunk]) -> None:
    """Count a sort that is done in the metrics."""
    current_metrics().count("sort", done.rows, sum(chunk.record_bytes for chunk in chunks), sort=done.sort)


@contextmanager
def measure_stage(name: str, snapshot: Snapshot, total: int) -> Iterator[Meter]:
    """Measure the stage's progress and duration, and put the run's number on each of its log lines."""
    with log_context(run=snapshot.run), current_run().progress.stage(name, total) as meter:
        try:
            yield meter
        finally:
            current_metrics().observe_stage(name, meter.seconds)


@dataclass(frozen=True)
class Prepared:
    """The result of a layout: all that a publish needs of dump and sort."""

    chunks: tuple[Chunk, ...]
    sorts: tuple[SortedRows, ...]


class Layout(Protocol):
    """A way from a snapshot to sorted rows."""

    def prepare(self, work: Work, placements: Placements, placed: Sequence[tuple[Sort, Placement]]) -> Prepared:
        """Dump and sort. `placed`: the sorts that are made; `placements`: of all sorts of the job."""
