"""Values that are JSON: the paths in them, and what each leads to."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

from tasks.formats.base import RejectedError
from tasks.formats.json_strict import read_document
from tasks.inspection.columns import BOOLS, NUMBERS, STRINGS, Column, describe_empty, describe_texts
from tasks.inspection.guesses import Guess, Values, is_enough
from tasks.printable import counted
from tasks.settings.column_types import ColumnType, parse_type
from tasks.settings.options import LONGEST_SETTING
from tasks.settings.paths import Path, format_path
from tasks.settings.sorts import format_columns

# Names that are data, such as ids, make a path of each.
_MOST_PATHS: Final = 300
_MOST_LEVELS: Final = 8
# Kinds that tell nothing of a path that other documents go on from.
_INNER: Final = frozenset({"nulls", "objects", "arrays"})
# What is walked of one document.
_MOST_LEAVES: Final = 2000
_TYPES: Final[Mapping[str, tuple[ColumnType, ...]]] = {"numbers": NUMBERS, "strings": STRINGS, "bools": BOOLS}


class JsonGuesser:
    """Guesses JSON: objects and arrays, by the strict rules that a run has."""

    def guess(self, values: Values) -> Guess | None:
        """Return the guess, with a column for each path."""
        documents, misfits = read_documents(values)
        if not documents or not is_enough(len(documents), values):
            return None
        leaves = Leaves(len(documents))
        for document in documents:
            leaves.add(document)
        columns = leaves.columns()
        return Guess("JSON", {"format": "json", **_write_types(columns)}, columns, misfits, leaves.notes)


def _write_types(columns: Sequence[Column]) -> dict[str, str]:
    """Return the setting with the types of columns, as many as it can hold."""
    types = {column.name: parse_type(column.type) for column in columns if column.is_sortable}
    while len(text := format_columns(types, omit=None)) > LONGEST_SETTING:
        types.popitem()
    return {"columns": text} if text else {}


def read_documents(values: Values) -> tuple[list[Any], dict[int, str]]:
    """Return the documents that are an object or an array, and row → reason of the other values."""
    documents, misfits = list[Any](), dict[int, str]()
    for row, value in zip(values.rows, values.present, strict=True):
        try:
            document = read_document(value)
        except RejectedError as error:
            misfits[row] = str(error)
            continue
        if isinstance(document, dict | list):
            documents.append(document)
        else:
            misfits[row] = "no object and no array"
    return documents, misfits


@dataclass
class _Leaf:
    """The values at one path: how many of each kind, and those of all kinds but null and containers, as bytes."""

    kinds: Counter[str] = field(default_factory=Counter)
    texts: list[bytes] = field(default_factory=list)


class Leaves:
    """Leaves of `count` documents by their paths, whose numbers are bytes: their digits."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._found: dict[Path, _Leaf] = {}
        # What is walked into, which is a leaf in other documents: path → how many of each kind.
        self._entered: dict[Path, Counter[str]] = {}
        self.notes: list[str] = []

    def add(self, document: Any) -> None:
        """Note what is in a document."""
        for number, (path, value) in enumerate(_walk(document, ())):
            if number == _MOST_LEAVES:
                break
            if _is_entered(path, value):
                self._enter(path, value)
                continue
            if path not in self._found and len(self._found) == _MOST_PATHS:
                self._note(f"there are more than {_MOST_PATHS} paths: some names seem to be data")
                continue
            leaf = self._found.setdefault(path, _Leaf())
            kind, text = _kind_of(value)
            leaf.kinds[kind] += 1
            leaf.texts += [text] if text is not None else []

    def _enter(self, path: Path, value: Any) -> None:
        if path in self._entered or len(self._entered) < _MOST_PATHS:
            self._entered.setdefault(path, Counter())[_kind_of(value)[0]] += 1

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def columns(self) -> list[Column]:
        """Return a column for each path."""
        found = ((path, leaf, self._entered.get(path, Counter())) for path, leaf in self._found.items() if path)
        # What is null or empty where it is not walked into has columns of its own.
        shown = ((path, leaf, entered) for path, leaf, entered in found if not entered or leaf.kinds.keys() - _INNER)
        return [self._column(format_path(path), leaf, entered) for path, leaf, entered in shown]

    def _column(self, name: str, leaf: _Leaf, entered: Counter[str]) -> Column:
        seen = leaf.kinds + entered
        kinds = {kind: count for kind, count in seen.items() if kind != "nulls"}
        if not kinds:
            return describe_empty(name, self._count, "null wherever it is")
        if len(kinds) > 1 or not kinds.keys() <= _TYPES.keys():
            told = ", ".join(counted(count, kind.removesuffix("s")) for kind, count in seen.most_common())
            return Column(name, "", self._count, self._count - sum(kinds.values()), note=told)
        nulls = pa.nulls(self._count - len(leaf.texts), pa.binary())
        texts = pa.concat_arrays([pa.array(leaf.texts, pa.binary()), nulls])
        return describe_texts(name, texts, _TYPES[next(iter(kinds))])


def _is_entered(path: Path, value: Any) -> bool:
    """Whether there are values within this one that are looked at."""
    return isinstance(value, dict | list) and bool(value) and len(path) < _MOST_LEVELS


def _walk(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Yield paths and values: all members of objects, and the first item of arrays, behind what they are in."""
    yield path, value
    if not _is_entered(path, value):
        return
    # Documents hold their members in reverse.
    inner = reversed(value.items()) if isinstance(value, dict) else enumerate(value[:1])
    for step, item in inner:
        yield from _walk(item, (*path, step))


def _kind_of(value: Any) -> tuple[str, bytes | None]:
    """Return the kind of a value, and its text if a type reads it."""
    match value:
        case None:
            return "nulls", None
        case bool():
            return "bools", b"true" if value else b"false"
        case bytes():
            return "numbers", value
        case str():
            return "strings", value.encode()
        case dict():
            return "objects", None
        case _:
            return "arrays", None
