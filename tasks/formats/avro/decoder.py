"""Decodes a block of Avro values: one Arrow column a path, and a reason for each value that is none of its schema.

Guarantee: a value is accepted only if it is whole, and its outcome depends on its own bytes only: it is the same alone
and side by side with others.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.formats.avro.cursors import Block, Ints, read_block
from tasks.formats.avro.found import MISSING
from tasks.formats.avro.leaves import Leaf, as_text
from tasks.formats.avro.plan import Planner, Slot
from tasks.formats.avro.schema import Type
from tasks.settings.paths import Path

# Values that are read side by side: their cursors stay in the processor's cache.
_ROWS, _BYTES = 16_384, 8_000_000


@dataclass(frozen=True)
class Wanted:
    """A path that is a key. `takes`: whether it may be this leaf of the schema."""

    path: Path
    takes: Callable[[Leaf], bool]


@dataclass(frozen=True)
class Decoded:
    """The columns of a block, one a path: all values, null where there is none or the value was refused.

    `missing`: for each path the values whose schema or content does not have it, apart from nulls. `wrong`: for each
    path, index → the Avro type of a value that the key does not take. `refused`: index → why it is none of the schema.
    """

    columns: list[pa.Array]
    missing: list[np.ndarray]
    wrong: list[dict[int, str]]
    refused: dict[int, str] = field(default_factory=dict)


class Decoder:
    """Decodes values of one writer's schema."""

    def __init__(self, schema: Type, wanted: Sequence[Wanted]) -> None:
        self._slots = [Slot(item.takes) for item in wanted]
        wants = [(item.path, slot) for item, slot in zip(wanted, self._slots, strict=True)]
        self._step = Planner().plan(schema, wants)

    @property
    def leaves(self) -> list[list[Leaf]]:
        """The leaves of the schema at each path; none if the schema does not have the path."""
        return [slot.leaves for slot in self._slots]

    def decode(self, values: pa.Array, starts: Ints | int = 0) -> Decoded:
        """Decode binary values without nulls, each from the byte on that is its start."""
        skip, cuts = np.broadcast_to(starts, len(values)), list(_cut(values))
        return _join([self._decode_part(values.slice(i, end - i), skip[i:end]) for i, end in cuts], cuts)

    def _decode_part(self, values: pa.Array, starts: Ints) -> Decoded:
        block = Block(values, starts)
        for slot in self._slots:
            slot.found.begin(block.count)
        read_block(block, self._step, self._clear)
        refused = np.zeros(block.count, np.bool_)
        refused[list(block.refused)] = True
        columns = [slot.column(block, refused) for slot in self._slots]
        missing = [~refused & (slot.found.leaves == MISSING) for slot in self._slots]
        return Decoded(columns, missing, [slot.wrong(refused) for slot in self._slots], block.refused)

    def _clear(self, row: int) -> None:
        for slot in self._slots:
            slot.found.leaves[row] = MISSING


def _cut(values: pa.Array) -> Iterable[tuple[int, int]]:
    """Yield start and end of the parts that are read at once, of about as many bytes."""
    mean = (pc.sum(pc.binary_length(values)).as_py() or 0) // max(1, len(values))
    count = max(1, min(_ROWS, _BYTES // max(1, mean)))
    for start in range(0, max(1, len(values)), count):
        yield start, min(start + count, len(values))


def _join(parts: Sequence[Decoded], cuts: Sequence[tuple[int, int]]) -> Decoded:
    if len(parts) == 1:
        return parts[0]
    columns = [_concat(columns) for columns in zip(*(part.columns for part in parts), strict=True)]
    missing = [np.concatenate(masks) for masks in zip(*(part.missing for part in parts), strict=True)]
    wrong = [_moved(found, cuts) for found in zip(*(part.wrong for part in parts), strict=True)]
    return Decoded(columns, missing, wrong, _moved([part.refused for part in parts], cuts))


def _moved(parts: Sequence[Mapping[int, str]], cuts: Sequence[tuple[int, int]]) -> dict[int, str]:
    return {start + row: why for (start, _), part in zip(cuts, parts, strict=True) for row, why in part.items()}


def _concat(columns: Sequence[pa.Array]) -> pa.Array:
    if len({column.type for column in columns}) > 1:
        columns = [as_text(column) for column in columns]
    return pa.concat_arrays(columns)
