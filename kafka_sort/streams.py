"""Standard input, output and error of a command, which may be closed, full, or a pipe without a reader.

Guarantee: no write to them fails. What cannot be written is dropped, and standard error says so once; a reader that
has gone saw all it wanted, and nothing is reported. The exit status of a command tells its work. If a command only
shows something, the status also tells whether that was shown: see `output_status`.
"""

import contextlib
import errno
import fcntl
import io
import os
import select
import sys
from typing import Any, Final, TextIO

from tasks.signals import say

_STDOUT: Final = 1
# What any user may have on Linux.
_PIPE_BYTES: Final = 1 << 20
# Python's own file objects close the descriptor when they are collected.
_former: list[object] = []


class _Output(io.FileIO):
    """One of the two streams, which never fails; `failure` keeps the first error that a write met."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            # None: the descriptor does not wait. It shares this setting with other processes.
            while (written := super().write(data)) is None:
                select.select([], [self], [])
        except OSError as error:
            self._note(error)
            return len(data)
        return written

    def _note(self, error: OSError) -> None:
        if self.failure is None and self.fileno() == _STDOUT and error.errno != errno.EPIPE:
            say(f"standard output: {error.strerror}: what was to be shown there is lost")
        self.failure = self.failure or error


def open_streams() -> None:
    """Replace Python's streams by streams that do not fail; first, open /dev/null in place of closed descriptors.

    Otherwise the next file or socket would be descriptor 1, and get what we print.
    """
    for descriptor in range(3):
        _open_if_closed(descriptor)
    _former.extend((sys.stdin, sys.stdout, sys.stderr))
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  # a descriptor, for as long as the process lives
    sys.stdout, sys.stderr = _replace(sys.stdout, 1), _replace(sys.stderr, 2)


def widen_output() -> None:
    """Let a pipe behind standard output hold more, where that can be: its two processes take turns less often then."""
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(_STDOUT, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def output_status() -> int:
    """Exit status of a command that only shows something: 1 if that was lost, unless the reader had enough."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    failure = raw.failure if isinstance(raw, _Output) else None
    return int(failure is not None and failure.errno != errno.EPIPE)


def is_output_lost() -> bool:
    """Whether a write to standard output failed, so that nobody gets what comes."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return isinstance(raw, _Output) and raw.failure is not None


def _open_if_closed(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != descriptor:
            os.dup2(opened, descriptor)
            os.close(opened)
        os.set_inheritable(descriptor, True)


def _replace(stream: TextIO | None, descriptor: int) -> TextIO:
    """Wrap the descriptor in a stream that does not fail; it is line-buffered, so that no text is left at the end."""
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    encoding = getattr(stream, "encoding", None) or "utf-8"
    errors = getattr(stream, "errors", None) or "strict"
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(descriptor)),
        encoding=encoding,
        errors="backslashreplace" if errors == "strict" else errors,
        line_buffering=True,
    )
