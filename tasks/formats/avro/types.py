"""Leaves of an Avro schema as keys: the types that take each, and the type of a column that is given none."""

from collections.abc import Iterable, Sequence
from typing import Final

import pyarrow as pa

from tasks.errors import SettingsError
from tasks.formats.avro.decoder import Decoder, Wanted
from tasks.formats.avro.leaves import Leaf
from tasks.formats.avro.schema import Record, Type, Union
from tasks.settings.column_types import TEXT, ColumnType
from tasks.settings.load import nearest
from tasks.settings.paths import Path, format_path, parse_path
from tasks.types.registry import key_type

# By the Avro type, logical or plain; all others are text.
_DEFAULTS: Final = {
    "int": "int",
    "long": "int",
    "time-millis": "int",
    "time-micros": "int",
    "float": "float",
    "double": "float",
    "boolean": "bool",
    "decimal": "decimal",
    "date": "time",
    "uuid": "uuid",
}


class NoSuchColumnError(SettingsError):
    """A sort names a column that no schema of the source has."""

    action = "Correct the column's name; the line has the fields that there are."


class ColumnTypeError(SettingsError):
    """A column's type in the schema is none that the sort can compare so."""

    action = "Give the column a type that the schema's takes, as the line says."


def takes(kind: ColumnType, leaf: Leaf) -> bool:
    """Whether a key of this type may be a leaf. Texts are read as times and uuids, too, but not as numbers."""
    if leaf.arrow is None:
        return False
    if pa.types.is_binary(leaf.arrow):
        is_string = leaf.type.kind == "string"
        return kind.name == TEXT.name or (is_string and (kind.name == "uuid" or kind == ColumnType("time")))
    return key_type(kind).accepts(leaf.arrow)


def default_type(leaf: Leaf) -> ColumnType:
    """Return the type of a column that is this leaf, and is given none."""
    return ColumnType("time") if "timestamp" in leaf.name else ColumnType(_DEFAULTS.get(leaf.name, TEXT.name))


def find_leaves(schemas: Iterable[Type], path: Path) -> list[Leaf]:
    """Return the leaves that a path leads to by any of the schemas, nulls apart."""
    wanted = [Wanted(path, lambda _: True)]
    return [leaf for schema in schemas for leaf in Decoder(schema, wanted).leaves[0]]


def resolve_type(schemas: Sequence[Type], column: str, given: ColumnType | None) -> ColumnType:
    """Return the type of a column by the schemas, or the one given.

    NoSuchColumnError if no schema has the column; ColumnTypeError if no schema's type is one that the given one takes,
    or if none is given and the schemas do not tell one.
    """
    leaves = find_leaves(schemas, parse_path(column))
    if not leaves:
        known = list_columns(schemas)
        hint = nearest(column, known)
        raise NoSuchColumnError(f"no Avro schema has a column {column!r}: there are {', '.join(known) or 'none'}{hint}")
    kinds = {default_type(leaf) for leaf in leaves if leaf.arrow is not None}
    names = " and ".join(sorted({leaf.name for leaf in leaves}))
    if given is None and len(kinds) == 1:
        return kinds.pop()
    if given is None:
        way = f"give it a type, as {column}:text" if kinds else "sort by a field within it"
        raise ColumnTypeError(f"column {column} is {names} in its Avro schema: {way}")
    if not any(takes(given, leaf) for leaf in leaves):
        hint = f": use {' or '.join(sorted(map(str, kinds)))}" if kinds else ""
        raise ColumnTypeError(f"column {column} is {names} in its Avro schema, which type {given} does not take{hint}")
    return given


def list_columns(schemas: Iterable[Type], most: int = 30) -> list[str]:
    """Return the fields of the schemas that may be keys, without those of items, entries and inner repetitions."""
    found = dict.fromkeys(format_path(path) for schema in schemas for path in find_fields(schema))
    return [*list(found)[:most], *["…"] * (len(found) > most)]


def find_fields(schema: Type) -> Iterable[Path]:
    """Return the paths of all fields, without those of items, entries and inner repetitions."""
    return _fields(schema, (), ())


def _fields(kind: Type, path: Path, around: tuple[Type, ...]) -> Iterable[Path]:
    if isinstance(kind, Union):
        for branch in kind.branches:
            yield from _fields(branch, path, around)
    elif isinstance(kind, Record):
        for name, inner in kind.fields if kind not in around else ():
            yield from _fields(inner, (*path, name), (*around, kind))
    elif path and kind.kind != "null":
        yield path
