"""The interface of a run's storage, and how its files are named from outside.

A file appears whole or not at all, and is written once. Errors of the place are OSError, and FileNotFoundError for a
file that is not there.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import pyarrow as pa

from tasks.errors import TransientError
from tasks.manifests import Location


class Storage(Protocol):
    """A place of one attempt's files; their names may have folders. It is small and picklable."""

    def locate(self, name: str) -> Location:
        """Return where a file lies, for `open_file`."""

    def create(self, name: str) -> AbstractContextManager[pa.NativeFile]:
        """Write a file: it is there at the end of the block, and not after an error."""

    def open(self, name: str) -> AbstractContextManager[pa.NativeFile]:
        """Open a file to read, at random."""

    def names(self, below: str) -> list[str]:
        """Return the names of what is in a folder; nothing if it is absent."""

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it, as far as it is there."""

    def check(self) -> None:
        """Raise OSError if the place cannot be looked into."""


class FilesGoneError(TransientError):
    """Files that a run's tasks left for each other are gone, and the run owns its job all the same."""

    action = (
        "Look what removes files of the work folder, such as a lifecycle rule of the bucket, and keep it from jobs "
        "that run; then start again."
    )
    at_risk = "No: nothing was published."


@contextmanager
def using_storage(what: str, place: object) -> Iterator[None]:
    """Raise FilesGoneError if a file is not there, TransientError if the place cannot be used just now."""
    try:
        yield
    except FileNotFoundError as error:
        raise FilesGoneError(f"{what}, work folder {place}: a file is gone ({error}): start again") from error
    except OSError as error:
        raise TransientError(f"{what}, work folder {place}: {error}") from error


def write_file(storage: Storage, name: str, data: bytes) -> None:
    """Write a small file."""
    with storage.create(name) as sink:
        sink.write(data)


def read_file(storage: Storage, name: str) -> bytes:
    """Read a small file."""
    with storage.open(name) as source:
        return bytes(source.read())
