"""Keys of records that are read back, and of what a reader asks for, as bytes that compare as the sort orders."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import pyarrow as pa

from tasks.arrow import one_chunk
from tasks.errors import SettingsError, TerminalError
from tasks.formats.registry import make_format
from tasks.keys import encode_keys
from tasks.settings.column_types import TEXT, UTF8_TEXT
from tasks.settings.job import Job
from tasks.settings.sorts import Sort, is_record_field, record_field
from tasks.sorting.encoded import encode_rows
from tasks.sorting.order import order_of
from tasks.types.registry import key_type

# One field of a CSV row: in quotes, or plain; and what ends it.
_FIELD: Final = re.compile(r'(?:"((?:[^"]|"")*)"|([^",]*))(,|\Z)')


class ForeignRecordError(TerminalError):
    """An output holds a record that has no key by the rules of its job, so no run of the job wrote it as it is."""

    action = "Find out what else writes to the output: `kafka-sort verify` names the records."
    at_risk = "Perhaps: the output is not what the job wrote."


class KeyReader:
    """Reads the keys of a sort. SettingsError if records of the output do not hold them."""

    def __init__(self, job: Job, sort: Sort) -> None:
        require_carried(job, sort)
        columns = {key.column for key in sort.by}
        self.keys = [key for key in job.key_columns if key.name in columns]
        # Whether the keys are in values, and nothing else of a record counts: registered schemas may be in headers.
        self.of_values = not job.is_registered("value") and not any(is_record_field(key.name) for key in self.keys)
        self._sort, self._order = sort, order_of(self.keys, sort)
        self._format = make_format(job, self.keys)

    @property
    def terms(self) -> str:
        """The types of the sort's columns, directions and places of nulls: equal ones encode equal keys alike."""
        kinds = {key.name: TEXT if key.type == UTF8_TEXT else key.type for key in self.keys}
        return ",".join(str(replace(term, column=str(kinds[term.column]), type=None)) for term in self._sort.by)

    def encode(self, records: pa.Table) -> pa.Array:
        """Return the encoded keys of records, a table that has the columns of RECORD."""
        parsed = self._format.parse(records)
        if parsed.rejected:
            row, reason = min(parsed.rejected.items())
            place = records.slice(row, 1).to_pylist()[0]
            raise ForeignRecordError(
                f"output {self._sort.topic} partition {place['partition']} offset {place['offset']}: {reason}: no run "
                "of this job has written such a record; verify the output"
            )
        columns = {name: one_chunk(c) if isinstance(c, pa.ChunkedArray) else c for name, c in parsed.columns.items()}
        return encode_rows(self._order, encode_keys(self.keys, columns))

    def encode_row(self, row: str) -> bytes:
        """Encode a key that is written as one CSV row of the sort's columns; fewer columns are a prefix.

        Where the sort says where nulls go, a field without a letter is null, and `""` is the empty text.
        """
        return self.encode_values(self.split(row), f"key {row!r}")

    def split(self, row: str) -> list[str | None]:
        """Return the columns of a key that is written as one CSV row. SettingsError if it is none."""
        fields: list[str | None] = []
        end, mark = 0, ","
        while mark:
            match = _FIELD.match(row, end)
            if match is None:
                raise SettingsError(f"key {row!r} is no CSV row: close its quotes, and double those within")
            quoted, plain, mark = match.groups()
            fields.append(quoted.replace('""', '"') if quoted is not None else plain or self._empty(len(fields)))
            end = match.end()
        return fields

    def _empty(self, place: int) -> str | None:
        return None if place < len(self._sort.by) and self._sort.by[place].nulls else ""

    def encode_values(self, values: Sequence[Any], what: str) -> bytes:
        """Encode a key that is given as values or texts, one for each column or for the first ones.

        SettingsError if one is not of its column's type.
        """
        by = self._sort.by
        if len(values) > len(by):
            raise SettingsError(f"{what} has {len(values)} columns, and the sort {self._sort.columns} has {len(by)}")
        sort = Sort(by[: len(values)], self._sort.topic)
        kinds = {key.name: key for key in self.keys}
        columns: dict[str, pa.Array] = {}
        for term, value in zip(sort.by, values, strict=True):
            columns[term.column] = self._encode_one(kinds[term.column], value, what)
        keys = [key for key in self.keys if key.name in columns]
        if not keys:
            return b""
        order = order_of(keys, sort)
        return bytes(encode_rows(order, encode_keys(keys, columns))[0].as_py())

    def _encode_one(self, key: Any, value: Any, what: str) -> pa.Array:
        if value is None:
            if key.nulls:
                return pa.nulls(1, key_type(key.type).stored)
            raise SettingsError(f"{what}: {key.name} is never null in this sort")
        column, reasons = key_type(key.type).encode(pa.array([_to_text(value)], pa.binary()))
        if reasons:
            raise SettingsError(f"{what}: {key.name} {reasons[0]}")
        return column


def _to_text(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool):
        return b"true" if value else b"false"
    return (value.isoformat() if hasattr(value, "isoformat") else str(value)).encode("utf-8", "surrogateescape")


def require_carried(job: Job, sort: Sort) -> None:
    """Raise SettingsError if records of the output do not hold the sort's key as the source's did."""
    for column in find_uncarried(job, sort):
        raise SettingsError(
            f"the records of output {sort.topic} do not hold {column}, by which they are sorted, so no key can "
            "be looked for; read one run as it is, with --run and without --from and --to"
        )


def find_uncarried(job: Job, sort: Sort) -> list[str]:
    """Return the columns of the sort that records of the output do not hold as the source's did."""
    names = {key.column: record_field(key.column)[0] if key.column.startswith("@") else "" for key in sort.by}
    lost = {"@partition", "@offset"} | ({"@key"} if job.output_key != "keep" else set())
    return [column for column, name in names.items() if name in lost]
