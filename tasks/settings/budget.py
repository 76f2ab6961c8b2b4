"""Divides one number, `memory_limit`, among the users of memory in a run (guarantee 5)."""

import resource
import sys
from dataclasses import dataclass

from tasks.errors import SettingsError
from tasks.settings.job import Job

MB = 1_000_000
# Python with Prefect, pyarrow and DuckDB loaded took 310 MB; the rest is for Arrow batches on their way.
BASE_BYTES = 420 * MB
SMALLEST_LIMIT = 768 * MB
# The least that a publisher takes besides its process: its queue, and the batches that it gathers and sends.
_PUBLISHER_BUFFERS = 60 * MB
_LEAST_QUEUE_BYTES = 16 * MB
# A process that only publishes, without Prefect and DuckDB, was 90 MB before any work.
PUBLISHER_BYTES = 120 * MB + _PUBLISHER_BUFFERS
MOST_PUBLISHERS = 64


@dataclass(frozen=True)
class Budget:
    """The bytes for each user of memory. Dump, sort and publish follow one another, so their needs are not added up."""

    duckdb_bytes: int
    producer_queue_bytes: int
    consumer_queue_bytes: int
    chunk_buffer_bytes: int
    part_bytes: int
    # What a task holds of a chunk that is divided among parts, and of a part that was fetched.
    divided_bytes: int = 64 * MB
    fetched_bytes: int = 64 * MB

    @classmethod
    def of(cls, job: Job) -> "Budget":
        """Divide the job's limit; SettingsError if it is too small for the work."""
        if job.memory_bytes < SMALLEST_LIMIT:
            raise SettingsError(
                f"memory limit {job.memory_bytes / MB:.0f} MB is too small to work: "
                f"give at least {SMALLEST_LIMIT // MB} MB"
            )
        free = job.memory_bytes - BASE_BYTES
        return cls(
            # DuckDB's own limit leaves out the allocator's reserve and Arrow results.
            duckdb_bytes=int(free * 0.65) // job.sort_concurrency,
            producer_queue_bytes=min(int(free * 0.15), 128 * MB),
            consumer_queue_bytes=min(int(free * 0.2) // job.dump_concurrency, 32 * MB),
            # A parser has copies of what it parses.
            chunk_buffer_bytes=min(int(free * 0.05) // job.dump_concurrency, 16 * MB),
            # The batch is in memory while the producer's queue is full; librdkafka counts only the records' bytes.
            # Arrow's binary arrays end at 2 GB.
            part_bytes=min(int(free * 0.45), 1900 * MB),
            # Parquet's writer has copies of a row group, the reader of Kafka its queue.
            divided_bytes=min(int(free * 0.3) // job.dump_concurrency, 512 * MB),
            # DuckDB orders the keys meanwhile.
            fetched_bytes=min(int(free * 0.3) // job.sort_concurrency, 1900 * MB),
        )


@dataclass(frozen=True)
class PublisherBudget:
    """The memory of a publisher. `at_once`: how many share a machine; each gathers a part of a batch of records."""

    queue_bytes: int
    at_once: int

    @classmethod
    def of(cls, free: int, at_once: int) -> "PublisherBudget":
        """Divide what the processes themselves leave of a machine's limit among its publishers."""
        return cls(min(max(int(free * 0.3) // at_once, _LEAST_QUEUE_BYTES), 128 * MB), at_once)


def most_publishers(job: Job) -> int:
    """Return how many publishers the job's limit bears on this machine, at least one.

    They are processes beside that of the run, or threads of Dask's workers. Of a scheduler's machines nothing is known
    here, and their publishers are lowered to what each has.
    """
    if job.scheduler is not None:
        return MOST_PUBLISHERS
    if job.runner == "dask":
        workers = max(1, min(max(job.dump_concurrency, job.sort_concurrency), most_workers(job)))
        left, each = job.memory_bytes - (1 + workers) * BASE_BYTES, _PUBLISHER_BUFFERS
    else:
        left, each = job.memory_bytes - BASE_BYTES, PUBLISHER_BYTES
    return max(1, min(left // each, MOST_PUBLISHERS))


def most_workers(job: Job) -> int:
    """Return how many processes of a machine may share the job's limit: each takes BASE_BYTES before any work."""
    return (job.memory_bytes - SMALLEST_LIMIT) // BASE_BYTES


def bytes_of_worker(job: Job, workers: int) -> int:
    """Return the most memory that one of so many processes of a machine takes."""
    return BASE_BYTES + (job_of_workers(job, workers).memory_bytes - BASE_BYTES) // workers


def check_limit(job: Job) -> None:
    """Raise SettingsError if the job's limit is too small for the work, wherever it is done."""
    Budget.of(job)
    if job.runner == "dask":
        job_of_workers(job, 1)


def job_of_workers(job: Job, workers: int) -> Job:
    """Return the job as one of so many processes does it, which divide the limit of their machine.

    What is left of the limit, less the base of each, is divided as among so many stages at once in one process. So are
    the cores. SettingsError if too little is left.
    """
    left = _left_for(job, workers)
    # A copy has what its origin has computed, so the computed bytes are set as well.
    limits = {"memory_limit": str(left), "memory_bytes": left}
    return job.model_copy(update={**limits, "dump_concurrency": workers, "sort_concurrency": workers})


def _left_for(job: Job, workers: int) -> int:
    if workers > most_workers(job):
        needed = SMALLEST_LIMIT + workers * BASE_BYTES
        raise SettingsError(
            f"memory limit {job.memory_bytes / MB:.0f} MB is too small for {workers} workers on one machine: give at "
            f"least {needed / MB:.0f} MB with --memory-limit, or start fewer workers there"
        )
    return job.memory_bytes - workers * BASE_BYTES


def peak_memory_bytes() -> int:
    """Return the most memory this process has held so far, to compare with the budget."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
