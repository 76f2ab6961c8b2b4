"""The formats whose schemas are in a registry, for values and for record keys."""

from collections.abc import Sequence

import pyarrow as pa

from tasks.formats.base import needing_extra
from tasks.formats.framed import KEY, VALUE, FramedFormat, Language, SchemaBook, find_types
from tasks.formats.schema_registry import open_registry
from tasks.settings.job import Job
from tasks.settings.sorts import KeyColumn


def make_values(job: Job, keys: Sequence[KeyColumn]) -> FramedFormat:
    """Make the format of the job's values."""
    return FramedFormat(make_language(job.format), job.known_types, keys, _open_book(job))


def make_keys(job: Job, keys: Sequence[KeyColumn]) -> FramedFormat:
    """Make the format of the job's keys; `keys`: columns within them."""
    return FramedFormat(make_language(job.key_format), {}, keys, _open_book(job), KEY)


def find_schema_types(job: Job, part: str, records: pa.Table, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return for each record the type that each column of a part, `value` or `key`, has by the record's schema."""
    name, framed = (job.format, VALUE) if part == "value" else (job.key_format, KEY)
    return find_types(make_language(name), open_registry(job.schema_registry or ""), framed, records, columns)


def make_language(name: str) -> Language:
    """Return the language of schemas by its format's name. SettingsError if its extra is not installed."""
    if name == "avro":
        from tasks.formats.avro.framed import AvroLanguage

        return AvroLanguage()
    with needing_extra("a schema in Protobuf", "protobuf"):
        from tasks.formats.protobuf.framed import ProtobufLanguage
    return ProtobufLanguage()


def _open_book(job: Job) -> SchemaBook:
    registry = open_registry(job.schema_registry or "")
    return SchemaBook(registry, job.source_topic, stops=job.unknown_schema == "stop")
