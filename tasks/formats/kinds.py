"""The kinds of the values that columns without a given type hold in a few records, and the types that follow."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from tasks.formats.base import RejectedError
from tasks.formats.json_strict import read_tokens
from tasks.formats.registered import find_schema_types
from tasks.keys import Parsed
from tasks.settings.job import Job
from tasks.settings.paths import Path
from tasks.settings.sorts import is_record_field, path_within

NUMERIC_TEXT: Final = "number in text"
TIME_TEXT: Final = "time in text"
# Behind the type of a column that a record's schema has.
BY_SCHEMA: Final = " by a schema"
NOTHING: Final = frozenset({"null", "missing"})
# Kind → the widest type that takes it; others have none.
TYPES: Final[Mapping[str, str]] = {
    "number": "decimal",
    "string": "text",
    NUMERIC_TEXT: "text",
    TIME_TEXT: "text",
    "bool": "bool",
    **{f"{name}{BY_SCHEMA}": name for name in ("int", "decimal", "float", "bool", "time", "uuid", "text")},
}
_STARTS = {"{": "object", "[": "array", '"': "string", "t": "bool", "f": "bool", "n": "null"}
_NUMBER = re.compile(rb"[ \t]*-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[ \t]*")
_TIME = re.compile(rb"[ \t]*[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}.*", re.DOTALL)


def find_kinds(job: Job, records: pa.Table) -> list[dict[str, str]]:
    """Return for each record of the schema RECORD what its untyped columns hold; nothing where it cannot be read."""
    kinds: list[dict[str, str]] = [{} for _ in range(len(records))]
    for part in ("value", "key"):
        columns = [name for name in job.untyped if is_record_field(name) == (part == "key")]
        if columns:
            found = _find_by_schemas if job.is_registered(part) else _find_in_json
            kinds = [one | more for one, more in zip(kinds, found(job, part, records, columns), strict=True)]
    return kinds


def _find_by_schemas(job: Job, part: str, records: pa.Table, columns: Sequence[str]) -> list[dict[str, str]]:
    found = find_schema_types(job, part, records, columns)
    return [{name: f"{kind}{BY_SCHEMA}" if kind else "missing" for name, kind in types.items()} for types in found]


def _find_in_json(_: Job, part: str, records: pa.Table, columns: Sequence[str]) -> list[dict[str, str]]:
    paths = [path_within(name) for name in columns]
    values = records.column(part).to_pylist()
    return [dict(zip(columns, _kinds_of(value, paths), strict=False)) for value in values]


def _kinds_of(value: bytes | None, paths: Sequence[Path]) -> list[str]:
    try:
        return list(map(_kind_of, read_tokens(value or b"", paths)))
    except RejectedError:
        return []


def _kind_of(token: str | None) -> str:
    if token is None:
        return "missing"
    kind = _STARTS.get(token[0], "number")
    return _kind_of_text(token[1:-1].encode()) if kind == "string" else kind


def _kind_of_text(text: bytes) -> str:
    if _NUMBER.fullmatch(text):
        return NUMERIC_TEXT
    return TIME_TEXT if _TIME.fullmatch(text) else "string"


def usual_types(job: Job, kinds: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the type that most of the values have, for each untyped column; columns without a value have none."""
    counts = {name: Counter(TYPES.get(seen.get(name, ""), "") for seen in kinds) for name in job.untyped}
    present = {name: [(kind, n) for kind, n in found.most_common() if kind] for name, found in counts.items()}
    return {name: found[0][0] for name, found in present.items() if found}


def note_texts(job: Job, parsed: Parsed, kinds: Sequence[dict[str, str]]) -> None:
    """Note what the texts are that a row's fields hold because they were given no type."""
    rows = parsed.accepted(len(kinds))
    rows = np.arange(len(kinds)) if rows is None else rows
    for name in job.default_texts:
        for row, text in zip(rows.tolist(), parsed.columns[name].to_pylist(), strict=True):
            kinds[row][name] = "null" if text is None else _kind_of_text(text)
