"""The notation of a job: turns sizes, columns, sorts and topic names from text into values.

A text that cannot be read is a ValueError; its message names the text and how to write it.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tasks.settings.load import nearest

LONGEST_TOPIC = 249
TOPIC = re.compile(rf"[a-zA-Z0-9._-]{{1,{LONGEST_TOPIC}}}")
SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kKmMgGtT]?)(i?)[bB]?")
_LONGEST_SIZE = 30
# Names that a shell, a form or a file accept more easily than the character itself.
DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}
_CODE = re.compile(r"\\x([0-7][0-9a-fA-F])")
_DIRECTIONS = {"asc": "", "ascending": "", "desc": ":desc", "descending": ":desc"}


class ColumnType(StrEnum):
    """The comparison of a column: `int` as a signed 64-bit integer, `text` by its bytes."""

    INT = "int"
    TEXT = "text"


# Fields that a record has besides its value, by their names in sorts.
RECORD_FIELDS = {"@key": ColumnType.TEXT, "@timestamp": ColumnType.INT}


@dataclass(frozen=True)
class KeyColumn:
    """A column that any sort of a job compares. `nulls`: whether a record may be without it."""

    name: str
    type: ColumnType
    nulls: bool = False


@dataclass(frozen=True)
class SortKey:
    """One column of a sort. `nulls`: where records without it go, `first` or `last`; empty: they are dead letters."""

    column: str
    descending: bool = False
    nulls: str = ""

    def __str__(self) -> str:
        return f"{self.column}{':desc' * self.descending}{f':nulls-{self.nulls}' if self.nulls else ''}"


@dataclass(frozen=True)
class Sort:
    """The key columns, most significant first, and the output topic."""

    by: tuple[SortKey, ...]
    topic: str

    @property
    def name(self) -> str:
        """The sort's name, which is its output."""
        return self.topic

    @property
    def columns(self) -> str:
        """The key columns as the command line writes them."""
        return ",".join(map(str, self.by))

    def __str__(self) -> str:
        return f"{self.columns}={self.topic}"


def parse_delimiter(text: str) -> str:
    r"""Return the character that `text` is or names, such as `tab`, `\t`, `pipe` and `\x1f`."""
    code = _CODE.fullmatch(text)
    found = chr(int(code[1], 16)) if code else DELIMITERS.get(text, text)
    if len(found) != 1 or not found.isascii() or found in '"\r\n\0':
        raise ValueError(
            f"delimiter {text!r}: use one ASCII character other than a quote, a line break or NUL, or one of "
            f"{', '.join(DELIMITERS)}, \\x1f"
        )
    return found


def check_topic_name(name: str, what: str) -> str:
    """Apply Kafka's rule for topic names; ValueError says which name broke it."""
    if not TOPIC.fullmatch(name) or name in {".", ".."}:
        raise ValueError(f"{what} {name!r} is not a valid topic name: use 1 to 249 of a-z A-Z 0-9 . _ -")
    return name


def find_collision(topic: str, others: Iterable[str]) -> str | None:
    """Find a topic that Kafka cannot have beside this one: in the names of its metrics `.` and `_` are the same."""
    plain = topic.replace(".", "_")
    return next((other for other in others if other != topic and other.replace(".", "_") == plain), None)


def describe_collision(topic: str, other: str) -> str:
    """Name two colliding topics, and the way out."""
    return (
        f"topic {topic!r} collides with topic {other!r}: to Kafka's metrics . and _ in a name are the same, so it has "
        "only one of them; take another name"
    )


def parse_size(text: str) -> int:
    """Return the bytes of `2GB`, `512MB`, `1GiB` or a plain number (decimal units; with an i, binary ones)."""
    match = SIZE.fullmatch(text.strip())
    if match is None or len(text) > _LONGEST_SIZE:
        raise ValueError(f"{text!r} is not a size: write for example 2GB, 512MB or 1GiB")
    number, unit, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kmgt".index(unit.lower() or " "))


def parse_columns(text: str) -> dict[str, ColumnType]:
    """Turn `id:int,name` into {"id": int, "name": text}, in the order of the fields of a row."""
    columns: dict[str, ColumnType] = {}
    for item in text.split(","):
        name, _, kind = item.strip().partition(":")
        if not name.isprintable():
            raise ValueError(f"column {name!r}: use letters and signs that can be printed")
        if name.startswith("@"):
            raise ValueError(f"column {name!r}: names that begin with @ are record fields, and no fields of a row")
        if not name or name in columns:
            raise ValueError(f"columns {text!r}: a column name is empty or given twice")
        if kind not in {"", *ColumnType}:
            raise ValueError(f"column {name!r} has type {kind!r}: use int or text")
        columns[name] = ColumnType(kind or "text")
    return columns


def format_columns(columns: Mapping[str, ColumnType]) -> str:
    """Write columns in the one form that `parse_columns` reads."""
    return ",".join(name if kind is ColumnType.TEXT else f"{name}:{kind}" for name, kind in columns.items())


def parse_sort(text: str) -> tuple[tuple[SortKey, ...], str]:
    """Turn `continent,id:desc=by-continent` into (keys, topic); the topic is empty if none is given."""
    columns, _, topic = text.partition("=")
    keys = [_parse_term(text, item) for item in columns.split(",")]
    if len({key.column for key in keys}) < len(keys):
        raise ValueError(f"sort {text!r} names a column twice")
    return tuple(keys), topic.strip()


def _parse_term(sort: str, term: str) -> SortKey:
    """Parse one term: `id`, `id:desc`, `@key:asc:nulls-last`."""
    column, *words = (part.strip() for part in term.split(":"))
    direction = words.pop(0) if words and not words[0].startswith("nulls") else ""
    nulls = words.pop(0) if words else ""
    if column and direction in {"", "asc", "desc"} and nulls in {"", "nulls-first", "nulls-last"} and not words:
        return SortKey(column, direction == "desc", nulls.removeprefix("nulls-"))
    way = _DIRECTIONS.get(direction.lower())
    written = "COLUMN[:asc|:desc][:nulls-first|:nulls-last][,COLUMN…][=TOPIC]"
    if column and direction not in {"", "asc", "desc"} and way is not None:
        written = f"{column}{way or ':asc'}"
    raise ValueError(f"sort {sort!r}: write {written}")


def hint_column(text: str, columns: Collection[str]) -> str:
    """Return how to write the column that `text` seems to mean; empty if it resembles none."""
    name, _, last = text.rpartition(" ")
    if name.strip() in columns and last.lower() in _DIRECTIONS:
        return f"; write {name.strip()}{_DIRECTIONS[last.lower()]}"
    if text[:1] in {"-", "+"} and text[1:] in columns:
        return f"; write {text[1:]}{':desc' * (text[0] == '-')}"
    if text.lower() in _DIRECTIONS:
        return "; write a direction behind its column, as id:desc"
    parts = [part for part in re.split(r"[\s;|+&/]+", text) if part]
    if len(parts) > 1 and all(part in columns for part in parts):
        return f"; write {','.join(parts)}"
    return nearest(text, list(columns))
