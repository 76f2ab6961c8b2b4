"""Compares what was read from the source with what was read from an output: content, and the order of equal keys.

Both sides come as spills, in order of arrival and in order of output. If for every key both sides have the same records
in the same order, then the output holds the source's records, and ties are in arrival order. The order of different
keys is checked elsewhere. For each key the first difference is reported, with its kind.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from tasks.verification.content import Digests
from tasks.verification.report import Place
from tasks.verification.spill import BUCKET_ROWS, ROW, Rows, Spill, place_of

# Records of one key that are examined on both sides of its first difference, to tell what happened.
_WINDOW = 1000
# Keys that are explained in one bucket: more than are ever listed.
_EXPLAINED_KEYS = 1000


class Kind(Enum):
    """Kinds of difference: what happened to a record."""

    MISSING = "missing"
    ALTERED = "altered"
    DOUBLED = "doubled"
    FOREIGN = "foreign"
    MISPLACED = "misplaced"
    RETIMED = "retimed"


@dataclass(frozen=True)
class Mismatch:
    """One difference. `source`: the expected record. `output`: its place; None for a key that is missing altogether.

    `actual`: for a misplaced or doubled record, the source's record that is there. `times`: for a retimed one, the
    expected and the actual timestamp.
    """

    kind: Kind
    source: Place | None
    output: Place | None
    actual: Place | None = None
    times: tuple[int, int] | None = None


@dataclass(frozen=True)
class _Group:
    """Rows of one key around the first difference, at index `at` of both sides."""

    source: Rows
    output: Rows
    at: int


def compare_spills(
    source: Spill, output: Spill, bucket_rows: int = BUCKET_ROWS, *, in_order: bool = True
) -> Iterator[Mismatch]:
    """Yield mismatches, bucket by bucket; memory holds at most so many rows of each side, a few times over.

    `in_order`: rows of one key must stand in the order of arrival. If not, contents stand for keys, and copies of one
    record differ by their timestamps alone, in any order; those of a record with very many copies are not compared.
    """
    for bucket in range(source.buckets):
        heavy = _find_heavy_keys(source, output, bucket, bucket_rows)
        yield from map(_explain, _compare_light(source, output, bucket, heavy, in_order=in_order))
        for key in heavy:
            yield from map(_explain, _compare_heavy(source, output, bucket, key, in_order=in_order))


def _find_heavy_keys(source: Spill, output: Spill, bucket: int, bucket_rows: int) -> Digests:
    """Find keys with too many records to be sorted in memory; a bucket of average size has none."""
    if max(source.count(bucket), output.count(bucket)) <= 3 * bucket_rows:
        return np.empty(0, np.uint64)
    sides = [_count_keys(spill, bucket) for spill in (source, output)]
    return np.unique(np.concatenate([keys[counts > bucket_rows // 2] for keys, counts in sides]))


def _count_keys(spill: Spill, bucket: int) -> tuple[Digests, npt.NDArray[np.int64]]:
    keys, counts = np.empty(0, np.uint64), np.empty(0, np.int64)
    for rows in spill.read(bucket):
        new, found = np.unique(rows["key"], return_counts=True)
        keys, inverse = np.unique(np.concatenate([keys, new]), return_inverse=True)
        counts = np.bincount(inverse, np.concatenate([counts, found])).astype(np.int64)
    return keys, counts


def _compare_light(source: Spill, output: Spill, bucket: int, heavy: Digests, *, in_order: bool) -> Iterator[_Group]:
    left, right = (_load(spill, bucket, heavy, in_order=in_order) for spill in (source, output))
    if not np.array_equal(left["key"], right["key"]) or _differ(left, right).any():
        yield from _differing_groups(left, right)


def _differ(source: Rows, output: Rows) -> npt.NDArray[np.bool_]:
    """Return for each row whether the content differs, or the timestamp, if the source has one to compare.

    A record without a timestamp is sent like any other, with the time of its sending.
    """
    expected = source["time"]
    retimed = (expected > 0) & (expected != output["time"])
    return np.asarray(retimed | (source["content"] != output["content"]))


def _load(spill: Spill, bucket: int, heavy: Digests, *, in_order: bool) -> Rows:
    """Load the bucket without its heavy keys, ordered by key; within each in the spill's order, or by timestamp."""
    parts = [rows[~np.isin(rows["key"], heavy)] if len(heavy) else rows for rows in spill.read(bucket)]
    rows = np.concatenate([np.empty(0, ROW), *parts])
    if in_order:
        return rows[np.argsort(rows["key"], kind="stable")]
    # A record without a timestamp is sent with that of its sending, which is later than those of the source.
    return rows[np.lexsort((np.where(rows["time"] > 0, rows["time"], np.iinfo(np.int64).max), rows["key"]))]


