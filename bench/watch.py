"""Measures what a process and its children use, as the operating system counts it."""

import re
import threading
from pathlib import Path

import psutil

# Adding up a gigabyte of pages takes the kernel some 10 ms, in which the process waits.
SAMPLE_SECONDS = 0.5
_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)


class Watch:
    """Peak memory (PSS, bytes) of a process and its children together, and the most bytes in a folder, by sampling."""

    def __init__(self, process: psutil.Process, folder: Path) -> None:
        self.peak_pss = 0
        self.peak_disk = 0
        self._process = process
        self._folder = folder
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.peak_pss = max(self.peak_pss, sum(pss_bytes(p.pid) for p in self._family()))
            self.peak_disk = max(self.peak_disk, _size(self._folder))

    def _family(self) -> list[psutil.Process]:
        try:
            return [self._process, *self._process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def pss_bytes(pid: int) -> int:
    try:
        found = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
    except OSError:
        return 0
    return int(found.group(1)) * 1024 if found else 0


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU time that a process has used so far."""
    times = process.cpu_times()
    return float(times.user + times.system)
