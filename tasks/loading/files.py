"""Opens files to be read in blocks: plain, or compressed by gzip or zstd, which their content tells.

A wait for input ends when the run is to stop. Of a pipe, what has arrived is handed on after a moment.
"""

import contextlib
import os
import select
import shlex
import stat
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, Final

import pyarrow as pa

from tasks.loading.lines import BrokenInputError
from tasks.run_context import current_run

STANDARD_INPUT: Final = "-"
BLOCK_BYTES: Final = 2_000_000
_READ_BYTES: Final = 1_000_000
_LOOK_SECONDS: Final = 0.1

# The first bytes of a file → the name of its compression in Arrow.
_COMPRESSIONS: Final = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    # A frame of zstd that is skipped, which some tools write in front.
    **{b"%c\x2a\x4d\x18" % code: "zstd" for code in range(0x50, 0x60)},
}
_SUFFIXES: Final = {".gz": "gzip", ".zst": "zstd"}
# The first bytes of files that are no text → what they are, and what makes lines of them.
_OTHERS: Final = {
    **{b"BZh%d1AY" % level: "compressed by bzip2: bzcat FILE | kafka-sort load -" for level in range(1, 10)},
    b"\xfd7zXZ\0": "compressed by xz: xzcat FILE | kafka-sort load -",
    b"\x04\x22\x4d\x18": "compressed by lz4: lz4cat FILE | kafka-sort load -",
    b"PK\3\4": "a zip archive: unzip -p FILE | kafka-sort load -",
    b"PAR1\x15": "Parquet, and no text: write it as CSV or JSON lines",
    b"Obj\1": "an Avro file, and no text: write it as JSON lines",
    b"\x1f\x9d": "compressed by compress: zcat FILE | kafka-sort load -",
    b"\xff\x06\0\0sNaPpY": "compressed by snappy: decompress it first",
    b"ARROW1\0\0": "an Arrow file, and no text: write it as CSV or JSON lines",
    b"SQLite format 3\0": "a database of SQLite, and no text: write its tables as CSV",
    b"\xff\xfe\0\0": "UTF-32: iconv -f UTF-32 -t UTF-8 FILE | kafka-sort load -",
    b"\xff\xfe": "UTF-16: iconv -f UTF-16 -t UTF-8 FILE | kafka-sort load -",
    b"\xfe\xff": "UTF-16: iconv -f UTF-16 -t UTF-8 FILE | kafka-sort load -",
}
# Zip archives by their names that hold no text.
_SHEETS: Final = {".xlsx", ".xlsm", ".ods"}
_LONGEST_MARK: Final = max(map(len, (*_COMPRESSIONS, *_OTHERS)))


class InputFile:
    """One file, or standard input. `position`: how many of its `size` bytes were read; 0 where it has no size."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = "standard input" if path == STANDARD_INPUT else path
        self._descriptor = -1
        self._stream: Any = None
        self._pending = b""
        self._peeked: list[bytes] = []
        self._has_ended = False
        self.position = 0
        self.size = 0

    @property
    def suffix(self) -> str:
        """The end of its name that tells the format, such as `.csv`, in small letters."""
        path = PurePath(self.path.lower())
        return path.with_suffix("").suffix if path.suffix in _SUFFIXES else path.suffix

    @property
    def is_regular(self) -> bool:
        """Whether it can be read a second time."""
        return self.size > 0

    def open(self) -> None:
        """Open it at its beginning, and find its compression. BrokenInputError, or OSError, if it cannot be read."""
        self._descriptor = 0 if self.path == STANDARD_INPUT else os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(self._descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise BrokenInputError("is a folder: name its files")
        is_file = stat.S_ISREG(status.st_mode) and self.path != STANDARD_INPUT
        self.size, self._has_ended = status.st_size if is_file else 0, False
        self._pending = self._read_mark()
        self.position = len(self._pending)
        compression = self._find_compression(self._pending)
        self._stream = None if compression is None else pa.CompressedInputStream(pa.PythonFile(self, "r"), compression)

    def _read_mark(self) -> bytes:
        mark = b""
        while any(other.startswith(mark) for other in (*_COMPRESSIONS, *_OTHERS)):
            more = self._wait_and_read(_LONGEST_MARK - len(mark))
            if not more:
                break
            mark += more
        return mark

    def _find_compression(self, mark: bytes) -> str | None:
        for first, what in _OTHERS.items():
            if mark.startswith(first):
                if PurePath(self.path.lower()).suffix in _SHEETS:
                    raise BrokenInputError("is a spreadsheet: save it as CSV")
                raise BrokenInputError(f"is {what.replace('FILE', shlex.quote(self.path))}")
        found = next((name for first, name in _COMPRESSIONS.items() if mark.startswith(first)), None)
        wanted = _SUFFIXES.get(PurePath(self.path.lower()).suffix)
        if wanted is not None and found != wanted:
            raise BrokenInputError(f"is not what its name says, compressed by {wanted}: rename it, or get it whole")
        return found

    def peek(self) -> tuple[bytes, bool]:
        """Return the first block, which `blocks` yields all the same, and whether it is the last one."""
        self._peeked = [self._read_block()]
        return self._peeked[0], self._has_ended

    def blocks(self) -> Iterator[tuple[bytes, bool]]:
        """Yield what the file holds, in blocks, and whether each is the last. BrokenInputError where it breaks off."""
        while self._peeked or not self._has_ended:
            block = self._peeked.pop() if self._peeked else self._read_block()
            yield block, self._has_ended

    def _read_block(self) -> bytes:
        try:
            return self._read_plain() if self._stream is None else self._decompress()
        except OSError as error:
            way = "" if self._stream is None else ": get it whole, and without other bytes behind its end"
            raise BrokenInputError(f"cannot be read on: {error.strerror or error}{way}") from error

    def _decompress(self) -> bytes:
        block = bytes(self._stream.read(BLOCK_BYTES))
        self._has_ended = len(block) < BLOCK_BYTES
        return block

    def _read_plain(self) -> bytes:
        """Read a block, or what has arrived if nothing more comes for a moment."""
        parts, size = [self.read(BLOCK_BYTES)], 0
        while parts[-1] and (size := size + len(parts[-1])) < BLOCK_BYTES and self._is_ready():
            parts.append(self.read(BLOCK_BYTES - size))
        self._has_ended = not parts[-1]
        return b"".join(parts)

    def _is_ready(self) -> bool:
        return bool(select.select([self._descriptor], [], [], _LOOK_SECONDS)[0])

    def _wait_and_read(self, size: int) -> bytes:
        stop = current_run().stop
        while not self._is_ready():
            stop.check()
        return os.read(self._descriptor, min(size, _READ_BYTES))

    # What Arrow wants of a file.

    closed = False

    def read(self, size: int) -> bytes:
        """Read at most so many bytes as they are in the file, once there are some; none at its end."""
        if self._pending:
            data, self._pending = self._pending[:size], self._pending[size:]
            return data
        data = self._wait_and_read(size)
        self.position += len(data)
        return data

    def readable(self) -> bool:
        """Answer for Arrow."""
        return True

    def close(self) -> None:
        """Close the file; standard input stays open."""
        self._stream, self._peeked = None, []
        if self._descriptor > 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
        self._descriptor = -1
