"""The data that the stages hand each other: frozen, small, picklable."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# Keys are bytes while rows are cut, and text once they are shown or recorded; None where a record has no such key.
Key = tuple[int | str | bytes | None, ...]
# Where a file of a run lies: a path, or an address s3://BUCKET/KEY.
Location = Path | str


def read_location(text: str) -> Location:
    """Read a location that was written as text."""
    return text if text.startswith("s3://") else Path(text)


@dataclass(frozen=True)
class OffsetRange:
    """Offsets [start, end) of one source partition. Not dense: control, aborted and compacted records leave gaps."""

    partition: int
    start: int
    end: int

    @property
    def span(self) -> int:
        """The number of offsets in the range: at least the number of its records."""
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
    """The offsets that one run reads, and the state of the ledger that it follows."""

    run: int
    source_topic_id: str
    ranges: tuple[OffsetRange, ...]
    lost: tuple[LostRange, ...] = ()
    # Partitions without a leader, left to the next run. Their ranges are empty, or absent if none ever was read.
    skipped: tuple[int, ...] = ()
    mean_record_bytes: float = 0.0
    capped: str = ""
    # Source partition → offsets that lie behind the end that was asked for.
    behind: Mapping[int, int] = field(default_factory=dict)
    # Source partition → offsets that no run has read, before the snapshot was ended or capped.
    lag: Mapping[int, int] = field(default_factory=dict)
    # The space in the work folder that the run may need.
    disk_bytes: int = 0
    # Whether the run takes the place of all former ones.
    replaces: bool = False
    # Column → type, of those whose types this run has inferred from its sample.
    types: Mapping[str, str] = field(default_factory=dict)
    # The number of publishers that the run has at most, and why they are fewer than asked for.
    publishers: int = 1
    fewer_publishers: str = ""

    @property
    def ends(self) -> dict[int, int]:
        """Source partition → where the next run starts."""
        return {r.partition: r.end for r in self.ranges}

    @property
    def behind_end(self) -> int:
        """The number of offsets behind the end that was asked for, over all partitions."""
        return sum(self.behind.values())

    @property
    def lag_left(self) -> dict[int, int]:
        """Source partition → offsets that are unread, and wait for a later run, once this one is committed."""
        if self.replaces:
            return dict(self.behind)
        spans = {r.partition: r.span for r in self.ranges}
        return {partition: count - spans.get(partition, 0) for partition, count in self.lag.items()}

    @property
    def span(self) -> int:
        """The number of offsets to read over all partitions."""
        return sum(r.span for r in self.ranges)


@dataclass(frozen=True)
class Chunk:
    """Manifest of one Parquet chunk: the records of `range`, in offset order, whole.

    `record_bytes`: keys, values and headers together. `published`: the checksums of the records as the outputs have
    them, by the column of their record keys. `times`: timestamps (ms) of about every thousandth record.
    `schemas`: ids of a schema registry that were used until then, each with the SHA-256 of its text.
    """

    path: Path | None
    range: OffsetRange
    records: int
    largest_bytes: int
    checksum: int
    has_keys: bool = False
    has_headers: bool = False
    dead_letters: int = 0
    dead_letter_path: Location | None = None
    file_bytes: int = 0
    record_bytes: int = 0
    lost: tuple[LostRange, ...] = ()
    published: tuple[tuple[str, int], ...] = ()
    # The choice depends on how the records came, block by block.
    times: tuple[int, ...] = field(default=(), compare=False)
    # A retry has a format of its own, which has met fewer of them.
    schemas: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    # Names of the files with its rows, for each sort; none where `path` has them.
    divided: tuple[tuple[str, ...], ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Dumped:
    """The result of a dump: all records of one partition's range, in chunks. `seconds`: the time it took."""

    range: OffsetRange
    chunks: tuple[Chunk, ...]
    seconds: float = 0.0

    @property
    def records(self) -> int:
        """The number of records that sorts can place."""
        return sum(chunk.records for chunk in self.chunks)

    @property
    def record_bytes(self) -> int:
        """The bytes of key, value and headers of these records."""
        return sum(chunk.record_bytes for chunk in self.chunks)

    @property
    def dead_letters(self) -> int:
        """The number of records that some sort cannot place."""
        return sum(chunk.dead_letters for chunk in self.chunks)


@dataclass(frozen=True)
class KeyRange:
    """Rows [first_row, end_row) of a sort, which go to one output partition.

    `first_bound`, `last_bound`: the keys as the order encodes them, in the form of KeyBound. `index`: the entries of
    its sparse index as lines; empty if it has none.
    """

    partition: int
    first_row: int
    end_row: int
    first_key: Key | None = None
    last_key: Key | None = None
    first_bound: str | None = None
    last_bound: str | None = None
    index: bytes = b""

    @property
    def count(self) -> int:
        """The number of rows in the range."""
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
class SortedFile:
    """Consecutive rows of a sort's total order, in a Parquet file in this order, with key columns beside the records.

    `bytes`: the size of the file.
    """

    location: Location
    rows: int
    bytes: int

    @property
    def files(self) -> tuple[Location, ...]:
        """The one file."""
        return (self.location,)


@dataclass(frozen=True)
class SortedRows:
    """Manifest of the sort named `sort`: its rows in total order, part by part, and their division among partitions.

    `columns`: of a record; `key`: the one of its record key, empty if it has none. `batch_rows`: how many records may
    be gathered at once. `seconds`: the time sorting took. `checksum`: of the records as they are to be published.
    `superseded`, `superseded_checksum`: of the records that the sort left out, since it keeps the newest of each key.
    """

    sort: str
    rows: int
    parts: tuple[SortedPart | SortedFile, ...]
    columns: tuple[str, ...]
    batch_rows: int
    ranges: tuple[KeyRange, ...] = ()
    seconds: float = 0.0
    key: str = "key"
    checksum: int = 0
    superseded: int = 0
    superseded_checksum: int = 0

    @property
    def files(self) -> frozenset[Path]:
        """All files of row numbers and of what they number."""
        numbered = (part for part in self.parts if isinstance(part, SortedPart))
        return frozenset(path for part in numbered for path in (*part.files, part.order))

    @property
    def file_bytes(self) -> int:
        """The bytes of its sorted files."""
        return sum(part.bytes for part in self.parts if isinstance(part, SortedFile))
