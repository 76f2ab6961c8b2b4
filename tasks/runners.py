"""Runners of the stages of a run: as Prefect tasks with retries, or in plain threads."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tasks.manifests import Snapshot
from tasks.ownership import Owner
from tasks.publication import Publication
from tasks.publish import publish_and_commit, publish_run
from tasks.publishers.processes import local_publishers
from tasks.run_context import Stop
from tasks.run_record import RunRecord
from tasks.settings.job import Job
from tasks.snapshot import BatchLimits, snapshot_source, take_snapshot
from tasks.stage import Capacity, Q, R, Stage
from tasks.task_runs import run_each, run_threads, with_retries


class PrefectRunner:
    """Runs each stage as a Prefect task, or as one a partition or a sort; the job sets the retries."""

    def __init__(self, job: Job, stop: Stop) -> None:
        self._job = job
        self._stop = stop

    def snapshot(self, owner: Owner, limits: BatchLimits | None) -> Snapshot:
        """Run it as one task."""
        return with_retries(snapshot_source, self._job)(owner, limits)

    def capacity(self, job: Job) -> Capacity:
        """Return the threads of this process, which have a share of its limits each."""
        return Capacity(max(job.dump_concurrency, job.sort_concurrency), job)

    def run(self, stage: Stage[Q, R], requests: Sequence[Q]) -> list[R]:
        """Run one task for each request."""
        return run_each(with_retries(stage.task, self._job), requests, stage.at_once(self._job), self._stop.set)

    def publish(self, owner: Owner, publication: Publication) -> RunRecord:
        """Run it as one task; publishers besides are processes of this machine."""
        publishers = local_publishers(owner.connection, publication.snapshot.publishers)
        return with_retries(publish_and_commit, self._job)(owner, publication, publishers)


class ThreadRunner:
    """Tries each stage once, in threads that Prefect does not see; without an executor, in the calling thread.

    `pools`: executors by the names of stages. `works`: how stages do a request, where that is not their own way.
    """

    def __init__(
        self,
        pools: Mapping[str, ThreadPoolExecutor] | None = None,
        works: Mapping[str, Callable[[Any], Any]] | None = None,
    ) -> None:
        self._pools = pools or {}
        self._works = works or {}

    def snapshot(self, owner: Owner, limits: BatchLimits | None) -> Snapshot:
        """Run it in the calling thread."""
        return take_snapshot(owner, limits)

    def capacity(self, job: Job) -> Capacity:
        """Return the threads of this process, which have a share of its limits each."""
        return Capacity(max(job.dump_concurrency, job.sort_concurrency), job)

    def run(self, stage: Stage[Q, R], requests: Sequence[Q]) -> list[R]:
        """Run one thread for each request."""
        work: Callable[[Q], R] = self._works.get(stage.name, stage.work)
        pool = self._pools.get(stage.name)
        return list(map(work, requests)) if pool is None else run_threads(work, requests, pool)

    def publish(self, owner: Owner, publication: Publication) -> RunRecord:
        """Run it in the calling thread."""
        return publish_run(owner, publication)
