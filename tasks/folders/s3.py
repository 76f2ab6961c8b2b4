"""A prefix of an S3 bucket. Objects cannot be renamed: after the commit a run's files are copied to their place.

The last step of a run is its object `_SUCCESS`: a reader that looks for it sees the run whole. One that lists all
objects may see some of the files before. Each step may be done twice.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from pyarrow import fs

from tasks.errors import SettingsError
from tasks.failpoints import reach
from tasks.folders.base import MARKER, DigestSink, Marker, is_run, lost
from tasks.run_record import WrittenSort
from tasks.s3 import exists, list_below, remove_below, s3_files, write_object
from tasks.settings.outputs import S3, folder_of

SUCCESS: Final = "_SUCCESS"
_ATTEMPTS: Final = "_attempts"
_SKIPPED: Final = (".", "_")
# S3 copies objects by itself up to this size.
_LARGEST_COPY: Final = 5 * 1024**3
_COPY_BYTES: Final = 8_000_000


@dataclass(frozen=True)
class S3Folder:
    """The prefix of an output `parquet:s3://BUCKET/PREFIX`."""

    output: str

    @property
    def path(self) -> str:
        """The bucket and the prefix."""
        return folder_of(self.output).removeprefix(S3)

    def check(self) -> None:
        """Raise SettingsError if the bucket cannot be looked into."""
        bucket = self.path.partition("/")[0]
        if s3_files().get_file_info(bucket).type == fs.FileType.NotFound:
            raise SettingsError(f"output {self.output}: there is no bucket {bucket}: make it, or correct its name")

    def read_marker(self) -> bytes | None:
        """Return the content of the marker; None if there is none."""
        try:
            with s3_files().open_input_stream(f"{self.path}/{MARKER}") as stream:
                return bytes(stream.readall())
        except FileNotFoundError:
            return None

    def claim(self, marker: Marker) -> None:
        """Write the marker."""
        write_object(f"{self.path}/{MARKER}", marker.to_json())

    def runs(self) -> frozenset[str]:
        """Return the names of all runs' folders, of which some may have no `_SUCCESS` yet."""
        return frozenset(filter(is_run, self._names("")))

    def foreign(self) -> list[str]:
        """Return the names of what this program does not write, except what readers skip."""
        return sorted(name for name in self._names("") if not is_run(name) and not name.startswith(_SKIPPED))

    def stage(self, attempt: str) -> "_S3Stage":
        """Begin with no objects of the attempt."""
        stage = _S3Stage(self.path, f"{_ATTEMPTS}/{attempt}")
        stage.discard()
        return stage

    def stages(self) -> frozenset[str]:
        """Return the names of the attempts that have an object."""
        return frozenset(f"{_ATTEMPTS}/{name}" for name in self._names(_ATTEMPTS))

    def place(self, sort: WrittenSort) -> bool:
        """Copy the files, mark the run as whole, remove the staged files. FilesLostError if a file is nowhere."""
        success = f"{self.path}/{sort.folder}/{SUCCESS}"
        if not exists(success):
            self._copy(sort)
            reach("before-success")
            write_object(success, b"")
            reach("after-success")
        elif not self._names(sort.staged):
            return False
        remove_below(f"{self.path}/{sort.staged}")
        return True

    def _copy(self, sort: WrittenSort) -> None:
        staged, there = self._sizes(sort.staged), self._sizes(sort.folder)
        if any(file.bytes not in {staged.get(file.name), there.get(file.name)} for file in sort.files):
            raise lost(sort)
        for file in sort.files:
            if there.get(file.name) != file.bytes:
                reach("before-copy")
                source, target = (f"{self.path}/{name}/{file.name}" for name in (sort.staged, sort.folder))
                _copy_file(source, target, file.bytes)
                reach("after-copy")

    def remove_run(self, name: str) -> None:
        """Remove the run's objects, `_SUCCESS` first."""
        reach("before-remove")
        if exists(f"{self.path}/{name}/{SUCCESS}"):
            s3_files().delete_file(f"{self.path}/{name}/{SUCCESS}")
        remove_below(f"{self.path}/{name}")
        reach("after-remove")

    def remove_leftovers(self) -> int:
        """Remove the objects of all attempts."""
        attempts = self._names(_ATTEMPTS)
        for attempt in attempts:
            remove_below(f"{self.path}/{_ATTEMPTS}/{attempt}")
        return len(attempts)

    def sizes(self, run: str) -> Mapping[str, int] | None:
        """Return the bytes of a run's files by their names; None if the run is not there, or not whole."""
        found = self._sizes(run)
        return {name: size for name, size in found.items() if name != SUCCESS} if SUCCESS in found else None

    def open(self, run: str, file: str) -> Any:
        """Open a file of a run to read."""
        return s3_files().open_input_file(f"{self.path}/{run}/{file}")

    def free_bytes(self) -> None:
        """Return None: space has no limit."""

    def _names(self, below: str) -> list[str]:
        return [info.base_name for info in list_below(f"{self.path}/{below}".rstrip("/"))]

    def _sizes(self, below: str) -> dict[str, int]:
        found = list_below(f"{self.path}/{below}")
        return {info.base_name: info.size for info in found if info.type == fs.FileType.File}


@dataclass(frozen=True)
class _S3Stage:
    """The objects of an attempt."""

    path: str
    name: str

    @contextmanager
    def create(self, file: str) -> Iterator[DigestSink]:
        """Upload an object, which appears whole at the end of the block."""
        with s3_files().open_output_stream(f"{self.path}/{self.name}/{file}") as stream:
            yield DigestSink(stream)

    def seal(self) -> None:
        """Do nothing: an object that was uploaded lasts."""

    def discard(self) -> None:
        """Remove the objects."""
        remove_below(f"{self.path}/{self.name}")


def _copy_file(source: str, target: str, size: int) -> None:
    if size <= _LARGEST_COPY:
        s3_files().copy_file(source, target)
        return
    with s3_files().open_input_stream(source) as reader, s3_files().open_output_stream(target) as writer:
        while data := reader.read(_COPY_BYTES):
            writer.write(data)
