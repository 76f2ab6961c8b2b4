"""Jobs as their ledgers show them: last run, lag, and present owner. This only reads, and works without Prefect.

A job that cannot be shown has a line that says why; the others are shown all the same.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from confluent_kafka.admin import AdminClient

from kafka_sort.shared_server import describe_server, staying_servers
from kafka_sort.tables import print_json, print_table
from tasks.errors import KafkaSortError
from tasks.kafka.clients import kafka_errors, make_admin
from tasks.kafka.lease import describe_owner
from tasks.kafka.ledger import read_ledger
from tasks.kafka.reach import require_broker
from tasks.kafka.topics import EARLIEST, LATEST, describe_topic, list_offsets
from tasks.run_record import RunRecord
from tasks.settings.connection import Connection
from tasks.settings.names import ANY_LEDGER, JobNames

_START_SECONDS = 30.0
_LEDGER_SECONDS = 10.0
# A ledger takes a tenth of a second, most of it waiting.
_AT_ONCE = 8
_HEADER = (
    "job",
    "state",
    "outputs",
    "last run",
    "records",
    "dead letters",
    "committed",
    "lag",
    "owner, or what is wrong",
)


class SourceGoneError(KafkaSortError):
    """The source that a ledger records is not there any more."""

    action = "Recreate the topic, or delete the ledger of a job that is not needed any more."
    at_risk = "What the topic held and no run had read is gone."


@dataclass(frozen=True)
class JobStatus:
    """The state of one job. `last` is None before its first run; `lag` counts source offsets, None if it is unknown."""

    job: str
    owner: str | None = None
    last: RunRecord | None = None
    lag: int | None = None
    problem: str = ""

    @property
    def state(self) -> str:
        """The state in one word: whether the job runs, is broken, is idle, or never ran."""
        if self.owner:
            return "running"
        if self.problem:
            return "broken"
        return "idle" if self.last else "never ran"

    @property
    def outputs(self) -> tuple[str, ...]:
        """The topics and folders that the last run wrote to."""
        return tuple(sort.topic for sort in self.last.sorts) if self.last else ()

    def row(self) -> tuple[str, ...]:
        """Return the cells of its line in the table of jobs."""
        last = self.last
        return (
            self.job,
            self.state,
            ", ".join(self.outputs),
            str(last.run) if last else "",
            f"{last.records:,}" if last else "",
            f"{last.dead_letters:,}" if last else "",
            _show_time(last.published) if last else "",
            "" if self.lag is None else f"{self.lag:,}",
            "; ".join(filter(None, (self.owner, self.problem))),
        )

    def facts(self) -> dict[str, Any]:
        """Return the same for a script; null is what there is not, or is not known."""
        last = self.last
        return {
            "job": self.job,
            "state": self.state,
            "run": last.run if last else None,
            "source": last.source_topic if last else None,
            "outputs": list(self.outputs),
            "records": last.records if last else None,
            "dead_letters": last.dead_letters if last else None,
            "published": last.published if last else None,
            "lag": self.lag,
            "owner": self.owner,
            "problem": self.problem or None,
        }


def _show_time(text: str) -> str:
    """Show a time of a ledger; as it stands there if it is none, since one bad ledger must not hide the other jobs."""
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S %Z}"
    except ValueError:
        return text


def print_status(connection: Connection, output: str = "table") -> None:
    """Print all jobs, and Prefect's servers that stay. BrokerUnavailableError if no broker answers."""
    jobs = read_status(connection)
    if output == "json":
        print_json(describe(connection, jobs))
        return
    if jobs:
        print_table(f"jobs at {connection.bootstrap_servers}", _HEADER, [job.row() for job in jobs], fold=True)
    else:
        print(f"no jobs at {connection.bootstrap_servers}: no topic is called {ANY_LEDGER}")
    for server, linger in staying_servers():
        print(describe_server(server, linger))


def describe(connection: Connection, jobs: Sequence[JobStatus]) -> dict[str, Any]:
    """Return all jobs and servers, for a script."""
    return {
        "bootstrap_servers": connection.bootstrap_servers,
        "jobs": [job.facts() for job in jobs],
        "prefect_servers": [{"pid": server.pid, "linger": linger} for server, linger in staying_servers()],
    }


def read_status(connection: Connection, start_timeout: float = _START_SECONDS) -> list[JobStatus]:
    """Read all jobs of the cluster, by name: each that has a ledger. BrokerUnavailableError if no broker answers."""
    admin = make_admin(connection)
    require_broker(admin, connection, start_timeout)
    with kafka_errors("list of topics"):
        topics = admin.list_topics(timeout=_START_SECONDS).topics
    names = sorted(names.job for topic in topics if (names := JobNames.of_ledger(topic)) is not None)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(partial(_read_job, connection, admin), names))


def _read_job(connection: Connection, admin: AdminClient, name: str) -> JobStatus:
    owner = describe_owner(admin, JobNames(name).owner_group)
    last = None
    try:
        last = read_ledger(connection, admin, JobNames(name).ledger, name, _LEDGER_SECONDS, fenced=False).last
        return JobStatus(name, owner, last, _lag(admin, last) if last else None)
    except KafkaSortError as error:
        return JobStatus(name, owner, last, problem=str(error))


def _lag(admin: AdminClient, last: RunRecord) -> int:
    """Count the source's offsets that no run has read, up to the last stable offset, where the next run would end."""
    source = describe_topic(admin, last.source_topic)
    if source is None:
        raise SourceGoneError(f"its source {last.source_topic} was deleted")
    if source.id != last.source_topic_id:
        raise SourceGoneError(f"its source {source.name} was deleted and recreated")
    ends = list_offsets(admin, source.name, source.partitions, LATEST)
    unknown = list_offsets(admin, source.name, [p for p in source.partitions if p not in last.ends], EARLIEST)
    starts = last.ends | unknown
    return sum(ends[p] - starts[p] for p in source.partitions)
