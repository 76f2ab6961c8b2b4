"""Reads the keys of a run's ledger record: the columns of its format and of its sorts, with their types.

The notation is that of the ledger: `customer.id:desc:nulls-last`, `"odd.name".x`, `@header.trace`. A text that cannot
be read is a ValueError.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile

# The version of the parse rules that this code follows. Under others a value may have had another key, or none.
RULES = "2"
# The rules of runs whose records do not name theirs.
OLDEST_RULES = "1"

# Within double quotes a mark is a letter, and two quotes are one. In the middle of a word a quote is a letter, too.
_TOKEN = re.compile(r'(?<=[^\s.,:="])"|"(?:[^"]|"")*"|.', re.DOTALL)
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_STEP = re.compile(r'\[([0-9]+)\]|\.?(?:"((?:[^"]|"")*)"|([^.\["]+))')
_KIND = re.compile(r"([a-z0-9]+)(?:\((\w+)\))?")
# Names of members and indexes of items, from the outside in.
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Kind:
    """A type by its name in the ledger. `parameter`: a unit of time or a collation, or empty."""

    name: str
    parameter: str = ""


@dataclass(frozen=True)
class Column:
    """The place of a key: in the value at `path`, or in the record field `field`, such as `@key`, and there at `path`.

    The path of a CSV field is its name, that of a header is the header's name.
    """

    field: str
    path: Path


@dataclass(frozen=True)
class KeyColumn:
    """One column of a sort's key. `nulls`: where records without it are, `first` or `last`; empty: nowhere."""

    column: Column
    kind: Kind
    descending: bool = False
    nulls: str = ""
    name: str = ""


SortKey = tuple[KeyColumn, ...]
Kinds = Mapping[Column, Kind]

# The fields of a record that its copy in an output has of its own.
_OWN_FIELDS = frozenset({"@partition", "@offset"})
_TEXT, _INT = Kind("text"), Kind("int")
_DEFAULTS = {"@key": _TEXT, "@header": _TEXT, "@timestamp": _INT, "@partition": _INT, "@offset": _INT}


def format_name(facts: Mapping[str, str]) -> str:
    """Return the format of a run. The records of the oldest runs do not name it."""
    return facts.get("name", "csv")


def read_sort(columns: str, facts: Mapping[str, str]) -> SortKey:
    """Read the columns of a sort. ValueError if one has no type in the facts of the format."""
    kinds, is_csv = read_kinds(facts), format_name(facts) == "csv"
    return tuple(_read_term(term, kinds, is_csv=is_csv) for term in _split(columns, ","))


def carried(sort: SortKey, output_key: str = "keep") -> SortKey:
    """Return the columns, from the most significant one, that an output's records have as their sources have them."""
    return tuple(takewhile(lambda key: is_carried(key.column, output_key), sort))


def is_carried(column: Column, output_key: str) -> bool:
    """Whether an output's records have the column as their sources have it. `output_key`: keep, sort or none."""
    return column.field not in _OWN_FIELDS and (column.field != "@key" or output_key == "keep")


def _read_term(term: str, kinds: Kinds, *, is_csv: bool) -> KeyColumn:
    name, *words = _split(term, ":")
    column = read_column(name, is_csv=is_csv)
    kind = kinds.get(column) or _DEFAULTS.get(column.field)
    if kind is None:
        raise ValueError(f"the format has no column {name}")
    nulls = next((word.removeprefix("nulls-") for word in words if word.startswith("nulls-")), "")
    return KeyColumn(column, kind, "desc" in words, nulls, name)


def read_kinds(facts: Mapping[str, str]) -> dict[Column, Kind]:
    """Return the types of the columns that the facts of a format name, in their order."""
    is_csv = format_name(facts) == "csv"
    items = [item for fact in ("columns", "fields") for item in _split(facts.get(fact, ""), ",") if item]
    return dict(_read_typed(item, is_csv=is_csv) for item in items)


def _read_typed(item: str, *, is_csv: bool) -> tuple[Column, Kind]:
    name, *words = _split(item, ":")
    return read_column(name, is_csv=is_csv), _read_kind(words[0]) if words else _TEXT


def _read_kind(text: str) -> Kind:
    match = _KIND.fullmatch(text)
    if match is None:
        raise ValueError(f"type {text!r} cannot be read")
    return Kind(match[1], match[2] or "")


def read_column(text: str, *, is_csv: bool) -> Column:
    """Read the name of a record field, of a CSV field, or a path into a value."""
    if not text.startswith("@"):
        return Column("", (_unquote(text),) if is_csv else read_path(text))
    field, dot, rest = text.partition(".")
    if field not in _DEFAULTS:
        raise ValueError(f"there is no record field {text}")
    if field == "@header":
        return Column(field, (_unquote(rest),))
    return Column(field, read_path(rest) if dot else ())


def read_path(text: str) -> Path:
    """Read a path, from the outside in."""
    steps: list[str | int] = []
    position = 0
    while position < len(text):
        step = _STEP.match(text, position)
        if step is None:
            raise ValueError(f"path {text!r} cannot be read")
        index, quoted, plain = step.groups()
        steps.append(int(index) if index else plain or quoted.replace('""', '"'))
        position = step.end()
    return tuple(steps)


def _unquote(text: str) -> str:
    return text[1:-1].replace('""', '"') if _QUOTED.fullmatch(text) else text


def _split(text: str, mark: str) -> Iterator[str]:
    part = ""
    for token in _TOKEN.findall(text):
        if token == mark:
            yield part.strip()
            part = ""
        else:
            part += token
    yield part.strip()
