"""Turns a schema and the paths that are wanted into steps, and keeps what they find.

A path without its step in the schema is missing in all values. In a union each branch has the same paths.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.formats.avro.cursors import Block, Step
from tasks.formats.avro.found import FIRST_LEAF, Found
from tasks.formats.avro.leaves import Leaf, as_text, leaf_of
from tasks.formats.avro.nested_steps import Branches, Entry, Fields, Nested, Repeated
from tasks.formats.avro.schema import Array, Enum, Fixed, Map, Record, Type, Union, is_recursive, least_bytes
from tasks.formats.avro.steps import (
    Boolean,
    Bytes,
    Double,
    Null,
    Number,
    Single,
    Skip,
    SkipNumber,
    SkipText,
    Symbol,
    Text,
    Wrong,
)
from tasks.settings.paths import Path


class Slot:
    """One path: the leaves of the schema there, and what was found."""

    def __init__(self, takes: Callable[[Leaf], bool]) -> None:
        self.takes = takes
        self.found = Found()
        self.leaves: list[Leaf] = []

    def add(self, leaf: Leaf) -> int:
        """Return the number of a leaf."""
        self.leaves.append(leaf)
        return FIRST_LEAF + len(self.leaves) - 1

    def takes_leaf(self, leaf: Leaf) -> bool:
        return leaf.arrow is not None and self.takes(leaf)

    def column(self, block: Block, refused: np.ndarray) -> pa.Array:
        found, made = self.found, []
        for number, leaf in enumerate(self.leaves, FIRST_LEAF):
            there = (found.leaves == number) & ~refused
            if self.takes_leaf(leaf) and (there.any() or len(self.leaves) == 1):
                made.append(leaf.column(block, found.values, found.lengths, there))
        if not made:
            return pa.nulls(block.count, self._type())
        if len({column.type for column in made}) > 1:
            made = [as_text(column) for column in made]
        return pc.coalesce(*made) if len(made) > 1 else made[0]

    def _type(self) -> pa.DataType:
        return next((leaf.arrow for leaf in self.leaves if self.takes_leaf(leaf)), pa.binary())

    def wrong(self, refused: np.ndarray) -> dict[int, str]:
        names = {n: leaf.name for n, leaf in enumerate(self.leaves, FIRST_LEAF) if not self.takes_leaf(leaf)}
        return {
            row: name
            for number, name in names.items()
            for row in np.flatnonzero((self.found.leaves == number) & ~refused).tolist()
        }


Wants = Sequence[tuple[Path, Slot]]


class Planner:
    """Turns a schema into steps. Records that may hold themselves are planned once."""

    def __init__(self) -> None:
        self._nested: dict[int, Nested] = {}
        self._recursive: dict[int, bool] = {}

    def plan(self, kind: Type, wants: Wants) -> Step:
        """Return the steps through a value; `wants`: the paths from here on."""
        here, deeper = [slot for path, slot in wants if not path], [want for want in wants if want[0]]
        if isinstance(kind, Union):
            return Branches([self.plan(branch, wants) for branch in kind.branches])
        if here:
            return self._note(kind, here[0], deeper)
        if isinstance(kind, Record):
            return self._record(kind, wants)
        if isinstance(kind, Array):
            return self._array(kind, wants)
        if isinstance(kind, Map):
            return self._map(kind, wants)
        return _skip(kind)

    def _note(self, kind: Type, slot: Slot, deeper: Wants) -> Step:
        """Note the value of a path that ends here."""
        if kind.kind == "null":
            return Null(slot.found)
        leaf = leaf_of(kind)
        number = slot.add(leaf)
        if slot.takes_leaf(leaf):
            return _leaf_step(kind, slot.found, number)
        return Wrong(self.plan(kind, deeper), slot.found, number)

    def _record(self, kind: Record, wants: Wants) -> Step:
        if not self._is_recursive(kind):
            return self._fields(kind, wants)
        if not wants:
            nested = self._nested.get(id(kind))
            if nested is None:
                nested = self._nested[id(kind)] = Nested()
                nested.step = self._fields(kind, wants)
            return nested
        return Nested(self._fields(kind, wants))

    def _is_recursive(self, kind: Record) -> bool:
        if id(kind) not in self._recursive:
            self._recursive[id(kind)] = is_recursive(kind)
        return self._recursive[id(kind)]

    def _fields(self, kind: Record, wants: Wants) -> Step:
        steps = [self.plan(inner, _behind(wants, name)) for name, inner in kind.fields]
        flat = _merge_skips(_flatten(steps))
        return flat[0] if len(flat) == 1 else Fields(flat) if flat else Skip(0)

    def _array(self, kind: Array, wants: Wants) -> Step:
        item = self.plan(kind.items, ())
        indexes = {path[0] for path, _ in wants if isinstance(path[0], int)}
        wanted = {index: self.plan(kind.items, _behind(wants, index)) for index in indexes}
        return Repeated(item, least_bytes(kind.items), wanted, fixed=isinstance(item, Skip))

    def _map(self, kind: Map, wants: Wants) -> Step:
        names = {path[0] for path, _ in wants if isinstance(path[0], str)}
        value = self.plan(kind.values, ())
        wanted = {}
        for name in names:
            behind = _behind(wants, name)
            wanted[name.encode()] = self.plan(kind.values, behind), [slot.found for _, slot in behind]
        return Repeated(Entry(value, wanted), 1 + least_bytes(kind.values), {}, fixed=False)


def _behind(wants: Wants, step: str | int) -> Wants:
    return [(path[1:], slot) for path, slot in wants if path and path[0] == step and type(path[0]) is type(step)]


def _skip(kind: Type) -> Step:
    if isinstance(kind, Fixed):
        return Skip(kind.size)
    if isinstance(kind, Enum):
        return Symbol(len(kind.symbols))
    sizes = {"null": 0, "boolean": 1, "float": 4, "double": 8}
    if kind.kind in sizes:
        return Skip(sizes[kind.kind])
    return SkipNumber() if kind.kind in {"int", "long"} else SkipText()


def _leaf_step(kind: Type, found: Found, number: int) -> Step:
    if isinstance(kind, Fixed):
        return Bytes(found, number, kind.size)
    if isinstance(kind, Enum):
        return Symbol(len(kind.symbols), found, number)
    makers: dict[str, Callable[[Found, int], Step]] = {
        "boolean": Boolean,
        "float": Single,
        "double": Double,
        "string": Text,
        "bytes": Text,
    }
    return makers.get(kind.kind, Number)(found, number)


def _flatten(steps: Iterable[Step]) -> list[Step]:
    return [inner for step in steps for inner in (step.steps if isinstance(step, Fields) else [step])]


def _merge_skips(steps: Sequence[Step]) -> list[Step]:
    """Join neighbours that step over a fixed number of bytes, and leave out those over none."""
    merged: list[Step] = []
    for step in steps:
        if isinstance(step, Skip) and merged and isinstance(merged[-1], Skip):
            merged[-1] = Skip(merged[-1].size + step.size)
        elif not (isinstance(step, Skip) and not step.size):
            merged.append(step)
    return merged
