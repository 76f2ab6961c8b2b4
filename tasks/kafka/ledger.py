"""The ledger: a compacted topic that says what every run of a job read and wrote. Kafka's memory of what is done.

Read only after fencing: then nothing of this transactional id is open, and what is read is all there is.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from tasks.errors import SettingsError, TerminalError, TransientError
from tasks.kafka.clients import make_consumer, translate
from tasks.kafka.topics import EARLIEST, LATEST, create_topic, describe_topic, list_offsets, topic_settings
from tasks.manifests import RunRecord
from tasks.settings.connection import Connection
from tasks.settings.names import JobNames

LAST = b"last"
# Run records older than this many runs are tombstoned within later transactions.
KEPT_RUNS = 1000

_SETTINGS = {"cleanup.policy": "compact", "unclean.leader.election.enable": "false"}

# A record names every output partition: thousands of them are beyond the default of 1 MB. Only closed segments are
# compacted: by default a stream's would grow to 1 GB, which every start reads.
_MADE_WITH = {"max.message.bytes": "10485760", "segment.bytes": "16777216"}


class LedgerError(TerminalError):
    """The ledger holds something that no run of this job wrote."""

    action = "Find out what wrote to the ledger, then do what the line says."
    at_risk = "Perhaps: without its ledger a job does not know what it has published. This run has published nothing."


@dataclass(frozen=True)
class Ledger:
    """What the ledger said after fencing: the newest run, the records by number, and the oldest run that has one."""

    last: RunRecord | None
    runs: dict[int, RunRecord]
    oldest: int = 1

    def outdated(self, newest: int) -> Sequence[int]:
        """Runs whose records a transaction that writes run `newest` shall tombstone."""
        return range(self.oldest, newest - KEPT_RUNS + 1)

    def followed_by(self, record: RunRecord) -> "Ledger":
        """The ledger with one more run, of which alone the record is kept: a stream would gather a thousand."""
        return Ledger(record, {record.run: record}, max(self.oldest, record.run - KEPT_RUNS + 1))


def run_key(number: int) -> bytes:
    """Key of a run's record."""
    return f"run/{number}".encode()


def ensure_ledger(admin: AdminClient, name: str, replication_factor: int | None) -> bool:
    """Make the ledger if absent, check its settings; whether it was made. SettingsError names what differs."""
    topic = describe_topic(admin, name)
    made = topic is None
    if topic is None:
        topic = create_topic(admin, name, 1, replication_factor, _SETTINGS | _MADE_WITH)
    settings = topic_settings(admin, name)
    wrong = [
        f"{key}={settings.get(key)} (must be {value})" for key, value in _SETTINGS.items() if settings.get(key) != value
    ]
    if len(topic.partitions) != 1:
        wrong.append(f"{len(topic.partitions)} partitions (must be 1)")
    if wrong:
        raise SettingsError(
            f"the ledger {name} has {', '.join(wrong)}: set it back (kafka-configs --alter), "
            "or, if it cannot be, delete it and start with --append from --start group"
        )
    return made


def read_ledger(
    connection: Connection, admin: AdminClient, name: str, job: str, timeout: float, *, fenced: bool = True
) -> Ledger:
    """All committed records, up to the high watermark at the time of the call.

    Who has not fenced, and only looks, shall say so: what is open then is somebody's work, and is not waited for.

    The bound is the *uncommitted* high watermark, not the last stable offset and not an EOF event: with either, a
    committed record above somebody's open transaction would be missed (Materialize #23380, #19879).
    TransientError if that cannot be reached within `timeout` seconds.
    """
    start = list_offsets(admin, name, [0], EARLIEST)[0]
    end = list_offsets(admin, name, [0], LATEST, committed=not fenced)[0]
    if start >= end:
        return Ledger(None, {})
    consumer = make_consumer(connection, JobNames(job).group)
    try:
        consumer.assign([TopicPartition(name, 0, start)])
        content = _read_to(consumer, name, end, time.monotonic() + timeout)
    finally:
        consumer.close()
    return _parse(content, name, job)


def _read_to(consumer: Consumer, name: str, end: int, deadline: float) -> dict[bytes, bytes]:
    content: dict[bytes, bytes] = {}
    position = TopicPartition(name, 0)
    # The position also moves over control records, so an aborted tail does not hold the reader.
    while (reached := consumer.position([position])[0].offset) < end:
        if time.monotonic() > deadline:
            raise TransientError(
                f"the ledger {name} could be read to offset {max(reached, 0)} of {end} only: is a replica down?"
            )
        for message in consumer.consume(1000, 0.1):
            if error := message.error():
                raise translate(f"reading the ledger {name}", error)
            key, value = message.key() or b"", message.value()
            if value is None:
                content.pop(key, None)
            else:
                content[key] = value
    return content


def _parse(content: dict[bytes, bytes], name: str, job: str) -> Ledger:
    last = None
    runs = {}
    for key, value in content.items():
        try:
            record = RunRecord.from_json(value)
        except (ValueError, KeyError, TypeError):
            raise LedgerError(_foreign(name, key, "which is not a run record")) from None
        if record.job != job:
            raise LedgerError(_foreign(name, key, f"of another job ({record.job})"))
        if key == LAST:
            last = record
        elif key == run_key(record.run):
            runs[record.run] = record
        else:
            raise LedgerError(_foreign(name, key, "whose key and content differ"))
    if last is None and runs:
        raise LedgerError(
            f"the ledger {name} has run records but no record 'last': it was altered; "
            "use another --job-name with --append"
        )
    return Ledger(last, runs, min(runs, default=1))


def _foreign(name: str, key: bytes, what: str) -> str:
    shown = json.dumps(key.decode("utf-8", "backslashreplace"))
    return (
        f"the ledger {name} holds a record with key {shown} {what}: nothing was published; "
        "write a tombstone for that key, or use another --job-name with --append"
    )
