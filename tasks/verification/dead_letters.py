"""Checks that the dead-letter topic holds the records of a source range that cannot be sorted: each once, unaltered.

The topic may be shared: only records whose headers name an offset of the range count.
"""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from tasks.kafka.topics import EARLIEST, LATEST, describe_topic, list_offsets
from tasks.run_record import RunRecord
from tasks.verification.compare import Kind, Mismatch, compare_spills
from tasks.verification.content import Digests, Headers, digest_all, digest_records
from tasks.verification.reading import Block, await_stable
from tasks.verification.report import Findings
from tasks.verification.spill import Rows, Spill, count_buckets, make_rows
from tasks.verification.tools import Tools

_PREFIX = "__connect.errors."
# Another job may read the same source, and a topic that was recreated has the same offsets again. A dead letter without
# these two headers counts as ours.
_ORIGIN = tuple(_PREFIX + name for name in ("topic", "partition", "offset", "topic.id", "connector.name"))


class Origin(NamedTuple):
    """The place of a record in a source, and the job that could not sort it, as the headers of a dead letter say."""

    topic: str
    partition: str
    offset: str
    topic_id: str
    job: str


class DeadLetterCheck:
    """Collects the rejected records of the source range, then looks for them.

    `has_older_letters`: earlier runs wrote dead letters of the same range by other settings, so more of them are there.
    """

    def __init__(
        self, tools: Tools, record: RunRecord, folder: Path, findings: Findings, *, has_older_letters: bool
    ) -> None:
        self.rejected = Spill(folder, count_buckets(record.dead_letters))
        self._tools = tools
        self._record = record
        self._folder = folder
        self._findings = findings
        self._ranges = {r.partition: (r.start, r.end) for r in record.read}
        # Rejected records that were dead letters of another source keep their origin: names are not overwritten.
        self._borrowed: set[Origin] = set()
        self._named: Digests = np.empty(0, np.uint64)
        self._removed = 0
        self._gone = 0
        self._has_older_letters = has_older_letters
        self._older = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.rejected.close()

    def load_origins(self) -> None:
        """Read which records the dead letters are of, for a run whose rejects cannot be judged; 8 bytes each."""
        topic = describe_topic(self._tools.admin, self._record.dead_letter_topic)
        found = [_digest_origins(self._found_origins(b)) for b in self._read(topic.partitions if topic else ())]
        self._named = np.unique(np.concatenate([self._named, *found]))

    def find_named(self, block: Block) -> list[int]:
        """Return the indexes of the source records that have a dead letter, by the headers of the dead letters."""
        origins = _digest_origins(self._expected_origins(block))
        return np.flatnonzero(np.isin(origins, self._named)).tolist()

    def are_all_named(self) -> bool:
        """Whether all dead letters of the run were found, so that the outputs must hold all other records."""
        found, expected, name = self.rejected.rows, self._record.dead_letters, self._record.dead_letter_topic
        older = found > expected and self._has_older_letters
        if older or (found < expected and self._removed):
            what = "some are of runs that had other settings" if older else ""
            what = what or f"{found} of the run's {expected} dead letters are left"
            self._tools.unverifiable.append(f"{name}: {what}: the contents of the outputs were not compared")
        elif found != expected:
            self._findings.add_general(f"the topic has dead letters of {found} records, the ledger says {expected}")
        return found == expected

    def take_rejected(self, block: Block, rejected: list[int]) -> Block:
        """Keep the source records that cannot be sorted; return the others."""
        if rejected:
            self._add_rejected(block.select(rejected))
        return block.without(rejected)

    def _own_origin(self, partition: str, offset: str) -> Origin:
        record = self._record
        return Origin(record.source_topic, partition, offset, record.source_topic_id, record.job)

    def _expected_origins(self, block: Block) -> list[Origin]:
        """Return the origins that the dead letters of these source records must have."""
        own = [self._own_origin(str(block.partition), str(offset)) for offset in block.offsets.tolist()]
        brought = map(_read_origin, block.headers, own)
        # A dead letter that was returned to its own source is at another place now.
        return [mine if other.topic == mine.topic else other for other, mine in zip(brought, own, strict=True)]

    def _found_origins(self, block: Block) -> list[Origin]:
        default = self._own_origin("", "")._replace(topic="")
        return [_read_origin(headers, default) for headers in block.headers]

    def _add_rejected(self, block: Block) -> None:
        origins = self._expected_origins(block)
        self._borrowed.update(origin for origin in origins if origin.topic != self._record.source_topic)
        self.rejected.add(_make_rows(origins, block))

    def check(self) -> None:
        """Check count and content, against the dead-letter topic to its high watermark."""
        name, expected = self._record.dead_letter_topic, self._record.dead_letters
        if self.rejected.rows != expected:
            found = self.rejected.rows
            what = f"the source range has {found} records that cannot be sorted, the ledger says {expected}"
            self._findings.add_general(what)
        topic = describe_topic(self._tools.admin, name)
        if topic is not None:
            self._check_topic(topic.partitions)
        elif self.rejected.rows:
            self._findings.add_general("the topic does not exist any more, and the run had dead letters")

    def _check_topic(self, partitions: tuple[int, ...]) -> None:
        with Spill(self._folder, count_buckets(self._record.dead_letters)) as found:
            for block in self._read(partitions):
                self._collect(block, found)
            for mismatch in compare_spills(self.rejected, found):
                self._add_mismatch(mismatch)
        if self._gone:
            what = f"{self._gone} dead letters or more are gone, as the first offsets are"
            self._tools.unverifiable.append(f"{self._record.dead_letter_topic}: {what}")
        if self._older:
            what = f"whether {self._older} dead letters or more are all of runs that had other settings"
            self._tools.unverifiable.append(f"{self._record.dead_letter_topic}: {what}")

    def _read(self, partitions: tuple[int, ...]) -> Iterator[Block]:
        """Yield the topic's dead letters, of all jobs and runs."""
        name = self._record.dead_letter_topic
        highs = list_offsets(self._tools.admin, name, partitions, LATEST, committed=False)
        await_stable(self._tools.admin, name, highs, self._tools.patience)
        lows = list_offsets(self._tools.admin, name, partitions, EARLIEST)
        self._removed = sum(lows.values())
        for partition, low in lows.items():
            yield from self._tools.reader.read(name, partition, low, highs[partition])

    def _collect(self, block: Block, found: Spill) -> None:
        origins = self._found_origins(block)
        ours = [i for i, origin in enumerate(origins) if self._concerns(origin)]
        if ours:
            letters = block.select(ours)
            found.add(_make_rows([origins[i] for i in ours], letters))

    def _concerns(self, origin: Origin) -> bool:
        partition, offset = origin.partition, origin.offset
        if origin != self._own_origin(partition, offset) or not (partition.isdecimal() and offset.isdecimal()):
            return origin in self._borrowed
        start, end = self._ranges.get(int(partition), (0, 0))
        return start <= int(offset) < end

    def _add_mismatch(self, mismatch: Mismatch) -> None:
        source = mismatch.source
        name = f"{self._record.source_topic}/{source.partition} offset {source.offset}" if source else ""
        if mismatch.kind is Kind.MISSING and self._removed:
            self._gone += 1
        elif mismatch.kind in {Kind.FOREIGN, Kind.DOUBLED} and self._has_older_letters:
            self._older += 1
        elif mismatch.output is not None:
            self._findings.add(_describe(mismatch, name), mismatch.output)
        else:
            self._findings.add_general(_describe(mismatch, name))


