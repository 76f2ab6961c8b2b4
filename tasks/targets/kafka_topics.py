"""Outputs that are Kafka topics: their state at the beginning of a run, and the records that it writes to them.

Guarantee 2 (all or nothing, exactly once): an output has one writer, so its high watermarks move by what that writer
delivered. Their growth within the transaction must equal what was sent.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Self

from confluent_kafka.admin import AdminClient

from tasks.kafka.sender import Sender
from tasks.kafka.topics import LATEST, Topic, describe_topics, list_all_offsets
from tasks.kafka.transaction import TransactionalProducer
from tasks.manifests import KeyRange, Snapshot, SortedRows
from tasks.run_context import current_run
from tasks.run_record import DeletedRange, WrittenRange, WrittenSort
from tasks.targets.base import NO_WRITING, Columns, OutputChangedError, Sent, Writing

_MARKER_SECONDS = 0.02

# Topic → partition → offset.
_Ends = Mapping[str, Mapping[int, int]]


@dataclass(frozen=True)
class KafkaTopics:
    """The output topics by name, with the ids and partitions that they must have when the run publishes.

    `partition_by`: the setting of the job. By hash the number of partitions must stay; by source it may grow.
    """

    admin: AdminClient
    topics: Mapping[str, Topic]
    request_timeout: float
    partition_by: str = "range"

    @classmethod
    def note(
        cls, admin: AdminClient, names: Collection[str], request_timeout: float, partition_by: str = "range"
    ) -> Self:
        """Note the topics as they are now; OutputChangedError if one is gone."""
        return cls(admin, _require_topics(admin, names), request_timeout, partition_by)

    @property
    def sorts(self) -> frozenset[str]:
        """The names of the sorts, which are those of the topics."""
        return frozenset(self.topics)

    @property
    def staged(self) -> frozenset[str]:
        """None: all records are sent within the transaction."""
        return frozenset()

    def partitions(self, sort: str) -> int:
        """Return the number of the topic's partitions."""
        return len(self.topics[sort].partitions)

    def takes(self, snapshot: Snapshot) -> bool:
        """Whether each source partition has its own, where the job wants that."""
        fewest = min(len(topic.partitions) for topic in self.topics.values())
        return self.partition_by != "source" or all(r.partition < fewest for r in snapshot.ranges)

    def check(self) -> None:
        """Raise OutputChangedError if a topic is gone, was recreated, or has more partitions where that matters."""
        for name, now in _require_topics(self.admin, self.topics).items():
            noted = self.topics[name]
            if now.id != noted.id:
                raise OutputChangedError(
                    f"output {name} was deleted and recreated during the run: nothing was published; start again"
                )
            if self.partition_by == "hash" and now.partitions != noted.partitions:
                raise OutputChangedError(
                    f"output {name} has {len(now.partitions)} partitions, and had {len(noted.partitions)} when the run "
                    "began: --partition-by hash would place equal keys in two of them; nothing was published; take "
                    "another output and another --job-name"
                )

    def stage(self, attempt: str, run: int, sorts: Sequence[SortedRows]) -> AbstractContextManager[Writing]:
        """Return the writing of nothing."""
        del attempt, run, sorts
        return nullcontext(NO_WRITING)

    def begin(self, producer: TransactionalProducer) -> "_TopicWriting":
        """Note the ends before this run, once all markers are written: Kafka answers a commit before that.

        OutputChangedError if a transaction stays open. It is not this job's, which has fenced.
        """
        deadline = time.monotonic() + self.request_timeout
        if self.partition_by == "source":
            # What a producer knows of a topic is up to five minutes old.
            producer.learn_partitions({name: len(topic.partitions) for name, topic in self.topics.items()})
        while True:
            ends, stable = self.ends(), list_all_offsets(self.admin, self._partitions, LATEST)
            if stable == ends:
                return _TopicWriting(self, producer.sender, ends)
            if time.monotonic() > deadline:
                open_in = ", ".join(name for name in self.topics if stable[name] != ends[name])
                raise OutputChangedError(
                    f"output {open_in} has an open transaction of something else: nothing was published; stop the "
                    "other writer, start again"
                )
            current_run().stop.wait(_MARKER_SECONDS)

    def ends(self) -> _Ends:
        """Return the high watermarks: with one writer they move by its records and by its markers."""
        return list_all_offsets(self.admin, self._partitions, LATEST, committed=False)

    @property
    def _partitions(self) -> dict[str, tuple[int, ...]]:
        return {name: topic.partitions for name, topic in self.topics.items()}


def send_columns(sender: Sender, topic: str, partition: int, columns: Columns) -> None:
    """Queue records for a partition of an output, in order."""
    sender.send(
        topic, partition, columns["value"], columns.get("key"), columns.get("headers"), columns.get("timestamp")
    )


@dataclass(frozen=True)
class _TopicWriting:
    """The writing of one attempt. `firsts`: the ends before it."""

    target: KafkaTopics
    sender: Sender
    firsts: _Ends

    def write(self, sort: str, partition: int, columns: Columns) -> None:
        """Queue records."""
        send_columns(self.sender, sort, partition, columns)

    def finish(self, sent: list[Sent]) -> tuple[WrittenSort, ...]:
        """Return by how much the topics grew, which must be what was sent."""
        ends = self.target.ends()
        return tuple(self._finish_sort(done, ends[done.rows.sort]) for done in sent)

    def _finish_sort(self, done: Sent, ends: Mapping[int, int]) -> WrittenSort:
        name = done.rows.sort
        written = [self._check_growth(name, key_range, ends[key_range.partition]) for key_range in done.rows.ranges]
        ranges = tuple(w for w in written if w.count)
        former = tuple(DeletedRange(partition, end) for partition, end in sorted(self.firsts[name].items()))
        topic, checksum = self.target.topics[name], f"{done.checksum:016x}"
        return WrittenSort(name, topic.id, done.columns, ranges, checksum, former, len(topic.partitions))

    def _check_growth(self, name: str, r: KeyRange, end: int) -> WrittenRange:
        first = self.firsts[name][r.partition]
        if end - first != r.count:
            raise OutputChangedError(
                f"output {name} partition {r.partition} grew by {end - first} records, {r.count} were sent: "
                "something else writes there; nothing was published; stop the other writer, start again"
            )
        bounds = (r.first_bound, r.last_bound)
        return WrittenRange(r.partition, first, end - 1, r.count, r.first_key, r.last_key, *bounds)


def _require_topics(admin: AdminClient, names: Collection[str]) -> Mapping[str, Topic]:
    found = describe_topics(admin, names)
    for name in names:
        if name not in found:
            raise OutputChangedError(f"output {name} is gone: nothing was published; start again, it will be recreated")
    return found
