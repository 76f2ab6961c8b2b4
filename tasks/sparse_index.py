"""The sparse index of a run: every 1000th key of each output partition, by which a reader finds a key in one fetch.

It is committed in the run's own transaction, so it is as exact as the run. A run's records in a partition have offsets
without a gap, so an entry's place tells its offset. A value is text: a line of JSON, then the keys as lines in the form
of KeyBound.
"""

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from tasks.kafka.ledger import Ledger
from tasks.run_record import EarlierRuns, RunRecord, WrittenRange, WrittenSort
from tasks.sorting.bound import KeyBound

VERSION: Final = 1
EVERY: Final = 1000
# In fewer rows a binary search takes no more fetches.
_FEWEST_ROWS: Final = 2 * EVERY
# Of up to 90 bytes each: a record stays below half a megabyte.
_PART_ENTRIES: Final = 5000


@dataclass(frozen=True)
class IndexPart:
    """Consecutive entries of one attempt of a run: entry i is the key at offset `first` + i * `every`."""

    attempt: str
    first: int
    every: int
    entries: tuple[KeyBound, ...]

    @classmethod
    def parse(cls, value: bytes) -> Self | None:
        """Read a record's value; None if a later version wrote it. ValueError or KeyError if it is none."""
        head, *lines = value.decode().split("\n")
        facts = json.loads(head)
        if facts["version"] != VERSION:
            return None
        return cls(facts["attempt"], facts["first"], facts["every"], tuple(map(KeyBound.parse, lines)))

    def find(self, encoded: bytes) -> int | None:
        """Return the offset of the last entry that certainly comes before a key; None if there is none."""
        place = bisect_left(range(len(self.entries)), True, key=lambda i: not self.entries[i].is_before(encoded))
        return self.first + (place - 1) * self.every if place else None


def sampled_rows(first: int, end: int) -> range:
    """Return the rows of a partition, rows [first, end) of a sort, that an index has; none of a small partition."""
    return range(first, end, EVERY) if end - first >= _FEWEST_ROWS else range(0)


def index_lines(encoded: Iterable[bytes]) -> bytes:
    """Return the entries of an index, one for each encoded key, as lines."""
    return "\n".join(str(KeyBound.of(key)) for key in encoded).encode()


def index_changes(
    ledger: Ledger, record: RunRecord, entries: Mapping[str, Mapping[int, bytes]]
) -> Iterator[tuple[bytes, bytes | None]]:
    """Yield key and value of what a run's transaction writes to the index; a null value deletes.

    `entries`: output → partition → its entries as lines. Runs that this one covers or folds have no index any more.
    """
    for sort in (sort for sort in record.sorts if not sort.has_folder):
        for written in sort.partitions:
            yield from _records(record, sort, written, entries[sort.topic][written.partition].split(b"\n"))
    for run in sorted({*ledger.outdated(record.run), *ledger.covered_by(record)}):
        former = EarlierRuns.from_json(ledger.footprints[run])
        for sort in (sort for sort in former.sorts if not sort.has_folder):
            for written in sort.partitions:
                yield from ((key, None) for key in part_keys(run, sort.topic, written.partition, written.count))


def _records(
    record: RunRecord, sort: WrittenSort, written: WrittenRange, lines: list[bytes]
) -> Iterator[tuple[bytes, bytes]]:
    facts = {"version": VERSION, "attempt": record.attempt, "every": EVERY}
    for part, key in enumerate(part_keys(record.run, sort.topic, written.partition, written.count)):
        start = part * _PART_ENTRIES
        head = facts | {"first": written.first + start * EVERY}
        yield key, b"\n".join([json.dumps(head).encode(), *lines[start : start + _PART_ENTRIES]])


def part_keys(run: int, topic: str, partition: int, count: int) -> Sequence[bytes]:
    """Return the keys of the records of one partition, to which a run wrote `count` records, in their order."""
    entries = len(sampled_rows(0, count))
    return [f"run/{run}/{topic}/{partition}/{part}".encode() for part in range(-(-entries // _PART_ENTRIES))]
