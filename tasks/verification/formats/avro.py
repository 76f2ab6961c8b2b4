"""Avro: bare values of one schema, and values in Confluent's wire format, by code of its own."""

import struct
from collections.abc import Sequence
from typing import Any

from tasks.verification.content import Headers
from tasks.verification.formats.avro_schema import Schema, parse_schema
from tasks.verification.formats.avro_steps import Cursor, MalformedError, Planner
from tasks.verification.formats.base import Columns, Request, Values
from tasks.verification.formats.frames import FrameError, find_header, split_frame
from tasks.verification.formats.schemas import SchemaId

_WRONG = object()
# What a value is that ends early, or is none of its schema.
_BROKEN = (MalformedError, FrameError, IndexError, struct.error)


class AvroReader:
    """Reads columns by their paths. ValueError if a schema cannot be had or read.

    A value whose schema is not in the ledger was read by none, so it is refused; so is one of another language's.
    """

    def __init__(self, request: Request) -> None:
        self._width = len(request.columns)
        self._part = request.part
        wants = [(wanted.column.path, wanted.kind) for wanted in request.columns]
        self._bare: _OneSchema | None = None
        self._registered: dict[SchemaId, _OneSchema] = {}
        if request.is_bare:
            text = request.schemas.of_file(request.facts, "--format avro --avro-schema FILE").decode()
            self._bare = _OneSchema(parse_schema((text,)), wants)
        else:
            found = request.schemas.of_registry(request.facts, "AVRO")
            self._registered = {name: _OneSchema(parse_schema(one.texts), wants) for name, one in found.items()}

    def read(self, values: Values, headers: Sequence[Headers]) -> Columns:
        """Return the columns of the block: numbers, texts as bytes, times, UUIDs."""
        rows, refused = [], set()
        for index, (value, header) in enumerate(zip(values, headers, strict=True)):
            try:
                rows.append(self._read_one(value, header))
            except _BROKEN:
                refused.add(index)
        return Columns(list(zip(*rows, strict=True)) or [()] * self._width, refused)

    def _read_one(self, value: bytes | None, headers: Headers) -> list[Any]:
        if value is None:
            raise MalformedError
        if self._bare is not None:
            return self._bare.read(value, 0)
        name, start = split_frame(value, find_header(headers, self._part))
        if name not in self._registered:
            raise MalformedError
        return self._registered[name].read(value, start)


class _OneSchema:
    """Reads values of one schema."""

    def __init__(self, schema: Schema, wants: Sequence[Any]) -> None:
        self._width = len(wants)
        self._step = Planner(schema, _WRONG).plan([(path, at, kind) for at, (path, kind) in enumerate(wants)])

    def read(self, value: bytes, start: int) -> list[Any]:
        found = Cursor(value, start, self._width).run(self._step)
        if _WRONG in found:
            raise MalformedError
        return found
