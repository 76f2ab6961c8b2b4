"""Dead letters: records that no sort can place, sent as they came, with the headers that say why.

Guarantee 3 (nothing lost in silence): they are part of the run's transaction, and counted in its ledger record.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow.parquet as pq

from tasks.formats.base import RecordFormat, RejectedError
from tasks.formats.registry import make_format
from tasks.kafka.sender import Sender
from tasks.manifests import Chunk, Location
from tasks.run_context import current_run
from tasks.run_record import ReadRange
from tasks.settings.job import Job
from tasks.storage.base import using_storage
from tasks.storage.registry import open_file

# Kafka Connect's names, which users' tools know.
_CONNECT = "__connect.errors."


def send_dead_letters(
    sender: Sender, job: Job, topic_id: str, chunks: Sequence[Chunk], known: Sequence[ReadRange] = ()
) -> int:
    """Send each record as it came, with Kafka Connect's error headers; existing names are not overwritten.

    A record that was a dead letter of this very source keeps its headers and gets all of ours behind them: its former
    place there is that of another record. The last header of a name counts.

    `topic_id`: the source's. `known`: offsets that earlier runs read, whose dead letters are there. Return the number
    of records sent.
    """
    reader, sent = type(make_format(job)), 0
    for chunk in chunks:
        if chunk.dead_letter_path is None:
            continue
        for row in _read_rows(chunk.dead_letter_path):
            if not _is_known(row, known):
                brought = [(h["name"], h["value"]) for h in row["headers"] or ()]
                headers = brought + _missing_headers(dict(brought), _error_headers(job, topic_id, reader, row))
                # A timestamp of 0 would mean "now"; the record's is kept, since a dead letter is evidence.
                sender.send_one(job.dead_letters, row["key"], row["value"], -1, headers, max(row["timestamp"], 0))
                sent += 1
    return sent


def _read_rows(location: Location) -> Iterator[dict[str, Any]]:
    with using_storage("dead letters", location), open_file(location) as source:
        for batch in pq.ParquetFile(source).iter_batches():
            current_run().stop.check()
            yield from batch.to_pylist()


def _missing_headers(
    brought: Mapping[str, bytes | None], errors: Mapping[str, bytes]
) -> list[tuple[str, bytes | None]]:
    topic = _CONNECT + "topic"
    returned = brought.get(topic) == errors[topic]
    return [(name, value) for name, value in errors.items() if returned or name not in brought]


def _is_known(row: Mapping[str, Any], known: Sequence[ReadRange]) -> bool:
    return any(r.partition == row["partition"] and r.start <= row["offset"] < r.end for r in known)


def _error_headers(job: Job, topic_id: str, reader: type[RecordFormat], row: Mapping[str, object]) -> dict[str, bytes]:
    facts = {
        "topic": job.source_topic,
        # A source that was recreated has the same offsets again.
        "topic.id": topic_id,
        "partition": row["partition"],
        "offset": row["offset"],
        "connector.name": job.name,
        "stage": "VALUE_CONVERTER",
        "class.name": _name(reader),
        "exception.class.name": _name(RejectedError),
        "exception.message": row["reason"],
    }
    return {_CONNECT + name: str(value).encode() for name, value in facts.items()}


def _name(kind: type[object]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
