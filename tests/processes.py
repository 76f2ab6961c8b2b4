"""Programs as processes of their own: from their first line to their exit status, and what they leave behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import psutil

from tests.cluster import wait_for
from tests.command import Outcome

KAFKA_SORT = str(Path(sys.executable).with_name("kafka-sort"))


@dataclass
class Program:
    """A running process, with its output in files."""

    process: "subprocess.Popen[bytes]"
    folder: Path

    @classmethod
    def start(
        cls, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None, **how: Any
    ) -> Self:
        folder = folder / f"program-{uuid4().hex[:8]}"
        folder.mkdir()
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err}
            streams |= {"preexec_fn": heed_hangup, **how}
            process = subprocess.Popen(command, env={**os.environ, **(environment or {})}, **streams)
        return cls(process, folder)

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    @property
    def is_over(self) -> bool:
        return self.process.poll() is not None

    def wait_until_watched(self) -> Self:
        """Wait until its first line has run: then there is a handler for SIGTERM."""
        wait_for(lambda: self.is_over or is_caught(self.process.pid, signal.SIGTERM), 60)
        return self

    def wait_for_line(self, text: str, seconds: float = 180) -> Self:
        wait_for(lambda: self.is_over or text in self.out + self.err, seconds)
        assert text in self.out + self.err, self.err
        return self

    def send(self, number: signal.Signals) -> Self:
        self.process.send_signal(number)
        return self

    def children(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def finish(self, seconds: float = 60) -> Outcome:
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"not finished after {seconds} s:\n{self.out}{self.err}") from None
        return Outcome(status, self.out, self.err)


def heed_hangup() -> None:
    """Let SIGHUP through: `nohup` may have started the suite itself."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def is_caught(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler for the signal."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    (caught,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)
