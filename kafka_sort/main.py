"""The command `kafka-sort`: it turns flags into settings, and errors into one line and an exit status.

It has no logic of its own.
"""

import ctypes
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

from kafka_sort.completion import SHELLS, print_completion
from kafka_sort.display import Display
from kafka_sort.environment import prepare_environment, require_room_for_prefect
from kafka_sort.options import (
    connection_options,
    job_options,
    load_options,
    merge_options,
    output_option,
    quiet_option,
    reading_options,
    stream_options,
    verify_options,
    wait_option,
)
from kafka_sort.prefect_server import start_prefect
from kafka_sort.streams import output_status
from tasks.errors import KafkaSortError
from tasks.kafka.clients import make_admin
from tasks.printable import printable
from tasks.settings.connection import resolve_connection, use_connection
from tasks.settings.job import Job, load_job
from tasks.settings.streaming import Streaming, asks_for_stream, check_streamable, load_streaming
from tasks.signals import holding

# Prefect reads these when it is imported. The commands import it late, because that takes seconds.
PREFECT_DEFAULTS = {
    "PREFECT_LOGGING_EXTRA_LOGGERS": "kafka_sort",
    # Prefect's own lines go to its run log; the terminal shows ours.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}
# They bound the memory of a stream; a single run is up to a quarter smaller, and faster, without them.
STREAM_DEFAULTS = {
    # Arrow reads this when it is imported, which the commands also do late. Its own allocator, mimalloc, keeps more
    # memory with each hour: a stream of 50,000 records/s grew by 9 MB a minute.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    # The C library's heaps: all threads share these two. The default is a dozen heaps, each with holes of its own.
    "MALLOC_ARENA_MAX": "2",
}
# They halve the memory of a reader. Numpy's algebra, which it does not need, would start threads that spin for a while.
READ_DEFAULTS = {**STREAM_DEFAULTS, "OPENBLAS_NUM_THREADS": "1"}
# The number of M_ARENA_MAX in glibc's malloc.h.
_M_ARENA_MAX = -8

# The innermost frames that are shown of an unforeseen error.
_SHOWN_FRAMES = 6

DEBUG = click.option("--debug", is_flag=True, help="Show tracebacks, and Prefect's own log lines.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="kafka-sorting-pipeline", prog_name="kafka-sort")
def cli() -> None:
    """Sort Kafka topics by key: exactly once, in bounded memory."""
    prepare_environment()


@cli.command()
@click.option(
    "--port", default=9092, show_default=True, type=click.IntRange(0, 65_535), help="Port on 127.0.0.1; 0: a free one."
)
@click.option("--data", type=click.Path(path_type=Path), help="Folder that is kept; default: a temporary one.")
@DEBUG
def broker(port: int, data: Path | None, **_: Any) -> None:
    """Run the embedded Apache Kafka in the foreground."""
    from tasks.broker.embedded import run_foreground

    run_foreground(port, data)


@cli.command()
@click.option("--records", default=1_000_000, show_default=True, type=click.IntRange(min=0), help="Records to append.")
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same records.")
@click.option("--topic", default="source", show_default=True, help="Topic to fill; created if it is absent.")
@click.option(
    "--partitions", default=4, show_default=True, type=click.IntRange(1, 10_000), help="Partitions, if created."
)
@click.option(
    "--format",
    "record_format",
    default="csv",
    show_default=True,
    type=click.Choice(["csv", "json", "avro", "protobuf"]),
    help="Format of the values, the same people in each.",
)
@quiet_option
@connection_options
@DEBUG
def generate(records: int, seed: int, topic: str, partitions: int, record_format: Any, **flags: Any) -> None:
    """Fill a topic with the sample data."""
    connection = _connection(flags)
    display = _start(flags)
    start_prefect().result()
    from flows.generate_records import generate_records
    from tasks.people.make import SCHEMAS

    with use_connection(connection), holding():
        generate_records(topic=topic, records=records, seed=seed, partitions=partitions, format=record_format)
        schema = f"; their schema is {SCHEMAS[record_format]}" if record_format in SCHEMAS else ""
        display.show(lambda: click.echo(f"generated {records:,} records in {topic}{schema}"))


@cli.command()
@load_options
@output_option
@quiet_option
@connection_options
@DEBUG
def load(**flags: Any) -> None:
    """Append the lines of FILEs to a topic; - is standard input. Files may be compressed by gzip or zstd."""
    connection = _connection(flags)
    display = Display.of(flags)
    display.begin()
    from kafka_sort.load import run_load

    run_load(connection, flags, display)


@cli.command()
@click.option("--dry-run", is_flag=True, help="Print what the run would do, and change nothing.")
@click.option(
    "--rewrite",
    type=click.IntRange(min=1),
    metavar="RUN",
    help="Write the Parquet files of this run again that are gone or altered, and make no run.",
)
@output_option
@quiet_option
@wait_option()
@job_options
@connection_options
@DEBUG
def sort(
    *, job_file: Path | None, dry_run: bool, rewrite: int | None, wait_for_topic: float, **flags: Any
) -> int | None:
    """Sort what is new in a topic: one run of the flow sort-topic."""
    connection = _connection(flags)
    display = _start(flags)
    job = load_job(_given(Job, flags), os.environ, job_file)
    if dry_run and rewrite:
        raise click.UsageError("--rewrite writes files, and --dry-run writes nothing: leave one of them out")
    if dry_run:
        from kafka_sort.plan import print_plan

        with use_connection(connection):
            print_plan(job, connection, display, wait_for_topic)
        return 0
    prefect = start_prefect()
    from tasks.preflight import check_before_lease

    # Wrong settings and absent brokers are reported while Prefect takes its seconds to start.
    check_before_lease(job, connection, make_admin(connection), wait_for_topic)
    prefect.result()
    from kafka_sort.terminal import run_sort

    with use_connection(connection):
        run_sort(job, display, rewrite)
    return None


@cli.command()
@quiet_option
@wait_option()
@stream_options
@job_options
@connection_options
@DEBUG
def stream(job_file: Path | None, wait_for_topic: float, **flags: Any) -> None:
    """Sort records as they arrive, in micro-batches, until stopped: the flow stream-topic."""
    connection = _connection(flags)
    _limit_heaps()
    display = _start(flags, PREFECT_DEFAULTS | STREAM_DEFAULTS)
    job = load_job(_given(Job, flags), os.environ, job_file)
    check_streamable(job)
    streaming = load_streaming(_given(Streaming, flags), os.environ, job_file)
    check_streamable(job)
    prefect = start_prefect()
    from tasks.preflight import check_before_lease

    check_before_lease(job, connection, make_admin(connection), wait_for_topic)
    prefect.result()
    from kafka_sort.terminal import run_stream

    with use_connection(connection):
        run_stream(job, streaming, display)


@cli.command()
@click.option("--latest", is_flag=True, help="Keep only the newest record of each key; this takes all runs.")
@click.option("--drop-tombstones", is_flag=True, help="With --latest, drop that one too if it has no value.")
@output_option
@quiet_option
@merge_options
@connection_options
@DEBUG
def merge(job_file: Path | None, *, latest: bool, drop_tombstones: bool, **flags: Any) -> None:
    """Make one run of a job's oldest runs, and delete these: the flow merge-topic. The ledger has format and sorts."""
    if drop_tombstones and not latest:
        raise click.UsageError("--drop-tombstones is for --latest: give both, or leave it out")
    connection = _connection(flags)
    display = _start(flags)
    job = load_job(_given(Job, flags), os.environ, job_file)
    prefect = start_prefect()
    from tasks.merging.recorded import merging_job
    from tasks.preflight import check_before_lease

    # Wrong settings and absent brokers are reported while Prefect takes its seconds to start.
    admin = make_admin(connection)
    check_before_lease(merging_job(job, connection, admin), connection, admin)
    prefect.result()
    from kafka_sort.terminal import run_merge

    with use_connection(connection):
        run_merge(job, display, latest=latest, drop_tombstones=drop_tombstones)


@cli.command()
@click.option("--runs", type=click.IntRange(min=1), help="How many of the newest runs to verify; default: all.")
@output_option
@quiet_option
@wait_option(hidden=True)
@verify_options
@connection_options
@DEBUG
def verify(runs: int | None, job_file: Path | None, **flags: Any) -> None:
    """Read the outputs back and compare them with the source, run by run."""
    connection = _connection(flags)
    display = _start(flags)
    job = load_job(_given(Job, flags), os.environ, job_file)
    start_prefect().result()
    from kafka_sort.terminal import run_verify

    with use_connection(connection):
        run_verify(job, runs, display)


@cli.command()
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option("--fail", is_flag=True, help="Exit status 1 if no record is found.")
@reading_options
@connection_options
@DEBUG
def get(keys: tuple[str, ...], job_file: Path | None, form: str, **flags: Any) -> int:
    """Print the records with each KEY: a CSV row of the sort's columns, or of the first of them.

    A KEY that begins with a minus stands behind -- .
    """
    connection = _begin_reading(flags)
    from kafka_sort.reading import load_reading, run_get

    with use_connection(connection):
        found = run_get(connection, load_reading(flags, job_file), keys, _choice(flags), form)
    return int(flags["fail"] and not found)


@cli.command()
@click.option("--from", "first", metavar="KEY", help="The first key, in the order of the sort; or its first columns.")
@click.option("--to", "last", metavar="KEY", help="The last key, included; or its first columns.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Print at most N records.")
@reading_options
@connection_options
@DEBUG
def read(first: str | None, last: str | None, limit: int | None, job_file: Path | None, form: str, **flags: Any) -> int:
    """Print the records of all current runs in one order, as they stand in a sorted topic."""
    connection = _begin_reading(flags)
    from kafka_sort.reading import load_reading, run_read

    with use_connection(connection):
        run_read(connection, load_reading(flags, job_file), _choice(flags), (first, last), limit, form)
    return 0


def _begin_reading(flags: dict[str, Any]) -> Any:
    """Set up what a reader's libraries and the log need; return the connection."""
    _limit_heaps()
    for name, value in READ_DEFAULTS.items():
        os.environ.setdefault(name, value)
    Display("json", quiet=True).begin()
    return _connection(flags)


def _choice(flags: Mapping[str, Any]) -> Any:
    from tasks.reading.runs import Choice

    return Choice(flags["output"], flags["run"], flags["newest"])


@cli.command()
@output_option
@connection_options
@DEBUG
def status(output: str, **flags: Any) -> int:
    """Show all jobs: their runs, state, owner and lag, from the ledgers."""
    from kafka_sort.status import print_status

    print_status(_connection(flags), output)
    return 0


@cli.command()
@click.argument("topic")
@click.option("--schema-registry", metavar="ADDRESS", help="Schema registry of values and keys.")
@output_option
@connection_options
@DEBUG
def inspect(topic: str, schema_registry: str | None, output: str, **flags: Any) -> int:
    """Look at a sample of a topic: print what is in it, and a job file that sorts it."""
    from kafka_sort.inspection import print_inspection

    print_inspection(_connection(flags), topic, schema_registry, output)
    return 0


@cli.command()
@click.option("--offline", is_flag=True, help="Check the settings alone, and ask neither Kafka nor a registry.")
@output_option
@stream_options
@job_options
@connection_options
@DEBUG
def check(job_file: Path | None, output: str, *, offline: bool, **flags: Any) -> int:
    """Check a job, as a run does before any work, and print its settings."""
    connection = _connection(flags)
    job = load_job(_given(Job, flags), os.environ, job_file)
    streaming = load_streaming(_given(Streaming, flags), os.environ, job_file)
    streams = asks_for_stream(_given(Streaming, flags), job_file)
    from kafka_sort.checked import check_job, print_job

    check_job(job, connection, offline=offline, streams=streams)
    print_job(job, streaming, output)
    return 0


@cli.command()
@click.argument("shell", type=click.Choice(SHELLS))
@DEBUG
def completion(shell: str, **_: Any) -> int:
    """Print the script that makes a shell complete this command, as in eval "$(kafka-sort completion bash)"."""
    print_completion(cli, shell)
    return 0


@cli.command()
@click.option("--records", default=1_000_000, show_default=True, type=click.IntRange(min=1), help="Records to make.")
@DEBUG
def demo(records: int, **flags: Any) -> None:
    """Show it all: embedded broker, sample data, sort by three keys, verify; then more data and a second run."""
    _start(flags)
    from kafka_sort.demo import run_demo

    run_demo(records)


def _start(flags: dict[str, Any], defaults: Mapping[str, str] = PREFECT_DEFAULTS) -> Display:
    """Set up what Prefect and the log need; return how results are shown."""
    display = Display.of(flags)
    for name, value in defaults.items():
        if not (flags["debug"] and name.endswith("CONSOLE_LEVEL")) or display.quiet:
            os.environ.setdefault(name, value)
    require_room_for_prefect()
    display.begin()
    return display


def _limit_heaps() -> None:
    """Do what MALLOC_ARENA_MAX would have done: glibc read the environment when the process started.

    This must happen before the defaults are set: a value that is in the environment by now is the user's.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(_M_ARENA_MAX, int(STREAM_DEFAULTS["MALLOC_ARENA_MAX"]))


def _connection(flags: dict[str, Any]) -> Any:
    return resolve_connection(
        flags["bootstrap_servers"],
        flags["kafka_config"],
        flags["properties"],
        allow_plaintext=flags["allow_plaintext"],
    )


def _given(model: type[BaseModel], flags: dict[str, Any]) -> dict[str, Any]:
    """Return only the fields that were given, so that environment, file and defaults fill in the others."""
    given = {name: value for name, value in flags.items() if name in model.model_fields}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in given.items() if v is not None and v != ()}


def run_command() -> int:
    """Run the command; return its exit status. An error is one line on standard error; --debug adds the traceback."""
    try:
        shown: int | None = cli(standalone_mode=False)
    except click.ClickException as error:
        click.echo(f"kafka-sort: {error.format_message()} (-h lists the flags)", err=True)
        return error.exit_code
    except KafkaSortError as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        # The broker's log comes in several lines.
        click.echo("\n".join(map(printable, f"kafka-sort: {error}".split("\n"))), err=True)
        return error.exit_code
    except Exception as error:  # noqa: BLE001  # the last resort of a command: one line, not a traceback
        if "--debug" in sys.argv:
            traceback.print_exc()
        # The error may not happen again when somebody looks for it with --debug, so its place is shown now.
        frames = reversed(traceback.extract_tb(error.__traceback__)[-_SHOWN_FRAMES:])
        where = ", ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
        click.echo(printable(f"kafka-sort: {type(error).__name__}: {error} (at {where}; --debug shows all)"), err=True)
        return 1
    # A command returns a number only if all it does is to show something.
    return 0 if shown is None else shown or output_status()
