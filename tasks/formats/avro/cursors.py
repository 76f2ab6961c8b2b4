"""A cursor for each record of a block of Avro values: all of them step through a schema side by side.

Guarantee: no step goes beyond the end of its own record, and a record that breaks a rule is refused with the reason and
the byte. A record's outcome depends on its own bytes only.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.arrow import binary_buffers
from tasks.formats.varints import MOST_BYTES, make_words, unpack_varints

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# Bytes around the records, so that a step which looks beyond one of them stays within the array.
PAD = 16
# Fewer cursors than this are slower side by side than one after the other: a step costs some 30 µs, and a walk 1 µs.
FEW = 32

ENDS = "ends too early, after {size} bytes"
OVERLONG = "has an integer of more than 10 bytes at byte {at}"
LENGTH = "has a negative length at byte {at}"
COUNT = "has a number of items that cannot be at byte {at}"
BRANCH = "names a branch of a union that is not there at byte {at}"
SYMBOL = "names a symbol that is not there at byte {at}"
DEEP = "is nested more than {levels} levels at byte {at}"
REST = "has bytes behind its end at byte {at}"


class Step(Protocol):
    """One step through a schema."""

    def read(self, c: "Cursors") -> None:
        """Move all cursors over a value."""

    def walk(self, w: "Walker") -> None:
        """Move one cursor over a value."""


class Block:
    """The bytes of some records, which records were refused, and which are left to a walk.

    `starts`, `ends`: of each record in `data`. `dropped`: records whose cursor is gone.
    """

    def __init__(self, values: pa.Array, starts: Ints | int = 0) -> None:
        offsets, buffer = binary_buffers(values)
        first, last = int(offsets[0]), int(offsets[-1])
        self.data = np.zeros(last - first + 2 * PAD, np.uint8)
        if buffer is not None:
            self.data[PAD:-PAD] = np.frombuffer(buffer, np.uint8)[first:last]
        edges = offsets.astype(np.int64) + (PAD - first)
        self.starts, self.ends = edges[:-1] + starts, edges[1:]
        # All eight bytes from each byte on, as one number.
        self.words = make_words(self.data)
        self.count = len(values)
        self.dropped = np.zeros(self.count, np.bool_)
        self.refused: dict[int, str] = {}
        self.left: list[int] = []
        self.depth = 0

    def refuse(self, rows: Ints, at: Ints, why: str) -> None:
        """Refuse records. `at`: positions in `data`; `why` may name {at} and {size}."""
        starts, ends = self.starts[rows], self.ends[rows]
        for row, byte, size in zip(rows.tolist(), (at - starts).tolist(), (ends - starts).tolist(), strict=True):
            self.refused[row] = why.format(at=byte, size=size)
        self.dropped[rows] = True


class Cursors:
    """Cursors of some records of a block, in their order. `rows`: their numbers; `pos`, `end`: within its data."""

    def __init__(self, block: Block, rows: Ints, pos: Ints, end: Ints) -> None:
        self.block, self.rows, self.pos, self.end = block, rows, pos, end

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, indexes: Ints) -> "Cursors":
        """Return copies of some cursors."""
        return Cursors(self.block, self.rows[indexes], self.pos[indexes], self.end[indexes])

    def keep(self, kept: Mask) -> None:
        """Go on with these cursors alone."""
        self.rows, self.pos, self.end = self.rows[kept], self.pos[kept], self.end[kept]

    def refuse(self, bad: Mask, why: str, at: Ints | None = None) -> Mask:
        """Refuse records and drop their cursors; return those that are kept. `at`: the place, if not the cursor's."""
        self.block.refuse(self.rows[bad], (self.pos if at is None else at)[bad], why)
        self.keep(~bad)
        return ~bad

    def leave(self) -> None:
        """Leave all these records to a walk of their own."""
        self.block.left += self.rows.tolist()
        self.block.dropped[self.rows] = True
        self.keep(np.zeros(len(self), np.bool_))

    def divide(self, parts: Sequence[tuple[Ints, Step]]) -> None:
        """Move some cursors by one step and some by another. `parts`: the indexes and the step of each part."""
        for indexes, step in parts:
            if len(indexes) == len(self):
                step.read(self)
                return
            part = self.select(indexes)
            step.read(part)
            stayed = indexes if len(part) == len(indexes) else indexes[~self.block.dropped[self.rows[indexes]]]
            self.pos[stayed] = part.pos
        gone = self.block.dropped[self.rows]
        if gone.any():
            self.keep(~gone)

    def advance(self, size: int) -> None:
        """Step over a fixed number of bytes."""
        over = size > self.end - self.pos
        if over.any():
            self.refuse(over, ENDS)
        self.pos += size

    def read_numbers(self) -> Ints:
        """Read an integer each."""
        number = self._read_varints()
        return ((number >> np.uint64(1)) ^ (np.uint64(0) - (number & np.uint64(1)))).view(np.int64)

    def skip_numbers(self) -> None:
        """Step over an integer each."""
        self._read_varints()

    def read_lengths(self) -> Ints:
        """Read the length of a text each, which is within its record."""
        lengths = self.read_numbers()
        # A negative length is a huge one without a sign.
        over = lengths.view(np.uint64) > (self.end - self.pos).view(np.uint64)
        return lengths[self._refuse_lengths(over, lengths)] if over.any() else lengths

    def _refuse_lengths(self, over: Mask, lengths: Ints) -> Mask:
        negative = lengths < 0
        self.block.refuse(self.rows[negative], self.pos[negative], LENGTH)
        long = over & ~negative
        self.block.refuse(self.rows[long], self.pos[long], ENDS)
        self.keep(~over)
        return ~over

    def _read_varints(self) -> npt.NDArray[np.uint64]:
        data, pos = self.block.data, self.pos
        first = data[pos]
        number, after = first.astype(np.uint64), pos + 1
        longer = np.flatnonzero(first > 0x7F)
        overlong: npt.NDArray[np.bool_] | None = None
        if len(longer):
            number[longer], sizes = unpack_varints(data, self.block.words, pos[longer])
            after[longer] += sizes - 1
            overlong = sizes > MOST_BYTES
        over = after > self.end
        if overlong is not None:
            over[longer] |= overlong
        if over.any():
            return number[self._refuse_varints(over, after)]
        self.pos = after
        return number

    def _refuse_varints(self, over: Mask, after: Ints) -> Mask:
        overlong = over & (self.end - self.pos >= MOST_BYTES)
        self.block.refuse(self.rows[overlong], self.pos[overlong], OVERLONG)
        short = over & ~overlong
        self.block.refuse(self.rows[short], self.pos[short], ENDS)
        self.pos = after
        self.keep(~over)
        return ~over


