"""Files are read whole, compressed or not, or the error says why they cannot be."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from tasks.errors import SettingsError, StoppedError
from tasks.loading.files import InputFile
from tasks.loading.layout import LoadSettings
from tasks.loading.lines import BrokenInputError
from tasks.loading.rows import open_files
from tasks.run_context import run_context

TEXT = b"".join(b"%d,name %d\n" % (i, i * i) for i in range(200_000))


def zstd(data: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(data))


def read(path: Path) -> bytes:
    file = InputFile(str(path))
    file.open()
    data = b"".join(block for block, _ in file.blocks())
    file.close()
    return data


def tarred(data: bytes) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as file:
        entry = tarfile.TarInfo("a.csv")
        entry.size = len(data)
        file.addfile(entry, io.BytesIO(data))
    return archive.getvalue()


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("plain.csv", TEXT),
        ("a.csv.gz", gzip.compress(TEXT, mtime=0)),
        ("a.csv.zst", zstd(TEXT)),
        ("members.gz", gzip.compress(TEXT[:1000], mtime=0) + gzip.compress(b"") + gzip.compress(TEXT[1000:], mtime=0)),
        ("frames.zst", zstd(TEXT[:1000]) + zstd(TEXT[1000:])),
        ("unnamed", gzip.compress(TEXT, mtime=0)),
        ("unnamed", zstd(TEXT)),
        ("skipped.zst", b"\x5e\x2a\x4d\x18\4\0\0\0abcd" + zstd(TEXT)),
    ],
)
def test_a_file_is_read_whole(name: str, data: bytes, tmp_path: Path) -> None:
    """Plain, gzip with any number of members, or zstd of frames: content tells, also where a name does not."""
    assert read(write(tmp_path, name, data)) == TEXT


def test_a_small_file_is_read_whole(tmp_path: Path) -> None:
    """A file may be as short as the marks that tell compressed ones, or empty."""
    for data in (b"", b"P", b"\x1f", b"BZh", b"\xef\xbb", b"PK\n"):
        assert read(write(tmp_path, "small", data)) == data


@pytest.mark.parametrize(
    "data", [gzip.compress(TEXT, mtime=0)[:-5], gzip.compress(TEXT, mtime=0) + b"tail", zstd(TEXT)[:-5]]
)
def test_a_file_that_breaks_off_is_an_error(data: bytes, tmp_path: Path) -> None:
    """A compressed file that does not end properly is not taken for a shorter one."""
    with pytest.raises(BrokenInputError, match="cannot be read on"):
        read(write(tmp_path, "broken", data))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.gz", TEXT, "is not what its name says, compressed by gzip"),
        ("a.zst", gzip.compress(TEXT, mtime=0), "is not what its name says, compressed by zstd"),
        ("empty.gz", b"", "compressed by gzip"),
        ("a.bz2", bz2.compress(TEXT), "bzip2: bzcat"),
        ("a.xz", lzma.compress(TEXT), "xz: xzcat"),
        ("a.csv", TEXT.decode().encode("utf-16"), "iconv -f UTF-16"),
        ("a.zip", b"PK\3\4" + TEXT, "a zip archive"),
        ("a.parquet", b"PAR1\x15\x04", "Parquet"),
        ("half.gz", gzip.compress(TEXT, mtime=0)[:5000], "Truncated"),
        ("a.json", b'[\n{"a": 1}\n]\n', r"one document a line: jq -c '.\[\]'"),
        ("a.json", b'{\n  "a": 1\n}\n', "one document a line: jq -c ."),
        ("a.json", b'[{"a": 1},\n{"a": 2},\n{"a": 3}]\n', r"one document a line: jq -c '.\[\]'"),
        ("a.json", b'[{"a": 1}, {"a": 2}]', r"jq -c '.\[\]' .* or --format lines, if the array is one record"),
        ("a.json", b'[{"a": 1}' + b', {"a": 2}' * 300_000 + b"]\n", r"one document a line: jq -c '.\[\]'"),
        ("a.json", b'{"a":\r  1}\r{"a": 2}\r', r"CR alone: tr '\\r' '\\n' < "),
        ("a.csv", b"id,name\r1,a\r2,b\r", r"CR alone: tr '\\r' '\\n' < .* kafka-sort load - --format csv"),
        ("a.csv", "id,name\n1,a\n".encode("utf-16-le"), "iconv -f UTF-16LE"),
        ("a.csv", "id,name\n1,a\n".encode("utf-16-be"), "iconv -f UTF-16BE"),
        ("a.csv", TEXT.decode().encode("utf-32"), "iconv -f UTF-32"),
        ("a.tar", tarred(b"1,2\n"), "a tar archive: tar -xOf"),
        ("a.tgz", gzip.compress(tarred(b"1,2\n"), mtime=0), "a tar archive: tar -xOf"),
        ("a.xlsx", b"PK\3\4" + TEXT, "a spreadsheet: save it as CSV"),
        ("a.arrow", b"ARROW1\0\0" + TEXT, "an Arrow file"),
        ("a.csv", b'1,2\n3,"4\n5,6\n', "line 2 are not closed"),
    ],
)
def test_what_is_no_text_is_refused_before_any_work(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    """Files of another kind are refused with a command that makes lines of them, where there is one."""
    settings = LoadSettings((str(write(tmp_path, name, data)),), "t")
    with pytest.raises(SettingsError, match=message):
        open_files(settings, settings.check())


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", b'{"a": 1, \n{"a": 2}\n{"a": 3}\n'),
        ("a.jsonl", b'{"a": NaN}\n{"a": NaN}\n'),
        ("a.jsonl", b"[1, 2]\n[3, 4]\n"),
        ("a.jsonl", b'[{"a": 1}]\n[{"a": 2}]\n'),
        ("a.jsonl", b"nothing\nof this\nis JSON\n"),
        ("a.json", b"[1, 2]"),
        ("a.csv", b'1,"a\rb"'),
        ("a.csv", b"1,a\r"),
        ("a.csv", b"\0\0\0\0\0\0\0\0,1\n"),
        ("a.csv", b"1"),
        ("a.txt", b"a\rb\rc"),
        ("a.txt", "letters".encode("utf-16-le")),
    ],
)
def test_lines_of_any_kind_are_taken(name: str, data: bytes, tmp_path: Path) -> None:
    """Bad records among lines, and lines of bytes, are no other kind of file."""
    settings = LoadSettings((str(write(tmp_path, name, data)),), "t")
    assert len(open_files(settings, settings.check())) == 1


@pytest.mark.parametrize("path", ["absent.csv", "", "."])
def test_a_path_that_cannot_be_read_is_refused(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absent files, empty names and folders are told before any work, even behind files that are there."""
    monkeypatch.chdir(tmp_path)
    settings = LoadSettings((str(write(tmp_path, "a.csv", TEXT)), path), "t")
    with pytest.raises(SettingsError, match="name a file that can be read|is a folder"):
        open_files(settings, settings.check())


