"""The job: what to sort, into which topics, within which limits.

This one model is the flow's parameter, the Prefect form, the job file and the command line's flags. It has no secrets.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from tasks.settings.column_types import TEXT, ColumnType
from tasks.settings.folders import home_folder
from tasks.settings.load import FieldError, load_model, read_job_file
from tasks.settings.names import LONGEST_JOB_NAME, JobNames
from tasks.settings.registry import check_address
from tasks.settings.sorts import (
    DELIMITERS,
    DOCUMENT_KEYS,
    LONGEST_TOPIC,
    RECORD_FIELDS,
    SIZE,
    TOPIC,
    KeyColumn,
    Sort,
    SortKey,
    canonical_column,
    check_topic_name,
    compares_integers,
    default_type,
    describe_collision,
    find_collision,
    hint_column,
    is_integer_field,
    is_record_field,
    parse_delimiter,
    parse_size,
    parse_sort,
    read_columns,
    record_field,
)

SAMPLE_TOPIC = "source"
SAMPLE_COLUMNS = "id:int,name,address,continent"
SAMPLE_SORTS = ("id", "name", "continent")
# The table of a job file with the settings of a stream, which a batch run does not use.
STREAM_TABLE = "stream"

# The part of these texts' rules that a schema can express; the validators know the rest.
_TOPIC_PATTERN = f"^{TOPIC.pattern}$"
# The pattern is for the JSON schema only: callers of the flow get our validator's message.
TopicName = Annotated[str, Field(json_schema_extra={"pattern": _TOPIC_PATTERN})]
_TYPE_PATTERN = r"\s*(int|decimal|float|bool|uuid|time(\((s|ms|us|ns)\))?|text(\([A-Za-z_]+\))?)?\s*"
_NAME_PATTERN = r'("([^"]|"")*"|[^",:=])+'
_COLUMN_PATTERN = rf"{_NAME_PATTERN}(:{_TYPE_PATTERN})?"
_COLUMNS_PATTERN = rf"^({_COLUMN_PATTERN}(,{_COLUMN_PATTERN})*)?$"
_TERM_PATTERN = rf"{_NAME_PATTERN}(:{_TYPE_PATTERN})?(:\s*(asc|desc)?\s*)?(:\s*nulls-(first|last)\s*)?"
_SORT_PATTERN = rf"^{_TERM_PATTERN}(,{_TERM_PATTERN})*(=\s*([a-zA-Z0-9._-]{{1,249}})?\s*)?$"

_DELIMITER_PATTERN = rf'^((?!["\r\n])[\x01-\x7f]|\\x(?!00)[0-7][0-9a-fA-F]|{"|".join(map(re.escape, DELIMITERS))})$'

_LONGEST_SETTING = 10_000

# A setting with a schema, the format that it is for, and how to give the format what it needs.
_PROTOBUF = "--protobuf-descriptor and --protobuf-message"
_SCHEMA_SETTINGS = (
    ("avro_schema", "avro", "--schema-registry ADDRESS or --avro-schema FILE"),
    ("protobuf_descriptor", "protobuf", _PROTOBUF),
    ("protobuf_message", "protobuf", _PROTOBUF),
)


def order_fields(schema: dict[str, Any]) -> None:
    """Set `position`, by which Prefect's form orders; without it the order is by name, required fields first."""
    for position, field in enumerate(schema["properties"].values()):
        field["position"] = position


def _form(pattern: str, *, items: bool = False, **extra: str) -> dict[str, Any]:
    """Return what Prefect's server checks when a run is created. The validators below explain the same rules."""
    return {**({"items": {"type": "string", "pattern": pattern}} if items else {"pattern": pattern}), **extra}


