"""Protobuf in Confluent's wire format: each record's message is that of its schema id and message indexes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.errors import SettingsError
from tasks.formats.base import RejectedError
from tasks.formats.protobuf.format import find_missing
from tasks.formats.protobuf.messages import MessageReader
from tasks.formats.protobuf.native import check_type
from tasks.formats.protobuf.paths import Column, NoSuchFieldError, resolve
from tasks.formats.wire import Indexes, SchemaId, cut_values, header_length, split_frames, split_indexes
from tasks.keys import Parsed, merge_parts, reject_all, type_columns
from tasks.settings.paths import parse_path
from tasks.settings.sorts import KeyColumn

# Descriptor of the message that a schema has at these indexes. RejectedError: the record is a dead letter.
MessageOf = Callable[[SchemaId, Indexes], Any]
_Rows = npt.NDArray[np.int64]


class FramedMessages:
    """Reads framed records; a reader for each message that occurs is made once. A field that a schema lacks is missing.

    `keys`: with the types that all schemas are read for.
    """

    def __init__(self, keys: Sequence[KeyColumn], message_of: MessageOf) -> None:
        self.keys = tuple(keys)
        self._message_of = message_of
        self._readers: dict[tuple[SchemaId, Indexes], _GroupReader] = {}

    def parse_values(self, values: pa.Array, headers: pa.Array | None = None) -> Parsed:
        """Parse values (binary, null where a record has none). `headers`: the header with the schema's id, or null."""
        frames = split_frames(values, headers)
        framed = np.flatnonzero(frames.codes >= 0)
        carriers, begins = _carriers(values, headers, frames.starts)
        places = split_indexes(carriers.take(pa.array(framed)), begins[framed])
        refused = frames.refused | {int(framed[i]): why for i, why in places.refused.items()}
        starts = np.zeros(len(values), np.int64)
        starts[framed] = np.where(begins[framed] == frames.starts[framed], places.starts, 0)
        parts = []
        for code, place, rows in _group(frames.codes[framed], places.codes, framed):
            group = (frames.schemas[code], places.places[place])
            payloads = cut_values(values.take(pa.array(rows)), starts[rows])
            parts.append((rows, self._parse_group(group, payloads)))
        return merge_parts(self.keys, parts, refused)

    def _parse_group(self, group: tuple[SchemaId, Indexes], payloads: pa.Array) -> Parsed:
        try:
            if group not in self._readers:
                self._readers[group] = _GroupReader(self._message_of(*group), self.keys)
        except RejectedError as error:
            return reject_all(self.keys, dict.fromkeys(range(len(payloads)), str(error)))
        return self._readers[group].parse(payloads)


class _GroupReader:
    def __init__(self, message: Any, keys: Sequence[KeyColumn]) -> None:
        self._keys = tuple(keys)
        found = [(column, key.type) for key in keys if (column := _find(message, key)) is not None]
        self._reader = MessageReader(message, found)

    def parse(self, payloads: pa.Array) -> Parsed:
        columns, refused = self._reader.read(payloads)
        absent = {key.name: pa.nulls(len(payloads), pa.binary()) for key in self._keys if key.name not in columns}
        columns |= absent
        return type_columns(self._keys, columns, find_missing(self._keys, columns) | refused)


def _find(message: Any, key: KeyColumn) -> Column | None:
    try:
        column = resolve(message, parse_path(key.name))
        check_type(column, key.type)
    except NoSuchFieldError:
        return None
    except SettingsError as error:
        raise RejectedError(str(error)) from None
    return column


def _carriers(values: pa.Array, headers: pa.Array | None, starts: _Rows) -> tuple[pa.Array, _Rows]:
    """Return what holds each record's message indexes, its header or its value, and where they begin."""
    if headers is None or headers.null_count == len(headers):
        return values, starts
    distinct = headers.dictionary_encode()
    lengths = np.array([*map(header_length, distinct.dictionary.to_pylist()), 0], np.int64)
    indices = np.asarray(pc.fill_null(distinct.indices, len(lengths) - 1))
    return pc.coalesce(headers, values), np.where(np.asarray(headers.is_valid()), lengths[indices], starts)


def _group(codes: _Rows, places: _Rows, rows: _Rows) -> Iterator[tuple[int, int, _Rows]]:
    """Group the rows that have both a schema and a place."""
    pairs = np.stack([codes, places], axis=1)
    known = places >= 0
    for code, place in np.unique(pairs[known], axis=0).tolist():
        yield code, place, rows[(codes == code) & (places == place)]
