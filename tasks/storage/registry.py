"""The kinds of storage, by where it lies: a folder, or S3."""

from contextlib import AbstractContextManager
from pathlib import Path

import pyarrow as pa

from tasks.manifests import Location
from tasks.storage.base import Storage
from tasks.storage.folder import FolderStorage


def open_storage(place: Location) -> Storage:
    """Return the storage at a folder's path, or at `s3://BUCKET/PREFIX`; nothing is created."""
    if isinstance(place, Path):
        return FolderStorage(place)
    # It takes a fifth of a second to load.
    from tasks.storage.s3 import S3Storage

    return S3Storage(place)


def open_file(location: Location) -> AbstractContextManager[pa.NativeFile]:
    """Open a file of any storage to read, at random."""
    if isinstance(location, Path):
        return FolderStorage(location.parent).open(location.name)
    place, _, name = location.rpartition("/")
    return open_storage(place).open(name)
