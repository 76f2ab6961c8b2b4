"""Confluent's wire format: which schema each record was written with, and where its payload begins, a block at a time.

In front of the payload are a magic byte 0 and the schema's id, 4 bytes big-endian; or the id is in a header of the
record and the payload is bare. Protobuf has besides the place of the message in its file: a list of indexes. Guarantee:
each answer depends on the bytes of one record only.
"""

from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.arrow import binary_buffers
from tasks.formats.base import EMPTY_VALUE, NULL_VALUE
from tasks.printable import excerpt

VALUE_HEADER: Final = "__value_schema_id"
KEY_HEADER: Final = "__key_schema_id"
# A schema by its id, or by its GUID, which only a header has.
SchemaId = int | UUID
Indexes = tuple[int, ...]
# What values are read alike: their schema, and the place of their message in it, which only Protobuf's have.
Group = tuple[SchemaId, Indexes]
_PREFIX_BYTES: Final = 5
_GUID_BYTES: Final = 16
# Messages within messages, which is how deep a list of indexes leads; and the bytes of a varint of 32 bits.
_MOST_INDEXES: Final = 100
_VARINT_BYTES: Final = 5

_Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Frames:
    """Frames of a block of records.

    `schemas`: the ids that occur. `codes`: for each record its place among them, -1 for a refused one. `starts`: for
    each record where its payload begins in its value. `refused`: index → reason.
    """

    schemas: tuple[SchemaId, ...]
    codes: _Numbers
    starts: _Numbers
    refused: dict[int, str] = field(default_factory=dict)


def split_frames(values: pa.Array, headers: pa.Array | None = None) -> Frames:
    """Find the schema of each value (binary, null where a record has none).

    `headers`: for each record the header with its schema's id, null where it has none; it goes before a prefix.
    """
    frames = _split_prefixes(values)
    if headers is None or headers.null_count == len(headers):
        return frames
    return _with_headers(values, frames, headers)


def _split_prefixes(values: pa.Array) -> Frames:
    starts, ends, data = _edges(values)
    framed = (ends - starts >= _PREFIX_BYTES) & np.asarray(values.is_valid())
    framed &= data[np.where(framed, starts, 0)] == 0
    places = np.where(framed, starts, 0)
    ids = sum(data[(places + 1 + i) * framed].astype(np.int64) << (24 - 8 * i) for i in range(4))
    schemas, codes = np.unique(np.asarray(ids)[framed], return_inverse=True)
    every = np.full(len(values), -1, np.int64)
    every[framed] = codes
    refused = {i: explain_frame(values[i].as_py()) for i in np.flatnonzero(~framed).tolist()}
    return Frames(tuple(schemas.tolist()), every, np.full(len(values), _PREFIX_BYTES, np.int64), refused)


def explain_frame(value: bytes | None) -> str:
    """Return why a value has no schema's id in front."""
    if value is None:
        return NULL_VALUE
    if not value:
        return EMPTY_VALUE
    if value[0]:
        return f"begins with the byte {value[0]}, and not with the magic byte 0 of a schema registry: {excerpt(value)}"
    return f"has {len(value)} bytes, too few for a schema id: {excerpt(value)}"


def _with_headers(values: pa.Array, frames: Frames, headers: pa.Array) -> Frames:
    """Put the ids that are in headers in place of those in front of values. Records that have some are few or all."""
    named = np.flatnonzero(np.asarray(headers.is_valid()))
    distinct = headers.take(pa.array(named)).dictionary_encode()
    read = [read_schema_header(header.as_py()) for header in distinct.dictionary]
    schemas: dict[SchemaId, int] = {schema: i for i, schema in enumerate(frames.schemas)}
    places = [-1 if schema is None else schemas.setdefault(schema, len(schemas)) for schema in read]
    codes, starts = frames.codes.copy(), frames.starts.copy()
    codes[named] = np.array(places, np.int64)[np.asarray(distinct.indices)]
    starts[named] = 0
    refused = {i: why for i, why in frames.refused.items() if values[i].as_py() is None or codes[i] < 0}
    refused |= {i: f"has no schema id in its header: {excerpt(headers[i].as_py())}" for i in _below_zero(codes, named)}
    null = np.flatnonzero(~np.asarray(values.is_valid()))
    codes[null] = -1
    return Frames(tuple(schemas), codes, starts, refused | dict.fromkeys(null.tolist(), NULL_VALUE))


