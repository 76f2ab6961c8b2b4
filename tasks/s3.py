"""S3 as the environment leads to it: by the variables that AWS's own tools have."""

import os
from functools import cache
from typing import Final

from pyarrow import fs

# AWS's own servers take checksums in trailers, others of the protocol refuse an upload with them.
_CHECKSUMS: Final = ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION")


def s3_files() -> fs.S3FileSystem:
    """Return the connection to S3; it is made once for each place that the environment names."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    wanted = {
        "endpoint_override": endpoint,
        "region": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        "tls_ca_file_path": os.environ.get("AWS_CA_BUNDLE"),
    }
    for name in _CHECKSUMS if endpoint else ():
        os.environ.setdefault(name, "when_required")
    return _connect(tuple((name, value) for name, value in wanted.items() if value))


@cache
def _connect(options: tuple[tuple[str, str], ...]) -> fs.S3FileSystem:
    return fs.S3FileSystem(**dict(options))


def list_below(path: str) -> list[fs.FileInfo]:
    """Return what lies below a prefix; nothing if it is absent."""
    return list(s3_files().get_file_info(fs.FileSelector(path, allow_not_found=True)))


def exists(path: str) -> bool:
    """Whether there is an object, or a prefix with objects."""
    return bool(s3_files().get_file_info(path).type != fs.FileType.NotFound)


def write_object(path: str, data: bytes) -> None:
    """Write an object, which appears whole."""
    with s3_files().open_output_stream(path) as stream:
        stream.write(data)


def remove_below(path: str) -> None:
    """Remove an object, or all objects of a prefix; nothing if it is absent."""
    kind = s3_files().get_file_info(path).type
    if kind == fs.FileType.File:
        s3_files().delete_file(path)
    elif kind != fs.FileType.NotFound:
        s3_files().delete_dir(path)
