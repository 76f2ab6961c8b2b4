"""The run record: what one run read and wrote, as the ledger keeps it, in JSON with a format version.

A record says which features a process must understand to go on from it. Fields that a process does not know are
ignored. Format 1 had no version, no encoded bounds and no checksum of each sort; it is read as it is.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final, Self, TypeVar

from tasks.manifests import Key, LostRange

FORMAT: Final = 2
# Features that a record requires if an option of its job has another value than the default: a version that does not
# know them would place records elsewhere, or with other keys.
FEATURES: Final = (("partition-by", "partition_by", "range"), ("output-key", "output_key", "keep"))
# The features that a record may require and from which this version can go on.
REPLACE: Final = "replace"
PARQUET: Final = "parquet"
MERGE: Final = "merge"
UNDERSTOOD: Final[frozenset[str]] = frozenset({REPLACE, PARQUET, MERGE, *(feature for feature, _, _ in FEATURES)})
_MODULUS: Final = 2**64

T = TypeVar("T")
# The id of a source topic, the version of parse rules, and the dead-letter topic.
Reading = tuple[str, str, str]


@dataclass(frozen=True)
class ReadRange:
    """Offsets [start, end) of one source partition that were read."""

    partition: int
    start: int
    end: int


@dataclass(frozen=True)
class WrittenRange:
    """The records written to one output partition. Offsets first to last, both included.

    `first_key`, `last_key`: for a person. `first_bound`, `last_bound`: encoded, in the form of KeyBound.
    """

    partition: int
    first: int
    last: int
    count: int
    first_key: Key | None = None
    last_key: Key | None = None
    first_bound: str | None = None
    last_bound: str | None = None


@dataclass(frozen=True)
class DeletedRange:
    """All offsets of an output partition before `before`: a run that was committed has taken the place of these."""

    partition: int
    before: int


@dataclass(frozen=True)
class CoveredRuns:
    """The runs `first` to `last`, both included, which a later run has taken the place of."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first} to {self.last}"


@dataclass(frozen=True)
class WrittenFile:
    """A file of an output that is a folder. `digest`: XXH3 of 128 bits, in hexadecimal."""

    partition: int
    name: str
    bytes: int
    digest: str


@dataclass(frozen=True)
class WrittenSort:
    """One sort and its output: a topic, or a folder, of which `topic` is the name as `parquet:DIR`.

    `checksum`: of the written records, in hexadecimal; empty in format 1. `delete_before`: for every partition, if the
    run covers others. `partition_count`: the number of the output's partitions; 0 if an earlier version wrote the
    record. Of a folder, `folder` is the name of the run's files in it, and `staged` the one under which they were
    written before the commit; the offsets of its `partitions` are numbers of rows in `files`. Of a merge, `expired` is
    the number of records of the covered runs that retention had removed, and `superseded` that of those that it left
    out, whose checksum is `superseded_checksum`.
    """

    topic: str
    topic_id: str
    columns: str
    partitions: tuple[WrittenRange, ...]
    checksum: str = ""
    delete_before: tuple[DeletedRange, ...] = ()
    partition_count: int = 0
    folder: str = ""
    staged: str = ""
    files: tuple[WrittenFile, ...] = ()
    expired: int = 0
    superseded: int = 0
    superseded_checksum: str = ""

    @property
    def count(self) -> int:
        """The number of records."""
        return sum(w.count for w in self.partitions)

    @property
    def has_folder(self) -> bool:
        """Whether the output is a folder of files, and not a topic."""
        return bool(self.folder)