def _describe(mismatch: Mismatch, source: str) -> str:
    time, found = mismatch.times or (0, 0)
    return {
        Kind.RETIMED: f"the dead letter of {source} has the timestamp {found} in place of {time}",
        Kind.MISSING: f"the dead letter of {source} is missing",
        Kind.ALTERED: f"the dead letter of {source} is altered",
        Kind.FOREIGN: "the dead letter is of a record that can be sorted",
    }.get(mismatch.kind, "the dead letter is there again")


def _read_origin(headers: Headers, default: Origin) -> Origin:
    """Return the origin as far as the headers say."""
    named = dict(headers or ())
    return Origin(*(_to_text(named.get(name), other) for name, other in zip(_ORIGIN, default, strict=True)))


def _to_text(content: bytes | str | None, default: str) -> str:
    if content is None:
        return default
    return content if isinstance(content, str) else content.decode("utf-8", "backslashreplace")


def _make_rows(origins: list[Origin], block: Block) -> Rows:
    """Make rows with the origin as key, and with the timestamp, which a dead letter keeps."""
    return make_rows(_digest_origins(origins), _digest_originals(block), block.partition, block.offsets, block.times())


def _digest_origins(origins: list[Origin]) -> Digests:
    return digest_all(["\0".join(origin).encode() for origin in origins])


def _digest_originals(block: Block) -> Digests:
    """Digest the records without the headers that make them dead letters."""
    headers = [[item for item in given or () if not item[0].startswith(_PREFIX)] for given in block.headers]
    return digest_records(block.values, block.keys, headers)
