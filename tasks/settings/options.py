"""The options of a job, each with its title, its default and its own rule. They have no secrets.

Their order is that of the form and of the command line's help. Rules between options are in `tasks/settings/job.py`.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_serializer, field_validator

from tasks.settings.folders import home_folder
from tasks.settings.moments import read_moment, write_moment
from tasks.settings.outputs import S3, absolute_sort, canonical_prefix
from tasks.settings.patterns import (
    COLUMNS_PATTERN,
    DELIMITER_PATTERN,
    PUBLISHERS_PATTERN,
    SCHEDULER_PATTERN,
    SORT_PATTERN,
    TOPIC_PATTERN,
    form,
    order_fields,
)
from tasks.settings.registry import check_address
from tasks.settings.scheduler import check_scheduler_address, scheduler_of
from tasks.settings.sorts import SIZE, check_topic_name, parse_delimiter, parse_size, parse_sort, read_columns

SAMPLE_TOPIC = "source"
SAMPLE_COLUMNS = "id:int,name,address,continent"
SAMPLE_SORTS = ("id", "name", "continent")

# The words that stand in place of a time.
START_WORDS = ("earliest", "latest", "group")
END_WORDS = ("now",)

LONGEST_SETTING = 10_000

# The options of the process that works. What it makes of the records does not depend on them.
LIMITS = (
    "memory_limit",
    "workdir",
    "dump_concurrency",
    "sort_concurrency",
    "retries",
    "retry_delay",
    "run_timeout",
    "start_timeout",
    "session_timeout",
    "transaction_timeout",
    "replication_factor",
    "runner",
    "scheduler",
)


def default_workdir() -> Path:
    """Return the work folder of jobs that name none."""
    return home_folder() / ".cache" / "kafka-sort" / "work"


def _absolute_path(value: Path) -> Path:
    if "\0" in str(value):
        raise ValueError("holds a zero byte")
    try:
        return value.expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(str(error)) from None


def _check_moment(name: str, value: str | None, words: Sequence[str]) -> str | None:
    """Return the value; ValueError if it is neither one of these words nor a time."""
    if value is None or value in words:
        return value
    try:
        read_moment(value)
    except ValueError:
        raise _no_moment(name, value, words) from None
    return value


def _no_moment(name: str, value: str, words: Sequence[str]) -> ValueError:
    return ValueError(f"{name} {value!r}: use {', '.join(words)} or a time as 2026-01-31T12:00:00Z")


class JobOptions(BaseModel):
    """The options as a person writes them, one by one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, json_schema_extra=order_fields)

    source_topic: str = Field(
        SAMPLE_TOPIC, title="Source topic", description="Topic to read.", json_schema_extra=form(TOPIC_PATTERN)
    )
    sorts: list[str] = Field(
        default_factory=lambda: list(SAMPLE_SORTS),
        min_length=1,
        title="Sorts",
        description="COLUMNS[=TOPIC] each: id, or continent,id:desc=by-continent, or @key; the topic names the sort. "
        "COLUMNS=parquet:DIR writes sorted files into a folder, or into parquet:s3://BUCKET/PREFIX.",
        examples=[["id", "continent,id:desc=by-continent"]],
        json_schema_extra=form(SORT_PATTERN, items=True, flag="sort", metavar="COLUMNS[=TOPIC]"),
    )
    format: Literal["csv", "json", "avro", "protobuf", "none"] = Field(
        "csv",
        title="Format",
        description="Format of values: csv, json, avro, protobuf, or none for sorts by record fields alone.",
    )
    key_format: Literal["text", "int32", "int64", "json", "avro", "protobuf"] = Field(
        "text",
        title="Key format",
        description="Format of keys, for sorts by @key: text, json, big-endian int32 or int64, or avro or protobuf "
        "of a schema registry.",
    )
    columns: str | None = Field(
        None,
        title="Columns",
        description=f"Fields of a CSV row in their order, NAME[:TYPE] each; default: {SAMPLE_COLUMNS}. "
        "With a header line in each value, and in other formats: fields or paths in any order, for their types.",
        examples=["order:int,customer,country,total"],
        json_schema_extra=form(COLUMNS_PATTERN),
    )
    delimiter: str = Field(
        ",",
        title="Delimiter",
        description="Delimiter of two fields: one character, or tab, \\t, comma, semicolon, pipe, space, \\x1f.",
        json_schema_extra=form(DELIMITER_PATTERN),
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
        description="Address of the schema registry whose ids are in front of Avro or Protobuf, or in headers.",
        examples=["https://registry.example:8081"],
        json_schema_extra=form("^https?://[^@]*$"),
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
        json_schema_extra=form(TOPIC_PATTERN),
    )
    mode: Literal["append", "replace"] = Field(
        "append",
        title="Mode",
        description="Mode of a run: append what is new to the outputs, or replace all that they hold by all that the "
        "source has.",
    )
    max_records: int | None = Field(None, ge=1, title="Most records", description="The most offsets in one run.")
    start: str | None = Field(
        None,
        title="Start",
        description="Start of a job's first run: earliest (default), latest, group, or an ISO 8601 timestamp.",
        examples=["latest", "2026-01-31T12:00:00Z"],
        json_schema_extra=form(r"^(earliest|latest|group|\d{4}.*)$"),
    )
    end: str | None = Field(
        None,
        title="End",
        description="End of this run: now (default), or an ISO 8601 timestamp, before which it reads the records.",
        examples=["now", "2026-02-01T00:00:00Z"],
        json_schema_extra=form(r"^(now|\d{4}.*)$"),
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
        json_schema_extra=form(TOPIC_PATTERN),
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
    partition_by: Literal["range", "hash", "source"] = Field(
        "range",
        title="Partition by",
        description="Partition of an output's record: by range of sort keys, by hash of its record key as Kafka's "
        "Java producer has it, or that of the source.",
    )
    output_key: Literal["keep", "sort", "none"] = Field(
        "keep", title="Output key", description="Keys of the outputs' records: as they were, the sort key, or none."
    )
    timestamps: Literal["new", "keep"] = Field(
        "new", title="Timestamps", description="Timestamps of the outputs' records: new, or keep."
    )
    memory_limit: str = Field(
        "2GB",
        title="Memory limit",
        description="Memory of the whole run, its processes together.",
        examples=["2GB", "768MB", "4GiB"],
        json_schema_extra=form(f"^{SIZE.pattern}$"),
    )
    workdir: Path | str = Field(
        default_factory=default_workdir,
        title="Work folder",
        description="Absolute folder for chunks, orders and spill; or s3://BUCKET/PREFIX.",
        json_schema_extra=form("^([/~]|s3://)"),
    )
    dump_concurrency: int = Field(2, ge=1, le=64, title="Dump concurrency", description="Partitions read at once.")
    sort_concurrency: int = Field(1, ge=1, le=16, title="Sort concurrency", description="Sorts that run at once.")
    runner: Literal["threads", "dask"] = Field(
        "threads",
        title="Runner",
        description="Where partitions are read and sorts are made: threads of this process, or workers of Dask.",
    )
    scheduler: str | None = Field(
        None,
        validate_default=True,
        title="Scheduler",
        description="Address of Dask's scheduler; default: the worker's own, or workers on this machine, for this run.",
        examples=["tls://scheduler.example:8786"],
        json_schema_extra=form(SCHEDULER_PATTERN),
    )
    publishers: str = Field(
        "auto",
        title="Publishers",
        description="Publishers in the run's one transaction: 1 to 64, or auto: several for large runs on Dask.",
        examples=["auto", "4"],
        json_schema_extra=form(PUBLISHERS_PATTERN),
    )
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
        if len(str(value)) > LONGEST_SETTING:
            raise ValueError(f"is longer than {LONGEST_SETTING:,} letters")
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

    @field_validator("scheduler")
    @classmethod
    def _scheduler_address(cls, value: str | None, info: ValidationInfo) -> str | None:
        address = scheduler_of(info.data.get("runner", ""), value)
        return address if address is None else check_scheduler_address(address)

    @field_validator("publishers", mode="before")
    @classmethod
    def _publishers(cls, value: Any) -> str:
        written = str(value).strip()
        if isinstance(value, bool) or not re.fullmatch(PUBLISHERS_PATTERN, written):
            raise ValueError(f"{written!r}: use auto, or a number from 1 to 64")
        return written

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
        return [absolute_sort(text) for text in value]

    @field_validator("memory_limit")
    @classmethod
    def _size(cls, value: str) -> str:
        parse_size(value)
        return value

    @field_validator("start", "end", mode="before")
    @classmethod
    def _written(cls, value: Any, info: ValidationInfo) -> Any:
        written, name = write_moment(value), str(info.field_name)
        if written is None or isinstance(written, str):
            return written
        raise _no_moment(name, str(written), START_WORDS if name == "start" else END_WORDS)

    @field_validator("start")
    @classmethod
    def _start(cls, value: str | None) -> str | None:
        return _check_moment("start", value, START_WORDS)

    @field_validator("end")
    @classmethod
    def _end(cls, value: str | None) -> str | None:
        return _check_moment("end", value, END_WORDS)

    @field_validator("avro_schema", "protobuf_descriptor")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else _absolute_path(value)

    @field_validator("workdir")
    @classmethod
    def _place_of_work(cls, value: Path | str) -> Path | str:
        text = str(value)
        # A path has one slash there.
        return canonical_prefix(text, "") if text.startswith(S3) else _absolute_path(Path(text))

    @field_serializer("workdir", "avro_schema", "protobuf_descriptor", when_used="json")
    def _home_of_whom_runs(self, value: Path | str | None) -> str | None:
        """Expand `~` late: parameters are written on one machine and read on another, with another home."""
        if value is None or isinstance(value, str):
            return value
        home = home_folder()
        return str("~" / value.relative_to(home)) if value.is_relative_to(home) else str(value)
