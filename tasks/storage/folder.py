"""A folder, of this machine or one that machines share: a file appears by rename."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tasks.chunks import name_unfinished


@dataclass(frozen=True)
class FolderStorage:
    """The private folder of an attempt."""

    folder: Path

    def locate(self, name: str) -> Path:
        """Return the path of a file."""
        return self.folder / name

    @contextmanager
    def create(self, name: str) -> Iterator[pa.NativeFile]:
        """Write a file under a name that no other attempt uses, and rename it."""
        path = self.locate(name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = name_unfinished(path)
        try:
            with pa.OSFile(str(unfinished), "wb") as sink:
                yield sink
            os.replace(unfinished, path)
        finally:
            # If the disk is full, the next attempt needs the space.
            unfinished.unlink(missing_ok=True)

    @contextmanager
    def open(self, name: str) -> Iterator[pa.NativeFile]:
        """Open a file."""
        with pa.OSFile(str(self.locate(name))) as source:
            yield source

    def names(self, below: str) -> list[str]:
        """Return the names of files and folders, also of files that are not whole."""
        folder = self.locate(below)
        return [path.name for path in folder.iterdir()] if folder.is_dir() else []

    def remove(self, name: str) -> None:
        """Remove a file, or a folder."""
        path = self.locate(name)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise OSError if the folder is not there."""
        self.folder.stat()
