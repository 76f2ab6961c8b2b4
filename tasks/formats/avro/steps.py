"""The steps over values without parts, one class for each shape: side by side for many records, or one at a time."""

import struct
from dataclasses import dataclass

import numpy as np

from tasks.formats.avro.cursors import SYMBOL, Cursors, Step, Walker
from tasks.formats.avro.found import NULL, Found


@dataclass
class Skip:
    """Steps over a fixed number of bytes."""

    size: int

    def read(self, c: Cursors) -> None:
        c.advance(self.size)

    def walk(self, w: Walker) -> None:
        w.advance(self.size)


class SkipNumber:
    """Steps over an integer."""

    def read(self, c: Cursors) -> None:
        c.skip_numbers()

    def walk(self, w: Walker) -> None:
        w.read_number()


class SkipText:
    """Steps over bytes behind their length."""

    def read(self, c: Cursors) -> None:
        lengths = c.read_lengths()
        c.pos += lengths

    def walk(self, w: Walker) -> None:
        length = w.read_length()
        w.pos += length


@dataclass
class Number:
    """Notes an integer."""

    found: Found
    leaf: int

    def read(self, c: Cursors) -> None:
        numbers = c.read_numbers()
        self.found.put(c, self.leaf, numbers)

    def walk(self, w: Walker) -> None:
        self.found.put_one(w, self.leaf, w.read_number())


@dataclass
class Symbol:
    """Steps over the number of a symbol, and notes it if it is wanted."""

    symbols: int
    found: Found | None = None
    leaf: int = 0

    def read(self, c: Cursors) -> None:
        numbers = c.read_numbers()
        wrong = numbers.view(np.uint64) >= self.symbols
        if wrong.any():
            numbers = numbers[c.refuse(wrong, SYMBOL)]
        if self.found is not None:
            self.found.put(c, self.leaf, numbers)

    def walk(self, w: Walker) -> None:
        number = w.read_number()
        if not 0 <= number < self.symbols:
            w.refuse(SYMBOL)
        if self.found is not None:
            self.found.put_one(w, self.leaf, number)


@dataclass
class Text:
    """Notes bytes behind their length."""

    found: Found
    leaf: int

    def read(self, c: Cursors) -> None:
        lengths = c.read_lengths()
        self.found.put(c, self.leaf, c.pos, lengths)
        c.pos += lengths

    def walk(self, w: Walker) -> None:
        length = w.read_length()
        self.found.put_one(w, self.leaf, w.base + w.pos, length)
        w.pos += length


@dataclass
class Bytes:
    """Notes a fixed number of bytes."""

    found: Found
    leaf: int
    size: int

    def read(self, c: Cursors) -> None:
        c.advance(self.size)
        self.found.put(c, self.leaf, c.pos - self.size, np.full(len(c), self.size))

    def walk(self, w: Walker) -> None:
        w.advance(self.size)
        self.found.put_one(w, self.leaf, w.base + w.pos - self.size, self.size)


@dataclass
class Double:
    """Notes the bits of a double."""

    found: Found
    leaf: int

    def read(self, c: Cursors) -> None:
        c.advance(8)
        self.found.put(c, self.leaf, c.block.words[c.pos - 8].view(np.int64))

    def walk(self, w: Walker) -> None:
        w.advance(8)
        self.found.put_one(w, self.leaf, int.from_bytes(w.data[w.pos - 8 : w.pos], "little"))


@dataclass
class Single:
    """Notes a float of four bytes, by the bits of the double that is equal to it."""

    found: Found
    leaf: int

    def read(self, c: Cursors) -> None:
        c.advance(4)
        bits = (c.block.words[c.pos - 4] & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        # A signalling NaN becomes a quiet one, of which NumPy would warn.
        with np.errstate(invalid="ignore"):
            doubles = bits.view(np.float32).astype(np.float64)
        self.found.put(c, self.leaf, doubles.view(np.int64))

    def walk(self, w: Walker) -> None:
        w.advance(4)
        bits = struct.pack("<d", *struct.unpack_from("<f", w.data, w.pos - 4))
        self.found.put_one(w, self.leaf, int.from_bytes(bits, "little"))


@dataclass
class Boolean:
    """Notes a truth value: any byte but 0 is true."""

    found: Found
    leaf: int

    def read(self, c: Cursors) -> None:
        c.advance(1)
        self.found.put(c, self.leaf, c.block.data[c.pos - 1].astype(np.int64))

    def walk(self, w: Walker) -> None:
        w.advance(1)
        self.found.put_one(w, self.leaf, w.data[w.pos - 1])


@dataclass
class Null:
    """Notes a null."""

    found: Found

    def read(self, c: Cursors) -> None:
        self.found.put(c, NULL)

    def walk(self, w: Walker) -> None:
        self.found.put_one(w, NULL)


@dataclass
class Wrong:
    """Steps over a value, and notes that it is none of the type that is wanted."""

    step: Step
    found: Found
    leaf: int

    def read(self, c: Cursors) -> None:
        self.found.put(c, self.leaf)
        self.step.read(c)

    def walk(self, w: Walker) -> None:
        self.found.put_one(w, self.leaf)
        w.todo.append(self.step)
