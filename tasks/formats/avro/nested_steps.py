"""The steps over values that have parts: records, unions, arrays and maps.

Like those in `tasks/formats/avro/steps.py` they go side by side for many records, or one record at a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tasks.formats.avro.cursors import BRANCH, COUNT, DEEP, FEW, Cursors, Ints, Step, Walker
from tasks.formats.avro.found import MISSING, Found
from tasks.formats.avro.steps import Skip

# The deepest nesting of a record in itself. Parsers with a stack of their own end there or soon behind.
LEVELS = 500
_LEVELS_SIDE_BY_SIDE = 16


@dataclass
class Fields:
    """Steps over the fields of a record."""

    steps: Sequence[Step]

    def read(self, c: Cursors) -> None:
        for step in self.steps:
            step.read(c)

    def walk(self, w: Walker) -> None:
        w.todo += self.steps[::-1]


@dataclass
class Branches:
    """Steps over a value of one of several types."""

    steps: Sequence[Step]

    def read(self, c: Cursors) -> None:
        branches = c.read_numbers()
        wrong = branches.view(np.uint64) >= len(self.steps)
        if wrong.any():
            branches = branches[c.refuse(wrong, BRANCH)]
        parts = ((np.flatnonzero(branches == i), step) for i, step in enumerate(self.steps) if not _is_nothing(step))
        c.divide([(indexes, step) for indexes, step in parts if len(indexes)])

    def walk(self, w: Walker) -> None:
        branch = w.read_number()
        if not 0 <= branch < len(self.steps):
            w.refuse(BRANCH)
        w.todo.append(self.steps[branch])


def _is_nothing(step: Step) -> bool:
    return isinstance(step, Skip) and not step.size


@dataclass
class Nested:
    """A record that may hold itself; `step` is set once it is known.

    Side by side only the first levels are read. A record that goes on deeper, or with few others, is walked over.
    """

    step: Step = field(default_factory=lambda: Skip(0), repr=False)

    def read(self, c: Cursors) -> None:
        if len(c) < FEW or c.block.depth == _LEVELS_SIDE_BY_SIDE:
            c.leave()
            return
        c.block.depth += 1
        self.step.read(c)
        c.block.depth -= 1

    def walk(self, w: Walker) -> None:
        w.depth += 1
        if w.depth > LEVELS:
            w.refuse(DEEP, levels=LEVELS)
        w.todo += (_Ascend(), self.step)


class _Ascend:
    """Leaves a record that may hold itself."""

    def read(self, c: Cursors) -> None:
        """Do nothing: side by side the levels are those of Python's stack."""

    def walk(self, w: Walker) -> None:
        w.depth -= 1


