"""The one place that chooses the layout of a run."""

from tasks.layouts.base import Layout
from tasks.layouts.row_numbers import RowNumbers
from tasks.layouts.sorted_files import SortedFiles
from tasks.settings.job import Job


def keeps_sorted_files(job: Job, publishers: int = 1) -> bool:
    """Whether a run leaves sorted files: its tasks may be on several machines, or several processes publish."""
    return job.scheduler is not None or job.storage_prefix is not None or publishers > 1


def choose_layout(job: Job, publishers: int = 1) -> Layout:
    """Return the layout of a run that so many processes publish."""
    return SortedFiles() if keeps_sorted_files(job, publishers) else RowNumbers()