class Job(BaseModel):
    """One source topic and its sorts."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, json_schema_extra=order_fields)

    source_topic: str = Field(
        SAMPLE_TOPIC, title="Source topic", description="Topic to read.", json_schema_extra=_form(_TOPIC_PATTERN)
    )
    sorts: list[str] = Field(
        default_factory=lambda: list(SAMPLE_SORTS),
        min_length=1,
        title="Sorts",
        description="COLUMNS[=TOPIC] each: id, or continent,id:desc=by-continent, or @key; the topic names the sort.",
        examples=[["id", "continent,id:desc=by-continent"]],
        json_schema_extra=_form(_SORT_PATTERN, items=True, flag="sort", metavar="COLUMNS[=TOPIC]"),
    )
    format: Literal["csv", "json", "avro", "protobuf", "none"] = Field(
        "csv",
        title="Format",
        description="Format of values: csv, json, avro, protobuf, or none for sorts by record fields alone.",
    )
    key_format: Literal["text", "int32", "int64", "json"] = Field(
        "text",
        title="Key format",
        description="Format of keys, for sorts by @key: text, json, or big-endian int32 or int64.",
    )
    columns: str | None = Field(
        None,
        title="Columns",
        description=f"Fields of a CSV row in their order, NAME[:TYPE] each; default: {SAMPLE_COLUMNS}. "
        "With a header line in each value, and in other formats: fields or paths in any order, for their types.",
        examples=["order:int,customer,country,total"],
        json_schema_extra=_form(_COLUMNS_PATTERN),
    )
    delimiter: str = Field(
        ",",
        title="Delimiter",
        description="Delimiter of two fields: one character, or tab, \\t, comma, semicolon, pipe, space, \\x1f.",
        json_schema_extra=_form(_DELIMITER_PATTERN),
    )
    csv_header: bool = Field(
        False, title="CSV header", description="Each value is a header line with the names of the fields, then one row."
    )
    csv_quote: Literal["double", "none"] = Field(
        "double", title="CSV quote", description="Double quotes around fields, or none: a quote is text."
    )
    avro_schema: Path | None = Field(
        None, title="Avro schema", description="File with the schema of values that are bare Avro, without framing."
    )
    schema_registry: str | None = Field(
        None,
        title="Schema registry",
        description="Address of the schema registry whose ids are in front of Avro values, or in their headers.",
        examples=["https://registry.example:8081"],
        json_schema_extra=_form("^https?://[^@]*$"),
    )
    unknown_schema: Literal["stop", "dead-letter"] = Field(
        "stop",
        title="Unknown schema",
        description="If the registry does not know a record's schema: stop, or make the record a dead letter.",
    )
    protobuf_descriptor: Path | None = Field(
        None,
        title="Protobuf descriptor",
        description="File of protoc --include_imports -o with the schema of values that are bare messages.",
    )
    protobuf_message: str | None = Field(
        None,
        title="Protobuf message",
        description="Full name of the message that each value is.",
        examples=["shop.v1.Order"],
    )
    job_name: str | None = Field(
        None,
        title="Job name",
        description="Name of the job; default: the source topic's name.",
        json_schema_extra=_form(_TOPIC_PATTERN),
    )
    max_records: int | None = Field(None, ge=1, title="Most records", description="The most offsets in one run.")
    start: str | None = Field(
        None,
        title="Start",
        description="Start of a job's first run: earliest (default), latest, group, or an ISO 8601 timestamp.",
        examples=["latest", "2026-01-31T12:00:00Z"],
        json_schema_extra=_form(r"^(earliest|latest|group|\d{4}.*)$"),
    )
    output_partitions: int | None = Field(
        None, ge=1, le=10_000, title="Output partitions", description="Partitions of new topics; default: the source's."
    )
    replication_factor: int | None = Field(
        None, ge=1, le=32, title="Replication factor", description="Replicas of new topics; default: the broker's."
    )
    dead_letter_topic: str | None = Field(
        None,
        title="Dead-letter topic",
        description="Topic for dead letters; default: <source>-dead-letters.",
        json_schema_extra=_form(_TOPIC_PATTERN),
    )
    append: bool = Field(False, title="Append", description="Permit outputs that hold records this job did not write.")
    allow_dead_letters: bool = Field(
        False,
        title="Allow dead letters",
        description="Begin a job though more than half of a sample of its records cannot be sorted.",
    )
    skip_lost: bool = Field(
        False, title="Skip lost", description="Go on without records that retention removed before they were read."
    )
    on_partition_failure: Literal["fail", "skip"] = Field(
        "fail",
        title="On partition failure",
        description="If a source partition has no leader: fail, or skip it (the next run takes it).",
    )
    split_heavy_keys: bool = Field(
        False, title="Split heavy keys", description="Let equal keys span partitions, in arrival order, for balance."
    )
    timestamps: Literal["new", "keep"] = Field(
        "new", title="Timestamps", description="Timestamps of the outputs' records: new, or keep."
    )
    memory_limit: str = Field(
        "2GB",
        title="Memory limit",
        description="Memory of the whole run, its processes together.",
        examples=["2GB", "768MB", "4GiB"],
        json_schema_extra=_form(f"^{SIZE.pattern}$"),
    )
    workdir: Path = Field(
        default_factory=lambda: home_folder() / ".cache" / "kafka-sort" / "work",
        title="Work folder",
        description="Absolute folder for chunks, orders and spill.",
        json_schema_extra=_form("^[/~]"),
    )
    dump_concurrency: int = Field(2, ge=1, le=64, title="Dump concurrency", description="Partitions read at once.")
    sort_concurrency: int = Field(1, ge=1, le=16, title="Sort concurrency", description="Sorts that run at once.")
    retries: int = Field(4, ge=0, le=50, title="Retries", description="Retries of each task, on transient errors.")
    retry_delay: float = Field(1.0, gt=0, le=600, title="Retry delay", description="Seconds, doubled by each retry.")
    run_timeout: float | None = Field(
        None,
        gt=0,
        title="Run timeout",
        description="Seconds after which a run, or a batch of a stream, is stopped.",
    )
    start_timeout: float = Field(30.0, gt=0, title="Start timeout", description="Seconds to find a broker.")
    request_timeout: float = Field(60.0, gt=0, title="Request timeout", description="Seconds for one answer of Kafka.")
    session_timeout: float = Field(
        6.0, ge=1, le=1800, title="Session timeout", description="Seconds after which a dead owner's lease passes on."
    )
    transaction_timeout: float | None = Field(
        None, gt=0, title="Transaction timeout", description="Seconds; default: the most that the broker permits."
    )

    @field_validator("*", mode="before")
    @classmethod
    def _of_a_size_for_people(cls, value: Any) -> Any:
        if len(str(value)) > _LONGEST_SETTING:
            raise ValueError(f"is longer than {_LONGEST_SETTING:,} letters")
        return value

    @field_validator("source_topic", "job_name", "dead_letter_topic")
    @classmethod
    def _topic_names(cls, value: str | None) -> str | None:
        return value if value is None else check_topic_name(value, "the name")

    @field_validator("delimiter")
    @classmethod
    def _plain_delimiter(cls, value: str) -> str:
        return parse_delimiter(value)

    @field_validator("schema_registry")
    @classmethod
    def _registry_address(cls, value: str | None) -> str | None:
        return value if value is None else check_address(value)

    @field_validator("columns")
    @classmethod
    def _columns(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None:
            read_columns(value, paths=info.data.get("format", "csv") != "csv")
        return value

    @field_validator("sorts")
    @classmethod
    def _sorts(cls, value: list[str]) -> list[str]:
        for text in value:
            parse_sort(text)
        return value

    @field_validator("memory_limit")
    @classmethod
    def _size(cls, value: str) -> str:
        parse_size(value)
        return value

    @field_validator("start")
    @classmethod
    def _start(cls, value: str | None) -> str | None:
        from datetime import datetime

        if value not in {None, "earliest", "latest", "group"}:
            try:
                datetime.fromisoformat(value or "")
            except ValueError:
                raise ValueError(
                    f"start {value!r}: use earliest, latest, group or a time as 2026-01-31T12:00:00Z"
                ) from None
        return value

    @field_validator("workdir", "avro_schema", "protobuf_descriptor")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        if "\0" in str(value):
            raise ValueError("holds a zero byte")
        try:
            return value.expanduser().absolute()
        except RuntimeError as error:
            raise ValueError(str(error)) from None

    @field_serializer("workdir", "avro_schema", "protobuf_descriptor", when_used="json")
    def _home_of_whom_runs(self, value: Path | None) -> str | None:
        """Expand `~` late: parameters are written on one machine and read on another, with another home."""
        if value is None:
            return None
        home = home_folder()
        return str("~" / value.relative_to(home)) if value.is_relative_to(home) else str(value)

    @model_validator(mode="after")
    def _sorts_fit(self) -> Self:
        """Check the columns first: a topic's default name is made of them."""
        for sort in self.sort_list:
            for key in sort.by:
                self._check_key(sort, key)
                self._check_record_field(sort, key)
        for name, kinds in self._given_types().items():
            if len(kinds) > 1:
                raise FieldError(
                    "sorts", f"column {name!r} is given two types: {' and '.join(sorted(map(str, kinds)))}"
                )
        by_columns = [sort.columns for sort in self.sort_list]
        for name in (name for name in by_columns if by_columns.count(name) > 1):
            raise FieldError("sorts", f"sort {name!r} is named twice")
        return self

    def _given_types(self) -> dict[str, set[ColumnType]]:
        """Return all types that a column of a sort is given, by the sorts and by `columns`."""
        given: dict[str, set[ColumnType]] = {}
        for key in self._sort_keys:
            given.setdefault(key.column, set()).update(filter(None, (key.type, self.row_fields.get(key.column))))
        return given

    def _check_key(self, sort: Sort, key: SortKey) -> None:
        known = [*self.row_fields, *RECORD_FIELDS]
        if not is_record_field(key.column) and not self.has_names and key.column not in self.row_fields:
            columns = f"{', '.join(known)}.NAME{hint_column(key.column, known)}"
            raise FieldError(
                "sorts", f"sort {sort.columns!r} names the unknown column {key.column!r}: the columns are {columns}"
            )
        if key.column == "@timestamp" and self.timestamps != "keep":
            raise FieldError(
                "sorts", f"sort {sort.columns!r} needs the records' own timestamps in the output: add --timestamps keep"
            )

    def _check_record_field(self, sort: Sort, key: SortKey) -> None:
        where, kind = f"sort {sort.columns!r}", self._type_of(key.column)
        if key.column.startswith("@key.") and self.key_format not in DOCUMENT_KEYS:
            raise FieldError(
                "sorts",
                f"{where} names {key.column!r}, but keys of --key-format {self.key_format} have no fields: "
                "sort by @key",
            )
        if is_integer_field(key.column, self.key_format) and not compares_integers(kind):
            raise FieldError(
                "sorts",
                f"{where}: {key.column} is an integer, which type {kind} does not take: "
                "use int, decimal or a time with its unit, as time(ms)",
            )

    @model_validator(mode="after")
    def _formats_fit(self) -> Self:
        """Check that no option is given for what the sorts or the format do not read."""
        if self.key_format != "text" and not any(record_field(k.name)[0] == "@key" for k in self.key_columns):
            raise FieldError("key_format", "no sort names @key, so keys are not read: leave it out, or sort by @key")
        given = {
            "csv_header": self.csv_header,
            "csv_quote": self.csv_quote != "double",
            "delimiter": self.delimiter != ",",
        }
        for field in (name for name, is_given in given.items() if is_given and self.format != "csv"):
            raise FieldError(field, f"it is for --format csv, and the format is {self.format}: leave it out")
        if self.format == "none" and self.columns is not None:
            raise FieldError("columns", "they are those of a value, which --format none does not read: leave it out")
        if self.unknown_schema != "stop" and not self.schema_registry:
            raise FieldError("unknown_schema", "is for --schema-registry: give both, or leave it out")
        return self

    @model_validator(mode="after")
    def _schema_fits(self) -> Self:
        """Read the schema's file here: what a stage gets has its content, and need not find the file."""
        if self.schema_registry and (self.format != "avro" or self.avro_schema):
            raise FieldError("schema_registry", "is for --format avro without --avro-schema: leave one of them out")
        for name, kind, way in _SCHEMA_SETTINGS:
            given = getattr(self, name) is not None
            if given and self.format != kind:
                raise FieldError(name, f"is for --format {kind}: give both, or leave it out")
            if self.format == kind and not given and not self.schema_registry:
                raise FieldError(name, f"is missing: --format {kind} needs {way}")
        try:
            self.schema_content  # noqa: B018  # it is kept
        except OSError as error:
            raise FieldError(
                "avro_schema" if self.avro_schema else "protobuf_descriptor", f"cannot be read: {error}"
            ) from None
        return self

    @model_validator(mode="after")
    def _topics_fit(self) -> Self:
        """Check that all derived names are valid topic names, and that no two of them are the same."""
        if len(self.name) > LONGEST_JOB_NAME:
            longer = f"and its ledger's would be longer than the {LONGEST_TOPIC} of a topic"
            message = f"the job's name has {len(self.name)} letters, {longer}"
            raise FieldError("job_name", f"{message}: take one of at most {LONGEST_JOB_NAME} with --job-name")
        for sort in self.sort_list:
            _check_derived("sorts", sort.topic, f"the output of sort {sort.columns!r},", "as COLUMNS=TOPIC")
        _check_derived("dead_letter_topic", self.dead_letters, "the dead-letter topic", "with --dead-letter-topic")
        topics = [sort.topic for sort in self.sort_list]
        for topic in (topic for topic in topics if topics.count(topic) > 1):
            raise FieldError("sorts", f"two sorts go to one topic, {topic!r}: give each its own, as COLUMNS=TOPIC")
        for topic in (self.source_topic, self.dead_letters, self.ledger):
            if topic in topics:
                raise FieldError(
                    "sorts", f"the output {topic!r} is also the source, the dead-letter topic or the ledger"
                )
        if self.dead_letters in {self.source_topic, self.ledger}:
            message = f"the dead-letter topic {self.dead_letters!r} is also the source or the ledger"
            raise FieldError("dead_letter_topic", message)
        known = {self.source_topic, self.ledger}
        for field, topic in (*(("sorts", topic) for topic in topics), ("dead_letter_topic", self.dead_letters)):
            if other := find_collision(topic, known):
                raise FieldError(field, describe_collision(topic, other))
            known.add(topic)
        return self

    @cached_property
    def name(self) -> str:
        """The job's name: ledger, groups and transactional id derive from it."""
        return self.job_name or self.source_topic

    @property
    def group(self) -> str:
        """The consumer group whose offsets show the job's lag to Kafka's tools; also the transactional id."""
        return JobNames(self.name).group

    @property
    def owner_group(self) -> str:
        """The consumer group that is the lease."""
        return JobNames(self.name).owner_group

    @property
    def ledger(self) -> str:
        """The topic of the run records."""
        return JobNames(self.name).ledger

    @property
    def starts_at_beginning(self) -> bool:
        """Whether a first run reads all that the source has."""
        return self.start in {None, "earliest"}

    @property
    def dead_letters(self) -> str:
        """The topic of records that cannot be sorted."""
        return self.dead_letter_topic or f"{self.source_topic}-dead-letters"

    @property
    def has_paths(self) -> bool:
        """Whether columns are paths into a value, whose fields nobody lists."""
        return self.format not in {"csv", "none"}

    @property
    def has_names(self) -> bool:
        """Whether the fields of a value have names of their own, so that a sort may name any."""
        return self.has_paths or self.csv_header

    @cached_property
    def schema_content(self) -> bytes:
        """The content of the schema's file; it is pickled with the job."""
        file = self.avro_schema or self.protobuf_descriptor
        return b"" if file is None else file.read_bytes()

    @cached_property
    def row_fields(self) -> dict[str, ColumnType | None]:
        """The fields of a CSV row in their order, or those in `columns`; the type is None where none is given."""
        default = None if self.has_names else SAMPLE_COLUMNS
        text = None if self.format == "none" else self.columns or default
        return read_columns(text, paths=self.has_paths) if text else {}

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

    @property
    def _sort_keys(self) -> list[SortKey]:
        return [key for sort in self.sort_list for key in sort.by]

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

    def with_types(self, types: Mapping[str, str]) -> Self:
        """Return the job with the types of these columns given in its sorts."""
        if not types:
            return self
        sorts = [f"{','.join(key.written(types.get(key.column)) for key in s.by)}={s.topic}" for s in self.sort_list]
        return type(self).model_validate({**self.model_dump(exclude_unset=True), "sorts": sorts})

    def _has_no_type_yet(self, column: str) -> bool:
        if is_record_field(column):
            return self.key_format == "json" and record_field(column)[0] == "@key"
        return self.format == "json" or self.schema_registry is not None

    def _type_of(self, column: str) -> ColumnType:
        """Return the type that the job gives; else the default."""
        default = default_type(column, self.key_format) if is_record_field(column) else None
        return self.given_type(column) or default or TEXT

    def given_type(self, column: str) -> ColumnType | None:
        """Return the type that a sort gives, or `columns`; None if there is none, so that a schema may decide."""
        given = next((key.type for key in self._sort_keys if key.column == column and key.type is not None), None)
        return given or self.row_fields.get(column)

    @cached_property
    def sort_list(self) -> tuple[Sort, ...]:
        """The sorts, each with its output topic."""
        parsed = [parse_sort(text) for text in self.sorts]
        sorts = [(tuple(map(self._canonical, by)), topic) for by, topic in parsed]
        return tuple(Sort(by, topic or self._default_output(by)) for by, topic in sorts)

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

    @property
    def title(self) -> str:
        """The source and sort columns, for the names of runs."""
        columns = [f"({sort.columns})" if len(sort.by) > 1 else sort.columns for sort in self.sort_list]
        return f"{self.source_topic} · {','.join(columns)}"

    @cached_property
    def memory_bytes(self) -> int:
        """The `memory_limit` in bytes."""
        return parse_size(self.memory_limit)

    @cached_property
    def key_columns(self) -> tuple[KeyColumn, ...]:
        """The columns that any sort compares: record fields, then fields of the value in their order."""
        # A record without the key is a dead letter if any sort cannot place it.
        nulls = {k.column: all(o.nulls for o in self._sort_keys if o.column == k.column) for k in self._sort_keys}
        names = [*filter(is_record_field, nulls), *(name for name in self.column_types if name in nulls)]
        return tuple(KeyColumn(name, self._type_of(name), nulls[name]) for name in names)


def load_job(flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None = None) -> Job:
    """Load the job from flags, then environment (KAFKA_SORT_…), then a job file (TOML), then defaults.

    SettingsError in one line names the setting, and where it was given.
    """
    content = read_job_file(file)
    content.pop(STREAM_TABLE, None)
    return load_model(Job, flags, environment, content, f"job file {file}")


def _check_derived(field: str, topic: str, what: str, way_out: str) -> None:
    try:
        check_topic_name(topic, what)
    except ValueError as error:
        raise FieldError(field, f"{error}; give another, {way_out}") from None
