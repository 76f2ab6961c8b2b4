"""The keys of whole records: fields of their values, and record fields, joined in the order of each sort."""

from collections.abc import Sequence

import numpy as np

from tasks.verification.reading import Block
from tasks.verification.rows import INVERT, Encoded, KeyColumn, KeyEncoder, Keys, encode_numbers, encode_texts

Sort = tuple[KeyColumn, ...]


class RecordKeys:
    """Encodes the keys of blocks of records. `sorts`: those wanted; `all_sorts`: those of the job.

    A record that one sort of the job cannot place is in none of the outputs.
    """

    def __init__(self, kinds: dict[str, str], delimiter: str, sorts: Sequence[Sort], all_sorts: Sequence[Sort]) -> None:
        self._sorts = sorts
        known = [column for sort in all_sorts for column in sort]
        integers = frozenset(column.name for column in known if column.is_int and not _is_field(column))
        self._parses = any(not _is_field(column) for column in known)
        self._joins = any(_is_field(column) for column in known)
        # With record fields among them, the columns of values are encoded one by one, and joined here.
        self._columns = list(dict.fromkeys(column for sort in sorts for column in sort if not _is_field(column)))
        wanted = [(column,) for column in self._columns] if self._joins else sorts
        self._encoder = KeyEncoder(kinds, delimiter, wanted, integers)
        self._required = sorted({c.name for c in known if _is_field(c) and not _permits_null(c, known)})

    def encode(self, block: Block) -> Encoded:
        """Keys of the block, a list a sort."""
        if not self._joins:
            return self._encoder.encode(block.values)
        absent = [i for name in self._required for i, value in enumerate(_read(block, name)) if value is None]
        of_values = self._encoder.encode(block.values) if self._parses else Encoded([], [])
        rejected = sorted({*absent, *of_values.rejected})
        placed = [i for i in range(len(block)) if i not in set(of_values.rejected)]
        lost = set(rejected)
        kept = [at for at, i in enumerate(placed) if i not in lost]
        parts = {c: [keys[at] for at in kept] for c, keys in zip(self._columns, of_values.keys, strict=self._parses)}
        records = block.without(rejected)
        keys = [[parts[c] if c in parts else _encode_field(c, records) for c in sort] for sort in self._sorts]
        return Encoded([list(map(b"".join, zip(*columns, strict=True))) for columns in keys], rejected)


def _is_field(column: KeyColumn) -> bool:
    return column.name.startswith("@")


def _permits_null(column: KeyColumn, known: Sequence[KeyColumn]) -> bool:
    return all(other.nulls for other in known if other.name == column.name)


def _read(block: Block, name: str) -> list[bytes | int | None]:
    if name == "@key":
        return list(block.keys)
    return [time if time >= 0 else None for time in block.times().tolist()]


def _encode_field(column: KeyColumn, block: Block) -> Keys:
    values = _read(block, column.name)
    if column.is_int:
        encoded = encode_numbers(np.array(values, np.int64))
    else:
        encoded = encode_texts([value or b"" for value in values])  # type: ignore[misc]  # keys are bytes
    if column.descending:
        encoded = [key.translate(INVERT) for key in encoded]
    if not column.nulls:
        return encoded
    null, other = (b"\0", b"\1") if column.nulls == "first" else (b"\1", b"\0")
    return [null if value is None else other + key for value, key in zip(values, encoded, strict=True)]
