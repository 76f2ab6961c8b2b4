"""`kafka-sort load`: its progress, and what it prints. It works without Prefect."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import click

from kafka_sort.display import Display
from tasks.load import Loaded, load_files
from tasks.loading.layout import LoadSettings
from tasks.loading.rows import open_files
from tasks.observe.logs import get_logger, json_wanted
from tasks.observe.progress import format_duration, log_progress
from tasks.observe.signals import stop_on_signals
from tasks.printable import counted
from tasks.run_context import run_context
from tasks.settings.connection import Connection

_PROGRESS_SECONDS = 10.0


def run_load(connection: Connection, flags: Mapping[str, Any], display: Display) -> None:
    """Load the files that the flags name, and show what was done."""
    settings = _read_settings(flags)
    layout = settings.check()
    files = open_files(settings, layout)
    with run_context() as context, stop_on_signals(context.stop), log_progress(context.progress, _PROGRESS_SECONDS):
        loaded = load_files(connection, settings, layout, files)
        if json_wanted():
            _log(settings.topic, loaded)
        display.show(lambda: _print(settings.topic, loaded), lambda: describe(settings.topic, loaded))


def _read_settings(flags: Mapping[str, Any]) -> LoadSettings:
    names = {field.name for field in fields(LoadSettings)} & flags.keys()
    given = {name: flags[name] for name in names}
    return LoadSettings(**given, format=flags["record_format"], quotes=flags["csv_quote"] == "double")


def describe(topic: str, loaded: Loaded) -> dict[str, Any]:
    """Return what was loaded, for a script."""
    done = loaded.reached
    return {
        "topic": topic,
        "partitions": loaded.partitions,
        "files": loaded.files,
        "records": done.records,
        "empty_lines": done.empty,
        "without_key": done.without_key,
        "first_without_key": loaded.example or None,
        "seconds": round(loaded.seconds, 3),
    }


def _log(topic: str, loaded: Loaded) -> None:
    done = loaded.reached
    facts = {"records": done.records, "empty_lines": done.empty, "without_key": done.without_key}
    get_logger().info("lines loaded", topic=topic, files=loaded.files, **facts)


def _print(topic: str, loaded: Loaded) -> None:
    done = loaded.reached
    where = f"{topic} ({counted(loaded.partitions, 'partition')})"
    what = f"{counted(done.records, 'line')} of {counted(loaded.files, 'file')}"
    click.echo(f"loaded {what} into {where} in {format_duration(loaded.seconds)}")
    if done.empty:
        click.echo(f"{counted(done.empty, 'empty line')} skipped")
    if done.without_key:
        click.echo(f"{counted(done.without_key, 'record')} without a key; the first is {loaded.example}")
    if done.records:
        click.echo(f"next: kafka-sort inspect {topic}")
