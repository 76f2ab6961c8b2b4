"""A prefix of an S3 bucket: an object appears whole, once its upload is complete."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pyarrow as pa

from tasks.s3 import exists, list_below, remove_below, s3_files
from tasks.settings.outputs import S3


@dataclass(frozen=True)
class S3Storage:
    """The prefix of an attempt, `s3://BUCKET/PREFIX`."""

    prefix: str

    def locate(self, name: str) -> str:
        """Return the address of an object."""
        return f"{self.prefix}/{name}"

    @contextmanager
    def create(self, name: str) -> Iterator[pa.NativeFile]:
        """Upload an object."""
        path = self._path(name)
        try:
            with s3_files().open_output_stream(path) as sink:
                yield sink
        except BaseException:
            # An upload cannot be given up, it ends: what it leaves has no reader, and goes with the attempt at last.
            with suppress(OSError):
                s3_files().delete_file(path)
            raise

    @contextmanager
    def open(self, name: str) -> Iterator[pa.NativeFile]:
        """Open an object."""
        with s3_files().open_input_file(self._path(name)) as source:
            yield source

    def names(self, below: str) -> list[str]:
        """Return the names of objects, and the first part of names that have several."""
        return [info.base_name for info in list_below(self._path(below).rstrip("/"))]

    def remove(self, name: str) -> None:
        """Remove an object, or all with this prefix."""
        remove_below(self._path(name).rstrip("/"))

    def check(self) -> None:
        """Raise OSError if the bucket is not there."""
        bucket = self._path("").partition("/")[0]
        if not exists(bucket):
            raise FileNotFoundError(f"there is no bucket {bucket}: make it, or correct its name")

    def _path(self, name: str) -> str:
        return self.locate(name).removeprefix(S3)