def _below_zero(codes: _Numbers, rows: _Numbers) -> list[int]:
    return [int(i) for i in rows[codes[rows] < 0]]


def header_length(header: bytes) -> int:
    """Return the bytes of the id in a header that has one."""
    return _PREFIX_BYTES if header[:1] == b"\0" else 1 + _GUID_BYTES


def read_schema_header(header: bytes) -> SchemaId | None:
    """Read the id of a header: byte 0 and 4 bytes of id, or byte 1 and 16 of GUID; bytes behind are Protobuf's."""
    if header[:1] == b"\0" and len(header) >= _PREFIX_BYTES:
        return int.from_bytes(header[1:_PREFIX_BYTES], "big")
    if header[:1] == b"\1" and len(header) > _GUID_BYTES:
        return UUID(bytes=header[1 : 1 + _GUID_BYTES])
    return None


@dataclass(frozen=True)
class MessagePlaces:
    """The message that each record is, by indexes into its file from the outside in, and where it begins.

    `places`: the lists of indexes that occur. The other members are those of Frames.
    """

    places: tuple[Indexes, ...]
    codes: _Numbers
    starts: _Numbers
    refused: dict[int, str] = field(default_factory=dict)


def split_indexes(values: pa.Array, starts: _Numbers) -> MessagePlaces:
    """Read the message indexes (zigzag varints: their count, then each; a byte 0 alone is [0]) at `starts`.

    `values`: binary, none null; each is at least as long as its start.
    """
    first, ends, data = _edges(values)
    begin = first + starts
    cursor = _Cursor(data, begin.copy(), ends)
    counts = cursor.read(np.arange(len(values)))
    cursor.bad |= (counts < 0) | (counts > _MOST_INDEXES)
    counts = np.where(cursor.bad, 0, counts)
    read = np.full((len(values), max(1, int(counts.max(initial=0)))), -1, np.int64)
    read[(counts == 0) & ~cursor.bad, 0] = 0
    for i in range(int(counts.max(initial=0))):
        rows = np.flatnonzero((counts > i) & ~cursor.bad)
        read[rows, i] = cursor.read(rows)
        cursor.bad[rows] |= read[rows, i] < 0
    return _collect_places(values, read, cursor.position - first, cursor.bad)


def _collect_places(values: pa.Array, read: _Numbers, starts: _Numbers, bad: npt.NDArray[np.bool_]) -> MessagePlaces:
    lists, codes = np.unique(read[~bad], axis=0, return_inverse=True)
    every = np.full(len(values), -1, np.int64)
    every[~bad] = codes.ravel()
    refused = {i: f"has no message indexes behind its schema id: {excerpt(values[i].as_py())}" for i in _true(bad)}
    return MessagePlaces(tuple(tuple(i for i in row if i >= 0) for row in lists.tolist()), every, starts, refused)


class _Cursor:
    """A position in each value, all of which read together."""

    def __init__(self, data: npt.NDArray[np.uint8], position: _Numbers, ends: _Numbers) -> None:
        self.position = position
        self.bad = np.zeros(len(position), np.bool_)
        self._data, self._ends = data, ends

    def read(self, rows: _Numbers) -> _Numbers:
        """Read a zigzag varint of 32 bits in these rows; a row is bad if there is none."""
        values = np.zeros(len(rows), np.int64)
        open_rows = np.arange(len(rows))
        for i in range(_VARINT_BYTES):
            at = self.position[rows[open_rows]]
            self.bad[rows[open_rows]] |= at >= self._ends[rows[open_rows]]
            byte = self._data[np.minimum(at, len(self._data) - 1)].astype(np.int64)
            values[open_rows] |= (byte & 0x7F) << (7 * i)
            self.position[rows[open_rows]] += 1
            open_rows = open_rows[(byte & 0x80 != 0) & ~self.bad[rows[open_rows]]]
        self.bad[rows[open_rows]] = True
        return (values >> 1) ^ -(values & 1)


