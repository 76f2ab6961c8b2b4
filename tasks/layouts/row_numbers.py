"""The layout of one machine: chunks stay where they are, and a sort is a list of row numbers, by which publish gathers.

Nothing is moved that need not be: it is the fastest where all processes see one disk.
"""

from collections.abc import Sequence

from tasks.chunks import drop_divided
from tasks.dump import DumpRequest, refuse_lost
from tasks.formats.known_schemas import describe_schemas
from tasks.layouts.base import Prepared, Work, count_sorted
from tasks.manifests import SortedRows
from tasks.placement import Placement, Placements
from tasks.settings.sorts import Sort
from tasks.sort import SORT, SortRequest


class RowNumbers:
    """Dump ▶ sort: a task a source partition, then a task a sort."""

    def prepare(self, work: Work, placements: Placements, placed: Sequence[tuple[Sort, Placement]]) -> Prepared:
        """Dump and sort."""
        job, snapshot = work.job, work.snapshot
        ranges = [r for r in snapshot.ranges if r.span]
        requests = [
            DumpRequest(job, snapshot.run, snapshot.source_topic_id, r, work.folder, placements) for r in ranges
        ]
        chunks = tuple(chunk for part in work.dump(requests) for chunk in part.chunks)
        refuse_lost(job, chunks)
        # The publish does so as well: by then an earlier batch may have met more.
        describe_schemas(work.owner.recorded_format, chunks)
        sorts = sort_whole(
            work, [SortRequest(job, sort, chunks, place.count, work.folder, place) for sort, place in placed]
        )
        drop_divided(chunks, sorts)
        return Prepared(chunks, sorts)


def sort_whole(work: Work, requests: Sequence[SortRequest]) -> tuple[SortedRows, ...]:
    """Make each sort of its chunks; return the results in the order of the requests."""
    sorts = tuple(work.sort(SORT, requests, sum(chunk.records for r in requests for chunk in r.chunks)))
    for request, done in zip(requests, sorts, strict=True):
        count_sorted(done, request.chunks)
    return sorts
