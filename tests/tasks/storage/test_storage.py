"""Storage: a file appears whole or not at all, in a folder as in S3."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tasks.manifests import Location
from tasks.storage.base import FilesGoneError, Storage, read_file, using_storage, write_file
from tasks.storage.registry import open_file, open_storage
from tests.s3_server import S3Server, running_s3


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with running_s3() as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "folder":
        return tmp_path / "storage"
    return f"s3://{request.getfixturevalue('s3').bucket}/work/{uuid4().hex}"


@pytest.fixture
def storage(place: Location) -> Storage:
    return open_storage(place)


def test_a_file_is_read_as_it_was_written(storage: Storage) -> None:
    """A file is found by its name, and by its location from everywhere, at random; folders are made."""
    write_file(storage, "a/b/file", b"0123456789")
    assert read_file(storage, "a/b/file") == b"0123456789"
    with open_file(storage.locate("a/b/file")) as source:
        source.seek(4)
        assert source.read(3) == b"456"
    assert storage.names("") == ["a"]
    assert storage.names("a/b") == ["file"]


def test_a_file_appears_whole(storage: Storage) -> None:
    """Nobody sees a file while it is written; after an error there is none, and no part of one."""
    with storage.create("a/file") as sink:
        sink.write(b"begin")
        with pytest.raises(FileNotFoundError):
            read_file(storage, "a/file")
        sink.write(b"end")
    assert read_file(storage, "a/file") == b"beginend"
    with pytest.raises(ZeroDivisionError), storage.create("a/other") as sink:
        sink.write(b"begin" * (1 // 0))
    assert storage.names("a") == ["file"]


def test_removal(storage: Storage) -> None:
    """A folder goes with all that is in it, a file alone, and what is absent stays so."""
    for name in ("a/b/one", "a/two", "three"):
        write_file(storage, name, b"x")
    storage.remove("a")
    storage.remove("three")
    storage.remove("none")
    assert storage.names("a") == []
    assert storage.names("") == []


def test_errors_of_the_place(storage: Storage, tmp_path: Path) -> None:
    """What is gone has an error of its own."""
    with (
        pytest.raises(FilesGoneError, match="dump of t/0, work folder w: a file is gone"),
        using_storage("dump of t/0", "w"),
    ):
        read_file(storage, "none")


def test_a_place_that_is_not_there(s3: S3Server, tmp_path: Path) -> None:
    """A bucket or a folder that is absent is named before any work."""
    with pytest.raises(FileNotFoundError, match="there is no bucket no-such-bucket"):
        open_storage("s3://no-such-bucket/work").check()
    with pytest.raises(FileNotFoundError):
        open_storage(tmp_path / "none").check()
    open_storage(f"s3://{s3.bucket}/work").check()


def test_files_are_private(tmp_path: Path) -> None:
    """Folders of a storage are its user's alone."""
    write_file(open_storage(tmp_path / "storage"), "a/file", b"x")
    assert (tmp_path / "storage" / "a").stat().st_mode & 0o777 == 0o700