def _differing_groups(source: Rows, output: Rows) -> Iterator[_Group]:
    keys = np.union1d(source["key"], output["key"])
    left, right = _bounds(source, keys), _bounds(output, keys)
    bad = np.diff(left) != np.diff(right)
    # Without the keys whose counts differ, both sides have the same length, row by row.
    paired = source[np.repeat(~bad, np.diff(left))], output[np.repeat(~bad, np.diff(right))]
    unequal = paired[0]["key"][_differ(*paired)]
    bad[np.searchsorted(keys, unequal)] = True
    groups = [(source[left[i] : left[i + 1]], output[right[i] : right[i + 1]]) for i in np.flatnonzero(bad)]
    groups.sort(key=lambda sides: place_of(sides[1][0] if len(sides[1]) else sides[0][0]))
    for sides in groups[:_EXPLAINED_KEYS]:
        yield _cut_group(*sides)


def _bounds(rows: Rows, keys: Digests) -> npt.NDArray[np.int64]:
    """Return where the rows of each of the sorted keys begin, and where those of the last one end."""
    return np.append(np.searchsorted(rows["key"], keys), len(rows))


def _cut_group(source: Rows, output: Rows) -> _Group:
    shared = min(len(source), len(output))
    unequal = np.flatnonzero(_differ(source[:shared], output[:shared]))
    at = int(unequal[0]) if len(unequal) else shared
    start = max(0, at - _WINDOW)
    return _Group(source[start : at + _WINDOW], output[start : at + _WINDOW], at - start)


def _compare_heavy(source: Spill, output: Spill, bucket: int, key: np.uint64, *, in_order: bool) -> Iterator[_Group]:
    """Find the first difference of one key, by reading both sides in step."""

    def read(spill: Spill) -> Iterator[Rows]:
        return _read_key(spill, bucket, key, timed=in_order)

    at = _first_unequal(read(source), read(output))
    if at is not None:
        start = max(0, at - _WINDOW)
        left, right = (_slice(read(spill), start, at + _WINDOW) for spill in (source, output))
        yield _Group(left, right, at - start)


def _read_key(spill: Spill, bucket: int, key: np.uint64, *, timed: bool) -> Iterator[Rows]:
    for rows in spill.read(bucket):
        found = rows[rows["key"] == key]
        if not timed:
            found["time"] = 0
        yield found


def _first_unequal(left: Iterator[Rows], right: Iterator[Rows]) -> int | None:
    """Return the index of the first row that differs in content or has no partner; None if there is none."""
    index, a, b = 0, np.empty(0, ROW), np.empty(0, ROW)
    while True:
        a, b = _refill(a, left), _refill(b, right)
        shared = min(len(a), len(b))
        unequal = np.flatnonzero(_differ(a[:shared], b[:shared]))
        if len(unequal):
            return index + int(unequal[0])
        if not shared:
            return index if len(a) or len(b) else None
        index, a, b = index + shared, a[shared:], b[shared:]


def _refill(rows: Rows, more: Iterator[Rows]) -> Rows:
    while not len(rows):
        following = next(more, None)
        if following is None:
            break
        rows = following
    return rows


def _slice(parts: Iterator[Rows], start: int, end: int) -> Rows:
    wanted, index = [np.empty(0, ROW)], 0
    for rows in parts:
        wanted.append(rows[max(0, start - index) : max(0, end - index)])
        index += len(rows)
        if index >= end:
            break
    return np.concatenate(wanted)


def _explain(group: _Group) -> Mismatch:
    """Tell what happened at the first difference, as far as the records around it show."""
    at = group.at
    expected = place_of(group.source[at]) if at < len(group.source) else None
    if at < len(group.output):
        return _explain_present(group, expected, place_of(group.output[at]))
    # The best place to look is behind the last record of the key in the output.
    last = place_of(group.output[-1]) if len(group.output) else None
    return Mismatch(Kind.MISSING, expected, last and Place(last.partition, last.offset + 1))


def _explain_present(group: _Group, expected: Place | None, where: Place) -> Mismatch:
    at, content = group.at, group.output["content"][group.at]
    if expected is not None and group.source["content"][at] == content:
        times = (int(group.source["time"][at]), int(group.output["time"][at]))
        return Mismatch(Kind.RETIMED, expected, where, times=times)
    earlier, later = group.source[:at], group.source[at + 1 :]
    if (known := np.flatnonzero(later["content"] == content)).size:
        wanted = group.source["content"][at]
        kind = Kind.MISPLACED if wanted in group.output["content"][at + 1 :] else Kind.MISSING
        return Mismatch(kind, expected, where, place_of(later[known[0]]))
    if (known := np.flatnonzero(earlier["content"] == content)).size:
        return Mismatch(Kind.DOUBLED, expected, where, place_of(earlier[known[-1]]))
    if expected is None or group.source["content"][at] in group.output["content"][at + 1 :]:
        return Mismatch(Kind.FOREIGN, expected, where)
    return Mismatch(Kind.ALTERED, expected, where)
