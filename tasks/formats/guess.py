"""Guesses the format of values that are no rows of the job's, as a hint to the person who gave the settings.

Nothing depends on it. A guess holds for most of the values; there is none if they differ.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from tasks.printable import excerpt, printable
from tasks.settings.column_types import INT
from tasks.settings.job import Job
from tasks.settings.paths import unquote

# A guess examines so much of a value.
SHOWN_BYTES = 4096
_SHARE = 0.8
_SHOWN_NAMES = 10
# The delimiters that are common, with their names for a person.
DELIMITERS = {",": "','", ";": "';'", "\t": "a tab", "|": "'|'", ":": "':'", "\x01": r"'\x01'", " ": "a blank"}
_STARTS = {
    b"Obj\x01": "an Avro file",
    b"\xc3\x01": "Avro's single-object encoding",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "gzip: the value itself is compressed",
    b"\x28\xb5\x2f\xfd": "zstd: the value itself is compressed",
    b"\x04\x22\x4d\x18": "lz4: the value itself is compressed",
    b"\x82SNAPPY\x00": "snappy: the value itself is compressed",
    b"\xac\xed\x00\x05": "a serialized Java object",
    b"\x03\x00": "the wire format of AWS Glue's schema registry",
    b"\x03\x05": "the wire format of AWS Glue's schema registry",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}
_INTEGER = re.compile(rb"\s*[+-]?\d+\s*")
# The codes below the blank that text has: tab, line breaks, and common delimiters.
_CONTROL = re.compile(rb"[\x00\x02-\x08\x0b\x0c\x0e-\x1b]")


def guess_format(values: Sequence[bytes | None], job: Job) -> str:
    """Guess the format of values, each cut to SHOWN_BYTES; empty if no guess holds for most of them."""
    present = [value for value in values if value]
    if 2 * len(present) < len(values):
        null = "have no value (tombstones)" if 2 * values.count(None) > len(values) else "are empty"
        return f"most {null}, and a {'row' if job.format == 'csv' else 'document'} is in the value"
    for guess in (_guess_wire_format, _guess_start, _guess_text, _guess_binary):
        if hint := guess(present, job):
            return hint
    if job.format == "csv":
        return _guess_rows(present, job)
    return _guess_csv(present) if job.format == "json" else ""


def _mostly(values: Sequence[bytes], holds: Callable[[bytes], bool]) -> bool:
    return sum(map(holds, values)) >= _SHARE * len(values)


def _guess_wire_format(values: Sequence[bytes], _: Job) -> str:
    if not _mostly(values, lambda value: value[0] == 0 and len(value) > 5):
        return ""
    schemas = sorted({int.from_bytes(value[1:5], "big") for value in values if value[0] == 0})[:3]
    names = ", ".join(map(str, schemas))
    return f"looks like Avro or Protobuf in Confluent's wire format: magic byte 0, then schema id {names}"


def _guess_start(values: Sequence[bytes], _: Job) -> str:
    found = next((name for start, name in _STARTS.items() if _mostly(values, lambda v: v.startswith(start))), "")  # noqa: B023  # called at once
    return f"looks like {found}" if found else ""


def _guess_text(values: Sequence[bytes], job: Job) -> str:
    if _mostly(values, _is_json):
        return f"looks like JSON, with {_names(values)}" if job.format == "json" else "looks like JSON: --format json"
    return "looks like XML" if _mostly(values, lambda value: value.lstrip().startswith(b"<")) else ""


def _is_json(value: bytes) -> bool:
    text = value.removeprefix(b"\xef\xbb\xbf").strip()
    if not text.startswith((b"{", b"[")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return len(value) >= SHOWN_BYTES
    return True


def _names(values: Sequence[bytes]) -> str:
    """Describe the names that a path may begin with."""
    names = dict.fromkeys(name for value in values for name in _members(value))
    return f"the names {', '.join(list(names)[:_SHOWN_NAMES])}" if names else "no names"


def _members(value: bytes) -> list[str]:
    try:
        found = json.loads(value.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):
        return []
    return [printable(name) for name in found] if isinstance(found, dict) else []


def _guess_csv(values: Sequence[bytes]) -> str:
    for delimiter in (known for known in DELIMITERS if known != " "):
        rows = [_split(value, delimiter) for value in values]
        count = _usual(len(row[0]) if len(row) == 1 else 0 for row in rows)
        if count > 1:
            return f"looks like CSV, with {_fields(count)} between {DELIMITERS[delimiter]}: --format csv"
    return ""


def _guess_binary(values: Sequence[bytes], _: Job) -> str:
    if _mostly(values, lambda value: 0.3 < value.count(0) / len(value) < 0.6):
        return "looks like text in UTF-16"
    if _mostly(values, lambda value: _CONTROL.search(value) is not None):
        return "looks binary, as Avro or Protobuf without a schema registry"
    return ""


def _guess_rows(values: Sequence[bytes], job: Job) -> str:
    names = [unquote(name) for name in job.column_types]
    rows = [_split(value, job.delimiter) for value in values]
    if job.csv_header:
        return _guess_header(values, rows, names, job)
    if _usual(len(row) for row in rows) > 1:
        header = [name.casefold() for name in names]
        if _usual([field.strip().casefold() for field in row[0]] == header for row in rows):
            return "each value begins with a line of column names: add --csv-header"
        return "each value holds several rows: a value is one row"
    count = _usual(len(row[0]) for row in rows)
    if count == len(names):
        return _guess_types([row[0] for row in rows if len(row[0]) == count], job)
    if hint := _guess_delimiter(values, job.delimiter, len(names)):
        return hint
    return f"the values have {_fields(count)}, and --columns names {len(names)}" if count else ""


def _guess_header(values: Sequence[bytes], rows: Sequence[list[list[str]]], names: list[str], job: Job) -> str:
    count = _usual(len(row) for row in rows)
    if count == 1:
        return "the values have no header line: leave out --csv-header"
    if count > 2:
        return "each value holds several rows: a value is a header line and one row"
    wanted = {name.encode().decode("latin-1") for name in names}
    for other, shown in DELIMITERS.items():
        if other != job.delimiter and _mostly(values, lambda v: wanted <= set(_split(v, other)[0])):  # noqa: B023  # called at once
            return f"the delimiter seems to be {shown}"
    header, times = Counter(tuple(row[0]) for row in rows).most_common(1)[0]
    if times >= _SHARE * len(rows) and not wanted <= set(header):
        return f"the names in the header lines are {excerpt(','.join(header).encode('latin-1'), 80)}"
    return ""


def _guess_delimiter(values: Sequence[bytes], given: str, expected: int) -> str:
    counts = {other: _usual(len(_split(value, other)[0]) for value in values) for other in DELIMITERS}
    likely = {other: count for other, count in counts.items() if other != given and count > 1}
    if fitting := [other for other, count in likely.items() if count == expected]:
        return f"the delimiter seems to be {DELIMITERS[fitting[0]]}"
    # A blank is in ordinary texts, too.
    likely.pop(" ", None)
    if not likely or counts.get(given, 0) > 1:
        return ""
    other, count = next(iter(likely.items()))
    return f"the delimiter seems to be {DELIMITERS[other]}, with {_fields(count)} where --columns names {expected}"


def _guess_types(rows: Sequence[Sequence[str]], job: Job) -> str:
    for index, (name, kind) in enumerate(job.column_types.items()):
        if kind == INT and name in [key.name for key in job.key_columns]:
            others = [row[index] for row in rows if not _INTEGER.fullmatch(row[index].encode("latin-1"))]
            if len(others) >= _SHARE * len(rows):
                return f"column {name} does not hold integers: leave out its :int to compare it as text"
    return ""


def _fields(count: int) -> str:
    return f"{count} field{'s' if count != 1 else ''}"


def _split(value: bytes, delimiter: str) -> list[list[str]]:
    """Return the rows of a value, as far as CSV can be read."""
    text = io.StringIO(value.decode("latin-1"), newline="")
    try:
        return [row for row in csv.reader(text, delimiter=delimiter) if row] or [[]]
    except csv.Error:
        return [[]]


def _usual(counts: Iterable[int]) -> int:
    """Return the number that most of them are; 0 if they differ."""
    found = Counter(counts)
    number, times = found.most_common(1)[0]
    return number if times >= _SHARE * found.total() else 0
