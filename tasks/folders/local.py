"""A folder of this machine: files are fsynced before they are committed, and get their place by one rename.

What the run creates has the permissions of the folder, and a folder that the run creates is private to its user.
"""

import errno
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final
from uuid import uuid4

from tasks.errors import SettingsError
from tasks.failpoints import reach
from tasks.folders.base import MARKER, DigestSink, Marker, is_run, lost
from tasks.run_record import WrittenSort
from tasks.settings.outputs import folder_of

_ATTEMPT: Final = ".attempt-"
_REMOVED: Final = ".removed-"
_SKIPPED: Final = (".", "_")
_BUFFER_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class LocalFolder:
    """The folder of an output `parquet:DIR`."""

    output: str

    @property
    def path(self) -> Path:
        """The path of the folder."""
        return Path(folder_of(self.output))

    def check(self) -> None:
        """Raise SettingsError if the folder cannot be used, without creating it."""
        try:
            above = next(path for path in (self.path, *self.path.parents) if os.path.lexists(path))
            if not above.is_dir():
                number = errno.ENOTDIR
            else:
                number = 0 if os.access(above, os.R_OK | os.W_OK | os.X_OK) else errno.EACCES
        except OSError as error:
            number = error.errno or errno.EIO
        if number:
            raise SettingsError(f"output {self.output} cannot be used ({os.strerror(number)}): choose another folder")

    def read_marker(self) -> bytes | None:
        """Return the content of the marker; None if there is none."""
        try:
            return (self.path / MARKER).read_bytes()
        except FileNotFoundError:
            return None

    def claim(self, marker: Marker) -> None:
        """Create the folder, if it is absent, and its marker, which appears by rename."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = self.path / f"{MARKER}.{uuid4().hex}"
        with _creating(unfinished, self._mode) as file:
            file.write(marker.to_json())
        unfinished.replace(self.path / MARKER)
        _sync(self.path)

    def runs(self) -> frozenset[str]:
        """Return the names of all runs' folders."""
        return frozenset(filter(is_run, self._names()))

    def foreign(self) -> list[str]:
        """Return the names of what this program does not write, except what readers skip."""
        return sorted(name for name in self._names() if not is_run(name) and not name.startswith(_SKIPPED))

    def stage(self, attempt: str) -> "_LocalStage":
        """Make an empty folder for the attempt's files."""
        folder = self.path / f"{_ATTEMPT}{attempt}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        folder.chmod(self._mode)
        return _LocalStage(folder, self._mode)

    def stages(self) -> frozenset[str]:
        """Return the names of the attempts' folders."""
        return frozenset(name for name in self._names() if name.startswith(_ATTEMPT))

    def place(self, sort: WrittenSort) -> bool:
        """Rename the attempt's folder to that of the run. FilesLostError if there is neither."""
        placed, staged = self.path / sort.folder, self.path / sort.staged
        if placed.is_dir():
            return False
        if not staged.is_dir():
            raise lost(sort)
        reach("before-place")
        staged.rename(placed)
        reach("after-place")
        _sync(self.path)
        return True

    def remove_run(self, name: str) -> None:
        """Remove the folder of a run: it has no name that readers know before any file goes."""
        hidden = self.path / f"{_REMOVED}{uuid4().hex}"
        reach("before-remove")
        try:
            (self.path / name).rename(hidden)
        except FileNotFoundError:
            return
        reach("after-remove")
        _sync(self.path)
        shutil.rmtree(hidden)

    def remove_leftovers(self) -> int:
        """Remove the folders of attempts and of removed runs."""
        names = [name for name in self._names() if name.startswith((_ATTEMPT, _REMOVED))]
        for name in names:
            shutil.rmtree(self.path / name)
        return len(names)

    def sizes(self, run: str) -> Mapping[str, int] | None:
        """Return the bytes of a run's files by their names; None if the run is not there."""
        try:
            return {path.name: path.stat().st_size for path in (self.path / run).iterdir()}
        except FileNotFoundError:
            return None

    def open(self, run: str, file: str) -> Any:
        """Open a file of a run to read."""
        return (self.path / run / file).open("rb")

    def free_bytes(self) -> tuple[object, int] | None:
        """Return the device and its free bytes."""
        above = next(path for path in (self.path, *self.path.parents) if path.exists())
        return above.stat().st_dev, shutil.disk_usage(above).free

    @property
    def _mode(self) -> int:
        """The permissions of the folder, for what is created in it."""
        return stat.S_IMODE(self.path.stat().st_mode)

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.path)  # noqa: PTH208  # names are wanted
        except FileNotFoundError:
            return []


@dataclass(frozen=True)
class _LocalStage:
    """The folder of an attempt. `mode`: the permissions of its files, by those of a folder."""

    folder: Path
    mode: int

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.name

    @contextmanager
    def create(self, file: str) -> Iterator[DigestSink]:
        """Write a file, and fsync it."""
        with _creating(self.folder / file, self.mode) as raw:
            yield DigestSink(raw)

    def seal(self) -> None:
        """Fsync the folder and the one that it is in."""
        _sync(self.folder)
        _sync(self.folder.parent)

    def discard(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def _creating(path: Path, mode: int) -> Iterator[BinaryIO]:
    """Write a new file, with the permissions of a folder, and fsync it."""
    with path.open("xb", _BUFFER_BYTES) as file:
        # The process may have a mask of its own for files that it creates.
        os.fchmod(file.fileno(), mode & 0o666)
        yield file
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
