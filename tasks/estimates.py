"""Estimates of what a run takes: records, bytes, disk, memory and seconds, from a survey and from former runs.

They are what is expected, for a person; the check of the work folder has a safe bound of its own. On sample data each
is within a factor of 1.5 of the real run. Seconds without a former run of the job are rough: machines differ.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from tasks.file_columns import file_columns
from tasks.manifests import Snapshot
from tasks.run_record import RunRecord
from tasks.settings.budget import BASE_BYTES, Budget
from tasks.settings.job import Job
from tasks.sorting.order import order_of
from tasks.survey import Survey

# A row number in the file of an order, and a row's place in the memory of a part beside its bytes.
_NUMBER_BYTES: Final = 4
_ROW_BYTES: Final = 8
# A parser has copies of what it parses; DuckDB's rows are larger than their columns.
_PARSER_FACTOR: Final = 4
_SORT_FACTOR: Final = 2
# Runs are alike in size within this difference of logarithms; so many of them tell the speed.
_ALIKE: Final = 0.5
_MOST_ALIKE: Final = 3


@dataclass(frozen=True)
class Rate:
    """The time of a stage, in seconds: to begin, for a row, and for a byte of its record."""

    begin: float
    row: float
    byte: float

    def seconds(self, rows: float, mean_record_bytes: float) -> float:
        """Return the time for so many rows."""
        return self.begin + rows * (self.row + self.byte * mean_record_bytes)


# Measured with the sample data and records of 1 kB, on two cores with the broker on them too.
_RATES: Final[Mapping[str, Rate]] = {
    "dump": Rate(0.3, 0.4e-6, 3e-9),
    "sort": Rate(0.05, 0.12e-6, 0.0),
    "publish": Rate(0.3, 0.3e-6, 3e-9),
}


@dataclass(frozen=True)
class Estimates:
    """The expected needs of a run. `seconds`: of its stages; `is_rough`: no former run of the job tells the speed.

    `memory_bytes`: the peak of the process. `disk_bytes`: in the work folder, of which the spill of a sort is no part.
    """

    records: int
    dead_letters: int
    record_bytes: int
    disk_bytes: int
    memory_bytes: int
    seconds: float
    is_rough: bool


def estimate_run(job: Job, snapshot: Snapshot, survey: Survey, former: Iterable[RunRecord]) -> Estimates:
    """Estimate the run that reads this snapshot. `former`: the job's runs in its ledger.

    If the survey has met no record, as on a slow cluster, size and disk are the snapshot's own, which are safe bounds.
    """
    mean = survey.mean_record_bytes or snapshot.mean_record_bytes
    records = round(snapshot.span * survey.share)
    rows = round(records * survey.placed_share)
    alike = find_alike(former, rows)
    return Estimates(
        records=records,
        dead_letters=records - rows,
        record_bytes=round(records * mean),
        disk_bytes=round(_disk(job, survey, rows) + (records - rows) * mean) if survey.records else snapshot.disk_bytes,
        memory_bytes=min(round(_memory(job, survey, rows)), job.memory_bytes),
        seconds=sum(_seconds(stage, job, survey, rows, alike) for stage in _RATES),
        is_rough=not alike,
    )


@dataclass(frozen=True)
class _RowSizes:
    """Bytes of a row in one sort: `loaded` into the memory of a part, in the `part`'s file, and of its `key`."""

    loaded: float
    part: float
    key: float


def _row_sizes(job: Job, survey: Survey) -> list[_RowSizes]:
    sizes = []
    for sort, place in zip(job.sort_list, survey.placements.of_sorts, strict=True):
        # The columns of an output's record, and those by which its rows are ordered.
        files = file_columns(job, sort).sources if sort.has_folder else ()
        record = survey.row_bytes(*_columns("value", place.key, "headers", "timestamp", *files))
        key = survey.row_bytes(*_columns(place.partition, *order_of(job.key_columns, sort).columns))
        sizes.append(_RowSizes(record + _ROW_BYTES, record + key, key))
    return sizes


def _columns(*names: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, names)))


def _disk(job: Job, survey: Survey, rows: int) -> float:
    """Return the bytes of chunks and orders, and of the parts of each sort whose records do not fit the memory."""
    most, sizes = Budget.of(job).part_bytes, _row_sizes(job, survey)
    parts = sum(rows * size.part for size in sizes if rows * size.loaded > most)
    return rows * (survey.row_bytes() + _NUMBER_BYTES * len(sizes)) + parts


def _memory(job: Job, survey: Survey, rows: int) -> float:
    """Return the peak: stages follow one another, so it is that of the largest, each within its budget."""
    budget, size = Budget.of(job), rows * survey.mean_record_bytes
    fetched = budget.consumer_queue_bytes + _PARSER_FACTOR * budget.chunk_buffer_bytes
    dump = min(job.dump_concurrency * fetched, _PARSER_FACTOR * size)
    sizes = _row_sizes(job, survey)
    row, key = max(size.loaded for size in sizes), max(size.key for size in sizes) + _ROW_BYTES
    loaded = min(rows * row, budget.part_bytes)
    in_part = loaded / row
    sort = min(in_part * key * _SORT_FACTOR, budget.duckdb_bytes) * job.sort_concurrency
    publish = loaded + in_part * _NUMBER_BYTES + min(budget.producer_queue_bytes, size * len(job.sort_list))
    return BASE_BYTES + max(dump, sort, publish)


def _seconds(stage: str, job: Job, survey: Survey, rows: int, former: Sequence[RunRecord]) -> float:
    """Return the time of a stage: by the rates, and by how much former runs of a like size differed from them."""

    def by_rate(placed: int) -> float:
        times = 1 if stage == "dump" else len(job.sort_list)
        return _RATES[stage].seconds(placed * times, survey.mean_record_bytes)

    ratios = [run.seconds[stage] / by_rate(run.placed) for run in former]
    return by_rate(rows) * (median(ratios) if ratios else 1.0)


def find_alike(former: Iterable[RunRecord], rows: int) -> list[RunRecord]:
    """Return the newest of the runs that are nearest in size to so many rows, and that have the times of all stages."""
    timed = [run for run in former if run.placed and run.seconds.keys() >= _RATES.keys()]
    distances = {run.run: abs(math.log(run.placed / max(rows, 1))) for run in timed}
    nearest = min(distances.values(), default=0.0)
    alike = [run for run in timed if distances[run.run] <= nearest + _ALIKE]
    return sorted(alike, key=lambda run: run.run)[-_MOST_ALIKE:]
