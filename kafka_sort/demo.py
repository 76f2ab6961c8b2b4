"""The demo: a Kafka of its own, sample data, and two runs, each read back and verified; then all of it is removed.

It touches no cluster and no work folder of the user's: both lie in a temporary folder, which ends with this process.
"""

import logging
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from kafka_sort.prefect_server import start_prefect
from tasks.broker.embedded import EmbeddedBroker
from tasks.errors import StoppedError
from tasks.observe.logs import LOGGER
from tasks.settings.connection import Connection, use_connection
from tasks.settings.job import Job
from tasks.signals import asked, holding

PARTITIONS = 4
# Otherwise each run would warn that retention removes the records of former runs in time.
_FOR_EVER = {"log.retention.ms": "-1"}
# The second run sorts this many times fewer records than the first.
LATER_SHARE = 4

# The meaning of a stop for the demo, whichever step it stops.
GONE = "Kafka and the data of this demo are gone"
FAREWELL = """
{gone}. The same by hand, with a Kafka that stays:

  {command} broker --data kafka-data      in a terminal of its own
  {command} generate --records {records}
  {command} sort                          and again: each run sorts what is new
  {command} verify
  {command} status

With a cluster and a topic of yours:

  {command} sort --bootstrap-servers HOST:9092 --source-topic orders --columns order:int,customer,total --sort customer

The runs stay in Prefect's history: in a checkout of the project, make ui shows them, and lets you start more.

README.md has the guarantees, and leads to the settings and the permissions that a job needs."""


class Steps:
    """Numbered steps, each with the time it took."""

    def __init__(self) -> None:
        self._number = 0

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Print what is being done, then how long it took. StoppedError if the demo was asked to stop meanwhile."""
        if (number := asked()) is not None:
            raise StoppedError(signal.Signals(number).name, number, GONE)
        self._number += 1
        print(f"\n{self._number}. {title}", flush=True)
        began = time.monotonic()
        yield
        print(f"   {time.monotonic() - began:.1f} s", flush=True)


def run_demo(records: int) -> None:
    """Generate, sort by three keys and verify; repeat it with a quarter as many records, and verify both runs."""
    show_little()
    steps, began = Steps(), time.monotonic()
    broker = EmbeddedBroker(properties=_FOR_EVER)
    try:
        with steps.step("Start Kafka and Prefect"):
            # Nothing of the demo stays.
            prefect = start_prefect(stays=False)
            broker.start()
            prefect.result()
        with use_connection(Connection(broker.bootstrap_servers)):
            job = Job(workdir=broker.home / "work")
            show_run(steps, job, records, seed=1)
            show_run(steps, job, max(1, records // LATER_SHARE), seed=2)
    except BaseException as error:
        # Nothing is kept, so nothing needs an orderly stop: Ctrl-C must not wait.
        broker.kill()
        if isinstance(error, StoppedError):
            raise StoppedError(error.reason, error.signal, GONE) from error
        raise
    finally:
        broker.stop()
    print(f"\nDone in {time.monotonic() - began:.0f} s.")
    print(
        FAREWELL.format(command="kafka-sort" if shutil.which("kafka-sort") else sys.argv[0], records=records, gone=GONE)
    )


def show_little() -> None:
    """Show only progress and warnings in the terminal; the tables report the results."""

    def is_wanted(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or record.getMessage().startswith("progress")

    for handler in logging.getLogger(LOGGER).handlers:
        handler.addFilter(is_wanted)


def show_run(steps: Steps, job: Job, records: int, seed: int) -> None:
    """Generate more records, sort them in a run, and verify all runs so far."""
    from flows.generate_records import generate_records
    from kafka_sort.terminal import run_sort, run_verify

    with steps.step(f"Generate {records:,} records in topic {job.source_topic}"), holding():
        generate_records(job.source_topic, records, seed, PARTITIONS)
    columns = ", ".join(sort.columns for sort in job.sort_list)
    with steps.step(f"Sort what is new by {columns}: each into a topic of its own, all in one transaction"):
        run_sort(job)
    with steps.step("Verify: read the topics back, compare order and content with the source"):
        run_verify(job, None)
