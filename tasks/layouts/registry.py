"""The one place that chooses the layout of a run."""

from tasks.layouts.base import Layout
from tasks.layouts.row_numbers import RowNumbers
from tasks.layouts.sorted_files import SortedFiles
from tasks.settings.job import Job


def choose_layout(job: Job, publishers: int = 1) -> Layout:
    """Return the layout of a run that so many processes publish."""
    return SortedFiles() if job.keeps_sorted_files(publishers) else RowNumbers()
