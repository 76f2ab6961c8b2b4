"""Sums of marks are equal if and only if both sides have the same records, those of a key in the same order."""

from collections.abc import Iterable
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings

from tasks.verification import marks as module
from tasks.verification.content import Digests, digest_all
from tasks.verification.fetched import UnprovenError
from tasks.verification.marks import MODULUS, Marker, PlainMarks, RankedMarks
from tasks.verification.output_marks import TieRanks

Pairs = list[tuple[int, int]]
PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=40)
SIZE = st.integers(1, 7)


def digest(numbers: Iterable[int]) -> Digests:
    return digest_all(texts(numbers).to_pylist())


def whole(pairs: Pairs) -> Digests:
    """Return the digests of whole records: a record's key is a part of it, so records of two keys are never alike."""
    return digest(10 * key + content for key, content in pairs)


def texts(numbers: Iterable[int]) -> pa.Array:
    return pa.array([b"%d" % number for number in numbers], pa.binary())


def source_sum(folder: Path, marker: Marker, pairs: Pairs, size: int) -> tuple[int, int]:
    """Return the ranked and the plain sum of (key, content) pairs that come in blocks of a size."""
    plain = PlainMarks(marker)
    with RankedMarks(folder, marker, len(pairs)) as ranked:
        for start in range(0, len(pairs), size):
            part = pairs[start : start + size]
            for source in (ranked, plain):
                source.add(texts(key for key, _ in part), None, marker.begin(whole(part), None, None))
        return ranked.sum(), plain.sum()


def output_sum(marker: Marker, pairs: Pairs, size: int) -> tuple[int, bool]:
    """Return the sum of pairs that are sorted by key, and whether two have the same."""
    ranks, total = TieRanks(), 0
    for start in range(0, len(pairs), size):
        part = pairs[start : start + size]
        found = ranks.rank(texts(key for key, _ in part))
        total += marker.sum(marker.begin(whole(part), None, None), found)
    return total % MODULUS, ranks.has_ties


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PAIRS, SIZE, SIZE, st.permutations(range(40)))
@example([(1, 0), (1, 1)], 1, 1, [1, 0, *range(2, 40)])
@example([(2, 2), (1, 0), (1, 2), (2, 0)], 1, 1, [3, 2, 1, 0, *range(4, 40)])
def test_the_order_of_equal_keys_counts(tmp_path: Path, pairs: Pairs, size: int, other: int, order: list[int]) -> None:
    """A stable sort has the source's sum. Another order of records has it only if each key's contents are in order."""
    marker = Marker()
    ranked, unranked = source_sum(tmp_path, marker, pairs, size)
    right = sorted(pairs, key=lambda pair: pair[0])
    found, has_ties = output_sum(marker, right, other)
    assert found == ranked
    assert has_ties == (len({key for key, _ in pairs}) < len(pairs))
    assert has_ties or unranked == found
    shuffled = sorted((pairs[i] for i in order if i < len(pairs)), key=lambda pair: pair[0])
    assert (output_sum(marker, shuffled, other)[0] == ranked) == (shuffled == right)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PAIRS.filter(bool), SIZE, st.data())
def test_what_a_record_is_counts(tmp_path: Path, pairs: Pairs, size: int, data: st.DataObject) -> None:
    """A record that is lost, doubled, altered or exchanged changes the sum."""
    marker = Marker()
    ranked, unranked = source_sum(tmp_path, marker, pairs, size)
    at = data.draw(st.integers(0, len(pairs) - 1))
    key, content = pairs[at]
    for changed in ([], [(key, content), (key, content)], [(key, content + 1)]):
        other = pairs[:at] + changed + pairs[at + 1 :]
        if other:
            assert ranked not in source_sum(tmp_path, marker, other, size)
            assert unranked not in source_sum(tmp_path, marker, other, size)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PAIRS, SIZE)
def test_a_bucket_that_does_not_fit_memory(tmp_path: Path, pairs: Pairs, size: int) -> None:
    """The records of a bucket are ranked alike in one piece and in many."""
    marker = Marker()
    whole = source_sum(tmp_path, marker, pairs, size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FLUSH_ROWS", 3)
        patch.setattr(module, "PIECE_ROWS", 2)
        assert source_sum(tmp_path, marker, pairs, size) == whole


def test_each_partition_has_ranks_of_its_own(tmp_path: Path) -> None:
    """Where partitions count, a record is ranked among those of its key in its partition."""
    marker, keys, where = Marker(), texts([1, 1, 1]), np.array([0, 1, 0])
    marks = marker.begin(digest([7, 8, 9]), where, None)
    with RankedMarks(tmp_path, marker, 3) as source:
        source.add(keys, where, marks)
        assert source.sum() == marker.sum(marks, np.array([0, 0, 1]))


def test_partition_and_time_count() -> None:
    """Marks of equal contents differ by partition and by timestamp, where these are given."""
    marker, contents = Marker(), digest([7, 7])
    for partitions, times in ((np.array([0, 1]), None), (None, np.array([5, 6])), (np.array([0, 0]), np.array([5, 6]))):
        first, second = marker.begin(contents, partitions, times).tolist()
        assert first != second


def test_marks_of_another_verification_differ() -> None:
    """Factors are random, so no records can be made that have the same sum of marks."""
    ranks = np.array([3])
    assert Marker().sum(digest([7]), ranks) != Marker().sum(digest([7]), ranks)


@pytest.mark.parametrize("blocks", [[[b"b", b"a"]], [[b"a", b"b"], [b"a"]]], ids=["within a block", "between blocks"])
def test_keys_out_of_order(blocks: list[list[bytes]]) -> None:
    """Keys that do not ascend are found, also from one block to the next; a new beginning may be lower."""
    ranks = TieRanks()
    for block in blocks[:-1]:
        ranks.rank(pa.array(block, pa.binary()))
    with pytest.raises(UnprovenError):
        ranks.rank(pa.array(blocks[-1], pa.binary()))
    ranks.begin()
    assert ranks.rank(pa.array([b"a", b"a"], pa.binary())).tolist() == [0, 1]
