"""The form of an output's records by the run's record: the record keys and the partitions that they must have."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tasks.run_record import RunRecord, WrittenSort
from tasks.verification.content import Digests, digest_all, digest_places
from tasks.verification.fetched import require
from tasks.verification.keys import Encoded
from tasks.verification.marks import Marker
from tasks.verification.output_keys import make_output_keys
from tasks.verification.partitions import Partitions
from tasks.verification.reading import Block
from tasks.verification.spill import Rows, make_rows
from tasks.verification.terms import SortKey, carried
from tasks.verification.types.base import Keys

# An odd factor: partitions change a digest each in its own way.
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class OutputForm:
    """The form of one output. `sort`: its key columns, None if keys cannot be judged.

    `by`: what decides the partition, range, hash or source; `count`: the number of partitions; `output_key`: keep, sort
    or none; `key_format`: that of record keys. `in_files`: whether each record has its place in the source beside it;
    `keeps_times`: whether it has the source's timestamp.
    """

    by: str
    count: int
    output_key: str
    key_format: str
    sort: SortKey | None
    in_files: bool = False
    keeps_times: bool = False

    @classmethod
    def of(cls, record: RunRecord, written: WrittenSort, sort: SortKey | None) -> "OutputForm":
        """Return the form that the record tells."""
        key_format = record.format.get("key_format", "text")
        keeps_times = record.keeps_timestamps or written.has_folder
        return cls(
            record.partition_by,
            written.partition_count,
            record.output_key,
            key_format,
            sort,
            written.has_folder,
            keeps_times,
        )

    def carried(self, sort: SortKey) -> SortKey:
        """Return the columns, from the most significant one, that the output's records have; files have all."""
        return sort if self.in_files else carried(sort, self.output_key)

    def make_rows(self, block: Block, keys: Keys | None, partitions: Partitions | None) -> Rows:
        """Make rows for comparison key by key; if keys are None, a record's content stands for its key.

        `partitions`: the output's partitions of the records, where these matter.
        """
        contents, times = block.digests(), block.times() if self.keeps_times else None
        if self.in_files:
            contents = contents ^ digest_places(*block.places)
        digests = lead_digests(contents if keys is None else digest_all(keys), partitions)
        return make_rows(digests, contents, block.partition, block.offsets, times)

    def mark(self, marker: Marker, block: Block, partitions: Partitions | None) -> Digests:
        """Make marks without ranks, one a record. UnprovenError if one has no timestamp, and these are compared.

        Such a record gets a timestamp in the output.
        """
        times = block.times() if self.keeps_times else None
        require(times is None or bool((times > 0).all()))
        return marker.begin(block.digests(), partitions, times)

    @property
    def has_unknown_keys(self) -> bool:
        """Whether the record keys of the output, and so the hashes, are made of sort keys that cannot be judged."""
        return self.output_key == "sort" and self.sort is None

    def expect(self, source: Block, encoded: Encoded | None) -> Block:
        """Return the records of the source as the output must have them; without keys, if those are unknown."""
        if self.output_key == "keep":
            return source
        if self.sort is None or encoded is None or self.output_key == "none":
            return replace(source, keys=[None] * len(source))
        return replace(source, keys=make_output_keys(self.sort, encoded, source.keys, self.key_format))

    def find(self, output: Block) -> Block:
        """Return records of the output as they are; without keys, if those are unknown."""
        return replace(output, keys=[None] * len(output)) if self.has_unknown_keys else output

    def belong(self, expected: Block) -> Partitions | None:
        """Return where each record must be, which comes from the source; None if that is not known, as by range."""
        if self.by == "hash" and not self.has_unknown_keys:
            hashed = expected.hashed(self.count)
            return np.where(hashed < 0, expected.partition % self.count, hashed)
        return np.full(len(expected), expected.partition) if self.by == "source" else None

    def are(self, output: Block) -> Partitions | None:
        """Return where each record of the output is; None likewise."""
        known = self.by == "source" or (self.by == "hash" and not self.has_unknown_keys)
        return np.full(len(output), output.partition) if known else None

    def find_misplaced(self, output: Block) -> list[tuple[int, int]]:
        """Return index and right partition of the records whose own keys lead to another partition."""
        if self.by != "hash":
            return []
        hashed = output.hashed(self.count)
        return [(i, int(hashed[i])) for i in np.flatnonzero((hashed >= 0) & (hashed != output.partition)).tolist()]


def lead_keys(keys: Keys, partitions: Partitions | None) -> Keys:
    """Put the partition in front of each key: within a partition alone the order is that of the keys."""
    if partitions is None:
        return keys
    return [prefix + key for prefix, key in zip(_pack(partitions), keys, strict=True)]


def lead_digests(digests: Digests, partitions: Partitions | None) -> Digests:
    """Make equal contents in different partitions differ."""
    return digests if partitions is None else digests ^ ((partitions + 1).astype(np.uint64) * _FACTOR)


def _pack(partitions: Partitions) -> Sequence[bytes]:
    packed: list[bytes] = partitions.astype(">u4").view("V4").tolist()
    return packed