@dataclass(frozen=True)
class RunRecord:
    """One run, which was committed in the transaction of the rows themselves.

    `ledger`: version of this format. `requires`: features that must be understood to go on from this record.
    `covers`: the runs whose place in the outputs it takes; a merge has them in the order of their age.
    `dead_letters_written`: how many of its dead letters no earlier run had written; None: all.
    """

    job: str
    run: int
    attempt: str
    source_topic: str
    source_topic_id: str
    format: Mapping[str, str]
    read: tuple[ReadRange, ...]
    lost: tuple[LostRange, ...]
    records: int
    dead_letter_topic: str
    dead_letters: int
    checksum: Mapping[str, str]
    sorts: tuple[WrittenSort, ...]
    started: str
    published: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    skipped: tuple[int, ...] = ()
    ledger: int = 1
    requires: tuple[str, ...] = ()
    covers: tuple[CoveredRuns, ...] = ()
    dead_letters_written: int | None = None

    @property
    def placed(self) -> int:
        """The number of records in each output."""
        return self.records - self.dead_letters

    @property
    def new_dead_letters(self) -> int:
        """The number of dead letters that the run wrote: of records that no earlier run had read."""
        return self.dead_letters if self.dead_letters_written is None else self.dead_letters_written

    @property
    def rules(self) -> str:
        """The version of the rules by which the run parsed; empty if it is not known."""
        return self.format.get("rules", "")

    def is_covered_by(self, others: Iterable["RunRecord"]) -> bool:
        """Whether one of the others has taken the place of this run."""
        return any(c.first <= self.run <= c.last for other in others for c in other.covers)

    @property
    def is_merge(self) -> bool:
        """Whether the run read what others had written, and nothing of the source."""
        return MERGE in self.requires

    @property
    def age(self) -> int:
        """The number of the oldest run whose records it has: current runs in this order are in that of the source."""
        return min((c.first for c in self.covers), default=self.run)

    @property
    def keeps_timestamps(self) -> bool:
        """Whether the outputs' records have the source's timestamps."""
        return self.options.get("timestamps") == "keep"

    @property
    def end(self) -> str | None:
        """The time before which the run was asked to read records; None if it was to read all."""
        end = self.options.get("end")
        return None if end in {None, "now"} else str(end)

    @property
    def partition_by(self) -> str:
        """The way to a record's partition: range, hash or source."""
        return str(self.options.get("partition_by", "range"))

    @property
    def output_key(self) -> str:
        """The record keys of the outputs: keep, sort or none."""
        return str(self.options.get("output_key", "keep"))

    @property
    def is_mostly_dead(self) -> bool:
        """Whether more than half of the records that the run read are dead letters."""
        return 2 * self.dead_letters > self.records

    @property
    def ends(self) -> dict[int, int]:
        """Source partition → where the next run starts."""
        return {r.partition: r.end for r in self.read}

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that the run read and wrote."""
        outputs = (sort.topic for sort in self.sorts if not sort.has_folder)
        return (self.source_topic, *outputs, self.dead_letter_topic)

    def to_json(self) -> bytes:
        """Return the bytes for the ledger."""
        return _to_json(self)

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read the record from the ledger's bytes; ValueError, KeyError or TypeError if it is none."""
        raw = json.loads(data)
        nested = {
            "read": _all(ReadRange, raw["read"]),
            "lost": _all(LostRange, raw["lost"]),
            "sorts": _read_sorts(raw["sorts"]),
            "skipped": tuple(raw.get("skipped", ())),
            "requires": tuple(raw.get("requires", ())),
            "covers": _all(CoveredRuns, raw.get("covers", ())),
        }
        return cls(**(_known(cls, raw) | nested))


@dataclass(frozen=True)
class EarlierRuns:
    """The runs `first_run` to `last_run`, folded into this one record.

    `sorts`: for each output the offsets, counts and checksums of these runs together; there may be offsets without a
    record between first and last. `read`: all offsets that they read of the source topic with this id, by the newest
    parse rules of these runs, for the dead-letter topic of the newest; what older rules made of a record is not known
    any more. `covers`: of one run, the runs whose place it has taken.
    """

    job: str
    first_run: int
    last_run: int
    records: int
    dead_letters: int
    sorts: tuple[WrittenSort, ...]
    ledger: int = FORMAT
    requires: tuple[str, ...] = ()
    source_topic_id: str = ""
    rules: str = ""
    read: tuple[ReadRange, ...] = ()
    dead_letter_topic: str = ""
    covers: tuple[CoveredRuns, ...] = ()

    @property
    def placed(self) -> int:
        """The number of records in each output."""
        return self.records - self.dead_letters

    def are_replaced(self, records: "Iterable[RunRecord | EarlierRuns]") -> bool:
        """Whether later runs have taken the place of all of these."""
        reached = 0
        for covered in sorted((c for record in records for c in record.covers), key=lambda c: c.first):
            if covered.first > reached + 1:
                break
            reached = max(reached, covered.last)
        return reached >= self.last_run

    @property
    def reading(self) -> Reading:
        """The facts that decide whether the dead letters of the offsets that were read are there."""
        return self.source_topic_id, self.rules, self.dead_letter_topic

    @classmethod
    def of(cls, record: RunRecord) -> Self:
        """Return one run, without its keys."""
        sorts = (
            replace(
                s,
                partitions=tuple(WrittenRange(w.partition, w.first, w.last, w.count) for w in s.partitions),
                files=(),
            )
            for s in record.sorts
        )
        return cls(
            record.job,
            record.run,
            record.run,
            record.records,
            record.dead_letters,
            tuple(sorts),
            source_topic_id=record.source_topic_id,
            rules=record.rules,
            read=join_ranges(record.read),
            dead_letter_topic=record.dead_letter_topic,
            covers=record.covers,
        )

    def emptied(self) -> Self:
        """Return these runs once later ones have taken their place: nothing is in the outputs of them."""
        return replace(self, records=self.dead_letters, sorts=())

    def joined(self, later: "EarlierRuns") -> "EarlierRuns":
        """Join these runs with later ones; of runs whose place those have taken nothing is in the outputs any more."""
        are_gone = self.are_replaced([later])
        sorts = later.sorts if are_gone else _join_outputs((*self.sorts, *later.sorts))
        return replace(
            self,
            last_run=later.last_run,
            records=later.records + (0 if are_gone else self.records),
            dead_letters=later.dead_letters + (0 if are_gone else self.dead_letters),
            # Where some of them are gone, the sum of all says nothing.
            sorts=tuple(replace(sort, checksum="") for sort in sorts) if later.covers and not are_gone else sorts,
            source_topic_id=later.source_topic_id,
            rules=later.rules,
            read=join_ranges((*(self.read if is_alike(self.reading, later.reading) else ()), *later.read)),
            dead_letter_topic=later.dead_letter_topic,
            covers=(),
        )

    def to_json(self) -> bytes:
        """Return the bytes for the ledger."""
        return _to_json(self)

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read the record from the ledger's bytes; ValueError, KeyError or TypeError if it is none."""
        raw = json.loads(data)
        nested = {
            "sorts": _read_sorts(raw["sorts"]),
            "requires": tuple(raw.get("requires", ())),
            "read": _all(ReadRange, raw.get("read", ())),
            "covers": _all(CoveredRuns, raw.get("covers", ())),
        }
        return cls(**(_known(cls, raw) | nested))


