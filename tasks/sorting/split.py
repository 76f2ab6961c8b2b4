"""Divides records that do not fit the memory into parts of consecutive keys that do, before the sort.

It is one pass over the files, whatever the number of parts: bounds are taken from a sample, and every record is written
the part between its bounds, in order of arrival as before. A part that is too large all the same, since records of its
keys are larger than others, is divided again.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from tasks.chunks import TableWriter
from tasks.run_context import current_run
from tasks.sorting.order import ROW, Order
from tasks.sorting.rows import RowGroups

# A pass has one file open for each part.
_MOST_PARTS: Final = 32
# Rows sampled for each part: its size is then within a tenth of the wanted one.
_SAMPLED_ROWS: Final = 1000
_FILL: Final = 0.85


@dataclass(frozen=True)
class Division:
    """The division of one sort; `carried`: the columns that parts have besides those of the order."""

    order: Order
    carried: tuple[str, ...]
    most_bytes: int
    threads: int
    # The path of a part's file, by its number.
    name: Callable[[int], Path]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a part's file."""
        return tuple(dict.fromkeys((*self.carried, *self.order.columns)))


def divide(files: Sequence[Path], division: Division) -> list[tuple[Path, ...]]:
    """Return the files of each part, parts in order; the given files if all fits."""
    given = tuple(files)
    # The pending parts form a stack: the parts of a part come before the next part.
    pending, fitting, numbers = [given], [], count()
    while pending:
        whole = pending.pop()
        groups = RowGroups(whole)
        sizes = [groups.size(i, division.carried) for i in range(len(groups))]
        bounds = _find_bounds(groups, sizes, division) if sum(sizes) > division.most_bytes else []
        if not bounds:
            fitting.append(whole)
            continue
        parts = _distribute(groups, bounds, division, numbers)
        if whole != given:
            for file in whole:
                file.unlink()
        pending += [(part,) for part in reversed(parts)]
    return fitting


def _find_bounds(groups: RowGroups, sizes: Sequence[int], division: Division) -> list[dict[str, Any]]:
    """Find the first row of each part but the first: key and number. A small sample may give fewer than wanted."""
    parts = min(_MOST_PARTS, int(sum(sizes) / (division.most_bytes * _FILL)) + 1)
    key_bytes = sum(groups.size(i, division.order.columns) for i in range(len(groups)))
    # Keys may be as large as records: the sample takes no more than a quarter of a part's limit, or two rows.
    every = max(groups.rows // (_SAMPLED_ROWS * parts), 4 * key_bytes // division.most_bytes)
    every = max(1, min(every, groups.rows // 2))
    samples = []
    for i, size in enumerate(sizes):
        current_run().stop.check()
        first, rows = groups.starts[i], groups.starts[i + 1] - groups.starts[i]
        numbers = np.arange(-first % every, rows, every)
        sample = groups.read(i, division.order.columns).take(pa.array(numbers))
        weights = np.full(len(numbers), size / rows)
        samples.append(sample.append_column(ROW, pa.array(first + numbers)).append_column("weight", pa.array(weights)))
    sample = division.order.sort(pa.concat_tables(samples).combine_chunks())
    ends = np.cumsum(np.asarray(sample.column("weight")))
    rows = np.searchsorted(ends, ends[-1] * np.arange(1, parts) / parts) + 1
    bounds: list[dict[str, Any]] = sample.take(pa.array(np.unique(rows[rows < len(sample)]))).to_pylist()
    return bounds


def _distribute(
    groups: RowGroups, bounds: list[dict[str, Any]], division: Division, numbers: Iterator[int]
) -> list[Path]:
    """Write every row to the file of its part; return the files, which are named by the next numbers."""
    work = partial(_split_group, groups, bounds, division)
    with ExitStack() as stack:
        writers: list[TableWriter] = []
        for slices in groups.each(work, division.threads):
            current_run().stop.check()
            if not writers:
                schema = slices[0].schema
                paths = (division.name(next(numbers)) for _ in range(len(bounds) + 1))
                writers = [stack.enter_context(TableWriter(path, schema)) for path in paths]
            for writer, rows in zip(writers, slices, strict=True):
                writer.write(rows)
    return [path for writer in writers if (path := writer.finish()) is not None]


def _split_group(groups: RowGroups, bounds: list[dict[str, Any]], division: Division, index: int) -> list[pa.Table]:
    """Yield the rows of one row group that belong to each part, in order of arrival."""
    table = groups.read(index, division.columns).select(division.columns)
    numbers = np.zeros(len(table), np.int8)
    for bound in bounds:
        numbers += division.order.reaches(table, groups.starts[index], bound)
    ordered = table.take(pa.array(np.argsort(numbers, kind="stable")))
    counts = np.bincount(numbers, minlength=len(bounds) + 1).tolist()
    starts = np.concatenate([[0], np.cumsum(counts)]).tolist()
    return [ordered.slice(start, count) for start, count in zip(starts, counts, strict=False)]
