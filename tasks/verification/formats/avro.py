"""Avro: bare values of one schema, and values in Confluent's wire format, by code of its own."""

import struct
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from tasks.verification.content import Headers
from tasks.verification.formats.avro_schema import Schema, parse_schema
from tasks.verification.formats.avro_steps import Cursor, MalformedError, Planner
from tasks.verification.formats.base import Columns, Request, Values
from tasks.verification.formats.schemas import SchemaId

_HEADERS = {"value": "__value_schema_id", "key": "__key_schema_id"}
_WRONG = object()
# What a value is that ends early, or is none of its schema.
_BROKEN = (MalformedError, IndexError, struct.error)


class AvroReader:
    """Reads columns by their paths. ValueError if a schema cannot be had or read.

    A value whose schema is not in the ledger was read by none, so it is refused.
    """

    def __init__(self, request: Request) -> None:
        self._width = len(request.columns)
        self._header = _HEADERS[request.part]
        wants = [(wanted.column.path, wanted.kind) for wanted in request.columns]
        self._bare: _OneSchema | None = None
        self._registered: dict[SchemaId, _OneSchema] = {}
        if "schema" in request.facts:
            text = request.schemas.of_file(request.facts, "--format avro --avro-schema FILE").decode()
            self._bare = _OneSchema(parse_schema((text,)), wants)
        else:
            texts = request.schemas.of_registry(request.facts)
            self._registered = {name: _OneSchema(parse_schema(found), wants) for name, found in texts.items()}

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
        name, start = split_frame(value, dict(headers).get(self._header) if headers else None)
        if name not in self._registered:
            raise MalformedError
        return self._registered[name].read(value, start)


def split_frame(value: bytes, header: bytes | str | None) -> tuple[SchemaId, int]:
    """Return the id of a value's schema, and where its payload begins. The header goes before an id in front."""
    where = value if header is None else header.encode() if isinstance(header, str) else header
    if where[:1] == b"\0" and len(where) >= 5:
        return int.from_bytes(where[1:5], "big"), 5 if header is None else 0
    if header is not None and where[:1] == b"\1" and len(where) >= 17:
        return UUID(bytes=where[1:17]), 0
    raise MalformedError


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
