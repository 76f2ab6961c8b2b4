"""Looks at a merge in the ledger: what its runs had read of the source, and whether its record is the sum of theirs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tasks.run_record import ReadRange, RunRecord, WrittenSort, join_ranges

_MODULUS = 2**64
# The option of a merge that kept the newest record of each key, and its value if that may be a tombstone.
_LATEST = "latest"
_WITH = "with tombstones"


@dataclass(frozen=True)
class MergeLook:
    """A run, or a merge as one run of the source. `reads`: the ranges of the source in the order of the outputs' ties.

    `unread`: why contents cannot be compared record by record; empty if they can. `newest`: whether the outputs have
    the newest record of each key alone, and `keeps_tombstones` whether also one without a value. `differences`: output
    → how its record differs from those of the merged runs.
    """

    record: RunRecord
    reads: tuple[ReadRange, ...]
    unread: str = ""
    newest: bool = False
    keeps_tombstones: bool = True
    differences: tuple[tuple[str, str], ...] = ()


def look_at_merge(record: RunRecord, records: Mapping[int, RunRecord]) -> MergeLook:
    """Return what verification reads for a run. `records`: all that the ledger has, by number."""
    if not record.is_merge:
        return MergeLook(record, tuple(sorted(record.read, key=lambda r: r.partition)))
    runs = find_runs(record, records)
    if runs is None:
        return MergeLook(replace(record, read=()), (), "the ledger has forgotten runs of which it was merged")
    reads = tuple(r for run in runs for r in sorted(run.read, key=lambda r: r.partition))
    ranges = join_ranges(reads)
    whole = replace(
        record,
        read=ranges,
        lost=tuple(lost for run in runs for lost in run.lost),
        records=sum(run.records for run in runs),
        dead_letters=sum(run.dead_letters for run in runs),
        source_topic_id=runs[-1].source_topic_id,
    )
    unread = _why_unread(record, runs, ranges)
    superseded = max(sort.superseded for sort in record.sorts)
    newest = not unread and _keeps_newest(record, records)
    if superseded and not unread:
        unread = f"{superseded:,} records of the runs of which it was merged are superseded"
    keeps = record.options.get(_LATEST) == _WITH
    return MergeLook(whole, reads, unread, newest, keeps, tuple(_compare(record, runs)))


def find_runs(record: RunRecord, records: Mapping[int, RunRecord]) -> tuple[RunRecord, ...] | None:
    """Return the runs that had read a merge's records from the source, oldest first; None if one is forgotten."""
    numbers = [number for c in record.covers for number in range(c.first, c.last + 1)]
    if not all(number in records for number in numbers):
        return None
    runs = [records[number] for number in numbers if not records[number].is_merge]
    return tuple(run for run in runs if not run.is_covered_by(runs))


def _why_unread(record: RunRecord, runs: Sequence[RunRecord], ranges: Sequence[ReadRange]) -> str:
    """Return why the contents of a merge cannot be compared with the source; empty if they can."""
    if expired := max(sort.expired for sort in record.sorts):
        return f"{expired:,} records of the runs of which it was merged are expired"
    if len({run.source_topic_id for run in runs}) > 1:
        return "the source was recreated between the runs of which it was merged"
    if len({r.partition for r in ranges}) < len(ranges):
        return "the runs of which it was merged did not read offsets that follow one another"
    return ""


def _keeps_newest(record: RunRecord, records: Mapping[int, RunRecord]) -> bool:
    """Whether a merge has the newest record of each key of all its runs.

    A former merge may have left out tombstones that this one would keep.
    """
    kept = record.options.get(_LATEST)
    numbers = (number for c in record.covers for number in range(c.first, c.last + 1))
    former = {records[number].options.get(_LATEST) for number in numbers if records[number].is_merge}
    return kept is not None and (kept != _WITH or former <= {None, _WITH})


def _compare(record: RunRecord, runs: Sequence[RunRecord]) -> Iterator[tuple[str, str]]:
    """Yield each output of which counts or checksums are not the sums of those of the runs."""
    placed = sum(run.placed for run in runs)
    for sort in record.sorts:
        count = sort.count + sort.expired + sort.superseded
        if count != placed:
            yield sort.topic, f"the ledger says {count} records of the merged runs, which placed {placed}"
        elif sort.checksum and not sort.expired and (expected := _sum(runs, sort.topic)) not in {None, _own_sum(sort)}:
            yield sort.topic, f"its checksum in the ledger is not the sum of those of the merged runs, {expected:016x}"


def _own_sum(sort: WrittenSort) -> int:
    return (int(sort.checksum, 16) + int(sort.superseded_checksum or "0", 16)) % _MODULUS


def _sum(runs: Sequence[RunRecord], topic: str) -> int | None:
    """Return the sum of the runs' checksums of an output; None if a run of an old version has none."""
    sums = [sort.checksum for run in runs for sort in run.sorts if sort.topic == topic]
    return sum(int(one, 16) for one in sums) % _MODULUS if all(sums) else None
