"""The settings of a stream: when a micro-batch closes, and when the stream ends.

They are the second parameter of the flow `stream-topic`, beside the job, which says what is sorted.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator

from tasks.errors import SettingsError
from tasks.settings.job import STREAM_TABLE, Job
from tasks.settings.load import load_model, read_job_file, underscored
from tasks.settings.patterns import order_fields
from tasks.settings.sorts import parse_size


class Streaming(BaseModel):
    """The settings of a stream; none of them changes what the outputs hold."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, json_schema_extra=order_fields)

    batch_size: int = Field(
        100_000,
        ge=1,
        title="Batch records",
        description="Records at which a batch closes; it grows with a backlog.",
        # Former versions called it chunk_size.
        validation_alias=AliasChoices("batch_size", "chunk_size"),
    )
    max_bytes: str | None = Field(
        None, title="Batch bytes", description="Bytes at which a batch closes; default: by the memory limit."
    )
    max_latency: float = Field(
        1.0, gt=0, le=3600, title="Latency", description="Seconds after its first record at which a batch closes."
    )
    max_batches: int | None = Field(None, ge=1, title="Most batches", description="End after so many batches.")
    max_runtime: float | None = Field(None, gt=0, title="Longest time", description="End after so many seconds.")
    drain: Literal["finish", "abort"] = Field(
        "finish",
        title="Drain",
        description="At a stop, finish the current batch if the time permits, or abort it.",
    )
    drain_timeout: float = Field(
        20.0, gt=0, le=3600, title="Drain time", description="Seconds that a stop gives the current batch."
    )
    standby: bool = Field(False, title="Standby", description="Wait while another run of the job is alive; take over.")

    @field_validator("max_bytes")
    @classmethod
    def _size(cls, value: str | None) -> str | None:
        if value is not None and parse_size(value) < 1:
            raise ValueError(f"{value!r} is no size of a batch: write for example 64MB")
        return value


def check_streamable(job: Job) -> None:
    """Raise SettingsError if a setting of the job makes no sense for a stream."""
    if job.replaces:
        raise SettingsError("--mode replace is for kafka-sort sort: a stream appends batch after batch; leave it out")
    if job.folder_sorts:
        raise SettingsError(
            f"{job.folder_sorts[0].topic} is for kafka-sort sort: a stream would make a folder of small files with "
            "each batch; sort into a topic, or run kafka-sort sort by the hour"
        )
    if job.storage_prefix is not None:
        raise SettingsError(
            f"--workdir {job.workdir} is for kafka-sort sort: a batch of a stream is shorter than the way to S3; "
            "give a folder"
        )
    if job.runner != "threads":
        raise SettingsError(
            f"--runner {job.runner} is for kafka-sort sort: a batch of a stream is shorter than the start of a worker; "
            "leave it out"
        )
    if job.publishers != "auto":
        raise SettingsError(
            "--publishers is for kafka-sort sort: a batch of a stream is shorter than the start of a publisher; leave "
            "it out"
        )
    if job.end == "now":
        raise SettingsError(
            "--end now is for kafka-sort sort, which makes one run; a stream goes on until it is stopped, or until an "
            "--end that is a time"
        )


def asks_for_stream(flags: Mapping[str, Any], file: Path | None = None) -> bool:
    """Whether flags or job file have settings of a stream; an empty table counts."""
    return bool(flags) or _stream_table(file) is not None


def _stream_table(file: Path | None) -> Any:
    return read_job_file(file).get(STREAM_TABLE)


def load_streaming(flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None = None) -> Streaming:
    """Load the settings as `load_job` does; a job file has them in a table of their own, [stream]."""
    table = _stream_table(file)
    table = {} if table is None else table
    if not isinstance(table, dict):
        raise SettingsError(f"job file {file}: write [{STREAM_TABLE}] as a table")
    where = f"job file {file} [{STREAM_TABLE}]"
    return load_model(Streaming, flags, environment, underscored(table, where), where)
