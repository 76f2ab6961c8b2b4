"""Checks a job without running it, and shows it with all that derives from its settings. Nothing is changed."""

from collections.abc import Mapping
from typing import Any

from kafka_sort.tables import print_json, print_table
from tasks.formats.registry import make_format
from tasks.kafka.clients import make_admin
from tasks.preflight import check_before_lease
from tasks.settings.budget import check_limit
from tasks.settings.connection import Connection, use_connection
from tasks.settings.job import Job
from tasks.settings.scheduler import check_runner
from tasks.settings.streaming import Streaming, check_streamable


def check_job(job: Job, connection: Connection, *, offline: bool, streams: bool = False) -> None:
    """Do what a run does before its lease; `offline`: only what needs neither Kafka nor a registry.

    `streams`: the job has settings of a stream as well. Errors are those of a run, of exit status 2.
    """
    if streams:
        check_streamable(job)
    if offline:
        check_limit(job)
        check_runner(job.runner, job.scheduler, connection)
        with use_connection(connection):
            make_format(job)
    else:
        check_before_lease(job, connection, make_admin(connection))


def print_job(job: Job, streaming: Streaming, output: str) -> None:
    """Print the job: a table of the settings that were given and of derived names, or one object with all of them."""
    if output == "json":
        print_json(describe(job, streaming))
        return
    given = {name: value for name, value in job.model_dump(mode="json").items() if name in job.model_fields_set}
    own = {**given, **_derive(job), **streaming.model_dump(mode="json", exclude_unset=True)}
    print_table(
        f"job {job.name}", ("setting", "value"), [(name, _show(value)) for name, value in own.items()], fold=True
    )
    print(f"job {job.name}: nothing is wrong with it")


def describe(job: Job, streaming: Streaming) -> dict[str, Any]:
    """Return all settings of the job and of its streams, and what derives from them."""
    dump = job.model_dump(mode="json")
    return {"job": dump, "stream": streaming.model_dump(mode="json"), "derived": _derive(job)}


def _derive(job: Job) -> Mapping[str, Any]:
    return {
        "name": job.name,
        "outputs": {sort.columns: sort.topic for sort in job.sort_list},
        "types": {key.name: None if key.name in job.untyped else str(key.type) for key in job.key_columns},
        "dead_letters": job.dead_letters,
        "ledger": job.ledger,
        "group": job.group,
    }


def _show(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} → {item or 'by the first run'}" for name, item in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)
