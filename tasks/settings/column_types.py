"""The types of key columns by their names in a job, such as `int`, `time(ms)` and `text(de)`."""

import re
from dataclasses import dataclass
from typing import Final

from tasks.settings.load import nearest

_TYPE = re.compile(r"([a-z]+)(?:\(([A-Za-z_0-9]+)\))?")
_NAMES: Final = ("int", "decimal", "float", "bool", "time", "uuid", "text")
UNITS: Final = ("s", "ms", "us", "ns")
NOCASE: Final = "nocase"
# Texts that compare by their bytes, like all others, but must be UTF-8.
UTF8: Final = "utf8"


@dataclass(frozen=True)
class ColumnType:
    """How a column compares. `parameter`: the unit of a `time`, or the collation of a `text`; or empty."""

    name: str
    parameter: str = ""

    @property
    def prints_equals_alike(self) -> bool:
        """Whether equal keys have one printed form. Texts that compare without regard to case keep theirs."""
        return self.name != "text" or self.parameter in {"", UTF8}

    def __str__(self) -> str:
        return f"{self.name}({self.parameter})" if self.parameter else self.name


INT: Final = ColumnType("int")
TEXT: Final = ColumnType("text")
UTF8_TEXT: Final = ColumnType("text", UTF8)


def parse_type(text: str) -> ColumnType:
    """Read a type; ValueError names those that there are."""
    match = _TYPE.fullmatch(text.strip())
    # DuckDB has the names of its collations in lower case, and takes any.
    kind = ColumnType(match[1], (match[2] or "").lower()) if match else ColumnType(text)
    if kind.name not in _NAMES:
        raise ValueError(f"there is no type {text!r}: use {', '.join(_NAMES)}{nearest(text, list(_NAMES))}")
    if kind.parameter and kind.name not in {"time", "text"}:
        raise ValueError(f"type {text!r}: {kind.name} has no parameter")
    if kind.name == "time" and kind.parameter not in {"", *UNITS}:
        raise ValueError(f"type {text!r}: the units of a time are {', '.join(UNITS)}")
    if kind.name == "text" and kind.parameter not in {"", NOCASE, UTF8}:
        _check_collation(text, kind.parameter)
    return kind


def _check_collation(text: str, collation: str) -> None:
    known = collations()
    if collation.lower() not in known:
        hint = nearest(collation.lower(), sorted(known)) or ", for example text(de), text(sv) or text(nocase)"
        raise ValueError(f"type {text!r}: there is no collation {collation!r}{hint}")


def collations() -> frozenset[str]:
    """Return the names of the collations that DuckDB's ICU has."""
    # A job that names none need not wait for DuckDB.
    import duckdb

    with duckdb.connect() as connection:
        rows = connection.execute("SELECT lower(collname) FROM pragma_collations()").fetchall()
    return frozenset(row[0] for row in rows) - {"binary", "c", "posix", "nfc", "noaccent", "nocase"}