def is_alike(known: Reading, wanted: Reading) -> bool:
    """Whether the dead letters of what was read are where they are wanted.

    Earlier versions recorded no dead-letter topic of folded runs, so theirs counts as the right one.
    """
    return known[:2] == wanted[:2] and known[2] in {"", wanted[2]}


def join_ranges(ranges: Iterable[ReadRange]) -> tuple[ReadRange, ...]:
    """Join ranges that touch or overlap; return what is left in order, without empty ones."""
    joined: list[ReadRange] = []
    for r in sorted((r for r in ranges if r.start < r.end), key=lambda r: (r.partition, r.start)):
        before = joined[-1] if joined and joined[-1].partition == r.partition else None
        if before is not None and r.start <= before.end:
            joined[-1] = replace(before, end=max(before.end, r.end))
        else:
            joined.append(r)
    return tuple(joined)


def _join_outputs(sorts: Iterable[WrittenSort]) -> tuple[WrittenSort, ...]:
    """Join the entries of each output. A topic that was recreated is another output."""
    joined: dict[tuple[str, str], WrittenSort] = {}
    for sort in sorts:
        former = joined.get((sort.topic, sort.topic_id))
        joined[sort.topic, sort.topic_id] = _join_sorts(former, sort) if former else sort
    return tuple(joined.values())


def _join_sorts(former: WrittenSort, sort: WrittenSort) -> WrittenSort:
    ranges = {w.partition: w for w in former.partitions}
    for w in sort.partitions:
        known = ranges.get(w.partition)
        ranges[w.partition] = replace(known, last=w.last, count=known.count + w.count) if known else w
    # A run of format 1 has no checksum of its sorts, so a record that folds it has none either.
    known_sums = former.checksum and sort.checksum
    total = (int(former.checksum, 16) + int(sort.checksum, 16)) % _MODULUS if known_sums else None
    checksum = "" if total is None else f"{total:016x}"
    left_out = (int(former.superseded_checksum or "0", 16) + int(sort.superseded_checksum or "0", 16)) % _MODULUS
    superseded = former.superseded + sort.superseded
    return replace(
        former,
        partitions=tuple(ranges[p] for p in sorted(ranges)),
        checksum=checksum,
        expired=former.expired + sort.expired,
        superseded=superseded,
        superseded_checksum=f"{left_out:016x}" if superseded else "",
    )


def missing_features(data: bytes) -> frozenset[str]:
    """Return required features that this version does not know; ValueError or TypeError if it is no record."""
    raw = json.loads(data)
    return frozenset(raw.get("requires", ())) - UNDERSTOOD if isinstance(raw, dict) else frozenset()


def is_of_newer_format(data: bytes) -> bool:
    """Whether a later format wrote the record, which may have keys of its own; ValueError if it is none."""
    raw = json.loads(data)
    return isinstance(raw, dict) and isinstance(raw.get("ledger"), int) and raw["ledger"] > FORMAT


def _to_json(record: Any) -> bytes:
    return json.dumps(asdict(record, dict_factory=_without_nulls), separators=(",", ":")).encode()


def _without_nulls(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in items if value is not None}


def _read_sorts(sorts: Sequence[Mapping[str, Any]]) -> tuple[WrittenSort, ...]:
    return _all(WrittenSort, [{**s, **_read_ranges(s)} for s in sorts])


def _read_ranges(sort: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "partitions": _all(WrittenRange, _tuple_keys(sort["partitions"])),
        "delete_before": _all(DeletedRange, sort.get("delete_before", ())),
        "files": _all(WrittenFile, sort.get("files", ())),
    }


def _all(kind: type[T], items: Sequence[Mapping[str, Any]]) -> tuple[T, ...]:
    return tuple(kind(**_known(kind, item)) for item in items)


def _known(kind: type[Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that this version knows."""
    names = {item.name for item in fields(kind)}
    return {name: value for name, value in raw.items() if name in names}


def _tuple_keys(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    names = ("first_key", "last_key")
    return [{**item, **{n: tuple(item[n]) if item.get(n) is not None else None for n in names}} for item in items]
