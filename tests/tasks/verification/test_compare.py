"""Contents compare alike in memory and in streams, and the first difference of a key gets its right kind."""

from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tasks.verification.compare import Kind, Mismatch, compare_spills
from tasks.verification.report import Place
from tasks.verification.spill import Spill, make_rows

Pairs = list[tuple[int, int]]


def compare(folder: Path, source: Pairs, output: Pairs, bucket_rows: int = 1 << 20, buckets: int = 3) -> list[Mismatch]:
    """Compare (key, content) pairs; source records are at offsets from 0 on, output records likewise."""
    with Spill(folder, buckets, flush_rows=4) as left, Spill(folder, buckets, flush_rows=5) as right:
        for spill, pairs in ((left, source), (right, output)):
            for offset, (key, content) in enumerate(pairs):
                digests = np.array([[key], [content]], np.uint64)
                spill.add(make_rows(digests[0], digests[1], 0, np.array([offset])))
        return list(compare_spills(left, right, bucket_rows))


def compare_copies(folder: Path, sent: list[int], found: list[int], bucket_rows: int = 1 << 20) -> list[Mismatch]:
    """Compare copies of one record by their timestamps, which may stand in any order."""
    with Spill(folder, 1) as left, Spill(folder, 1) as right:
        for spill, times in ((left, sent), (right, found)):
            digests = np.full(len(times), 7, np.uint64)
            spill.add(make_rows(digests, digests, 0, np.arange(len(times)), np.array(times)))
        return list(compare_spills(left, right, bucket_rows, in_order=False))


def at(offset: int) -> Place:
    return Place(0, offset)


PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=40)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PAIRS, PAIRS)
def test_streams_find_what_memory_finds(tmp_path: Path, source: Pairs, output: Pairs) -> None:
    """Keys with too many records for memory give the same mismatches as the others."""
    light, heavy = (compare(tmp_path, source, output, rows) for rows in (1000, 1))
    assert sorted(map(str, light)) == sorted(map(str, heavy))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PAIRS)
def test_only_the_order_within_a_key_counts(tmp_path: Path, source: Pairs) -> None:
    """The source stably sorted by key has no mismatch; another order has one for each key that it concerns."""
    assert compare(tmp_path, source, sorted(source, key=lambda pair: pair[0])) == []
    output = sorted(source)
    by_key = [[c for k, c in side if k == key] for key in range(5) for side in (source, output)]
    differing = sum(a != b for a, b in zip(by_key[::2], by_key[1::2], strict=True))
    assert len(compare(tmp_path, source, output)) == differing


@pytest.mark.parametrize(
    ("output", "mismatch"),
    [
        ([(7, 1), (7, 3)], Mismatch(Kind.MISSING, at(1), at(1), at(2))),
        ([(7, 1), (7, 2)], Mismatch(Kind.MISSING, at(2), at(2))),
        ([(7, 1), (7, 1), (7, 2), (7, 3)], Mismatch(Kind.DOUBLED, at(1), at(1), at(0))),
        ([(7, 1), (7, 2), (7, 3), (7, 3)], Mismatch(Kind.DOUBLED, None, at(3), at(2))),
        ([(7, 1), (7, 9), (7, 3)], Mismatch(Kind.ALTERED, at(1), at(1))),
        ([(7, 1), (7, 9), (7, 2), (7, 3)], Mismatch(Kind.FOREIGN, at(1), at(1))),
        ([(7, 1), (7, 3), (7, 2)], Mismatch(Kind.MISPLACED, at(1), at(1), at(2))),
        ([(7, 1), (7, 2), (7, 3), (8, 4)], Mismatch(Kind.FOREIGN, None, at(3))),
        ([], Mismatch(Kind.MISSING, at(0), None)),
    ],
)
@pytest.mark.parametrize("bucket_rows", [1, 1000])
def test_kinds(tmp_path: Path, output: Pairs, mismatch: Mismatch, bucket_rows: int) -> None:
    """Lost, doubled, altered, foreign and misplaced records are told apart, with where they are."""
    assert compare(tmp_path, [(7, 1), (7, 2), (7, 3)], output, bucket_rows) == [mismatch]


def test_copies_whose_order_is_not_known(tmp_path: Path) -> None:
    """Without keys the timestamps of a record's copies are compared, and not which copy is where.

    A copy without a timestamp has got that of its sending, which is later.
    """
    assert compare_copies(tmp_path, [30, 10, 0, 20], [10, 20, 30, 99]) == []
    assert compare_copies(tmp_path, [30, 10, 20], [10, 20, 31]) == [
        Mismatch(Kind.RETIMED, at(0), at(2), times=(30, 31))
    ]
    # Of very many copies only the number counts.
    assert compare_copies(tmp_path, [30, 10, 20], [10, 20, 31], 0) == []
    assert [m.kind for m in compare_copies(tmp_path, [30, 10, 20], [10, 20], 0)] == [Kind.MISSING]