class Repeated:
    """Steps over the items of an array or the entries of a map: blocks of a count and so many items, then a count of 0.

    `size`: the fewest bytes of an item; `fixed`: no item has more.
    """

    def __init__(self, item: Step, size: int, wanted: Mapping[int, Step], *, fixed: bool) -> None:
        self._item, self._size = item, size
        # Items without bytes hold nothing that could be wanted, and there may be any number of them.
        self._wanted = wanted if size else {}
        self._fixed = (fixed and not self._wanted) or not size

    def _step(self, index: int) -> Step:
        return self._wanted.get(index, self._item)

    def read(self, c: Cursors) -> None:
        block = c.block
        left, after = np.zeros(block.count, np.int64), np.empty(block.count, np.int64)
        inside, index = c.select(np.arange(len(c))), 0
        while len(inside):
            self._open_blocks(inside, left, after)
            if 0 < len(inside) < FEW:
                inside.leave()
            elif len(inside):
                self._step(index).read(inside)
                left[inside.rows] -= 1
                index += 1
        c.keep(~block.dropped[c.rows])
        c.pos = after[c.rows]

    def _open_blocks(self, inside: Cursors, left: Ints, after: Ints) -> None:
        """Read the counts of those that are at the start of a block, until none is; drop those at the end."""
        while len(at_start := np.flatnonzero(left[inside.rows] == 0)):
            part = inside.select(at_start)
            counts = self._read_counts(part)
            left[part.rows] = 0 if self._fixed else counts
            ended = counts == 0
            after[part.rows] = part.pos
            stayed = at_start[~inside.block.dropped[inside.rows[at_start]]]
            inside.pos[stayed] = part.pos
            kept = ~inside.block.dropped[inside.rows]
            kept[stayed[ended]] = False
            inside.keep(kept)

    def _read_counts(self, c: Cursors) -> Ints:
        """Read how many items follow."""
        counts = c.read_numbers()
        if (counts < 0).any():
            counts = self._read_sizes(c, counts)
        wrong = counts.view(np.uint64) > self._most(c)
        if wrong.any():
            counts = counts[c.refuse(wrong, COUNT)]
        if self._fixed:
            c.pos += counts * self._size
        return counts

    def _most(self, c: Cursors) -> np.ndarray | int:
        return ((c.end - c.pos) // self._size).view(np.uint64) if self._size else 2**63 - 1

    def _read_sizes(self, c: Cursors, counts: Ints) -> Ints:
        """Read the size in bytes that follows a negative count; the items themselves say how long they are."""
        sized = np.flatnonzero(counts < 0)
        part = c.select(sized)
        part.skip_numbers()
        counts = np.abs(counts)
        gone = c.block.dropped[c.rows]
        c.pos[sized[~gone[sized]]] = part.pos
        if gone.any():
            counts = counts[~gone]
            c.keep(~gone)
        return counts

    def walk(self, w: Walker) -> None:
        w.todo.append(_Items(self))

    def count_one(self, w: Walker) -> int:
        """Read how many items to walk over."""
        count = w.read_number()
        if count < 0:
            count = -count
            w.read_number()
        most = (len(w.data) - w.pos) // self._size if self._size else 2**63 - 1
        if count > most:
            w.refuse(COUNT)
        if self._fixed:
            w.advance(count * self._size)
        return count


class _Items:
    """Walks over the items of one array."""

    def __init__(self, items: Repeated) -> None:
        self._items, self._left, self._index = items, 0, 0

    def read(self, c: Cursors) -> None:
        """Do nothing: this is for walks alone."""

    def walk(self, w: Walker) -> None:
        while not self._left:
            self._left = self._items.count_one(w)
            if not self._left:
                return
            if self._items._fixed:
                self._left = 0
        self._left -= 1
        w.todo += (self, self._items._step(self._index))
        self._index += 1


@dataclass
class Entry:
    """Steps over an entry of a map. `wanted`: name → the step of its value, and all that is noted within.

    Of two entries with one name the last one counts.
    """

    value: Step
    wanted: Mapping[bytes, tuple[Step, Sequence[Found]]]

    def read(self, c: Cursors) -> None:
        lengths = c.read_lengths()
        names = c.pos
        c.pos = c.pos + lengths
        others, parts = np.ones(len(c), np.bool_), []
        for name, (step, found) in self.wanted.items():
            equal = _find_equal(c.block.data, names, lengths, name)
            others[equal] = False
            for item in found:
                item.leaves[c.rows[equal]] = MISSING
            parts.append((equal, step))
        parts.append((np.flatnonzero(others), self.value))
        c.divide([(indexes, step) for indexes, step in parts if len(indexes)])

    def walk(self, w: Walker) -> None:
        length = w.read_length()
        w.pos += length
        step, found = self.wanted.get(w.data[w.pos - length : w.pos], (self.value, ()))
        for item in found:
            item.leaves[w.row] = MISSING
        w.todo.append(step)


def _find_equal(data: np.ndarray, starts: Ints, lengths: Ints, name: bytes) -> Ints:
    equal = np.flatnonzero(lengths == len(name))
    for i, byte in enumerate(name):
        equal = equal[data[starts[equal] + i] == byte]
    return equal
