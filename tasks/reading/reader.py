"""Reads one output of a job: a key's records, or a range of keys, over all current runs in one order.

It changes nothing, takes no part in the job's groups, and may run beside sorts and streams of the same job.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import cached_property
from typing import Final

from tasks.kafka.clients import NotPermittedError, make_admin
from tasks.kafka.ledger import read_newest
from tasks.kafka.reach import require_broker
from tasks.kafka.read_ahead import read_ahead
from tasks.kafka.topics import describe_topic
from tasks.reading.keys import KeyReader
from tasks.reading.merging import Blocks, merge_blocks
from tasks.reading.runs import (
    MAKE_ONE_RUN,
    MOST_RUNS,
    Choice,
    ReadableRun,
    UnmergedRunsError,
    find_output,
)
from tasks.reading.search import Prober, Search
from tasks.reading.streams import ReaderPool, StreamReader
from tasks.settings.connection import Connection, use_connection
from tasks.settings.names import JobNames
from tasks.settings.options import JobOptions
from tasks.sorting.encoded import end_of

# The columns of blocks, if nobody says what is wanted of them.
COLUMNS: Final = ("key", "value", "headers", "timestamp", "run", "partition", "offset")
_BESIDE_VALUES: Final = frozenset({"key", "headers"})


class OutputReader:
    """One output, as it is when the reader is opened or refreshed. Not for several threads at once."""

    def __init__(self, given: JobOptions, connection: Connection, choice: Choice | None = None) -> None:
        """Find the output. `given`: has the job's name; see `find_output` for the errors."""
        self._given, self._connection, self._choice = given, connection, choice or Choice()
        self._admin = make_admin(connection)
        require_broker(self._admin, connection, given.start_timeout)
        self.output = find_output(given, self._choice, connection, self._admin)

    def refresh(self) -> None:
        """Look at the ledger again: show the runs that are current now."""
        self.output = find_output(self._given, self._choice, self._connection, self._admin)
        self.__dict__.pop("_search", None)

    def close(self) -> None:
        """Close the consumer of look-ups."""
        if "_prober" in self.__dict__:
            self.__dict__.pop("_prober").close()
        self.__dict__.pop("_search", None)

    @cached_property
    def keys(self) -> KeyReader:
        """The keys of the output. SettingsError if its records do not hold them."""
        with use_connection(self._connection):
            return KeyReader(self.output.job, self.output.sort)

    @cached_property
    def _prober(self) -> Prober:
        return Prober(self._connection, self._group, self.output.topic, self._given.request_timeout)

    @cached_property
    def _search(self) -> Search:
        return Search(self._prober, self.keys, self.output.topic, self._read_index())

    @property
    def _group(self) -> str:
        return JobNames(self.output.job.name).group

    def _read_index(self) -> dict[bytes, bytes]:
        name = JobNames(self.output.job.name).index
        job, patience = self.output.job.name, self._given.request_timeout
        # Without it a search takes some more fetches.
        with suppress(NotPermittedError):
            if describe_topic(self._admin, name) is not None:
                return read_newest(self._connection, self._admin, name, job, patience, committed=True)
        return {}

    def get(self, key: bytes, *, is_whole: bool) -> Blocks:
        """Yield the records whose keys begin with an encoded one. `is_whole`: it has all columns of the sort.

        UnmergedRunsError if it is no whole key and more than 64 runs may hold it.
        """
        high = end_of(key)
        runs = [run for r in self.output.runs if (run := r.narrowed(key, high)).streams]
        if is_whole:
            # All these records have one key: they come by run.
            yield from self._search.scan([r for run in runs for r in run.ranges], key, high)
            return
        self._require_few(runs)
        streams = [self._search.scan(stream, key, high) for run in runs for stream in run.streams]
        # They share a consumer.
        yield from merge_blocks(streams, threads=1)

    def read(
        self,
        low: bytes | None = None,
        high: bytes | None = None,
        *,
        with_keys: bool = False,
        columns: Sequence[str] = COLUMNS,
    ) -> Blocks:
        """Yield the records with keys from `low` on that are below `high` (None: no limit), in the sort's order.

        Blocks have these columns of RECORD and `run`, and encoded keys if `with_keys` asks for them; perhaps also if
        not. UnmergedRunsError if these are more than 64 runs.
        """
        runs = [run for r in self.output.runs if (run := r.narrowed(low, high)).streams]
        self._require_few(runs)
        streams = [stream for run in runs for stream in run.streams]
        needed = with_keys or len(streams) > 1 or low is not None or high is not None
        keys = self.keys if needed else None
        starts = {r: self._search.locate(r, low) for s in streams for r in s} if low is not None else {}
        pool = self._make_pool(
            len(streams), values_only=not _BESIDE_VALUES & {*columns} and (not keys or keys.of_values)
        )
        reader = StreamReader(pool, keys, columns)
        blocks = [reader.read(stream, lambda r, _: starts[r], low, high) for stream in streams]
        return _closing(read_ahead(merge_blocks(blocks, with_keys=with_keys)), pool.close)

    def _make_pool(self, streams: int, *, values_only: bool) -> ReaderPool:
        topic, patience = self.output.topic, self._given.request_timeout
        return ReaderPool(self._connection, self._admin, self._group, topic, patience, max(streams, 1), values_only)

    def _require_few(self, runs: list[ReadableRun]) -> None:
        if len(runs) > MOST_RUNS:
            raise UnmergedRunsError(
                f"{len(runs)} runs of job {self.output.job.name} hold such keys, and at most {MOST_RUNS} are merged at "
                f"once: {MAKE_ONE_RUN}, or read one with --run"
            )


def _closing(blocks: Blocks, close: Callable[[], None]) -> Blocks:
    """Yield the blocks; `close` is called at the end, whatever it is."""
    with ExitStack() as stack:
        stack.callback(close)
        yield from blocks
