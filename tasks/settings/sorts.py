"""The words a job is written in: sizes, columns, sorts and topic names, from text to values.

What cannot be read is a ValueError whose message names the text and how to write it.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmMgGtT]?)(i?)[bB]?")
_LONGEST_SIZE = 30


class ColumnType(StrEnum):
    """How a column is compared: `int` as a signed 64-bit integer, `text` by its bytes."""

    INT = "int"
    TEXT = "text"


@dataclass(frozen=True)
class SortKey:
    """One column of a sort."""

    column: str
    descending: bool = False

    def __str__(self) -> str:
        return f"{self.column}:desc" if self.descending else self.column


@dataclass(frozen=True)
class Sort:
    """Key columns, most significant first, and the output topic."""

    by: tuple[SortKey, ...]
    topic: str

    @property
    def name(self) -> str:
        """What the sort is called: its output."""
        return self.topic

    @property
    def columns(self) -> str:
        """The key columns as they are written on the command line."""
        return ",".join(map(str, self.by))

    def __str__(self) -> str:
        return f"{self.columns}={self.topic}"


def check_topic_name(name: str, what: str) -> str:
    """Kafka's rule for topic names; ValueError says which name broke it."""
    if not TOPIC.fullmatch(name) or name in {".", ".."}:
        raise ValueError(f"{what} {name!r} is not a valid topic name: use 1 to 249 of a-z A-Z 0-9 . _ -")
    return name


def parse_size(text: str) -> int:
    """Bytes of `2GB`, `512MB`, `1GiB` or a plain number (decimal units; with an i, binary ones)."""
    match = SIZE.fullmatch(text.strip())
    if match is None or len(text) > _LONGEST_SIZE:
        raise ValueError(f"{text!r} is not a size: write for example 2GB, 512MB or 1GiB")
    number, unit, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kmgt".index(unit.lower() or " "))


def parse_columns(text: str) -> dict[str, ColumnType]:
    """`id:int,name` → {"id": int, "name": text}, in the order of the fields of a row."""
    columns: dict[str, ColumnType] = {}
    for item in text.split(","):
        name, _, kind = item.strip().partition(":")
        if not name.isprintable():
            raise ValueError(f"column {name!r}: use letters and signs that can be printed")
        if not name or name in columns:
            raise ValueError(f"columns {text!r}: a column name is empty or given twice")
        if kind not in {"", *ColumnType}:
            raise ValueError(f"column {name!r} has type {kind!r}: use int or text")
        columns[name] = ColumnType(kind or "text")
    return columns


def parse_sort(text: str) -> tuple[tuple[SortKey, ...], str]:
    """`continent,id:desc=by-continent` → (keys, topic); the topic is empty where none is given."""
    columns, _, topic = text.partition("=")
    keys = []
    for item in columns.split(","):
        column, _, direction = item.strip().partition(":")
        if direction not in {"", "asc", "desc"} or not column:
            raise ValueError(f"sort {text!r}: write COLUMN[:asc|:desc][,COLUMN…][=TOPIC]")
        keys.append(SortKey(column, direction == "desc"))
    if len({key.column for key in keys}) < len(keys):
        raise ValueError(f"sort {text!r} names a column twice")
    return tuple(keys), topic.strip()
