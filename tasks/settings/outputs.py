"""The outputs of sorts by their names: a topic, or a folder of Parquet files, written `parquet:DIR`.

A folder is one of this machine, or `s3://BUCKET/PREFIX`. A text that cannot be read is a ValueError.
"""

import os
import re
from itertools import combinations
from pathlib import Path
from typing import Final

from tasks.settings.load import FieldError
from tasks.settings.paths import cut_outside_quotes

FOLDER: Final = "parquet:"
S3: Final = "s3://"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_folder(output: str) -> bool:
    """Whether the output is a folder, and not a topic."""
    return output.startswith(FOLDER)


def folder_of(output: str) -> str:
    """Return the folder of an output: a path, or `s3://BUCKET/PREFIX`."""
    return output.removeprefix(FOLDER)


def canonical_output(output: str) -> str:
    """Return the one name of an output. A folder's path becomes absolute; `~` is the home of whom this process runs."""
    if not is_folder(output):
        return output
    folder = folder_of(output).strip()
    if folder.startswith(S3):
        return f"{FOLDER}{canonical_prefix(folder)}"
    return f"{FOLDER}{_canonical_path(folder)}"


def absolute_sort(text: str) -> str:
    """Return a sort as it was written, but with its folder's path absolute; `~` stays, for the machine that sorts."""
    columns, output = cut_outside_quotes(text, "=")
    if not is_folder(output):
        return text
    absolute = canonical_output(output)
    return text if folder_of(output).strip().startswith("~") else f"{columns}={absolute}"


def _canonical_path(folder: str) -> str:
    if not folder:
        raise ValueError(f"{FOLDER} names no folder: write {FOLDER}DIR or {FOLDER}{S3}BUCKET/PREFIX")
    if not folder.isprintable():
        raise ValueError(f"folder {folder!r}: use letters and signs that can be printed")
    if _SCHEME.match(folder):
        scheme = folder.partition("://")[0]
        raise ValueError(f"{FOLDER}{scheme}://… is not known: write {FOLDER}DIR or {FOLDER}{S3}BUCKET/PREFIX")
    try:
        path = os.path.abspath(Path(folder).expanduser())  # noqa: PTH100  # pathlib keeps `..`
    except RuntimeError as error:
        raise ValueError(f"folder {folder!r}: {error}") from None
    if path == "/":
        raise ValueError(f"folder {folder!r} is the root of the file system: take a folder of its own")
    return path


def canonical_prefix(location: str, scheme: str = FOLDER) -> str:
    """Return a prefix of S3 as `s3://BUCKET/PREFIX`. `scheme`: what a person writes in front of it."""
    bucket, _, prefix = location.removeprefix(S3).partition("/")
    # A person may have written credentials in front of the bucket, so the line does not repeat what it was given.
    if not _BUCKET.fullmatch(bucket):
        raise ValueError(
            f"{scheme}{S3} needs the name of a bucket: write {scheme}{S3}BUCKET/PREFIX; credentials and endpoint come "
            "from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL)"
        )
    parts = prefix.strip("/").split("/")
    if not all(part.isprintable() and part not in {"", ".", ".."} for part in parts):
        raise ValueError(f"{scheme}{S3}{bucket}/… needs a prefix of printable names: write {scheme}{S3}BUCKET/PREFIX")
    return f"{S3}{bucket}/{'/'.join(parts)}"


def check_folders(folders: list[str], workdir: str) -> None:
    """Raise FieldError if two sorts go to one folder, or into each other's, or a folder and the work folder do."""
    for one, other in combinations(folders, 2):
        if one == other:
            raise FieldError("sorts", f"two sorts go to one folder, {one!r}: give each its own, as COLUMNS={FOLDER}DIR")
        if _is_within(one, other) or _is_within(other, one):
            raise FieldError("sorts", f"the folders {one!r} and {other!r} lie in each other: take two apart")
    for folder in folders:
        if folder == workdir or _is_within(folder, workdir) or _is_within(workdir, folder):
            raise FieldError(
                "sorts", f"the folder {folder!r} and the work folder {workdir!r} lie in each other: take another"
            )


def _is_within(folder: str, other: str) -> bool:
    return folder.startswith(other.rstrip("/") + "/")
