"""Encodes the keys of whole records as Arrow columns: the same bytes as `keys` makes, by whole columns where it can.

Each key of a sort is a binary value that compares as the sort does. Rows that are not plain, and formats and types
without whole columns, are encoded by `keys`, row by row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.arrow import binary_buffers
from tasks.verification.fetched import Fetched
from tasks.verification.formats.base import Request, Wanted
from tasks.verification.formats.csv_columns import PlainRowReader
from tasks.verification.keys import Encoded, RecordKeys, merge_columns
from tasks.verification.terms import Column, KeyColumn, SortKey
from tasks.verification.types.columns import EncodedColumn, Mask, encode_integers, find_encoder

_EMPTY = pa.scalar(b"", pa.binary())


@dataclass(frozen=True)
class EncodedKeys:
    """`keys`: for each sort, a binary column with a key for each record that can be sorted; `rejected`: the others.

    `encoded`: what `keys` needs to make record keys of, if all was encoded row by row.
    """

    keys: Sequence[pa.Array]
    rejected: list[int]
    encoded: Encoded | None = None


class KeyEncoder:
    """Encodes blocks by whole columns, as far as these go, and else by `rows`.

    `facts`: of the format; `sorts`: those wanted; `all_sorts`: those of the job. `by_rows`: never by whole columns.
    """

    def __init__(
        self,
        rows: RecordKeys,
        facts: Mapping[str, str],
        sorts: Sequence[SortKey],
        all_sorts: Sequence[SortKey],
        *,
        by_rows: bool = False,
    ) -> None:
        self._rows = rows
        self._sorts = sorts
        wanted = merge_columns(key for sort in all_sorts for key in sort)
        self._columns = None if by_rows else _ColumnEncoder.of(facts, wanted)

    def encode(self, block: Fetched) -> EncodedKeys:
        """Keys of the block. 1. Of plain rows. 2. Of the others. 3. Both in order."""
        # Step 1.
        columns = self._columns.encode(block) if self._columns else None
        if columns is None or columns.odd.all():
            encoded = self._rows.encode(block.listed)
            return EncodedKeys([pa.array(keys, pa.binary()) for keys in encoded.keys], encoded.rejected, encoded)
        plain = [_join([_place(key, columns.keys[key.column]) for key in sort]) for sort in self._sorts]
        if not columns.odd.any():
            return EncodedKeys(plain, [])
        # Step 2.
        odd = np.flatnonzero(columns.odd)
        encoded = self._rows.encode(block.listed.select(odd.tolist()))
        lost = odd[encoded.rejected]
        # Step 3.
        kept = np.delete(odd, encoded.rejected)
        order = pa.array(np.argsort(np.concatenate([np.flatnonzero(~columns.odd), kept]), kind="stable"))
        others = [pa.array(keys, pa.binary()) for keys in encoded.keys]
        merged = [pa.concat_arrays(pair).take(order) for pair in zip(plain, others, strict=True)]
        return EncodedKeys(merged, lost.tolist())


@dataclass(frozen=True)
class _Plain:
    """The encoded columns of plain rows, and which rows of the block are not plain."""

    keys: Mapping[Column, pa.Array]
    odd: Mask


class _ColumnEncoder:
    """Encodes the columns of plain rows."""

    def __init__(self, facts: Mapping[str, str], wanted: Sequence[Wanted]) -> None:
        self._of_values = [w for w in wanted if not w.column.field]
        self._of_records = [w for w in wanted if w.column.field]
        self._reader = PlainRowReader(Request(facts, self._of_values)) if self._of_values else None

    @classmethod
    def of(cls, facts: Mapping[str, str], wanted: Sequence[Wanted]) -> "_ColumnEncoder | None":
        """Return the encoder; None if a column is not made for it."""
        values = [w for w in wanted if not w.column.field]
        permitted = not values or PlainRowReader.permits(Request(facts, values))
        known = all(find_encoder(w.kind) and not w.nullable for w in values)
        simple = all(_permits_field(facts, w) for w in wanted if w.column.field)
        return cls(facts, wanted) if permitted and known and simple else None

    def encode(self, block: Fetched) -> _Plain:
        """Encode the columns of the rows that are plain in all of them."""
        odd = np.zeros(len(block), np.bool_)
        texts: list[tuple[Wanted, pa.Array]] = []
        if self._reader:
            fields = self._reader.read(block.columns.values)
            odd, texts = fields.odd, list(zip(self._of_values, fields.columns, strict=True))
        encoded = {w.column: _encode_texts(w, column) for w, column in texts}
        encoded |= {w.column: _filter(_encode_field(block, w), ~odd) for w in self._of_records}
        unclear = np.logical_or.reduce([mask for _, mask in encoded.values()])
        if unclear.any():
            encoded = {column: _filter(one, ~unclear) for column, one in encoded.items()}
            odd[np.flatnonzero(~odd)[unclear]] = True
        return _Plain({column: keys for column, (keys, _) in encoded.items()}, odd)


def _permits_field(facts: Mapping[str, str], wanted: Wanted) -> bool:
    match wanted.column.field:
        case "@key":
            return facts.get("key_format", "text") == "text" and not wanted.column.path and bool(_of_text(wanted))
        case "@timestamp" | "@partition" | "@offset":
            return wanted.kind.name == "int"
        case _:
            return False


def _of_text(wanted: Wanted) -> Callable[[pa.Array], EncodedColumn] | None:
    return None if wanted.nullable else find_encoder(wanted.kind)


def _encode_texts(wanted: Wanted, texts: pa.Array) -> EncodedColumn:
    encode = find_encoder(wanted.kind)
    if encode is None:
        raise LookupError(wanted.kind.name)
    return encode(texts)


def _encode_field(block: Fetched, wanted: Wanted) -> EncodedColumn:
    """Encode a record field. A record without a key or a timestamp is odd."""
    match wanted.column.field:
        case "@key":
            there = np.asarray(block.columns.keys.is_valid())
            keys, odd = _encode_texts(wanted, pc.fill_null(block.columns.keys, _EMPTY))
            return keys, odd | ~there
        case "@timestamp":
            return encode_integers(block.columns.timestamps), block.columns.timestamps < 0
        case "@partition":
            return encode_integers(np.full(len(block), block.partition)), np.zeros(len(block), np.bool_)
        case _:
            return encode_integers(block.offsets), np.zeros(len(block), np.bool_)


def _filter(encoded: EncodedColumn, keep: Mask) -> EncodedColumn:
    keys, odd = encoded
    return encoded if keep.all() else (keys.filter(pa.array(keep)), odd[keep])


def _place(key: KeyColumn, keys: pa.Array) -> pa.Array:
    """Return the keys, none of which is null, in the direction of the sort, and behind the mark of those that are."""
    keys = _invert(keys) if key.descending else keys
    if not key.nulls:
        return keys
    mark = pa.scalar(b"\1" if key.nulls == "first" else b"\0", pa.binary())
    return pc.binary_join_element_wise(mark, keys, _EMPTY)


def _invert(keys: pa.Array) -> pa.Array:
    edges, buffer = binary_buffers(keys)
    if buffer is None:
        return keys
    data: npt.NDArray[np.uint8] = ~np.frombuffer(buffer, np.uint8)
    return pa.Array.from_buffers(pa.binary(), len(keys), [None, pa.py_buffer(edges), pa.py_buffer(data)])


def _join(parts: Sequence[pa.Array]) -> pa.Array:
    return parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, _EMPTY)
