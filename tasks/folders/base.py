"""The interface of a folder that a sort writes files to, and the marker that says which job it belongs to.

A run's files are written under a name that readers skip. After the commit they get their own: `run-000012`.
"""

import io
import json
import re
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Final, Protocol, Self

import xxhash

from tasks.errors import SettingsError, TerminalError
from tasks.run_record import WrittenSort

MARKER: Final = ".kafka-sort.json"
_READ_BYTES: Final = 1 << 20
_RUN: Final = re.compile(r"run-[0-9]{6,}(-[0-9]+)?")


class FilesLostError(TerminalError):
    """A run is committed, and its files are neither in their place nor where they were written."""

    action = (
        "Put the folder back, if it was moved or its disk is not mounted. Else write it again from the source with "
        "`kafka-sort sort --rewrite RUN`, or go on without it with `--append`."
    )
    at_risk = "**Yes**: the files that the line names are gone. The source may still have their records."


@dataclass(frozen=True)
class Marker:
    """The owner of a folder: a job of a cluster. `id`: of the folder itself, like that of a topic."""

    job: str
    cluster: str
    id: str

    def to_json(self) -> bytes:
        """Return the content of the marker's file."""
        return json.dumps({"kafka_sort": 1, **asdict(self)}).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read a marker's file; ValueError if it is none."""
        try:
            raw = json.loads(data)
            return cls(*(str(raw[name]) for name in ("job", "cluster", "id")))
        except (KeyError, TypeError) as error:
            raise ValueError(f"no marker: {error!r}") from None


class DigestSink(io.RawIOBase):
    """A sink that counts and digests what is written to it."""

    def __init__(self, sink: BinaryIO) -> None:
        super().__init__()
        self.bytes = 0
        self._sink = sink
        self._digest = xxhash.xxh3_128()

    @property
    def digest(self) -> str:
        """The XXH3 of 128 bits of what was written so far, in hexadecimal."""
        return self._digest.hexdigest()

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.bytes

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._digest.update(view)
        self._sink.write(view)
        self.bytes += len(view)
        return len(view)


class Stage(Protocol):
    """A run's files while they are written, which no reader looks at."""

    @property
    def name(self) -> str:
        """The name of the stage in the folder."""

    def create(self, file: str) -> AbstractContextManager[DigestSink]:
        """Write a file of this name, which lasts from the end of the block on."""

    def seal(self) -> None:
        """Return when all files last, whatever happens to the machine."""

    def discard(self) -> None:
        """Remove the files, as far as that is possible."""


class OutputFolder(Protocol):
    """A folder that belongs to one job. Errors of the place are OSError."""

    @property
    def output(self) -> str:
        """The name of the output."""

    def check(self) -> None:
        """Raise SettingsError if the folder cannot be used, without creating it."""

    def read_marker(self) -> bytes | None:
        """Return the content of the marker; None if there is none."""

    def claim(self, marker: Marker) -> None:
        """Create the folder, if it is absent, and its marker."""

    def runs(self) -> frozenset[str]:
        """Return the names of all runs' folders."""

    def foreign(self) -> list[str]:
        """Return the names of what this program does not write, except what readers skip."""

    def stage(self, attempt: str) -> Stage:
        """Begin to write an attempt's files, of which none is left."""

    def stages(self) -> frozenset[str]:
        """Return the names of the stages that are there."""

    def place(self, sort: WrittenSort) -> bool:
        """Give a committed run's files their names, or find that done; return whether anything was to do.

        FilesLostError if there are none.
        """

    def remove_run(self, name: str) -> None:
        """Remove the folder of a run: readers no longer see any of it once this begins to remove files."""

    def remove_leftovers(self) -> int:
        """Remove the files of attempts that ended before they were placed; return how many attempts."""

    def sizes(self, run: str) -> Mapping[str, int] | None:
        """Return the bytes of a run's files by their names; None if the run is not there."""

    def open(self, run: str, file: str) -> AbstractContextManager[Any]:
        """Open a file of a run to read, at random."""

    def free_bytes(self) -> tuple[object, int] | None:
        """Return what tells the disk from others, and its free bytes; None if space has no limit."""


def is_whole(folder: OutputFolder, sort: WrittenSort) -> bool:
    """Whether the files of a run are there as the run wrote them, byte for byte."""
    if folder.sizes(sort.folder) != {file.name: file.bytes for file in sort.files}:
        return False
    return all(_digest(folder, sort.folder, file.name) == file.digest for file in sort.files)


def _digest(folder: OutputFolder, run: str, file: str) -> str:
    digest = xxhash.xxh3_128()
    with folder.open(run, file) as opened:
        while data := opened.read(_READ_BYTES):
            digest.update(data)
    return digest.hexdigest()


def is_run(name: str) -> bool:
    """Whether a folder's name is that of a run."""
    return _RUN.fullmatch(name) is not None


def name_run(run: int, taken: Collection[str]) -> str:
    """Return the name of a run's folder. A job whose ledger was lost counts from 1 again, beside former runs."""
    name, count = f"run-{run:06}", 1
    while name in taken:
        count += 1
        name = f"run-{run:06}-{count}"
    return name


def find_marker(folder: OutputFolder) -> Marker | None:
    """Return the folder's marker, None if there is none; SettingsError if it cannot be read."""
    data = folder.read_marker()
    if data is None:
        return None
    try:
        return Marker.from_json(data)
    except ValueError:
        raise SettingsError(
            f"output {folder.output}: its marker {MARKER} was altered, so nothing says which job it belongs to; "
            "choose another folder, or write the marker back"
        ) from None


def lost(sort: WrittenSort) -> FilesLostError:
    """Return the error of files that are neither staged nor placed."""
    return FilesLostError(
        f"output {sort.topic}: the files of {sort.folder} are committed, and are neither there nor in {sort.staged}: "
        f"write them again with kafka-sort sort --rewrite {int(sort.folder.split('-')[1])}, or go on without them with "
        "--append"
    )
