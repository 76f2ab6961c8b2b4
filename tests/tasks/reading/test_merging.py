"""The merge of sorted streams, beside Python's own."""

import heapq
from itertools import pairwise

import hypothesis.strategies as st
import pyarrow as pa
from hypothesis import given

from tasks.reading.merging import KEY, Blocks, merge_blocks

Row = tuple[bytes, int, int]

KEYS = st.one_of(st.binary(max_size=3), st.binary(min_size=8, max_size=8), st.sampled_from([b"", b"a", b"a\0"]))


def blocks(rows: list[Row], cuts: list[int]) -> Blocks:
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    for start, end in pairwise(edges):
        keys, streams, numbers = zip(*rows[start:end], strict=True)
        yield pa.table({KEY: pa.array(keys, pa.binary()), "stream": streams, "number": numbers})


@given(st.lists(st.tuples(st.lists(KEYS, max_size=40), st.lists(st.integers(0, 40), max_size=8)), max_size=6))
def test_rows_come_as_from_a_heap(inputs: list[tuple[list[bytes], list[int]]]) -> None:
    """Whatever the keys, ties and blocks are, rows come by key, stream, and their order in the stream."""
    streams = [[(key, i, n) for n, key in enumerate(sorted(keys))] for i, (keys, _) in enumerate(inputs)]
    cut = [blocks(rows, cuts) for rows, (_, cuts) in zip(streams, inputs, strict=True)]
    merged = [tuple(row.values()) for table in merge_blocks(cut, threads=1) for row in table.to_pylist()]
    assert merged == list(heapq.merge(*streams))


def test_without_keys() -> None:
    """If nobody wants the keys of merged rows, the rows are the same without them."""
    streams = [[(b"%d" % (n % 3), i, n) for n in range(6)] for i in range(2)]
    streams = [sorted(rows) for rows in streams]
    whole, bare = (
        pa.concat_tables(merge_blocks([blocks(rows, [2]) for rows in streams], with_keys=keys))
        for keys in (True, False)
    )
    assert bare.equals(whole.drop_columns(KEY))


def test_a_heavy_key_over_many_blocks() -> None:
    """Equal keys of the first stream all come before those of the second, in blocks of bounded size."""
    rows = [[(b"k", i, n) for n in range(1000)] for i in range(3)]
    tables = list(merge_blocks([blocks(stream, list(range(0, 1000, 50))) for stream in rows]))
    assert [(row["stream"], row["number"]) for t in tables for row in t.to_pylist()] == [r[1:] for s in rows for r in s]
    assert max(map(len, tables)) <= 4 * 50
