"""The runs that a merge makes one of, from the ledger: the oldest current ones, as many as fit one transaction.

Guarantee 2 (all or nothing, exactly once): Kafka deletes records of a partition from its beginning on, so the runs of a
merge are the first ones in the outputs. Nothing that was written between two of those that it takes is left.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tasks.kafka.ledger import Ledger
from tasks.run_record import CoveredRuns, EarlierRuns, RunRecord, WrittenSort

_MODULUS = 2**64
# The option of a merge's record that says that it has read runs of which the ledger did not know where each lay.
UNORDERED = "unordered"


@dataclass(frozen=True)
class FormerRun:
    """A current run, or all that the ledger has folded into one record, as a merge takes it.

    `records`: how many of the source it stands for. `checksum`: of these in the source, in hexadecimal; empty if not
    known. `covers`: itself, behind all that it has taken the place of, in the order of their age. `is_known`: whether
    it is one run, whose count and place are known. `is_ordered`: whether it is known which of two records of one key is
    the newer. `sorts`: by the names of the outputs.
    """

    number: int
    records: int
    checksum: str
    covers: tuple[CoveredRuns, ...]
    is_known: bool
    is_ordered: bool
    sorts: Mapping[str, WrittenSort]

    @property
    def ages(self) -> tuple[int, int]:
        """The numbers of the oldest and of the newest run of the source that went into it."""
        others = [c for c in self.covers if (c.first, c.last) != (self.number, self.number)] or self.covers
        return min(c.first for c in others), max(c.last for c in others)

    @classmethod
    def of(cls, record: RunRecord) -> "FormerRun":
        """Return the run of a record."""
        covers = (*record.covers, CoveredRuns(record.run, record.run))
        sums = str(record.checksum.get("sum", ""))
        is_ordered = not record.options.get(UNORDERED)
        return cls(record.run, record.placed, sums, covers, True, is_ordered, _by_name(record.sorts))

    @classmethod
    def of_earlier(cls, earlier: EarlierRuns) -> "FormerRun":
        """Return the folded runs as one."""
        covers = (CoveredRuns(1, earlier.last_run),)
        return cls(earlier.last_run, earlier.placed, "", covers, False, False, _by_name(earlier.sorts))


def _by_name(sorts: Iterable[WrittenSort]) -> dict[str, WrittenSort]:
    return {sort.topic: sort for sort in sorts}


def current_runs(ledger: Ledger) -> tuple[FormerRun, ...]:
    """Return the runs that no later one has taken the place of, in the order in which they lie in the outputs."""
    current, earlier = map(FormerRun.of, ledger.current), ledger.current_earlier
    return (*([FormerRun.of_earlier(earlier)] if earlier else []), *current)


def choose_runs(current: Sequence[FormerRun], sizes: Mapping[int, int], most: int) -> tuple[FormerRun, ...]:
    """Choose the first runs with at most so many records in all, of which no run that stays is younger and older.

    `sizes`: run → how many records the outputs have of it now.

    None if fewer than two of them have records.
    """
    for count in range(len(current), 1, -1):
        chosen, left = current[:count], current[count:]
        fits = sum(sizes[run.number] for run in chosen) <= most
        if fits and not _is_torn(chosen, left):
            return tuple(chosen) if sum(sizes[run.number] > 0 for run in chosen) > 1 else ()
    return ()


def _is_torn(chosen: Sequence[FormerRun], left: Sequence[FormerRun]) -> bool:
    """Whether a run that stays would lie between those that become one, by the order of the source."""
    oldest, newest = min(run.ages[0] for run in chosen), max(run.ages[1] for run in chosen)
    return any(oldest < run.ages[0] < newest for run in left)


def by_age(runs: Iterable[FormerRun]) -> tuple[FormerRun, ...]:
    """Return the runs in the order of the source."""
    return tuple(sorted(runs, key=lambda run: run.ages))


def join_covers(runs: Iterable[FormerRun]) -> tuple[CoveredRuns, ...]:
    """Return all that runs in the order of their age cover, ranges that follow one another as one."""
    joined: list[CoveredRuns] = []
    for covered in (c for run in runs for c in run.covers):
        if joined and joined[-1].last + 1 == covered.first:
            joined[-1] = CoveredRuns(joined[-1].first, covered.last)
        else:
            joined.append(covered)
    return tuple(joined)


def join_checksums(runs: Iterable[FormerRun]) -> str:
    """Return the checksum of all records that the runs had placed; empty if it is not known of one."""
    sums = [run.checksum for run in runs]
    return f"{sum(int(one, 16) for one in sums) % _MODULUS:016x}" if all(sums) else ""
