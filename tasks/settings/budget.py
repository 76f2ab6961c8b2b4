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


@dataclass(frozen=True)
class Budget:
    """The bytes for each user of memory. Dump, sort and publish follow one another, so their needs are not added up."""

    duckdb_bytes: int
    producer_queue_bytes: int
    consumer_queue_bytes: int
    chunk_buffer_bytes: int
    part_bytes: int

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
        )


def peak_memory_bytes() -> int:
    """Return the most memory this process has held so far, to compare with the budget."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
