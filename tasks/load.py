"""Appends the lines of files to a topic.

Guarantee: when a call returns, each line is in the topic once, in its order within a partition, acknowledged by all
in-sync replicas. A load that ends early says how far it came: the line up to which all lines are acknowledged. It is
not exactly once: started again from the beginning, it appends lines a second time.
"""

import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.errors import KafkaSortError, SettingsError, StoppedError, TerminalError
from tasks.fill import Filler, Part, deal
from tasks.loading.files import InputFile
from tasks.loading.keys import KeyFinder
from tasks.loading.layout import Layout, LoadSettings
from tasks.loading.lines import BrokenInputError, Numbers, Rows, describe_long_line
from tasks.loading.rows import explain_missing, read_rows
from tasks.murmur2 import partition_of
from tasks.printable import counted, printable
from tasks.run_context import current_run
from tasks.settings.connection import Connection

STAGE: Final = "load"


@dataclass(frozen=True)
class Reached:
    """How far a load came: `lines` lines of file number `file` (from 0), and all files before it."""

    file: int = 0
    lines: int = 0
    # Records so far, the empty lines that were skipped, and the records without a key.
    records: int = 0
    empty: int = 0
    without_key: int = 0


@dataclass(frozen=True)
class Loaded:
    """A load that is done. `example`: where and why the first record without a key has none."""

    reached: Reached
    files: int
    partitions: int
    seconds: float
    example: str


class LoadStoppedError(StoppedError):
    """The load was asked to stop. The line says up to which line of which file all lines are in the topic."""

    action = "To load the rest, name that file and those behind it, with the `--from-line` of the line."
    at_risk = "No: what was loaded stays in the topic, and later lines may be there in part where the line says so."

    def __init__(self, reason: str, came: str, signal: int | None) -> None:
        super().__init__(reason, signal)
        self.args = (f"{reason}: " * bool(reason) + came,)


class LoadFailedError(TerminalError):
    """The load ended early: a file cannot be read on, a line is too large, Kafka refused or is gone.

    The line says up to which line of which file all lines are in the topic.
    """

    action = (
        "Correct what the line names. To load the rest, name that file and those behind it, with the `--from-line` of "
        "the line."
    )
    at_risk = "No: what was loaded stays in the topic, and later lines may be there in part where the line says so."

    def __init__(self, reason: str, came: str, status: int) -> None:
        super().__init__(f"{reason}: {came}")
        self.exit_code = status


def load_files(connection: Connection, settings: LoadSettings, layout: Layout, files: list[InputFile]) -> Loaded:
    """Append the lines of files, which `open_files` has opened.

    SettingsError if the topic does not fit, BrokerUnavailableError; LoadStoppedError and LoadFailedError say how far it
    came. TerminalError if the topic did not grow by what was sent, which another writer also causes.
    """
    started = time.monotonic()
    with Filler(connection, settings.topic, settings.partitions, settings.replication_factor) as filler:
        load = _Load(filler, layout, files, settings.from_line)
        load.run()
        filler.finish("another writer makes this uncertain; else load into a topic of another name")
        seconds = time.monotonic() - started
        return Loaded(load.sent, len(files), len(filler.topic.partitions), seconds, load.example)


