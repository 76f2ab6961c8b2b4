"""The interface of a run's storage, and how its files are named from outside.

A file appears whole or not at all, and is written once. Errors of the place are OSError, and FileNotFoundError for a
file that is not there.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

import pyarrow as pa

from tasks.manifests import Location


class Storage(Protocol):
    """A place of one attempt's files; their names may have folders. It is small and picklable."""

    def locate(self, name: str) -> Location:
        """Return where a file lies, for `open_file`."""

    def create(self, name: str) -> AbstractContextManager[pa.NativeFile]:
        """Write a file: it is there at the end of the block, and not after an error."""

    def open(self, name: str) -> AbstractContextManager[pa.NativeFile]:
        """Open a file to read, at random."""

    def sizes(self, below: str) -> dict[str, int]:
        """Return the bytes of the files below a folder, by their names."""

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it, as far as it is there."""

    def free_bytes(self) -> int | None:
        """Return the free space; None if it has no limit."""


def write_file(storage: Storage, name: str, data: bytes) -> None:
    """Write a small file."""
    with storage.create(name) as sink:
        sink.write(data)


def read_file(storage: Storage, name: str) -> bytes:
    """Read a small file."""
    with storage.open(name) as source:
        return bytes(source.read())


def read_pieces(source: pa.NativeFile, size: int = 1 << 20) -> Iterator[bytes]:
    """Yield the bytes of a file that is open, piece by piece."""
    while data := source.read(size):
        yield data