@pytest.mark.parametrize("data", [TEXT, gzip.compress(TEXT, mtime=0)])
def test_a_pipe_is_read_once(data: bytes, tmp_path: Path) -> None:
    """What is looked at before any work is not lost of a file that can be read only once."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    settings = LoadSettings((str(pipe),), "t")
    (file,) = open_files(settings, settings.check())
    assert b"".join(block for block, _ in file.blocks()) == TEXT
    writer.join()


@pytest.mark.parametrize("begun", [b"1,2\n", gzip.compress(TEXT, mtime=0)[:-100_000]])
def test_a_stop_ends_a_wait_for_input(begun: bytes, tmp_path: Path) -> None:
    """A load that waits for a pipe is stopped all the same, and what has arrived of plain text was handed on."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    end = os.open(pipe, os.O_RDWR)
    file = InputFile(str(pipe))
    with run_context() as context:

        def write_and_stop() -> None:
            os.write(end, begun)
            context.stop.ask(StoppedError("SIGINT", 2))

        writer = threading.Thread(target=write_and_stop)
        writer.start()
        file.open()
        read: list[bytes] = []
        with pytest.raises(StoppedError):
            read.extend(block for block, _ in file.blocks())
    writer.join()
    file.close()
    os.close(end)
    assert (begun if begun == b"1,2\n" else TEXT).startswith(b"".join(read))
    assert read
