"""Avro schemas: turns the JSON text of a schema into types, with all names resolved.

Logical types that are unknown, or do not fit their type, are ignored, as Avro's specification demands.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

PRIMITIVES: Final = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Logical type → the primitive types that it may stand on.
_LOGICAL: Final[Mapping[str, tuple[str, ...]]] = {
    "date": ("int",),
    "time-millis": ("int",),
    "time-micros": ("long",),
    "timestamp-millis": ("long",),
    "timestamp-micros": ("long",),
    "timestamp-nanos": ("long",),
    "local-timestamp-millis": ("long",),
    "local-timestamp-micros": ("long",),
    "local-timestamp-nanos": ("long",),
    "uuid": ("string", "fixed"),
    "decimal": ("bytes", "fixed"),
}
_UUID_BYTES = 16


class SchemaError(ValueError):
    """A text is no schema of Avro; the message says why."""


@dataclass(frozen=True)
class Primitive:
    """A type without parts. `logical`: empty if it has none; `scale`: of a decimal."""

    kind: str
    logical: str = ""
    scale: int = 0


@dataclass(frozen=True)
class Fixed:
    """Bytes of one length."""

    size: int
    logical: str = ""
    scale: int = 0
    kind: str = "fixed"


@dataclass(frozen=True)
class Enum:
    """A symbol by its number."""

    symbols: tuple[str, ...]
    kind: str = "enum"


@dataclass(frozen=True)
class Array:
    """Items of one type."""

    items: "Type"
    kind: str = "array"


@dataclass(frozen=True)
class Map:
    """Values of one type by texts."""

    values: "Type"
    kind: str = "map"


@dataclass(frozen=True)
class Union:
    """One of several types, by its number."""

    branches: tuple["Type", ...]
    kind: str = "union"


@dataclass(eq=False)
class Record:
    """Fields in their order. A record may hold itself: it is equal to itself alone."""

    name: str
    fields: list[tuple[str, "Type"]] = field(default_factory=list, repr=False)
    kind: str = "record"


_Plain = TypeVar("_Plain", Primitive, Fixed)
Type = Primitive | Fixed | Enum | Array | Map | Union | Record


def parse_schema(text: str, references: Iterable[str] = ()) -> Type:
    """Return the type that a schema describes. `references`: schemas whose names it uses, each after those it uses."""
    reader = _Reader()
    try:
        for reference in references:
            reader.read(_load(reference), "")
        return reader.read(_load(text), "")
    except RecursionError:
        raise SchemaError("it is nested too deeply") from None


def _load(text: str) -> Any:
    # A registry holds the schema of one primitive type with or without quotes; `null` without them is JSON as well.
    if text.strip() in PRIMITIVES:
        return text.strip()
    try:
        return json.loads(text)
    except ValueError as error:
        raise SchemaError(f"it is not JSON: {error}") from None


class _Reader:
    """Reads types; remembers those that have names."""

    def __init__(self) -> None:
        self._named: dict[str, Type] = {}

    def read(self, raw: Any, namespace: str) -> Type:
        if isinstance(raw, str):
            return Primitive(raw) if raw in PRIMITIVES else self._find(raw, namespace)
        if isinstance(raw, list):
            return self._read_union(raw, namespace)
        if not isinstance(raw, dict) or "type" not in raw:
            raise SchemaError(f"{_shown(raw)} is no type")
        kind = raw["type"]
        if kind in ("record", "error", "enum", "fixed"):
            return self._read_named(raw, kind, namespace)
        if kind == "array":
            return Array(self.read(_member(raw, "items"), namespace))
        if kind == "map":
            return Map(self.read(_member(raw, "values"), namespace))
        inner = self.read(kind, namespace)
        return _with_logical(inner, raw) if isinstance(inner, Primitive) and not inner.logical else inner

    def _find(self, name: str, namespace: str) -> Type:
        # A name without dots is one of the namespace, or of none.
        found = self._named.get(name if "." in name or not namespace else f"{namespace}.{name}")
        found = found or self._named.get(name)
        if found is None:
            raise SchemaError(f"it has no type {_shown(name)}")
        return found

    def _read_union(self, raw: list[Any], namespace: str) -> Union:
        branches = tuple(self.read(item, namespace) for item in raw)
        if any(isinstance(branch, Union) for branch in branches):
            raise SchemaError("a union is in a union")
        return Union(branches)

    def _read_named(self, raw: Mapping[str, Any], kind: str, namespace: str) -> Type:
        name = _full_name(raw, namespace)
        if name in self._named or name in PRIMITIVES:
            raise SchemaError(f"the name {_shown(name)} is given twice")
        if kind == "enum":
            self._named[name] = made = Enum(tuple(map(_text, _items(raw, "symbols"))))
            return made
        if kind == "fixed":
            self._named[name] = fixed = _with_logical(Fixed(_size(raw)), raw)
            return fixed
        record = self._named[name] = Record(name)
        self._read_fields(record, raw, name.rpartition(".")[0])
        return record

    def _read_fields(self, record: Record, raw: Mapping[str, Any], namespace: str) -> None:
        for item in _items(raw, "fields"):
            if not isinstance(item, dict):
                raise SchemaError(f"record {record.name}: {_shown(item)} is no field")
            name = _text(_member(item, "name"))
            if name in (known for known, _ in record.fields):
                raise SchemaError(f"record {record.name} has field {_shown(name)} twice")
            record.fields.append((name, self.read(_member(item, "type"), namespace)))


def _full_name(raw: Mapping[str, Any], namespace: str) -> str:
    name = _text(_member(raw, "name"))
    space = raw.get("namespace", namespace) or ""
    full = name if "." in name or not space else f"{space}.{name}"
    if not all(map(_NAME.fullmatch, full.removeprefix(".").split("."))):
        raise SchemaError(f"{_shown(full)} is no name")
    return full


def _with_logical(inner: _Plain, raw: Mapping[str, Any]) -> _Plain:
    """Add the logical type, if there is one that fits."""
    name = raw.get("logicalType")
    if not isinstance(name, str) or inner.kind not in _LOGICAL.get(name, ()):
        return inner
    scale = raw.get("scale", 0)
    if name == "decimal" and not _is_decimal(raw.get("precision"), scale):
        return inner
    if name == "uuid" and getattr(inner, "size", _UUID_BYTES) != _UUID_BYTES:
        return inner
    return replace(inner, logical=name, scale=scale if name == "decimal" else 0)


def _is_decimal(precision: Any, scale: Any) -> bool:
    return type(precision) is int and type(scale) is int and precision > 0 and 0 <= scale <= precision


def _member(raw: Mapping[str, Any], name: str) -> Any:
    if name not in raw:
        raise SchemaError(f"{_shown(raw)} has no {name}")
    return raw[name]


def _items(raw: Mapping[str, Any], name: str) -> list[Any]:
    items = _member(raw, name)
    if not isinstance(items, list):
        raise SchemaError(f"{name} of {_shown(raw)} are no list")
    return items


def _text(raw: Any) -> str:
    if not isinstance(raw, str) or not raw:
        raise SchemaError(f"{_shown(raw)} is no name")
    return raw


def _size(raw: Mapping[str, Any]) -> int:
    size = _member(raw, "size")
    if type(size) is not int or not 0 <= size < 2**31:
        raise SchemaError(f"{_shown(size)} is no size of a fixed")
    return size


def _shown(raw: Any) -> str:
    text = json.dumps(raw)
    return text if len(text) <= 60 else f"{text[:60]}…"


def parts_of(kind: Type) -> Iterator[Type]:
    """Return the types that a value of this type may hold directly."""
    if isinstance(kind, Record):
        yield from (inner for _, inner in kind.fields)
    elif isinstance(kind, Union):
        yield from kind.branches
    elif isinstance(kind, Array):
        yield kind.items
    elif isinstance(kind, Map):
        yield kind.values


def is_recursive(record: Record) -> bool:
    """Whether a value of the record may hold another one of it."""
    seen, todo = set[int](), list(parts_of(record))
    while todo:
        kind = todo.pop()
        if kind is record:
            return True
        if id(kind) not in seen:
            seen.add(id(kind))
            todo += parts_of(kind)
    return False


def least_bytes(kind: Type) -> int:
    """Return the fewest bytes that a value of this type takes; 0 only if it never takes any."""
    if isinstance(kind, Fixed):
        return kind.size
    if isinstance(kind, Record):
        # A record holds itself only within a union, an array or a map, which take a byte.
        return sum(least_bytes(inner) for _, inner in kind.fields)
    return {"null": 0, "float": 4, "double": 8}.get(kind.kind, 1)
