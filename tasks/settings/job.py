"""The job: what to sort, into which topics, within which limits.

This one model is the flow's parameter, the Prefect form, the job file and the command line's flags. `JobOptions` has
its options, `JobColumns` the columns that they name, `Job` its topics and the rules between options.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from tasks.settings.column_types import ColumnType
from tasks.settings.job_columns import JobColumns
from tasks.settings.load import FieldError, load_model, read_job_file
from tasks.settings.moments import read_moment
from tasks.settings.names import LONGEST_JOB_NAME, JobNames, check_written_topic
from tasks.settings.options import END_WORDS, START_WORDS, default_workdir
from tasks.settings.outputs import check_folders, folder_of
from tasks.settings.sorts import (
    DOCUMENT_KEYS,
    LONGEST_TOPIC,
    RECORD_FIELDS,
    SCHEMA_FORMATS,
    Sort,
    SortKey,
    compares_integers,
    describe_collision,
    find_collision,
    hint_column,
    is_integer_field,
    is_record_field,
    parse_size,
    record_field,
)

# The table of a job file with the settings of a stream, which a batch run does not use.
STREAM_TABLE = "stream"

# A setting with a schema, the format that it is for, and how to give the format what it needs.
_PROTOBUF = "--schema-registry ADDRESS, or --protobuf-descriptor and --protobuf-message"
_SCHEMA_SETTINGS = (
    ("avro_schema", "avro", "--schema-registry ADDRESS or --avro-schema FILE"),
    ("protobuf_descriptor", "protobuf", _PROTOBUF),
    ("protobuf_message", "protobuf", _PROTOBUF),
)

_REPLACES_ALL = "and --mode replace publishes all that the source has: leave one of them out"


class Job(JobColumns):
    """One source topic and its sorts."""

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
        for sorts in (self.topic_sorts, self.folder_sorts):
            by_columns = [sort.columns for sort in sorts]
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
        if key.column == "@key" and self.key_format == "protobuf":
            raise FieldError(
                "sorts", f"{where}: a key of --key-format protobuf is a message: sort by a field, @key.NAME"
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
    def _partitions_fit(self) -> Self:
        """Check that equal record keys of an output go to one partition, if its partitions are not ranges."""
        if self.partition_by != "range" and self.split_heavy_keys:
            raise FieldError("split_heavy_keys", f"is for --partition-by range, not {self.partition_by}: leave it out")
        if self.partition_by != "hash":
            return self
        if self.output_key == "none":
            raise FieldError("partition_by", "hash needs record keys in the outputs: leave --output-key none out")
        for key in self._sort_keys if self.output_key == "sort" else []:
            if not self._type_of(key.column).prints_equals_alike:
                raise FieldError(
                    "partition_by",
                    f"hash with --output-key sort cannot take {key.column} as {self._type_of(key.column)}: its equal "
                    "keys differ as record keys, so they would go to several partitions; use text, or range",
                )
        return self

    @model_validator(mode="after")
    def _schema_fits(self) -> Self:
        """Read the schema's file here: what a stage gets has its content, and need not find the file."""
        if self.schema_registry and not (self.is_registered("value") or self.is_registered("key")):
            way = "for --format avro or protobuf without a schema's file, or for such a --key-format"
            raise FieldError("schema_registry", f"is {way}: leave one of them out")
        if self.key_format in SCHEMA_FORMATS and not self.schema_registry:
            raise FieldError("key_format", f"{self.key_format} needs --schema-registry ADDRESS")
        for name, kind, way in _SCHEMA_SETTINGS:
            given = getattr(self, name) is not None
            if given and self.format != kind:
                raise FieldError(name, f"is for --format {kind}: give both, or leave it out")
            if self.format == kind and not given and not self.is_registered("value"):
                raise FieldError(name, f"is missing: --format {kind} needs {way}")
        try:
            self.schema_content  # noqa: B018  # it is kept
        except OSError as error:
            raise FieldError(
                "avro_schema" if self.avro_schema else "protobuf_descriptor", f"cannot be read: {error}"
            ) from None
        return self

    @model_validator(mode="after")
    def _mode_fits(self) -> Self:
        """Check that a run which replaces all reads all."""
        if not self.replaces:
            return self
        if self.max_records is not None:
            raise FieldError("max_records", f"it leaves records to the next run, {_REPLACES_ALL}")
        if self.on_partition_failure == "skip":
            raise FieldError("on_partition_failure", f"skip leaves partitions to the next run, {_REPLACES_ALL}")
        if self.start in {"latest", "group"}:
            raise FieldError("start", f"{self.start} leaves former records out, {_REPLACES_ALL}, or give a time")
        return self

    @model_validator(mode="after")
    def _topics_fit(self) -> Self:
        """Check that all derived names are valid topic names, and that no two of them are the same."""
        if len(self.name) > LONGEST_JOB_NAME:
            longer = f"and its ledger's would be longer than the {LONGEST_TOPIC} of a topic"
            message = f"the job's name has {len(self.name)} letters, {longer}"
            raise FieldError("job_name", f"{message}: take one of at most {LONGEST_JOB_NAME} with --job-name")
        for sort in self.topic_sorts:
            _check_derived("sorts", sort.topic, f"the output of sort {sort.columns!r},", "as COLUMNS=TOPIC")
        _check_derived("dead_letter_topic", self.dead_letters, "the dead-letter topic", "with --dead-letter-topic")
        check_folders([folder_of(sort.topic) for sort in self.folder_sorts], str(self.workdir))
        topics = [sort.topic for sort in self.topic_sorts]
        for topic in (topic for topic in topics if topics.count(topic) > 1):
            raise FieldError("sorts", f"two sorts go to one topic, {topic!r}: give each its own, as COLUMNS=TOPIC")
        for topic in (self.source_topic, self.dead_letters, self.ledger, self.index):
            if topic in topics:
                raise FieldError(
                    "sorts", f"the output {topic!r} is also the source, the dead-letter topic, the ledger or the index"
                )
        if self.dead_letters in {self.source_topic, self.ledger, self.index}:
            message = f"the dead-letter topic {self.dead_letters!r} is also the source, the ledger or the index"
            raise FieldError("dead_letter_topic", message)
        known = {self.source_topic, self.ledger}
        for field, topic in (*(("sorts", topic) for topic in topics), ("dead_letter_topic", self.dead_letters)):
            if other := find_collision(topic, known):
                raise FieldError(field, describe_collision(topic, other))
            known.add(topic)
        return self

    @model_validator(mode="after")
    def _runner_fits(self) -> Self:
        if self.scheduler is not None and self.runner != "dask":
            raise FieldError("scheduler", "is for --runner dask: give both, or leave it out")
        return self

    @model_validator(mode="after")
    def _times_fit(self) -> Self:
        if self.start_moment and self.end_moment and self.end_moment < self.start_moment:
            raise FieldError("end", f"{self.end} is before the start, {self.start}: give a later one, or leave it out")
        return self

    @property
    def start_moment(self) -> datetime | None:
        """The time from which a first run reads records; None if its start is given by a word, or not at all."""
        return None if self.start is None or self.start in START_WORDS else read_moment(self.start)

    @property
    def end_moment(self) -> datetime | None:
        """The time before which a run reads records; None if it reads all that is there now."""
        return None if self.end is None or self.end in END_WORDS else read_moment(self.end)

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
    def index(self) -> str:
        """The topic of the sparse indexes of runs."""
        return JobNames(self.name).index

    @property
    def publisher_count(self) -> int | None:
        """The number of publishers that was asked for; None for auto."""
        return None if self.publishers == "auto" else int(self.publishers)

    @property
    def starts_at_beginning(self) -> bool:
        """Whether a first run reads all that the source has."""
        return self.start in {None, "earliest"}

    @property
    def replaces(self) -> bool:
        """Whether a run takes the place of all former ones."""
        return self.mode == "replace"

    @property
    def dead_letters(self) -> str:
        """The topic of records that cannot be sorted."""
        return self.dead_letter_topic or f"{self.source_topic}-dead-letters"

    @property
    def storage_prefix(self) -> str | None:
        """The prefix of S3 where the run's tasks leave files for each other; None where a work folder has them."""
        return self.workdir if isinstance(self.workdir, str) else None

    @property
    def local_workdir(self) -> Path:
        """The work folder of this machine, which a run has besides its storage in S3."""
        return default_workdir() if isinstance(self.workdir, str) else self.workdir

    def keeps_sorted_files(self, publishers: int = 1) -> bool:
        """Whether a run leaves sorted files: its tasks may be on several machines, or several processes publish.

        Otherwise a run has row numbers, which are faster where all is on the disk of one machine.
        """
        return self.scheduler is not None or self.storage_prefix is not None or publishers > 1

    @cached_property
    def schema_content(self) -> bytes:
        """The content of the schema's file; it is pickled with the job."""
        file = self.avro_schema or self.protobuf_descriptor
        return b"" if file is None else file.read_bytes()

    def with_types(self, types: Mapping[str, str]) -> Self:
        """Return the job with the types of these columns given in its sorts."""
        if not types:
            return self
        sorts = [f"{','.join(key.written(types.get(key.column)) for key in s.by)}={s.topic}" for s in self.sort_list]
        return type(self).model_validate({**self.model_dump(exclude_unset=True), "sorts": sorts})

    @property
    def title(self) -> str:
        """The source and sort columns, for the names of runs."""
        columns = [f"({sort.columns})" if len(sort.by) > 1 else sort.columns for sort in self.sort_list]
        return f"{self.source_topic} · {','.join(columns)}"

    @cached_property
    def memory_bytes(self) -> int:
        """The `memory_limit` in bytes."""
        return parse_size(self.memory_limit)


def load_job(flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None = None) -> Job:
    """Load the job from flags, then environment (KAFKA_SORT_…), then a job file (TOML), then defaults.

    SettingsError in one line names the setting, and where it was given.
    """
    content = read_job_file(file)
    content.pop(STREAM_TABLE, None)
    return load_model(Job, flags, environment, content, f"job file {file}")


def _check_derived(field: str, topic: str, what: str, way_out: str) -> None:
    try:
        check_written_topic(topic, what)
    except ValueError as error:
        raise FieldError(field, f"{error}; give another, {way_out}") from None
