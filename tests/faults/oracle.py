"""The promises that hold after any fault: every run of the job is there once, whole and in order; nothing is open."""

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaError, TopicPartition

from tasks.kafka.ledger import LAST, run_key
from tasks.kafka.topics import describe_topic
from tasks.run_record import RunRecord, WrittenSort
from tasks.settings.job import Job
from tests.cluster import Cluster, Record, assert_expected, wait_for
from tests.files import assert_only_runs, read_run

_FOLLOW_SECONDS = 0.1
# A broker that was away writes the markers of a commit, which it answered earlier, once it is itself again.
_SETTLE_SECONDS = 120


class Follower:
    """Reads the job's outputs as they grow, `read_committed`, as a consumer of the sorted topics does."""

    def __init__(self, cluster: Cluster, job: Job) -> None:
        self.seen: dict[tuple[str, int], list[Record]] = {}
        self.errors: list[str] = []
        self._cluster = cluster
        self._waiting = {sort.topic for sort in job.topic_sorts}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _follow(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self._cluster.bootstrap_servers,
                "group.id": "follower",
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "log_level": 0,
            }
        )
        while not self._ended.is_set():
            self._assign_new(consumer)
            for message in consumer.consume(10_000, _FOLLOW_SECONDS):
                if error := message.error():
                    if not error.retriable() and error.code() not in _PASSING:
                        self.errors.append(error.str())
                    continue
                partition, offset = message.partition() or 0, message.offset() or 0
                self.seen.setdefault((message.topic() or "", partition), []).append(
                    Record(message.value(), message.key(), (), partition, offset)
                )
        consumer.close()

    def _assign_new(self, consumer: Consumer) -> None:
        for name in tuple(self._waiting):
            if topic := _find(self._cluster, name):
                self._waiting.discard(name)
                consumer.incremental_assign([TopicPartition(name, p, 0) for p in topic])


_PASSING = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
}


def _find(cluster: Cluster, name: str) -> Sequence[int]:
    """Find the topic's partitions; none while there is no topic, or no broker."""
    try:
        topic = describe_topic(cluster.admin, name)
    except Exception:  # noqa: BLE001  # it is asked again
        return ()
    return topic.partitions if topic else ()


def assert_exact(cluster: Cluster, job: Job, runs: int = 1, follower: Follower | None = None) -> None:
    """Check that each of the job's runs is in the ledger once and in every output once, and that nothing else is there.

    1. The ledger: runs 1 to `runs`, each once, each starting where the last one ended, the last at the source's end.
    2. The outputs: nothing open, every run the expected sequence, no record of no run; folders hold the runs alone.
    3. The dead letters: as many as the runs say, nothing open.
    4. The group's offsets: the last run's end.
    5. The follower: the very same records in the order of the offsets, each once.
    """
    read_settled(cluster, job.ledger)
    ledger = cluster.ledger(job)
    assert sorted(ledger.runs) == list(range(1, runs + 1))
    last = ledger.runs[runs]
    assert last == ledger.last
    wanted = Counter({LAST: runs}) + Counter(run_key(number) for number in ledger.runs)
    assert Counter(r.key for r in cluster.read(job.ledger)) == wanted
    assert_consecutive(ledger.runs)
    assert last.ends == cluster.ends(job.source_topic)
    source = cluster.read(job.source_topic)
    outputs = {sort.topic: read_settled(cluster, sort.topic) for sort in job.topic_sorts}
    for record in ledger.runs.values():
        ranges = {r.partition: (r.start, r.end) for r in record.read}
        read = [
            r for r in source if r.partition in ranges and ranges[r.partition][0] <= r.offset < ranges[r.partition][1]
        ]
        assert len(read) == record.records
        for sort, written in zip(job.sort_list, record.sorts, strict=True):
            found = read_run(written) if written.has_folder else in_run(written, outputs[sort.topic])
            assert_expected(job, sort, written, read, found)
    for sort in job.folder_sorts:
        assert_only_runs(sort, ledger.runs.values())
    good = sum(record.records - record.dead_letters for record in ledger.runs.values())
    assert {topic: len(records) for topic, records in outputs.items()} == dict.fromkeys(outputs, good)
    letters = sum(record.dead_letters for record in ledger.runs.values())
    assert len(read_settled(cluster, job.dead_letters)) == letters
    assert cluster.group_offsets(job) == last.ends
    if follower is not None:
        assert_followed(follower, outputs)


def assert_consecutive(runs: Mapping[int, RunRecord]) -> None:
    """No offset is read by two runs, none is left out."""
    reached: dict[int, int] = {}
    for number in sorted(runs):
        for r in runs[number].read:
            assert r.start == reached.get(r.partition, 0), (
                f"run {number} starts at {r.start} in partition {r.partition}"
            )
            reached[r.partition] = r.end


def read_settled(cluster: Cluster, topic: str) -> list[Record]:
    """Read what a committed reader sees, once no transaction is open: last stable offset = high watermark."""
    wait_for(lambda: cluster.ends(topic) == cluster.ends(topic, committed=False), _SETTLE_SECONDS)
    return cluster.read(topic)


def in_run(written: WrittenSort, records: Sequence[Record]) -> list[Record]:
    """Return the records of one run in one output."""
    ranges = {w.partition: (w.first, w.last) for w in written.partitions}
    return [
        r for r in records if r.partition in ranges and ranges[r.partition][0] <= r.offset <= ranges[r.partition][1]
    ]


def assert_followed(follower: Follower, outputs: Mapping[str, Sequence[Record]]) -> None:
    """The follower saw each record once, in the topic's order, and none that is not there now."""
    there: dict[tuple[str, int], list[Record]] = {}
    for topic, records in outputs.items():
        for r in records:
            there.setdefault((topic, r.partition), []).append(r)
    wait_for(lambda: sum(map(len, follower.seen.values())) >= sum(map(len, there.values())), _SETTLE_SECONDS)
    assert follower.errors == []
    for place, records in there.items():
        seen = follower.seen[place]
        assert [(r.offset, r.value, r.key) for r in seen] == [(r.offset, r.value, r.key) for r in records], place
    assert follower.seen.keys() == there.keys()
