"""How one number, `memory_limit`, is divided among what a run holds in memory (guarantee 5)."""

import resource
import sys
from dataclasses import dataclass

from tasks.errors import SettingsError
from tasks.settings.job import Job

MB = 1_000_000
# Python with Prefect, pyarrow and DuckDB loaded, measured 310 MB; the rest are Arrow batches on their way.
_BASE_BYTES = 420 * MB
SMALLEST_LIMIT = 768 * MB


@dataclass(frozen=True)
class Budget:
    """Bytes for each user of memory. Dump, sort and publish follow one another: what each needs is not added up."""

    duckdb_bytes: int
    producer_queue_bytes: int
    consumer_queue_bytes: int
    chunk_buffer_bytes: int
    part_bytes: int

    @classmethod
    def of(cls, job: Job) -> "Budget":
        """Divide the job's limit; SettingsError where it is too small to work."""
        if job.memory_bytes < SMALLEST_LIMIT:
            raise SettingsError(
                f"memory limit {job.memory_bytes / MB:.0f} MB is too small to work: "
                f"give at least {SMALLEST_LIMIT // MB} MB"
            )
        free = job.memory_bytes - _BASE_BYTES
        return cls(
            # DuckDB's own limit leaves out what the allocator keeps and Arrow results.
            duckdb_bytes=int(free * 0.65) // job.sort_concurrency,
            producer_queue_bytes=min(int(free * 0.15), 128 * MB),
            consumer_queue_bytes=min(int(free * 0.2) // job.dump_concurrency, 32 * MB),
            chunk_buffer_bytes=min(int(free * 0.1) // job.dump_concurrency, 16 * MB),
            # In memory while the producer's queue is full, of which librdkafka counts the records' bytes alone.
            # Arrow's binary arrays end at 2 GB.
            part_bytes=min(int(free * 0.45), 1900 * MB),
        )


def peak_memory_bytes() -> int:
    """The most memory this process has held so far: what the budget was for."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
