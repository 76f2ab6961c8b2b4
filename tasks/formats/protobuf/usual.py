"""Reads the usual messages of a block, all side by side: fields of the schema in ascending order, and texts of ASCII.

Guarantee: what it reads is what google.protobuf would; of all other records, which may be messages or not, it knows
nothing.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.arrow import binary_buffers
from tasks.formats.protobuf.cursors import Block
from tasks.formats.protobuf.paths import Steps
from tasks.formats.protobuf.plan import Plan
from tasks.formats.protobuf.slots import Mask, Slot, is_plain

# Records whose cursors move at once: they stay in the processor's cache.
_ROWS: Final = 4096
_BYTES: Final = 1 << 20
# With fewer cursors moved at once, or fewer records proven, the other ways are faster.
_LEAST_ROWS: Final = 400
_LEAST_SHARE: Final = 0.5


class UsualReader:
    """Reads places of messages of a type (Descriptor). `reads_places`: whether it can, or only tells messages."""

    def __init__(self, message: Any, places: Sequence[Steps]) -> None:
        self.reads_places = all(map(is_plain, places))
        self._slots = [Slot(steps) for steps in places] if self.reads_places else []
        self._plan = Plan(message, [(slot, 0) for slot in self._slots], {})

    def read(self, values: pa.Array) -> tuple[Mask, list[pa.Array]]:
        """Return which values (binary, none null) are certainly messages, and an array for each place, null elsewhere.

        There are no arrays unless it `reads_places`.
        """
        proven = np.zeros(len(values), np.bool_)
        offsets, buffer = binary_buffers(values)
        edges, text = offsets.astype(np.int64), np.frombuffer(buffer or b"", np.uint8)
        for slot in self._slots:
            slot.begin(len(values))
        for start, end in pairwise(_cut(edges)):
            part = edges[start : end + 1]
            block = Block(text[part[0] : part[-1]], part - part[0], int(part[0]), start)
            proven[start:end] = block.prove(self._plan)
            if proven[start:end].mean() < _LEAST_SHARE or block.moves < _LEAST_ROWS * block.steps:
                break
        return proven, [slot.column(buffer, edges, proven) for slot in self._slots]


def _cut(edges: npt.NDArray[np.int64]) -> Iterator[int]:
    """Yield the first record of each part that is read at once, and the end of the last one."""
    start, end = 0, 0
    while True:
        yield start
        fitting = int(np.searchsorted(edges, edges[start] + _BYTES, "right")) - 1
        end = min(start + _ROWS, fitting)
        if end - start < _LEAST_ROWS:
            return
        start = end
