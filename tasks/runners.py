"""Runners of the stages of a run: as Prefect tasks with retries, or in plain threads."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from tasks.dump import DumpRequest, dump_partition, dump_range
from tasks.kafka.consumer_pool import ConsumerPool
from tasks.manifests import Dumped, Snapshot, SortedRows
from tasks.ownership import Owner
from tasks.publication import Publication
from tasks.publish import publish_and_commit, publish_run
from tasks.publishers.processes import local_publishers
from tasks.run_context import Stop
from tasks.run_record import RunRecord
from tasks.settings.job import Job
from tasks.snapshot import BatchLimits, snapshot_source, take_snapshot
from tasks.sort import SortRequest, sort_chunks, sort_records
from tasks.task_runs import run_each, run_threads, with_retries

T = TypeVar("T")
R = TypeVar("R")


class PrefectRunner:
    """Runs each stage as a Prefect task, or as one a partition or a sort; the job sets the retries."""

    def __init__(self, job: Job, stop: Stop) -> None:
        self._job = job
        self._stop = stop

    def snapshot(self, owner: Owner, limits: BatchLimits | None) -> Snapshot:
        """Run it as one task."""
        return with_retries(snapshot_source, self._job)(owner, limits)

    def dump(self, requests: Sequence[DumpRequest]) -> list[Dumped]:
        """Run one task for each source partition."""
        return run_each(with_retries(dump_partition, self._job), requests, self._job.dump_concurrency, self._stop.set)

    def sort(self, requests: Sequence[SortRequest]) -> list[SortedRows]:
        """Run one task for each sort."""
        return run_each(with_retries(sort_records, self._job), requests, self._job.sort_concurrency, self._stop.set)

    def publish(self, owner: Owner, publication: Publication) -> RunRecord:
        """Run it as one task; publishers besides are processes of this machine."""
        publishers = local_publishers(owner.connection, publication.snapshot.publishers)
        return with_retries(publish_and_commit, self._job)(owner, publication, publishers)


class ThreadRunner:
    """Tries each stage once, in threads that Prefect does not see; without an executor, in the calling thread.

    `consumers`: the pool of a caller that makes run after run.
    """

    def __init__(
        self,
        dumping: ThreadPoolExecutor | None = None,
        sorting: ThreadPoolExecutor | None = None,
        consumers: ConsumerPool | None = None,
    ) -> None:
        self._dumping = dumping
        self._sorting = sorting
        self._consumers = consumers

    def snapshot(self, owner: Owner, limits: BatchLimits | None) -> Snapshot:
        """Run it in the calling thread."""
        return take_snapshot(owner, limits)

    def dump(self, requests: Sequence[DumpRequest]) -> list[Dumped]:
        """Run one thread for each source partition."""
        return _run_all(partial(dump_range, consumers=self._consumers), requests, self._dumping)

    def sort(self, requests: Sequence[SortRequest]) -> list[SortedRows]:
        """Run one thread for each sort."""
        return _run_all(sort_chunks, requests, self._sorting)

    def publish(self, owner: Owner, publication: Publication) -> RunRecord:
        """Run it in the calling thread."""
        return publish_run(owner, publication)


def _run_all(work: Callable[[T], R], requests: Sequence[T], pool: ThreadPoolExecutor | None) -> list[R]:
    return list(map(work, requests)) if pool is None else run_threads(work, requests, pool)
