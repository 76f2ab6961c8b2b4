"""Sorted topics in Python: records by key, ranges and all, as objects or as Arrow."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pyarrow as pa

from tasks.arrow import RECORD
from tasks.errors import SettingsError
from tasks.reading.keys import KeyReader
from tasks.reading.merging import Blocks
from tasks.reading.reader import OutputReader
from tasks.reading.runs import Choice, RunDeletedError
from tasks.settings.connection import resolve_connection
from tasks.settings.load import load_model
from tasks.settings.options import JobOptions
from tasks.sorting.encoded import end_of

# The columns of batches: those of a record, and the run that wrote it.
SCHEMA: Final = pa.schema(
    [*(RECORD.field(name) for name in ("key", "value", "headers", "timestamp")), ("run", pa.int32())]
    + [RECORD.field(name) for name in ("partition", "offset")]
)
# A key: one value, or one for each column of the sort, or for the first of them.
Key = Any


@dataclass(frozen=True)
class SortedRecord:
    """A record and its place. `timestamp` in ms; `headers`: pairs of name and value."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp: int
    run: int
    partition: int
    offset: int


class SortedTopic:
    """The output of one sort of a job: all current runs in one order, as they are when it is opened.

    `job`: its name. `sort`: the output's topic or the sort's columns, needed if the job has several. `run`: this one
    alone. `newest`: leave out runs that the ledger does not know one by one. `settings`: `schema_registry`,
    `avro_schema` or `protobuf_descriptor`, where the format needs one. Not for several threads at once.
    """

    def __init__(
        self,
        job: str,
        sort: str | None = None,
        *,
        bootstrap_servers: str | None = None,
        kafka_config: Path | None = None,
        properties: Sequence[str] = (),
        run: int | None = None,
        newest: bool = False,
        **settings: Any,
    ) -> None:
        """Open the topic. SettingsError if there is no such job, sort or run."""
        connection = resolve_connection(bootstrap_servers, kafka_config, tuple(properties))
        given = load_model(JobOptions, {"job_name": job, **settings}, {}, {})
        self._reader = OutputReader(given, connection, Choice(sort, run, newest))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[SortedRecord]:
        return self.range()

    @property
    def runs(self) -> tuple[int, ...]:
        """The runs that are shown."""
        return tuple(run.number for run in self._reader.output.runs)

    @property
    def keys(self) -> KeyReader:
        """The keys of the sort. SettingsError if the records do not hold them."""
        return self._reader.keys

    def get(self, *key: Any) -> list[SortedRecord]:
        """Return the records with this key: a value for each column of the sort, or for the first of them.

        None is null. If a run was deleted meanwhile, the topic is refreshed.
        """
        encoded = self.keys.encode_values(key, f"key {key!r}")
        is_whole = len(key) == len(self._reader.output.sort.by)
        try:
            return list(_records(self._reader.get(encoded, is_whole=is_whole)))
        except RunDeletedError:
            self.refresh()
            return list(_records(self._reader.get(encoded, is_whole=is_whole)))

    def range(self, first: Key = None, last: Key = None) -> Iterator[SortedRecord]:
        """Yield the records from one key to another, both included, in the order of the sort; None is no limit.

        RunDeletedError if records of a run are deleted meanwhile: it is never mixed with what took its place.
        """
        return _records(self._blocks(first, last))

    def batches(self, first: Key = None, last: Key = None) -> Iterator[pa.RecordBatch]:
        """Yield the same records as record batches of `SCHEMA`."""
        for block in self._blocks(first, last):
            yield from block.select(SCHEMA.names).cast(SCHEMA).to_batches()

    def to_arrow(self, first: Key = None, last: Key = None) -> pa.RecordBatchReader:
        """Return a reader of the same batches, which DuckDB, Polars and others take as it is."""
        return pa.RecordBatchReader.from_batches(SCHEMA, self.batches(first, last))

    def keyed_blocks(self) -> Blocks:
        """Yield all records in order, with the column of encoded keys."""
        return self._reader.read(with_keys=True)

    def _blocks(self, first: Key, last: Key) -> Blocks:
        low = None if first is None else self._encode(first)
        high = None if last is None else end_of(self._encode(last))
        if low is not None and high is not None and high <= low:
            raise SettingsError(f"the first key {first!r} comes behind the last one, {last!r}, in the sort's order")
        return self._reader.read(low, high)

    def _encode(self, key: Key) -> bytes:
        values = key if isinstance(key, tuple) else (key,)
        return self.keys.encode_values(values, f"key {key!r}")

    def refresh(self) -> None:
        """Show the runs that are current now."""
        self._reader.refresh()

    def close(self) -> None:
        """Close the connection of look-ups."""
        self._reader.close()


def _records(blocks: Iterator[pa.Table]) -> Iterator[SortedRecord]:
    for block in blocks:
        for row in block.select(SCHEMA.names).to_pylist():
            headers = tuple((header["name"], header["value"]) for header in row.pop("headers") or ())
            yield SortedRecord(headers=headers, **row)
