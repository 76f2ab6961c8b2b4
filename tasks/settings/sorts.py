"""The notation of a job: turns sizes, columns, sorts and topic names from text into values.

A text that cannot be read is a ValueError; its message names the text and how to write it.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from tasks.settings.column_types import INT, TEXT, ColumnType, parse_type
from tasks.settings.load import nearest
from tasks.settings.outputs import is_folder
from tasks.settings.paths import (
    Path,
    cut_outside_quotes,
    format_path,
    parse_path,
    quote,
    split_outside_quotes,
    unquote,
)

LONGEST_TOPIC = 249
TOPIC = re.compile(rf"[a-zA-Z0-9._-]{{1,{LONGEST_TOPIC}}}")
SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kKmMgGtT]?)(i?)[bB]?")
_LONGEST_SIZE = 30
# Names that a shell, a form or a file accept more easily than the character itself.
DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}
_CODE = re.compile(r"\\x([0-7][0-9a-fA-F])")
_DIRECTIONS = {"asc": "", "ascending": "", "desc": ":desc", "descending": ":desc"}


# Fields that a record has besides its value, by their names in sorts, with the types that they have if none is given.
RECORD_FIELDS = {"@key": TEXT, "@timestamp": INT, "@partition": INT, "@offset": INT, "@header": TEXT}
# Formats of keys that are integers of so many bytes, big-endian, as Kafka's own serializers write them.
INTEGER_KEYS = {"int32": 4, "int64": 8}
# Formats of keys that are documents, in which `@key.PATH` is a field.
DOCUMENT_KEYS = frozenset({"json", "avro", "protobuf"})
# Formats whose values and keys name their schemas, if a registry has these.
SCHEMA_FORMATS = frozenset({"avro", "protobuf"})


@dataclass(frozen=True)
class KeyColumn:
    """A column that any sort of a job compares. `nulls`: whether a record may be without it."""

    name: str
    type: ColumnType
    nulls: bool = False

    @property
    def label(self) -> str:
        """The column in the reason of a dead letter."""
        return label_column(self.name)


@dataclass(frozen=True)
class SortKey:
    """One column of a sort. `nulls`: where records without it go, `first` or `last`; empty: they are dead letters.

    `type`: the one that the sort itself gives; a ledger has it among the columns, so the term is written without.
    """

    column: str
    descending: bool = False
    nulls: str = ""
    type: ColumnType | None = None

    def __str__(self) -> str:
        return f"{self.column}{self._order}"

    def written(self, kind: str | None) -> str:
        """Return the term with a type: this one, or the one that it has."""
        kind = kind or str(self.type or "")
        return f"{self.column}{f':{kind}' if kind else ''}{self._order}"

    @property
    def _order(self) -> str:
        return f"{':desc' * self.descending}{f':nulls-{self.nulls}' if self.nulls else ''}"


@dataclass(frozen=True)
class Sort:
    """The key columns, most significant first, and the output: a topic, or a folder as `parquet:DIR`."""

    by: tuple[SortKey, ...]
    topic: str

    @property
    def name(self) -> str:
        """The sort's name, which is its output."""
        return self.topic

    @property
    def has_folder(self) -> bool:
        """Whether the output is a folder of files, and not a topic."""
        return is_folder(self.topic)

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


def label_column(column: str) -> str:
    """Return the column as the reason of a dead letter names it."""
    return column if is_record_field(column) else f"column {column}"


def is_record_field(column: str) -> bool:
    """Whether the column is a field of the record, or of its key, and not of its value."""
    return column.startswith("@")


def default_type(column: str, key_format: str = "text") -> ColumnType | None:
    """Return the type of a record field that is given none; None if it is not known, as within a key."""
    name, path = record_field(column)
    if name == "@key" and key_format in INTEGER_KEYS:
        return INT
    return RECORD_FIELDS[name] if name == "@header" or not path else None


def is_integer_field(column: str, key_format: str) -> bool:
    """Whether a record field is an integer already, and not a text that may be one."""
    return RECORD_FIELDS.get(column) == INT or (column == "@key" and key_format in INTEGER_KEYS)


def compares_integers(kind: ColumnType) -> bool:
    """Whether the type takes integers that are no text."""
    return kind.name in {"int", "decimal"} or (kind.name == "time" and bool(kind.parameter))


def record_field(column: str) -> tuple[str, Path]:
    """Divide a record field into its name and the path behind it: `@key.id`, `@header.trace`."""
    name, _, rest = column.partition(".")
    return name, parse_path(rest) if rest else ()


def path_within(column: str) -> Path:
    """Return the path of a column within the value, or within the record field that it begins with."""
    return record_field(column)[1] if is_record_field(column) else parse_path(column)


