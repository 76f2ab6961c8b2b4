"""Command-line options that are made from the models, so that flags, form and file use the same words."""

import math
import types
import typing
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tasks.settings.job import Job
from tasks.settings.load import flag_name, flag_names
from tasks.settings.options import LIMITS
from tasks.settings.streaming import Streaming

F = TypeVar("F", bound=Callable[..., Any])

# A path that may be `s3://…` stays text: a Path has one slash there.
_CLICK_TYPES: dict[Any, Any] = {
    int: int,
    float: float,
    str: str,
    Path: click.Path(path_type=Path),
    Path | str: click.Path(path_type=str),
}


# The fields of a job that a reader uses.
_OF_READING = ("source_topic", "job_name", "schema_registry", "avro_schema", "protobuf_descriptor")

# The fields of a job that its verification uses; each run has recorded the rest.
_OF_VERIFICATION = frozenset(
    {
        "source_topic",
        "job_name",
        "sorts",
        "format",
        "key_format",
        "schema_registry",
        "avro_schema",
        "protobuf_descriptor",
        "protobuf_message",
        "workdir",
        "retries",
        "retry_delay",
        "run_timeout",
        "start_timeout",
        "request_timeout",
    }
)


def job_options(command: F) -> F:
    """Add one flag for each field of the job, and --job FILE."""
    return _job_file(_options(Job)(command))


def verify_options(command: F) -> F:
    """Show the flags that verification uses; take the job's others too, but hidden, so that those of `sort` fit."""
    return _job_file(_options(Job, _OF_VERIFICATION)(command))


def merge_options(command: F) -> F:
    """Show the flags that a merge uses; take the job's others too, but hidden, so that those of `sort` fit."""
    return _job_file(_options(Job, {*_OF_READING, *LIMITS, "request_timeout"})(command))


def stream_options(command: F) -> F:
    """Add one flag for each setting of a stream."""
    return _options(Streaming)(command)


def reading_options(command: F) -> F:
    """Add the flags that say which output is read, and how its records are printed."""
    forms = click.Choice(["jsonl", "raw", "csv"])
    options = (
        click.option(
            "--sort", "output", metavar="OUTPUT", help="Topic or columns of a sort; needed if it has several."
        ),
        click.option(
            "--run", type=click.IntRange(min=1), metavar="N", help="This run alone; default: all current ones."
        ),
        click.option("--newest", is_flag=True, help="Leave out runs that the ledger does not know one by one."),
        click.option("--output", "form", type=forms, default="jsonl", show_default=True, help="See docs/reading.md."),
    )
    for option in reversed(options):
        command = option(command)
    for name in reversed(_OF_READING):
        command = _option(name, Job.model_fields[name], hidden=False)(command)
    return _job_file(command)


def _job_file(command: F) -> F:
    file = click.option("--job", "job_file", type=click.Path(path_type=Path), metavar="FILE", help="Job file (TOML).")
    return file(command)


def _options(model: type[BaseModel], shown: Collection[str] | None = None) -> Callable[[F], F]:
    def add(command: F) -> F:
        for name, info in reversed(model.model_fields.items()):
            command = _option(name, info, hidden=shown is not None and name not in shown)(command)
        return command

    return add


def _option(name: str, info: FieldInfo, *, hidden: bool) -> Callable[[F], F]:
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    flag = flag_name(name, info)
    kind = _plain_type(info.annotation)
    look: dict[str, Any] = {"hidden": hidden, "help": f"{info.description} {_default(info)}".strip()}
    if kind is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, **look)
    if kind is list:
        look["help"] += " Repeatable."
        return click.option(flag, name, multiple=True, metavar=str(extra.get("metavar")), **look)
    if kind is typing.Literal:
        return click.option(flag, name, type=click.Choice(typing.get_args(info.annotation)), default=None, **look)
    return click.option(*flag_names(name, info), name, type=_CLICK_TYPES[kind], default=None, **look)


