"""Schemas of Avro, parsed by fastavro."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


@dataclass(frozen=True)
class Schema:
    """A type as JSON has it; a name in it is a key of `named`."""

    root: Any
    named: dict[str, Any]

    def resolve(self, kind: Any) -> Any:
        """Return the type that a name stands for."""
        while isinstance(name := kind["type"] if isinstance(kind, dict) else kind, str) and name in self.named:
            kind = self.named[name]
        return kind

    def parts(self, kind: Any) -> Iterator[Any]:
        """Return the types that a value of the type may hold directly."""
        kind = self.resolve(kind)
        if isinstance(kind, list):
            yield from kind
        elif is_record(kind):
            yield from (field["type"] for field in kind["fields"])
        elif name_of(kind) in {"array", "map"}:
            yield kind["items" if kind["type"] == "array" else "values"]

    def is_recursive(self, record: Any) -> bool:
        """Whether a value of the record may hold another one of it."""
        seen, todo = set[int](), list(self.parts(record))
        while todo:
            kind = self.resolve(todo.pop())
            if kind is record:
                return True
            if not isinstance(kind, str) and id(kind) not in seen:
                seen.add(id(kind))
                todo += self.parts(kind)
        return False

    def is_empty(self, kind: Any) -> bool:
        """Whether values of the type have no bytes. A record holds itself only within what has some."""
        kind = self.resolve(kind)
        if is_record(kind):
            return all(map(self.is_empty, self.parts(kind)))
        return name_of(kind) == "null" or (name_of(kind) == "fixed" and kind["size"] == 0)


def name_of(kind: Any) -> str:
    """Return the name of a type that is resolved: `union` of a list."""
    return "union" if isinstance(kind, list) else str(kind["type"] if isinstance(kind, dict) else kind)


def is_record(kind: Any) -> bool:
    """Whether a type that is resolved is a record."""
    return name_of(kind) in {"record", "error"}


def parse_schema(texts: Sequence[str]) -> Schema:
    """Read the last text; those in front of it are schemas that it refers to. ValueError if one is no schema."""
    # Runs of other formats do not need it.
    from fastavro.schema import SchemaParseException, UnknownType, parse_schema as parse

    named: dict[str, Any] = {}
    root: Any = None
    try:
        for text in texts:
            root = parse(_load(text), named, _write_hint=False)
    except (SchemaParseException, UnknownType, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"fastavro does not read the schema: {error}") from None
    return Schema(root, named)


def _load(text: str) -> Any:
    # A registry holds the schema of one primitive type with or without quotes.
    return text.strip() if text.strip() in _PRIMITIVES else _unwrap(json.loads(text))


def _unwrap(kind: Any) -> Any:
    """Return the type without types that only hold another: fastavro does not read `{"type": {"type": "long"}}`."""
    if isinstance(kind, list):
        return [_unwrap(branch) for branch in kind]
    if not isinstance(kind, dict):
        return kind
    inner = kind.get("type")
    if isinstance(inner, dict | list):
        return _unwrap({**kind, **inner} if isinstance(inner, dict) else inner)
    parts = {name: _unwrap(kind[name]) for name in ("items", "values") if name in kind}
    if "fields" in kind:
        parts["fields"] = [{**field, "type": _unwrap(field["type"])} for field in kind["fields"]]
    return {**kind, **parts}
