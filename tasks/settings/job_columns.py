"""The columns that a job's sorts compare, with their types: derived from its options."""

import re
from dataclasses import replace
from functools import cached_property

from tasks.settings.column_types import TEXT, UTF8_TEXT, ColumnType
from tasks.settings.options import SAMPLE_COLUMNS, SAMPLE_SORTS, SAMPLE_TOPIC, JobOptions
from tasks.settings.outputs import canonical_output
from tasks.settings.sorts import (
    DOCUMENT_KEYS,
    SCHEMA_FORMATS,
    KeyColumn,
    Sort,
    SortKey,
    canonical_column,
    default_type,
    is_record_field,
    parse_sort,
    read_columns,
    record_field,
)


class JobColumns(JobOptions):
    """The options of a job, and the columns that they name."""

    @property
    def has_paths(self) -> bool:
        """Whether columns are paths into a value, whose fields nobody lists."""
        return self.format not in {"csv", "none"}

    @property
    def has_names(self) -> bool:
        """Whether the fields of a value have names of their own, so that a sort may name any."""
        return self.has_paths or self.csv_header

    def is_registered(self, part: str) -> bool:
        """Whether a schema registry has the schemas of this part of records, `value` or `key`."""
        has_file = any(
            given is not None for given in (self.avro_schema, self.protobuf_descriptor, self.protobuf_message)
        )
        is_framed = (
            self.key_format in SCHEMA_FORMATS if part == "key" else self.format in SCHEMA_FORMATS and not has_file
        )
        return self.schema_registry is not None and is_framed

    @cached_property
    def row_fields(self) -> dict[str, ColumnType | None]:
        """The fields of a CSV row in their order, or those in `columns`; the type is None where none is given."""
        default = None if self.has_names else SAMPLE_COLUMNS
        text = None if self.format == "none" else self.columns or default
        return read_columns(text, paths=self.has_paths) if text else {}

    @cached_property
    def sort_list(self) -> tuple[Sort, ...]:
        """The sorts, each with its output."""
        parsed = [parse_sort(text) for text in self.sorts]
        sorts = [(tuple(map(self._canonical, by)), canonical_output(output)) for by, output in parsed]
        return tuple(Sort(by, output or self._default_output(by)) for by, output in sorts)

    @property
    def topic_sorts(self) -> tuple[Sort, ...]:
        """The sorts whose outputs are topics."""
        return tuple(sort for sort in self.sort_list if not sort.has_folder)

    @property
    def folder_sorts(self) -> tuple[Sort, ...]:
        """The sorts whose outputs are folders."""
        return tuple(sort for sort in self.sort_list if sort.has_folder)

    def _canonical(self, key: SortKey) -> SortKey:
        return replace(key, column=canonical_column(key.column, paths=self.has_paths))

    def _default_output(self, by: tuple[SortKey, ...]) -> str:
        columns = ",".join(map(str, by))
        is_sample = self.source_topic == SAMPLE_TOPIC and self.columns in {None, SAMPLE_COLUMNS}
        if is_sample and columns in SAMPLE_SORTS:
            return columns
        return f"{self.source_topic}-by-{'-'.join(map(self._topic_part, by))}"

    def _topic_part(self, key: SortKey) -> str:
        """Return the column as a part of a topic's name: a path has letters that Kafka does not permit."""
        has_path = self.has_names or is_record_field(key.column)
        return re.sub(r"[^a-zA-Z0-9._]+", "-", key.column).strip("-.") if has_path else key.column

    @cached_property
    def column_types(self) -> dict[str, ColumnType]:
        """The fields of a CSV row in their order, or the fields of a value that sorts name, each with its type."""
        named = [key.column for key in self._sort_keys if not is_record_field(key.column)]
        return {name: self._type_of(name) for name in (named if self.has_names else self.row_fields)}

    @cached_property
    def record_field_types(self) -> dict[str, ColumnType]:
        """The record fields that sorts name with another type than the default of RECORD_FIELDS, by name."""
        names = sorted({key.column for key in self._sort_keys if is_record_field(key.column)})
        return {name: self._type_of(name) for name in names if self._type_of(name) != default_type(name)}

    @cached_property
    def known_types(self) -> dict[str, ColumnType | None]:
        """The columns of `column_types`; the type is None where the first run infers it."""
        return {name: None if name in self.untyped else kind for name, kind in self.column_types.items()}

    @cached_property
    def untyped(self) -> tuple[str, ...]:
        """The sorts' columns whose types the data tells: paths without a type into JSON, or by a registry."""
        names = dict.fromkeys(key.column for key in self._sort_keys)
        return tuple(name for name in names if self.given_type(name) is None and self._has_no_type_yet(name))

    @cached_property
    def default_texts(self) -> tuple[str, ...]:
        """The sorts' columns of CSV that are text because they are given no type."""
        names = dict.fromkeys(key.column for key in self._sort_keys if self.format == "csv")
        return tuple(name for name in names if not is_record_field(name) and self.given_type(name) is None)

    @cached_property
    def key_columns(self) -> tuple[KeyColumn, ...]:
        """The columns that any sort compares: record fields, then fields of the value in their order."""
        # A record without the key is a dead letter if any sort cannot place it.
        nulls = {k.column: all(o.nulls for o in self._sort_keys if o.column == k.column) for k in self._sort_keys}
        names = [*filter(is_record_field, nulls), *(name for name in self.column_types if name in nulls)]
        return tuple(KeyColumn(name, self._type_of(name), nulls[name]) for name in names)

    def given_type(self, column: str) -> ColumnType | None:
        """Return the type that a sort gives, or `columns`; None if there is none, so that a schema may decide."""
        given = next((key.type for key in self._sort_keys if key.column == column and key.type is not None), None)
        kind = given or self.row_fields.get(column)
        return kind and self._readable(column, kind)

    def _type_of(self, column: str) -> ColumnType:
        """Return the type that the job gives; else the default."""
        default = default_type(column, self.key_format) if is_record_field(column) else None
        return self.given_type(column) or self._readable(column, default or TEXT)

    def _readable(self, column: str, kind: ColumnType) -> ColumnType:
        """Return the type; but UTF-8 in place of any bytes, if the column becomes one of text in files."""
        is_key = bool(self.folder_sorts) and any(key.column == column for key in self._sort_keys)
        return UTF8_TEXT if is_key and kind == TEXT else kind

    def _has_no_type_yet(self, column: str) -> bool:
        if is_record_field(column):
            return self.key_format in DOCUMENT_KEYS and record_field(column)[0] == "@key"
        return self.format == "json" or self.is_registered("value")

    @property
    def _sort_keys(self) -> list[SortKey]:
        return [key for sort in self.sort_list for key in sort.by]