class _Load:
    """A load under way. `sent`: how far it is; `example`: the first record without a key."""

    def __init__(self, filler: Filler, layout: Layout, files: list[InputFile], from_line: int) -> None:
        self.sent = Reached(lines=from_line - 1)
        self.example = ""
        self._filler = filler
        self._layout = layout
        self._files = files
        self._from_line = from_line
        # Where the load is when the blocks are acknowledged, of which the first one here follows `_acknowledged`.
        self._unsure: deque[Reached] = deque()
        self._acknowledged = self.sent

    def run(self) -> None:
        """Send all files."""
        try:
            for number, file in enumerate(self._files):
                self._load_file(number, file)
            self._filler.flush()
        except SettingsError:
            raise
        except StoppedError as error:
            raise LoadStoppedError(error.reason, self._tell(), error.signal) from error
        except BrokenInputError as error:
            where = self._files[self.sent.file].name
            raise LoadFailedError(printable(f"{where}: {error}"), self._tell(), 1) from error
        except KafkaSortError as error:
            raise LoadFailedError(str(error), self._describe(), error.exit_code) from error

    def _load_file(self, number: int, file: InputFile) -> None:
        if number:
            self.sent = replace(self.sent, file=number, lines=0)
        if file.is_regular:
            _open_again(file)
        end, first_line = 0, 1 if number else self._from_line
        for rows, finder in read_rows(file, self._layout, self._filler.largest):
            current_run().stop.check()
            end = rows.end
            if end >= first_line:
                self._send(rows if first_line == 1 else rows.only(rows.first >= first_line), finder)
        if end < first_line - 1:
            raise SettingsError(f"--from-line {first_line}: {printable(file.name)} has {counted(end, 'line')}")
        file.close()

    def _send(self, rows: Rows, finder: KeyFinder | None) -> None:
        keys = None if finder is None or not len(rows) else self._find_keys(rows, finder)
        sizes = rows.lengths if keys is None else rows.lengths + np.asarray(pc.binary_length(keys).fill_null(0))
        large = np.flatnonzero(sizes > self._filler.largest)
        if not len(large):
            return self._send_block(rows, keys)
        row = int(large[0])
        line = int(rows.first[row])
        self._send_block(replace(rows.only(slice(row)), end=line - 1), None if keys is None else keys[:row])
        raise BrokenInputError(describe_long_line(line, self._filler.largest))

    def _find_keys(self, rows: Rows, finder: KeyFinder) -> pa.Array:
        values = rows.values()
        keys = finder.find(values)
        if keys.null_count and not self.example:
            name = printable(self._files[self.sent.file].name)
            self.example = f"{name}, {explain_missing(rows, values, keys, finder)}"
        return keys

    def _send_block(self, rows: Rows, keys: pa.Array | None) -> None:
        parts = self._deal(rows) if keys is None else self._divide(rows, keys)
        sent = self.sent
        self.sent = Reached(
            sent.file,
            rows.end,
            sent.records + len(rows),
            sent.empty + rows.empty,
            sent.without_key + (0 if keys is None else keys.null_count),
        )
        self._unsure.append(self.sent)
        self._filler.send(parts)
        self._measure(len(rows))
        self._look()

    def _deal(self, rows: Rows) -> list[Part]:
        numbers = np.arange(len(rows))
        return [
            Part(p, rows.values(numbers[some])) for p, some in deal(self.sent.records, self._filler.topic.partitions)
        ]

    def _divide(self, rows: Rows, keys: pa.Array) -> list[Part]:
        """Give each key the partition that Kafka's own producers give it; records without a key take turns."""
        partitions = self._filler.topic.partitions
        places = partition_of(keys, len(partitions))
        missing = np.flatnonzero(places < 0)
        places[missing] = (self.sent.without_key + np.arange(len(missing))) % len(partitions)
        order = np.argsort(places, kind="stable")
        edges = np.searchsorted(places[order], np.arange(len(partitions) + 1))
        parts: list[tuple[int, Numbers]] = [(p, order[edges[i] : edges[i + 1]]) for i, p in enumerate(partitions)]
        return [Part(p, rows.values(some), keys.take(pa.array(some))) for p, some in parts if len(some)]

    def _measure(self, records: int) -> None:
        """Count records for the progress, whose total is an estimate by the bytes that are left."""
        meter = current_run().progress.meter(STAGE)
        meter.add(records)
        if all(file.size for file in self._files):
            files = self._files[: self.sent.file]
            done = sum(file.size for file in files) + self._files[self.sent.file].position
            total = meter.done * sum(file.size for file in self._files) / max(done, 1)
            meter.total = max(meter.done, int(float(f"{total:.2g}")))

    def _look(self) -> None:
        """Note what is acknowledged by now."""
        while len(self._unsure) > self._filler.blocks - self._filler.acknowledged:
            self._acknowledged = self._unsure.popleft()

    def _tell(self) -> str:
        """Wait for the answers to what was sent, then say how far the load came."""
        with suppress(KafkaSortError):
            self._filler.flush()
        return self._describe()

    def _describe(self) -> str:
        self._look()
        reached, topic = self._acknowledged, self._filler.topic.name
        name, files = printable(self._files[reached.file].name), len(self._files)
        place = f" ({reached.file + 1} of {files})" * (files > 1)
        told = f"stopped after {counted(reached.lines, 'line')} of {name}{place}"
        held = f"topic {topic} has {counted(reached.records, 'record')} of this load"
        left = self.sent.records - reached.records
        unsure = f" and maybe some of the {left:,} behind them" * bool(left)
        others = " and the files behind it" * (reached.file + 1 < files)
        return f"{told}: {held}{unsure}; to go on, load {name}{others} with --from-line {reached.lines + 1}"


def _open_again(file: InputFile) -> None:
    try:
        file.open()
    except OSError as error:
        raise BrokenInputError(f"cannot be read any more: {error.strerror or error}") from error
