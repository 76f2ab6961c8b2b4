"""What the stages hand each other: frozen, small, picklable."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

# Bytes while rows are cut, text once it is to be shown or recorded.
Key = tuple[int | str | bytes, ...]
T = TypeVar("T")


@dataclass(frozen=True)
class OffsetRange:
    """Offsets [start, end) of one source partition. Not dense: control, aborted and compacted records leave gaps."""

    partition: int
    start: int
    end: int

    @property
    def span(self) -> int:
        """Offsets in the range: at least the number of its records."""
        return self.end - self.start


@dataclass(frozen=True)
class LostRange:
    """Offsets [start, end) of one source partition that were removed before they were read."""

    partition: int
    start: int
    end: int

    def __str__(self) -> str:
        return f"partition {self.partition} offsets {self.start} to {self.end - 1}"


@dataclass(frozen=True)
class Snapshot:
    """What one run reads, and the ledger's state that it follows on."""

    run: int
    source_topic_id: str
    ranges: tuple[OffsetRange, ...]
    lost: tuple[LostRange, ...] = ()
    # Partitions without a leader, left to the next run. Their ranges are empty, or absent if none ever was read.
    skipped: tuple[int, ...] = ()
    mean_record_bytes: float = 0.0
    capped: str = ""
    # Source partition → offsets that no run has read, before the snapshot was capped.
    lag: Mapping[int, int] = field(default_factory=dict)
    # Of the work folder that the run may need.
    disk_bytes: int = 0

    @property
    def ends(self) -> dict[int, int]:
        """Source partition → where the next run starts."""
        return {r.partition: r.end for r in self.ranges}

    @property
    def span(self) -> int:
        """Offsets to read over all partitions."""
        return sum(r.span for r in self.ranges)


@dataclass(frozen=True)
class Chunk:
    """Manifest of one Parquet chunk: the records of `range`, in offset order, whole.

    `record_bytes`: of keys, values and headers together. `times`: timestamps (ms) of every thousandth record or so.
    """

    path: Path | None
    range: OffsetRange
    records: int
    largest_bytes: int
    checksum: int
    has_keys: bool = False
    has_headers: bool = False
    dead_letters: int = 0
    dead_letter_path: Path | None = None
    file_bytes: int = 0
    record_bytes: int = 0
    lost: tuple[LostRange, ...] = ()
    # Which ones depends on how they came, block by block.
    times: tuple[int, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Dumped:
    """What a dump gave: all records of one source partition's range, in chunks. `seconds`: what it took."""

    range: OffsetRange
    chunks: tuple[Chunk, ...]
    seconds: float = 0.0

    @property
    def records(self) -> int:
        """Records that sorts can place."""
        return sum(chunk.records for chunk in self.chunks)

    @property
    def record_bytes(self) -> int:
        """Key, value and headers of these records."""
        return sum(chunk.record_bytes for chunk in self.chunks)

    @property
    def dead_letters(self) -> int:
        """Records that some sort cannot place."""
        return sum(chunk.dead_letters for chunk in self.chunks)


@dataclass(frozen=True)
class KeyRange:
    """Rows [first_row, end_row) of a sort, which go to one output partition."""

    partition: int
    first_row: int
    end_row: int
    first_key: Key | None = None
    last_key: Key | None = None

    @property
    def count(self) -> int:
        """Rows of the range."""
        return self.end_row - self.first_row


@dataclass(frozen=True)
class SortedPart:
    """Consecutive rows of a sort's total order.

    `files`: Parquet, the rows in order of arrival. `order`: a file of their numbers (uint32), in the sort's order.
    """

    files: tuple[Path, ...]
    order: Path
    rows: int


@dataclass(frozen=True)
class SortedRows:
    """Manifest of one sort: its rows in total order, part by part, and their division among partitions.

    `columns`: of a record. `batch_rows`: how many records may be gathered at once. `seconds`: what sorting took.
    """

    topic: str
    rows: int
    parts: tuple[SortedPart, ...]
    columns: tuple[str, ...]
    batch_rows: int
    ranges: tuple[KeyRange, ...] = ()
    seconds: float = 0.0

    @property
    def files(self) -> frozenset[Path]:
        """All files that its rows are in."""
        return frozenset(path for part in self.parts for path in (*part.files, part.order))


@dataclass(frozen=True)
class ReadRange:
    """Of the run record: what was read of one source partition."""

    partition: int
    start: int
    end: int


@dataclass(frozen=True)
class WrittenRange:
    """Of the run record: what was written to one output partition. Offsets first to last, both included."""

    partition: int
    first: int
    last: int
    count: int
    first_key: Key | None = None
    last_key: Key | None = None


@dataclass(frozen=True)
class WrittenSort:
    """Of the run record: one sort and its output."""

    topic: str
    topic_id: str
    columns: str
    partitions: tuple[WrittenRange, ...]


@dataclass(frozen=True)
class RunRecord:
    """One run, as the ledger keeps it: committed in the transaction of the rows themselves."""

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

    @property
    def ends(self) -> dict[int, int]:
        """Source partition → where the next run starts."""
        return {r.partition: r.end for r in self.read}

    @property
    def topics(self) -> tuple[str, ...]:
        """Topics that the run read and wrote."""
        return (self.source_topic, *(sort.topic for sort in self.sorts), self.dead_letter_topic)

    def to_json(self) -> bytes:
        """The ledger's bytes."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """The record of the ledger's bytes; ValueError, KeyError or TypeError where it is none."""
        raw = json.loads(data)
        sorts = [{**s, "partitions": _all(WrittenRange, _tuple_keys(s["partitions"]))} for s in raw["sorts"]]
        nested = {
            "read": _all(ReadRange, raw["read"]),
            "lost": _all(LostRange, raw["lost"]),
            "sorts": _all(WrittenSort, sorts),
            "skipped": tuple(raw.get("skipped", ())),
        }
        return cls(**{**raw, **nested})


def _all(kind: type[T], items: Sequence[Mapping[str, Any]]) -> tuple[T, ...]:
    return tuple(kind(**item) for item in items)


def _tuple_keys(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    names = ("first_key", "last_key")
    return [{**item, **{n: tuple(item[n]) if item[n] is not None else None for n in names}} for item in items]
