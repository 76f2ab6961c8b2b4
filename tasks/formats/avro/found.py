"""The values that are found at one path: where each is in its record, and which leaf of the schema it is.

From these numbers a column is made at once, when all records are read.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tasks.formats.avro.cursors import Cursors, Ints, Walker

# Numbers of leaves; those of the schema's leaves follow.
MISSING, NULL, FIRST_LEAF = 0, 1, 2


@dataclass
class Found:
    """The values of one path. `leaves`: record → MISSING, NULL, or FIRST_LEAF and the number of a leaf.

    `values`: record → the number, the bits of a double, or the position of the first byte; `lengths`: of bytes.
    """

    leaves: npt.NDArray[np.uint16] = field(default_factory=lambda: np.zeros(0, np.uint16))
    values: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    lengths: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    def begin(self, count: int) -> None:
        """Make room for a block: nothing is found yet."""
        self.leaves, self.values = np.zeros(count, np.uint16), np.zeros(count, np.int64)
        self.lengths = np.zeros(count, np.int64)

    def put(self, c: Cursors, leaf: int, values: Ints | None = None, lengths: Ints | None = None) -> None:
        """Note a value for each cursor."""
        # Cursors stay in order, so all of them are all records.
        rows = slice(None) if len(c) == len(self.leaves) else c.rows
        self.leaves[rows] = leaf
        if values is not None:
            self.values[rows] = values
        if lengths is not None:
            self.lengths[rows] = lengths

    def put_one(self, w: Walker, leaf: int, value: int = 0, length: int = 0) -> None:
        """Note the value of one record."""
        self.leaves[w.row] = leaf
        self.values[w.row] = (value + 2**63) % 2**64 - 2**63
        self.lengths[w.row] = length