def _plain_type(annotation: Any) -> Any:
    """Return `int` for `int | None`, and `list` for `list[str]`."""
    if annotation in _CLICK_TYPES:
        return annotation
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        return next(kind for kind in typing.get_args(annotation) if kind is not type(None))
    return typing.get_origin(annotation) or annotation


def _default(info: FieldInfo) -> str:
    return (
        f"[default: {info.default}]"
        if isinstance(info.default, str | int | float) and info.default is not False
        else ""
    )


def _complete_file(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """Leave the names of files to the shell: `load` gives its own errors for those that it cannot read."""
    return [CompletionItem(begun, type="file")]


def load_options(command: F) -> F:
    """Add the files that are loaded, and the flags that say how they are read."""
    whole = click.IntRange(min=1)
    partitions, replicas = click.IntRange(1, 10_000), click.IntRange(1, 32)
    options = (
        click.argument("files", nargs=-1, required=True, metavar="FILE...", shell_complete=_complete_file),
        click.option("--topic", required=True, help="Topic to append to; created if it is absent."),
        click.option("--partitions", default=4, show_default=True, type=partitions, help="Partitions, if created."),
        click.option("--replication-factor", type=replicas, help="Replicas, if created; default: the broker's."),
        click.option(
            "--format",
            "record_format",
            type=click.Choice(["csv", "json", "lines"]),
            help="csv: a row may go on within quotes. json: a document a line. lines: any text. Default: by the files' "
            "names and the other flags.",
        ),
        click.option("--skip-header", is_flag=True, help="The first line of each file is no record."),
        click.option("--key", metavar="COLUMN", help="Column of CSV, or path into JSON, that is the record's key."),
        click.option("--columns", help="CSV: names of the fields of a row in their order, if no header line has them."),
        click.option("--delimiter", help="CSV: delimiter of two fields; default: comma, or tab for files .tsv."),
        click.option(
            "--csv-quote", type=click.Choice(["double", "none"]), default="double", help="none: a quote is text."
        ),
        click.option(
            "--from-line", default=1, type=whole, metavar="N", help="Begin at line N of the first file, to go on."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def output_option(command: F) -> F:
    """Add `--output table|json`."""
    text = "Standard output: tables for a person, or one JSON object (docs/output.md)."
    kinds = click.Choice(["table", "json"])
    return click.option("--output", type=kinds, default="table", show_default=True, help=text)(command)


def quiet_option(command: F) -> F:
    """Add `--quiet`."""
    text = "Show warnings and errors alone; the exit status tells the rest."
    return click.option("--quiet", is_flag=True, help=text)(command)


class _Seconds(click.FloatRange):
    """A finite time."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = float(super().convert(value, param, ctx))
        if not math.isfinite(seconds):
            self.fail(f"{value} is no number of seconds.", param, ctx)
        return seconds


def wait_option(*, hidden: bool = False) -> Callable[[F], F]:
    """Add `--wait-for-topic SECONDS`."""
    text = "Wait so long for the source topic to exist and to have its leaders."
    kind = _Seconds(min=0)
    return click.option("--wait-for-topic", default=0.0, type=kind, metavar="SECONDS", hidden=hidden, help=text)


def connection_options(command: F) -> F:
    """Add the flags that say how to reach Kafka."""
    options = (
        click.option("--bootstrap-servers", help="Brokers, as HOST:PORT,… [default: localhost:9092]"),
        click.option("--kafka-config", type=click.Path(path_type=Path), metavar="FILE", help="librdkafka properties."),
        click.option(
            "-X", "properties", multiple=True, metavar="NAME=VALUE", help="One librdkafka property. Repeatable."
        ),
        click.option("--allow-plaintext", is_flag=True, help="Permit other hosts to be reached without TLS."),
    )
    for option in reversed(options):
        command = option(command)
    return command
