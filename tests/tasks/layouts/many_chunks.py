"""The driver's part of a run of very many chunks, whose tasks are simulated; as a module it prints its peak memory.

No task runs and no chunk is there: what counts is what the driver gets, keeps and sends.
"""

import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.dump import DUMP
from tasks.layouts import sorted_files
from tasks.layouts.base import Work
from tasks.manifests import Chunk, Dumped, OffsetRange, Snapshot, SortedFile, SortedRows
from tasks.placement import place_outputs
from tasks.settings.budget import peak_memory_bytes
from tasks.settings.job import Job
from tasks.sort_part import SortedFacts
from tasks.sorting.divided_chunks import thin_times
from tasks.sorting.key_parts import KeyParts
from tasks.stage import Capacity, Q, R, Stage

SORTS = 3
PARTS = 100
CHUNK = 2_000_000


@dataclass
class Simulated:
    """Runs nothing, and answers as workers would; keeps the sizes of the messages."""

    folder: Path
    sent: dict[str, list[int]] = field(default_factory=dict)
    received: dict[str, list[int]] = field(default_factory=dict)

    def capacity(self, job: Job) -> Capacity:
        return Capacity(5, job)

    def run(self, stage: Stage[Q, R], requests: Sequence[Q]) -> list[R]:
        answers: list[Any] = [self._dump(r) if stage.name == DUMP.name else self._sort(r) for r in requests]
        self.sent[stage.name] = [len(pickle.dumps(request)) for request in requests]
        self.received[stage.name] = [len(pickle.dumps(answer)) for answer in answers]
        return answers

    def _dump(self, request: Any) -> Dumped:
        r = request.range
        return Dumped(r, tuple(self._chunk(r.partition, start) for start in range(r.start, r.end, CHUNK)), 1.0)

    def _chunk(self, partition: int, start: int) -> Chunk:
        times = thin_times(list(range(start, start + CHUNK, 1000)))
        names = [f"divided/{i:03}/chunk-{partition:05}-{start:016}-0123456789ab-0000.parquet" for i in range(SORTS)]
        place = OffsetRange(partition, start, start + CHUNK)
        divided = tuple((name,) for name in names)
        return Chunk(None, place, 1, 60, 0, published=(("key", 0),), times=times, divided=divided)

    def _sort(self, request: Any) -> SortedFacts:
        if request.part:
            return SortedFacts()
        rows = self._rows
        path = self.folder / f"sorted-{request.number}.parquet"
        columns = {name: pa.array([b""] * rows, pa.binary()) for name in ("value", "k1")}
        pq.write_table(pa.table({**columns, "k0": pa.array(np.arange(rows))}), path)
        return SortedFacts(rows, 0, SortedFile(path, rows, path.stat().st_size))

    @property
    def _rows(self) -> int:
        return len(self.chunks)

    chunks: Sequence[Chunk] = ()


def prepare(count: int, folder: Path) -> tuple[Simulated, tuple[Chunk, ...], tuple[SortedRows, ...]]:
    """Do the driver's part of dump and sort for so many chunks."""
    job = Job(source_topic="s", columns="id:int,name", sorts=["id=a", "name=b", "id:desc=c"], workdir=folder)
    ranges = tuple(OffsetRange(partition, 0, count * CHUNK // 10) for partition in range(10))
    runner, placements = Simulated(folder), place_outputs(job, [4] * SORTS)
    owner: Any = SimpleNamespace(job=job, recorded_format={})
    work = Work(owner, runner, Snapshot(1, "id", ranges), folder, folder)
    runner.chunks = chunks = sorted_files._dump(work, placements, runner.capacity(job))
    sorts = [
        (sorted_files._place(work, *pair), KeyParts(sorted_files._place(work, *pair).order, tuple(bounds())))
        for pair in zip(job.sort_list, placements.of_sorts, strict=True)
    ]
    return runner, chunks, sorted_files._sort(work, placements, chunks, sorts)


def bounds() -> list[bytes]:
    return [number.to_bytes(8, "big") for number in range(1, PARTS)]


def main() -> None:
    with TemporaryDirectory() as name:
        _, chunks, sorts = prepare(int(sys.argv[1]), Path(name))
        print(len(chunks), sum(done.rows for done in sorts), peak_memory_bytes())


if __name__ == "__main__":
    main()
