"""Values in the wire format of a schema registry: their schema ids, and by the registry their columns."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import pyarrow as pa

from tasks.arrow import one_chunk
from tasks.formats.base import RejectedError
from tasks.formats.framed import VALUE, FramedFormat, Language, Part, SchemaBook
from tasks.formats.headers import find_header
from tasks.formats.registered import make_language
from tasks.formats.schema_registry import SchemaRegistry
from tasks.formats.wire import SchemaId, split_frames
from tasks.inspection.columns import Column, describe_encoded
from tasks.inspection.guesses import ENOUGH, Guess, Values
from tasks.settings.column_types import ColumnType
from tasks.settings.paths import parse_path
from tasks.settings.sorts import KeyColumn

_SHOWN_IDS: Final = 5
# A registry is asked for so many ids; data that only look like ids have more.
_MOST_IDS: Final = 20
_MOST_COLUMNS: Final = 60
_NUMBER_BYTES: Final = 8
_LANGUAGES: Final = {"AVRO": "avro", "PROTOBUF": "protobuf"}
_TITLES: Final = {"AVRO": "Avro", "PROTOBUF": "Protobuf", "JSON": "JSON Schema"}


@dataclass(frozen=True)
class Framing:
    """The schema ids of values or keys. `ids`: id → number of records; `by_header`: whether ids are in headers."""

    ids: Mapping[SchemaId, int]
    by_header: bool

    @property
    def told(self) -> str:
        """The ids for a person, the commonest first."""
        common = Counter(dict(self.ids)).most_common(_SHOWN_IDS)
        more = ", …" if len(self.ids) > _SHOWN_IDS else ""
        return f"schema id {', '.join(f'{schema} ({count:,} records)' for schema, count in common)}{more}"


def find_framing(records: pa.Table, part: Part) -> Framing | None:
    """Find the schema ids of a part of records; None if most have none.

    Numbers of 8 bytes, big-endian, begin with a zero byte as well.
    """
    column = one_chunk(records.column(part.column))
    headers = find_header(one_chunk(records.column("headers")), part.header)
    frames = split_frames(column, headers)
    present = sum(1 for value in column.to_pylist() if value)
    ids = Counter(frames.schemas[code] for code in frames.codes.tolist() if code >= 0)
    by_header = headers.null_count < len(headers)
    if not present or sum(ids.values()) < ENOUGH * present or len(ids) > _MOST_IDS:
        return None
    looks_like_numbers = 0 in ids or {len(value) for value in column.to_pylist() if value} == {_NUMBER_BYTES}
    return Framing(ids, by_header) if by_header or not looks_like_numbers else None


class FramedGuesser:
    """Guesses Avro and Protobuf by the schema ids of values. `registry`: None if none was given."""

    def __init__(self, registry: SchemaRegistry | None, source: str) -> None:
        self._registry, self._source = registry, source

    def guess(self, values: Values) -> Guess | None:
        """Return the guess; None if values have no ids, or are bare JSON by their ids in headers."""
        framing = find_framing(values.records, VALUE)
        if framing is None:
            return None
        if self._registry is None:
            note = "give --schema-registry ADDRESS to see their schemas: without it they can be sorted by record fields"
            return Guess("Avro or Protobuf of a schema registry", {"format": "none"}, notes=[framing.told, note])
        kinds = find_kinds(self._registry, framing)
        if not kinds:
            note = f"registry {self._registry.address} has none of them: is it the right one?"
            return Guess("values of another schema registry", {"format": "none"}, notes=[framing.told, note])
        kind = kinds.most_common(1)[0][0]
        if kind in _LANGUAGES:
            return self._guess(values, make_language(_LANGUAGES[kind]), self._registry, framing)
        if kind == "JSON" and framing.by_header:
            return None
        note = "no --format reads what is behind the ids: sort by record fields"
        return Guess(f"{_TITLES.get(kind, kind)} of a schema registry", {"format": "none"}, notes=[framing.told, note])

    def _guess(self, values: Values, language: Language, registry: SchemaRegistry, framing: Framing) -> Guess:
        types = _find_types(language, registry, values)
        keys = [KeyColumn(name, next(iter(kinds)), nulls=True) for name, kinds in types.items() if len(kinds) == 1]
        columns = {
            name: Column(name, "", 0, note=" or ".join(sorted(map(str, kinds)))) for name, kinds in types.items()
        }
        misfits: Mapping[int, str] = {}
        if keys:
            book = SchemaBook(registry, self._source, stops=False)
            parsed = FramedFormat(language, {}, keys, book).parse(values.records)
            columns |= {key.name: describe_encoded(key.name, parsed.columns[key.name], key.type) for key in keys}
            misfits = {row: why for row, why in parsed.rejected.items() if values.all[row] is not None}
        settings: dict[str, Any] = {"format": language.name, "schema_registry": registry.address}
        notes = [framing.told]
        if unknown := [str(schema) for schema in framing.ids if registry.get(schema) is None]:
            settings["unknown_schema"] = "dead-letter"
            notes.append(f"the registry does not know {', '.join(unknown)}: their records are dead letters")
        return Guess(f"{_TITLES[language.kind]} of a schema registry", settings, list(columns.values()), misfits, notes)


def find_kinds(registry: SchemaRegistry, framing: Framing) -> Counter[str]:
    """Return the kinds of the schemas that the registry has, such as AVRO, with the number of their records."""
    kinds: Counter[str] = Counter()
    for schema, count in framing.ids.items():
        if found := registry.get(schema):
            kinds[found.kind] += count
    return kinds


def _find_types(language: Language, registry: SchemaRegistry, values: Values) -> dict[str, set[ColumnType]]:
    """Return the columns of all schemas, each with the types that it has in them."""
    types: dict[str, set[ColumnType]] = {}
    headers = find_header(one_chunk(values.records.column("headers")), VALUE.header)
    for schema, indexes in language.split(values.column, headers).groups:
        found = registry.get(schema)
        if found is None or found.kind != language.kind:
            continue
        with suppress(RejectedError):
            read = language.read_schema(found, indexes)
            for name in islice(language.list_columns(read), _MOST_COLUMNS):
                types.setdefault(name, set()).update(language.find_types(read, parse_path(name)))
    return dict(list(types.items())[:_MOST_COLUMNS])