def canonical_column(text: str, *, paths: bool) -> str:
    """Return the one form of a column's notation. `paths`: columns are paths into a value, not names of its fields."""
    if not is_record_field(text):
        return format_path(parse_path(text)) if paths else quote(unquote(text))
    name, dot, rest = text.partition(".")
    known = ", ".join(f"{field}.NAME" if field == "@header" else field for field in RECORD_FIELDS)
    if name not in RECORD_FIELDS:
        hint = nearest(name, list(RECORD_FIELDS)) or f'; write a column whose name begins with @ in quotes, "{text}"'
        raise ValueError(f"there is no record field {text!r}: they are {known}{hint}")
    if (name == "@header") != bool(dot) and name != "@key":
        raise ValueError(f"there is no record field {text!r}: they are {known}")
    if not dot:
        return name
    if name == "@header" and not rest:
        raise ValueError(f"there is no record field {text!r}: write @header.NAME")
    # A header's name may hold dots: it is one name, not a path.
    path = (unquote(rest),) if name == "@header" else parse_path(rest)
    return f"{name}.{format_path(path)}"


def parse_columns(text: str) -> dict[str, ColumnType]:
    """Turn `id:int,name` into {"id": int, "name": text}, in the order of the fields of a row."""
    return {name: kind or TEXT for name, kind in read_columns(text).items()}


def read_columns(text: str, *, paths: bool = False) -> dict[str, ColumnType | None]:
    """Turn `id:int,name` into {"id": int, "name": None}, in the order given.

    `paths`: the columns are paths into a value.
    """
    columns: dict[str, ColumnType | None] = {}
    for item in split_outside_quotes(text, ","):
        written, *kinds = split_outside_quotes(item, ":")
        if not written.isprintable():
            raise ValueError(f"column {written!r}: use letters and signs that can be printed")
        if is_record_field(written) and not paths:
            raise ValueError(f"column {written!r}: names that begin with @ are record fields, and no fields of a row")
        name = canonical_column(written, paths=paths) if written else ""
        if not name or name in columns:
            raise ValueError(f"columns {text!r}: a column name is empty or given twice")
        if len(kinds) > 1:
            raise ValueError(f"column {item!r}: write NAME or NAME:TYPE")
        columns[name] = _parse_kind(f"column {name!r}", kinds[0]) if kinds and kinds[0] else None
    return columns


def format_columns(columns: Mapping[str, ColumnType | None], *, omit: ColumnType | None = TEXT) -> str:
    """Write columns in the one form that `parse_columns` reads. `omit`: the type that is not written."""
    return ",".join(name if kind in {omit, None} else f"{name}:{kind}" for name, kind in columns.items())


def parse_sort(text: str) -> tuple[tuple[SortKey, ...], str]:
    """Turn `continent,id:desc=by-continent` into (keys, output); the output is empty if none is given."""
    columns, output = cut_outside_quotes(text, "=")
    if "=" in output and not is_folder(output):
        raise ValueError(f"sort {text!r}: {_WRITTEN}")
    keys = [_parse_term(text, item) for item in split_outside_quotes(columns, ",")]
    if len({key.column for key in keys}) < len(keys):
        raise ValueError(f"sort {text!r} names a column twice")
    return tuple(keys), output


_WRITTEN = "write COLUMN[:TYPE][:asc|:desc][:nulls-first|:nulls-last][,COLUMN…][=TOPIC]"


def _parse_term(sort: str, term: str) -> SortKey:
    """Parse one term: `id`, `id:int:desc`, `@key:asc:nulls-last`."""
    column, *words = split_outside_quotes(term, ":")
    if not column.isprintable():
        raise ValueError(f"column {column!r}: use letters and signs that can be printed")
    kind = words.pop(0) if words and not _is_direction(words[0]) else ""
    direction = words.pop(0) if words and not words[0].startswith("nulls") else ""
    nulls = words.pop(0) if words else ""
    if column and direction in {"", "asc", "desc"} and nulls in {"", "nulls-first", "nulls-last"} and not words:
        given = _parse_kind(f"sort {sort!r}", kind) if kind else None
        return SortKey(column, direction == "desc", nulls.removeprefix("nulls-"), given)
    way = _DIRECTIONS.get(direction.lower())
    written = _WRITTEN
    if column and direction not in {"", "asc", "desc"} and way is not None:
        written = f"write {column}{way or ':asc'}"
    raise ValueError(f"sort {sort!r}: {written}")


def _is_direction(word: str) -> bool:
    return not word or word.lower() in _DIRECTIONS or word.startswith("nulls")


def _parse_kind(where: str, kind: str) -> ColumnType:
    try:
        return parse_type(kind)
    except ValueError as error:
        raise ValueError(f"{where}: {error}; {_WRITTEN}") from None


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