class MalformedError(ValueError):
    """A record breaks a rule of Avro."""


class Walker:
    """The cursor of one record, for what is slow side by side. It refuses what cursors do, for the same reasons.

    `todo`: the steps to come, the next one last: nesting is bounded by the data, and not by Python's stack.
    """

    def __init__(self, block: Block, row: int, first: Step) -> None:
        self.row = row
        self.base = int(block.starts[row])
        self.data = block.data[self.base : int(block.ends[row])].tobytes()
        self.pos = 0
        self.depth = 0
        self.todo: list[Step] = [first]

    def run(self) -> None:
        """Walk over the record; MalformedError says why it is refused."""
        todo = self.todo
        while todo:
            todo.pop().walk(self)
        if self.pos < len(self.data):
            self.refuse(REST)

    def refuse(self, why: str, **facts: int) -> None:
        """Raise the error."""
        raise MalformedError(why.format(at=self.pos, size=len(self.data), **facts))

    def read_number(self) -> int:
        """Read an integer."""
        number = self._read_varint()
        return (number >> 1) ^ -(number & 1)

    def _read_varint(self) -> int:
        data, at = self.data, self.pos
        byte = data[at] if at < len(data) else self._end_early()
        number, shift = byte & 0x7F, 7
        while byte > 0x7F:
            at += 1
            if shift == 7 * MOST_BYTES:
                self.refuse(OVERLONG)
            byte = data[at] if at < len(data) else self._end_early()
            number |= (byte & 0x7F) << shift
            shift += 7
        self.pos = at + 1
        return number & 0xFFFFFFFFFFFFFFFF

    def _end_early(self) -> int:
        self.refuse(ENDS)
        return 0

    def read_length(self) -> int:
        """Read the length of a text, which is within the record."""
        length = self.read_number()
        if not 0 <= length <= len(self.data) - self.pos:
            self.refuse(LENGTH if length < 0 else ENDS)
        return length

    def advance(self, size: int) -> None:
        """Step over a fixed number of bytes."""
        if size > len(self.data) - self.pos:
            self.refuse(ENDS)
        self.pos += size


def read_block(block: Block, step: Step, clear: Callable[[int], None]) -> None:
    """Move over all records. `clear`: called with a record's number before it is walked over from its start again."""
    if block.count < FEW:
        block.left += range(block.count)
    else:
        c = Cursors(block, np.arange(block.count), block.starts.copy(), block.ends)
        step.read(c)
        rest = c.pos < c.end
        if rest.any():
            c.refuse(rest, REST)
    for row in block.left:
        clear(row)
        try:
            Walker(block, row, step).run()
        except MalformedError as error:
            block.refused[row] = str(error)
