"""Records as Arrow columns: the schemas that the stages share, and the buffers below a binary column."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

HEADERS = pa.list_(pa.struct([("name", pa.string()), ("value", pa.binary())]))
# A fetched record. `timestamp` in ms; `headers` null where there are none.
RECORD = pa.schema(
    {
        "value": pa.binary(),
        "key": pa.binary(),
        "headers": HEADERS,
        "timestamp": pa.int64(),
        "offset": pa.int64(),
        "partition": pa.int32(),
    }
)
DEAD_LETTERS = pa.schema(
    {
        "partition": pa.int32(),
        "offset": pa.int64(),
        "timestamp": pa.int64(),
        "key": pa.binary(),
        "value": pa.binary(),
        "headers": HEADERS,
        "reason": pa.string(),
    }
)


def partition_column(partitions: int | Sequence[int], count: int) -> pa.Array:
    """Return the column of RECORD for so many records, which are of one partition or of one each."""
    if isinstance(partitions, int):
        return pa.repeat(pa.scalar(partitions, pa.int32()), count)
    return pa.array(partitions, pa.int32())


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array. Unlike `combine_chunks` it does not copy a column that is one already."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def binary_buffers(array: pa.Array) -> tuple[npt.NDArray[np.int32], pa.Buffer | None]:
    """Return the offsets (n + 1) of a binary Arrow array, and the data they point into."""
    if not pa.types.is_binary(array.type):
        raise TypeError(f"expected binary with 32-bit offsets, got {array.type}")
    _, offsets, data = array.buffers()
    if offsets is None or len(array) == 0:
        return np.zeros(len(array) + 1, np.int32), None
    return np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1], data


def slice_text(
    text: pa.Buffer, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], there: npt.NDArray[np.bool_]
) -> pa.Array:
    """Return slices of a text as binary; null where `there` is false. Starts and ends ascend, also there."""
    # An array of the slices and all between them needs no copy of the bytes; Arrow takes every second entry of it.
    edges = np.zeros(2 * len(starts) + 1, np.int32)
    edges[0:-1:2], edges[1::2] = starts, ends
    if len(starts):
        edges[-1] = edges[-2]
    pieces = pa.Array.from_buffers(pa.binary(), len(edges) - 1, [None, pa.py_buffer(edges), text])
    return pieces.take(pa.array(np.arange(0, len(edges) - 1, 2), mask=None if there.all() else ~there))