@dataclass(frozen=True)
class Groups:
    """The groups of a block of records. `groups`: those that occur. The other members are those of Frames."""

    groups: tuple[Group, ...]
    codes: _Numbers
    starts: _Numbers
    refused: dict[int, str] = field(default_factory=dict)


def group_by_schema(values: pa.Array, headers: pa.Array) -> Groups:
    """Find the schema of each value; for `headers` see `split_frames`."""
    frames = split_frames(values, headers)
    return Groups(tuple((schema, ()) for schema in frames.schemas), frames.codes, frames.starts, frames.refused)


def group_by_message(values: pa.Array, headers: pa.Array) -> Groups:
    """Find the schema of each value and the place of its message, which is behind the id in a header or in front."""
    frames = split_frames(values, headers)
    framed = np.flatnonzero(frames.codes >= 0)
    carriers, begins = _carriers(values, headers, frames.starts)
    places = split_indexes(carriers.take(pa.array(framed)), begins[framed])
    starts = np.zeros(len(values), np.int64)
    # Of a header's indexes nothing is in the value.
    starts[framed] = np.where(frames.starts[framed] > 0, places.starts, 0)
    pairs = np.stack([frames.codes[framed], places.codes], axis=1)[places.codes >= 0]
    distinct, codes = np.unique(pairs, axis=0, return_inverse=True)
    every = np.full(len(values), -1, np.int64)
    every[framed[places.codes >= 0]] = codes.ravel()
    refused = frames.refused | {int(framed[i]): why for i, why in places.refused.items()}
    groups = tuple((frames.schemas[code], places.places[place]) for code, place in distinct.tolist())
    return Groups(groups, every, starts, refused)


def _carriers(values: pa.Array, headers: pa.Array, starts: _Numbers) -> tuple[pa.Array, _Numbers]:
    """Return what holds each record's message indexes, its header or its value, and where they begin."""
    if headers.null_count == len(headers):
        return values, starts
    distinct = headers.dictionary_encode()
    lengths = np.array([*map(header_length, distinct.dictionary.to_pylist()), 0], np.int64)
    indices = np.asarray(pc.fill_null(distinct.indices, len(lengths) - 1))
    return pc.coalesce(headers, values), np.where(np.asarray(headers.is_valid()), lengths[indices], starts)


def cut_values(values: pa.Array, starts: _Numbers) -> pa.Array:
    """Return what is behind the start of each value (binary)."""
    distinct, groups = np.unique(starts, return_inverse=True)
    if not len(distinct):
        return values
    if len(distinct) == 1:
        return _behind(values, int(distinct[0]))
    rows = [np.flatnonzero(groups == i) for i in range(len(distinct))]
    parts = [_behind(values.take(pa.array(r)), int(start)) for r, start in zip(rows, distinct, strict=True)]
    return pa.concat_arrays(parts).take(pa.array(np.argsort(np.concatenate(rows))))


def _behind(values: pa.Array, start: int) -> pa.Array:
    # Without `stop` Arrow 26 fails on values that are shorter.
    return pc.binary_slice(values, start, stop=2**31 - 1) if start else values


def _edges(values: pa.Array) -> tuple[_Numbers, _Numbers, npt.NDArray[np.uint8]]:
    """Return start and end of each value, and the data, which has at least one byte."""
    offsets, buffer = binary_buffers(values)
    data = np.frombuffer(b"" if buffer is None else buffer, np.uint8)
    edges = offsets.astype(np.int64)
    return edges[:-1], edges[1:], data if len(data) else np.zeros(1, np.uint8)


def _true(mask: npt.NDArray[np.bool_]) -> list[int]:
    return [int(i) for i in np.flatnonzero(mask)]
