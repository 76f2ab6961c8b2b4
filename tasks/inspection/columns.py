"""Columns of a sample: the type of each, its nulls, and how its values are spread.

A type is the narrowest that all sampled values have; other records may have others. Counts are of the sample.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.printable import excerpt, printable
from tasks.settings.column_types import TEXT, ColumnType
from tasks.settings.sorts import parse_sort
from tasks.types.registry import key_type

# The types of texts, the narrowest first; all texts are of the last one.
TEXTS: Final = tuple(map(ColumnType, ("int", "decimal", "float", "bool", "uuid", "time", "text")))
# The values of a document, by their kinds.
NUMBERS: Final = tuple(map(ColumnType, ("int", "decimal", "float")))
STRINGS: Final = tuple(map(ColumnType, ("uuid", "time", "text")))
BOOLS: Final = (ColumnType("bool"),)
# With so many values of a narrower type a column is worth a word on the others.
_NEARLY: Final = 0.9
_TRIED_VALUES: Final = 100
# The beginning that a text has at least if a type other than text takes it.
_NO_TEXT: Final = re.compile(rb"(?i)[ \t]*(?:[-.]?[0-9]|[0-9a-f]{4}|-?nan|-?inf|true|false)")
# Seconds from 2001 to 2100: integers between these are probably times.
_TIMES: Final = 978_307_200, 4_102_444_800
_UNITS: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_SHOWN_LETTERS: Final = 40
_LONGEST_NAME: Final = 500


@dataclass(frozen=True)
class Column:
    """A column as a sample of `count` records has it.

    `type`: empty if no type fits, so that no sort can name it. `nulls`: records without a value. `commonest`: the value
    that most records have, in its printed form, of which there are `heaviest`. `note`: a remark for a person.
    """

    name: str
    type: str
    count: int
    nulls: int = 0
    distinct: int = 0
    commonest: str = ""
    heaviest: int = 0
    note: str = ""

    @property
    def is_sortable(self) -> bool:
        """Whether a sort may name it."""
        return bool(self.type) and self.nulls < self.count and _can_be_written(self.name)

    @property
    def null_share(self) -> float:
        """The share of records without a value."""
        return self.nulls / max(self.count, 1)

    @property
    def distinct_share(self) -> float:
        """The number of distinct values for each record that has one; 1 if no two are equal."""
        return self.distinct / max(self.count - self.nulls, 1)

    @property
    def heaviest_share(self) -> float:
        """The share of records that have the commonest value."""
        return self.heaviest / max(self.count, 1)


def _can_be_written(name: str) -> bool:
    """Whether a sort reads the name as it is written: names in data may hold anything, and be of any length."""
    if len(name) > _LONGEST_NAME:
        return False
    try:
        ((key,), _) = parse_sort(name)
    except ValueError:
        return False
    return key.column == name


def describe_texts(
    name: str, texts: pa.Array, types: Sequence[ColumnType] = TEXTS, *, empty_is_null: bool = False
) -> Column:
    """Describe a column of texts (binary, null where there is none), by the narrowest of the types.

    `empty_is_null`: an empty text is a null of all types but text, as in rows of CSV.
    """
    if texts.null_count == len(texts):
        return describe_empty(name, len(texts))
    others = pc.if_else(pc.equal(pc.binary_length(texts), 0), None, texts) if empty_is_null else texts
    likely = _likely_types(others, types) if others.null_count < len(others) else {types[-1]: 1.0}
    for kind in (kind for kind, share in likely.items() if share == 1):
        given = texts if kind.name == "text" else others
        encoded, refused = key_type(kind).encode(given)
        if not refused:
            return describe_encoded(name, encoded, kind, _remark(kind, given, likely))
    return Column(name, "", len(texts), texts.null_count, note=f"no {' or '.join(map(str, types))}")


def _likely_types(texts: pa.Array, types: Sequence[ColumnType]) -> dict[ColumnType, float]:
    """Return the share of texts that each type takes, of some texts: to try all by all types takes seconds.

    Types behind one that takes all of them are not tried.
    """
    present = texts.drop_null()
    tried = present.take(pa.array(np.arange(0, len(present), max(1, len(present) // _TRIED_VALUES))))
    shares = dict[ColumnType, float]()
    if types[-1] == TEXT and sum(_NO_TEXT.match(text) is not None for text in tried.to_pylist()) < _NEARLY * len(tried):
        return {TEXT: 1.0}
    for kind in types:
        shares[kind] = 1 - len(key_type(kind).encode(tried)[1]) / len(tried)
        if shares[kind] == 1 and len(tried) == len(present):
            break
    return shares


def describe_empty(name: str, count: int, note: str = "no value was seen") -> Column:
    """Describe a column without a value."""
    return Column(name, "", count, count, note=note)


def describe_encoded(name: str, encoded: pa.Array, kind: ColumnType, note: str = "") -> Column:
    """Describe a column of values as their type encodes them, null where there is none."""
    count, nulls = len(encoded), encoded.null_count
    if nulls == count:
        return Column(name, str(kind), count, nulls)
    counted = pc.value_counts(encoded.drop_null())
    counts = np.asarray(counted.field("counts"))
    top = int(counts.argmax())
    shown = show_value(str(key_type(kind).show(counted.field("values")[top].as_py())))
    return Column(name, str(kind), count, nulls, len(counts), shown, int(counts[top]), note)


def show_value(text: str) -> str:
    """Return a value for a table: printable, and not too long."""
    shown = printable(text[: _SHOWN_LETTERS + 1])
    return shown if len(shown) <= _SHOWN_LETTERS else f"{shown[:_SHOWN_LETTERS]}…"


def _remark(kind: ColumnType, texts: pa.Array, likely: Mapping[ColumnType, float]) -> str:
    """Return what a person should know of values of this type. `likely`: shares of values that other types take."""
    if kind.name == "int":
        return _remark_on_times(texts)
    return _remark_on_texts(texts, likely) if kind.name == "text" else ""


def _remark_on_times(texts: pa.Array) -> str:
    """Say whether integers are probably times, and in which unit."""
    encoded, _ = key_type(ColumnType("int")).encode(texts)
    bounds = pc.min_max(encoded)
    least, greatest = bounds["min"].as_py(), bounds["max"].as_py()
    for unit, factor in _UNITS.items():
        if _TIMES[0] * factor <= least and greatest < _TIMES[1] * factor:
            return f"perhaps time({unit})"
    return ""


def _remark_on_texts(texts: pa.Array, likely: Mapping[ColumnType, float]) -> str:
    """Say whether nearly all texts are of a narrower type, or what they look like."""
    empty = pc.equal(pc.binary_length(texts), 0)
    present = pc.if_else(empty, None, texts)
    for kind in (kind for kind, share in likely.items() if kind.name != "text" and share >= _NEARLY):
        if refused := key_type(kind).encode(present)[1]:
            return f"{kind}, but for {len(refused):,}: {excerpt(texts[min(refused)].as_py(), 20)}"
    if pc.all(pc.match_substring_regex(present.drop_null(), _LOCAL_TIME), min_count=1).as_py():
        return "times without a zone, which compare as text"
    return f"{pc.sum(empty).as_py():,} are empty" if pc.any(empty).as_py() else ""


_LOCAL_TIME: Final = r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?)?\z"
