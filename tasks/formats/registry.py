"""The formats by name, one line for each; a job names its own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from tasks.formats.avro.format import AvroFormat
from tasks.formats.base import RecordFormat, needing_extra, used_schemas
from tasks.formats.csv import CsvFormat
from tasks.formats.csv_header import HeaderFormat
from tasks.formats.json import JsonFormat
from tasks.formats.key_formats import make_key_format
from tasks.formats.record_fields import RecordFields
from tasks.formats.registered import make_keys, make_values
from tasks.formats.schema_registry import open_registry
from tasks.keys import Parsed
from tasks.settings.job import Job
from tasks.settings.sorts import KeyColumn, format_columns, is_record_field, record_field

# Makes the format of the part of a record that some key columns are in.
_Maker = Callable[[Job, Sequence[KeyColumn]], RecordFormat]


def _make_csv(job: Job, keys: Sequence[KeyColumn]) -> RecordFormat:
    kind = HeaderFormat if job.csv_header else CsvFormat
    return kind(job.column_types, keys, job.delimiter, quotes=job.csv_quote == "double")


def _make_avro(job: Job, keys: Sequence[KeyColumn]) -> RecordFormat:
    given = {key.name: key.type for key in keys if job.given_type(key.name)}
    return AvroFormat(job.schema_content, keys, given, f"--avro-schema {job.avro_schema}")


def _make_protobuf(job: Job, keys: Sequence[KeyColumn]) -> RecordFormat:
    with needing_extra("--format protobuf", "protobuf"):
        from tasks.formats.protobuf.format import ProtobufFormat
    given = {key.name: key.type for key in keys if job.given_type(key.name)}
    where = f"--protobuf-descriptor {job.protobuf_descriptor}"
    return ProtobufFormat(job.schema_content, job.protobuf_message or "", keys, given, where)


# Reads the key columns that are in values.
_MAKERS: Final[dict[str, _Maker]] = {
    "csv": _make_csv,
    "json": lambda job, keys: JsonFormat(job.known_types, keys),
    "avro": _make_avro,
    "protobuf": _make_protobuf,
    "none": lambda _, keys: RecordFields(keys),
}


def make_format(job: Job, keys: Sequence[KeyColumn] | None = None) -> RecordFormat:
    """Make the job's format. It parses values only if a sort names a field of them.

    `keys`: the key columns to read, with the types to read them as, if these are not all of the job's.
    """
    wanted = job.key_columns if keys is None else keys
    parts = [make(job, keys) for make, keys in _split_keys(job, wanted) if keys]
    return parts[0] if len(parts) == 1 else _Joined(*parts)


def _split_keys(job: Job, keys: Sequence[KeyColumn]) -> list[tuple[_Maker, list[KeyColumn]]]:
    """Return the key columns by the part of a record that they are in, with what makes its format."""
    of_values, of_records = _keys_of_values(keys), [key for key in keys if is_record_field(key.name)]
    framed = [key for key in of_records if job.is_registered("key") and record_field(key.name)[0] == "@key"]
    others = [key for key in of_records if key not in framed]
    return [(_make_fields, others), (make_keys, framed), (_make_values, of_values)]


def _make_fields(job: Job, keys: Sequence[KeyColumn]) -> RecordFormat:
    return RecordFields(keys, None if job.is_registered("key") else make_key_format(job))


def _make_values(job: Job, keys: Sequence[KeyColumn]) -> RecordFormat:
    return make_values(job, keys) if job.is_registered("value") else _MAKERS[job.format](job, keys)


def with_schema_types(job: Job) -> Job:
    """Return the job with the types that its schema has for columns without a given one."""
    own = {key.name: key.type for key in job.key_columns}
    return job.with_types({key.name: str(key.type) for key in make_format(job).keys if key.type != own[key.name]})


def describe_format(job: Job) -> Mapping[str, str]:
    """Return what a run record says of the job's format, and of the record fields that its sorts name.

    Any of these facts that a job changes stops it, since it would place its records by other keys.
    """
    facts = dict(_make_values(job, _keys_of_values(job.key_columns)).facts())
    if job.record_field_types:
        facts["fields"] = format_columns(job.record_field_types, omit=None)
    if job.key_format != "text":
        facts["key_format"] = job.key_format
    return facts


def check_format(job: Job) -> None:
    """Raise SettingsError if a schema lacks what the job names, or a registry refuses; TransientError if it is away."""
    make_format(job)
    if job.schema_registry:
        open_registry(job.schema_registry).check()


def _keys_of_values(keys: Sequence[KeyColumn]) -> list[KeyColumn]:
    return [key for key in keys if not is_record_field(key.name)]


class _Joined:
    """Joins record fields with fields of values: a record is accepted if both accept it."""

    def __init__(self, *parts: RecordFormat) -> None:
        self._parts = parts

    @property
    def keys(self) -> tuple[KeyColumn, ...]:
        """The key columns of all parts."""
        return tuple(key for part in self._parts for key in part.keys)

    def parse(self, records: pa.Table) -> Parsed:
        """Parse with all parts; the first one that rejects a record gives the reason."""
        parsed = [part.parse(records) for part in self._parts]
        rejected = {row: reason for part in reversed(parsed) for row, reason in part.rejected.items()}
        columns: dict[str, pa.Array] = {}
        for part in parsed:
            rows = part.accepted(len(records))
            rows = np.arange(len(records)) if rows is None else rows
            kept = pa.array(np.flatnonzero(~np.isin(rows, list(rejected))))
            columns |= (part if len(kept) == len(rows) else part.take(kept)).columns
        return Parsed(columns, rejected)

    @property
    def schemas(self) -> Mapping[str, str]:
        """The schemas that the formats of values and keys have used."""
        return {schema: digest for part in self._parts for schema, digest in used_schemas(part)}

    def facts(self) -> Mapping[str, str]:
        """Return the facts of the values' format."""
        return self._parts[-1].facts()
