"""A cursor for each record of a block of messages: all of them move over the fields of a plan side by side.

Guarantee: a cursor that comes to the end of its record has read a message, each field of it at most once unless it is
repeated; others are lost. A record's outcome depends on its own bytes only, whatever cursors are beside it.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from tasks.formats.protobuf.slots import Ints, Mask, Slot
from tasks.formats.varints import MARKS, MOST_BYTES, make_words, measure_varints, unpack_varints

_Bytes = npt.NDArray[np.uint8]

# Fewer cursors than this are not moved, but lost: google.protobuf reads their records faster.
FEW: Final = 32
_MOST_LEVELS: Final = 16
_MOST_ITEMS: Final = 64
_PAD: Final = 16
# A varint has at most ten bytes: it is short enough if of each five bytes one ends a varint.
_WINDOW: Final = 5
_WINDOW_MARKS: Final = np.uint64(0x8080808080)
_MOST_WINDOWS: Final = 16


class _Field(Protocol):
    @property
    def tag(self) -> bytes: ...

    @property
    def is_repeated(self) -> bool: ...

    def skip(self, c: "Cursors", /) -> None: ...


class _Plan(Protocol):
    defaults: list[Slot]

    @property
    def fields(self) -> Sequence[_Field]: ...


class Block:
    """The bytes of some records. `edges` (n + 1): of each in `text`; `start`, `row`: where it begins in what is read.

    `lost`: the place of cursors that have nothing left to read. `steps`, `moves`: how often cursors were moved, and
    how many in all.
    """

    def __init__(self, text: _Bytes, edges: Ints, start: int, row: int) -> None:
        self.text = np.zeros(len(text) + _PAD, np.uint8)
        self.text[: len(text)] = text
        self.behind = self.text[1:]
        self.words = make_words(self.text)
        self.edges, self.start, self.row = edges, start, row
        self.lost = len(text) + 1
        self.steps = self.moves = 0

    def prove(self, plan: _Plan) -> Mask:
        """Return which records are messages; their places are noted."""
        count = len(self.edges) - 1
        rows = np.arange(self.row, self.row + count)
        c = Cursors(self, rows, self.edges[:-1].copy(), self.edges[1:], np.zeros(count, np.int64))
        c.follow(plan)
        whole = c.pos == c.end
        for row in np.flatnonzero(~whole).tolist():
            self.text[self.edges[row] : self.edges[row + 1]] = 0
        # Texts are ASCII if all bytes above it are in something else.
        if np.count_nonzero(self.text.view(np.int8) < 0) == c.high[whole].sum():
            return np.asarray(whole)
        return np.asarray(whole & (self._count_high() == c.high))

    def _count_high(self) -> Ints:
        """Count the bytes above ASCII of each record."""
        starts = self.edges[:-1]
        counts = np.add.reduceat(self.text >> 7, starts, dtype=np.int32)
        # A record without a byte has the count of the next one's first.
        return np.where(starts < self.edges[1:], counts, 0)


class Cursors:
    """Cursors of some records of a block.

    `rows`: their numbers in what is read; `pos`, `end`: in the block, where each is, and where its message ends;
    `high`: the bytes above ASCII that it has passed, apart from texts.
    """

    def __init__(self, block: Block, rows: Ints, pos: Ints, end: Ints, high: Ints, level: int = 0) -> None:
        self.block, self.rows, self.pos, self.end, self.high, self.level = block, rows, pos, end, high, level

    def follow(self, plan: _Plan) -> None:
        """Move over the fields of a message, as far as they are as planned."""
        for slot in plan.defaults:
            slot.note(self.rows, 0)
        here = self._peek()
        for field in plan.fields:
            for _ in range(_MOST_ITEMS if field.is_repeated else 1):
                found = self._match(field.tag, here)
                count = int(np.count_nonzero(found))
                if not count:
                    break
                self._skip(field, found, count)
                here = self._peek()

    def _peek(self) -> _Bytes:
        """Return the byte at each cursor; 0, which begins no field, at the end of its message."""
        return self._byte() * (self.pos < self.end)

    def _match(self, tag: bytes, here: _Bytes) -> Mask:
        found = here == tag[0]
        if len(tag) > 1 and found.any():
            found &= self.block.behind.take(self.pos, mode="clip") == tag[1]
        return np.asarray(found)

    def _byte(self) -> _Bytes:
        return self.block.text.take(self.pos, mode="clip")

    def _skip(self, field: _Field, found: Mask, count: int) -> None:
        """Move the cursors at this field over it."""
        self.block.steps += 1
        self.block.moves += count
        if count == len(found):
            self._pass_tag(field.tag)
            field.skip(self)
            return
        at = np.flatnonzero(found)
        if count < FEW:
            self.pos[at] = self.block.lost
            return
        part = Cursors(self.block, self.rows[at], self.pos[at], self.end[at], self.high[at], self.level)
        part._pass_tag(field.tag)
        field.skip(part)
        self.pos[at], self.high[at] = part.pos, part.high

    def _pass_tag(self, tag: bytes) -> None:
        self.pos += len(tag)
        if len(tag) > 1:
            self.high += 1

    def _lose(self, lost: Mask) -> None:
        if lost.any():
            self.pos[lost] = self.block.lost

    def _within(self) -> Ints:
        """Return where the cursors are, or a place at the end for those behind it."""
        return np.minimum(self.pos, len(self.block.text) - _PAD)

    def skip_varint(self, slots: Sequence[Slot]) -> None:
        """Move over a varint."""
        first = self._byte()
        if not (first > 0x7F).any():
            self._note(slots, first.astype(np.int64))
            self.pos += 1
            return
        text, words, pos = self.block.text, self.block.words, self._within()
        if slots:
            numbers, sizes = unpack_varints(text, words, pos)
            self._note(slots, numbers.view(np.int64))
        else:
            sizes = measure_varints(text, words, pos)
        self.pos += sizes
        self.high += sizes - 1
        if sizes.max() >= MOST_BYTES:
            # google.protobuf decides about bits beyond the 64th.
            self._lose((sizes > MOST_BYTES) | ((sizes == MOST_BYTES) & (text.take(self.pos - 1, mode="clip") > 1)))

    def skip_fixed(self, size: int, slots: Sequence[Slot]) -> None:
        """Move over a number of four or eight bytes."""
        words = self.block.words[self._within()]
        if size == 4:
            words &= np.uint64(0xFFFFFFFF)
        self._note(slots, words.view(np.int64))
        self.high += np.bitwise_count(words & MARKS)
        self.pos += size

    def _note(self, slots: Sequence[Slot], values: Ints, lengths: Ints | int = 0) -> None:
        for slot in slots:
            slot.note(self.rows, values, lengths)

    def _lengths(self) -> Ints:
        """Move over a length of one or two bytes, and return it."""
        first = self._byte()
        lengths = first.astype(np.int64)
        longer = first > 0x7F
        self.pos += 1
        if longer.any():
            second = self._byte()
            lengths += longer * ((second.astype(np.int64) << 7) - 0x80)
            self.pos += longer
            self.high += longer
            lost = longer & (second > 0x7F)
            lengths[lost] = 0
            self._lose(lost)
        return lengths

    def skip_text(self, slots: Sequence[Slot]) -> None:
        """Move over a text."""
        lengths = self._lengths()
        if slots:
            self._note(slots, self.pos + self.block.start, lengths)
        self.pos += lengths

    def skip_bytes(self, slots: Sequence[Slot]) -> None:
        """Move over bytes."""
        lengths = self._lengths()
        self._note(slots, self.pos + self.block.start, lengths)
        self._pass(lengths, np.zeros(len(lengths), np.bool_))

    def skip_packed(self, size: int) -> None:
        """Move over numbers of so many bytes each; 0: over varints."""
        lengths = self._lengths()
        if size:
            self._pass(lengths, lengths % size != 0)
            return
        last = self.block.text.take(self.pos + lengths - 1, mode="clip")
        self._pass(lengths, (last > 0x7F) & (lengths > 0), varints=True)

    def _pass(self, lengths: Ints, lost: Mask, *, varints: bool = False) -> None:
        """Move over so many bytes. A cursor is lost if they are too many, or no varints where they should be."""
        ends, left = self.pos + lengths, lengths
        for _ in range(_MOST_WINDOWS):
            if not left.any():
                break
            behind = (8 * np.maximum(_WINDOW - left, 0)).astype(np.uint64)
            high = self.block.words[self._within()] & (_WINDOW_MARKS >> behind)
            if varints:
                lost |= high == _WINDOW_MARKS
            self.high += np.bitwise_count(high)
            self.pos += np.minimum(left, _WINDOW)
            left = np.maximum(left - _WINDOW, 0)
        self.pos = ends
        self._lose(lost | (left > 0))

    def enter(self, plan: _Plan) -> None:
        """Move over a message."""
        lengths = self._lengths()
        ends = self.pos + lengths
        fits = (ends <= self.end) & (self.level < _MOST_LEVELS)
        outer, self.end = self.end, np.where(fits, ends, self.pos)
        self.level += 1
        self.follow(plan)
        self.level -= 1
        self._lose(~fits | (self.pos != self.end))
        self.end = outer
