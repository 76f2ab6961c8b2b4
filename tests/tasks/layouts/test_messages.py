"""Messages between driver and tasks, and the driver's memory: they do not grow with the square of the chunks."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tasks.layouts.many_chunks import PARTS, SORTS, prepare

MB = 1_000_000


def test_messages_are_linear_in_chunks(tmp_path: Path) -> None:
    """What a task is told is of one size, and what it answers is so for each chunk, however many there are."""
    sizes = {}
    for count in (100, 1000):
        folder = tmp_path / str(count)
        folder.mkdir()
        runner, chunks, _ = prepare(count, folder)
        assert len(chunks) == count
        assert len(runner.sent["sort-part"]) == SORTS * PARTS
        sizes[count] = runner
    for stage in ("dump", "sort-part"):
        # Numbers of more digits take some bytes.
        assert max(sizes[1000].sent[stage]) <= max(sizes[100].sent[stage]) + 50
        assert max(sizes[1000].sent[stage]) < 5000
    few, many = (sum(sizes[count].received["dump"]) / count for count in (100, 1000))
    assert many <= few * 1.1
    assert many < 1500


@pytest.mark.slow
def test_the_driver_s_memory() -> None:
    """At 10,000 chunks of 2,000,000 offsets the driver holds at most 50 MB more than at 100."""
    peaks = [measure(count) for count in (100, 10_000)]
    assert peaks[1] - peaks[0] < 50 * MB


def measure(count: int) -> int:
    line = [sys.executable, "-m", "tests.tasks.layouts.many_chunks", str(count)]
    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    chunks, rows, peak = map(int, done.stdout.split()[-3:])
    assert (chunks, rows) == (count, SORTS * count)
    return peak
