"""A test's view of Kafka: topics of its own, the records in them, and the records that must be there."""

import random
import string
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

from confluent_kafka import Consumer, Producer, TopicPartition

from tasks.kafka.clients import make_admin
from tasks.kafka.ledger import Ledger, read_ledger
from tasks.kafka.topics import EARLIEST, LATEST, create_topic, describe_topic, group_offsets, list_offsets
from tasks.run_record import WrittenSort
from tasks.settings.connection import Connection
from tasks.settings.job import Job
from tasks.settings.sorts import Sort
from tests.placed import output_key, output_partition

CONTINENTS = ("North America", "Asia", "South America", "Europe", "Africa", "Australia")


@dataclass(frozen=True)
class Record:
    """A record of a topic, with its place."""

    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    partition: int = field(default=0, compare=False)
    offset: int = field(default=-1, compare=False)


def sample_values(count: int, seed: int = 1, ids: int = 2**31) -> list[bytes]:
    """Rows of the sample schema."""
    chance = random.Random(seed)

    def word(low: int, high: int) -> str:
        return "".join(chance.choices(string.ascii_letters, k=chance.randint(low, high)))

    return [
        f"{chance.randrange(ids)},{word(10, 15)},{word(15, 20)},{chance.choice(CONTINENTS)}".encode()
        for _ in range(count)
    ]


class Cluster:
    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.connection = Connection(bootstrap_servers)
        self.admin = make_admin(self.connection)

    def make_topic(self, partitions: int = 4, name: str | None = None, **config: str) -> str:
        name = name or f"t-{uuid4().hex[:12]}"
        create_topic(self.admin, name, partitions, 1, {k.replace("_", "."): v for k, v in config.items()})
        return name

    def delete_topic(self, name: str) -> None:
        self.admin.delete_topics([name])[name].result()
        wait_for(lambda: describe_topic(self.admin, name) is None)

    def delete_below(self, topic: str, offsets: dict[int, int]) -> None:
        """Delete the records of these partitions before these offsets, as retention does."""
        asked = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
        for future in self.admin.delete_records(asked).values():
            future.result()
        wait_for(lambda: self.starts(topic) | offsets == self.starts(topic))

    def produce(self, topic: str, values: Iterable[bytes | None], partitions: int = 4, **config: Any) -> None:
        """Send values round-robin over the partitions."""
        self.produce_records(topic, [Record(v, partition=i % partitions) for i, v in enumerate(values)], **config)

    def produce_records(self, topic: str, records: Iterable[Record], **config: Any) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap_servers, "linger.ms": 5, **config})
        transactional = "transactional.id" in config
        if transactional:
            producer.init_transactions(30)
            producer.begin_transaction()
        for r in records:
            producer.produce(topic, r.value, r.key, r.partition, headers=list(r.headers))
            producer.poll(0)
        assert producer.flush(30) == 0
        if transactional:
            producer.commit_transaction(30)

    def produce_aborted(self, topic: str, records: Iterable[Record]) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap_servers, "transactional.id": uuid4().hex})
        producer.init_transactions(30)
        producer.begin_transaction()
        for r in records:
            producer.produce(topic, r.value, r.key, r.partition)
        producer.flush(30)
        producer.abort_transaction(30)

    def ends(self, topic: str, *, committed: bool = True) -> dict[int, int]:
        found = describe_topic(self.admin, topic)
        return list_offsets(self.admin, topic, found.partitions if found else (), LATEST, committed=committed)

    def starts(self, topic: str) -> dict[int, int]:
        found = describe_topic(self.admin, topic)
        return list_offsets(self.admin, topic, found.partitions if found else (), EARLIEST)

    def read(self, topic: str, *, committed: bool = True) -> list[Record]:
        """Read all records: partition 0 first, then 1, …; the uncommitted ones too, if asked."""
        level = "read_committed" if committed else "read_uncommitted"
        ends, starts = self.ends(topic, committed=committed), self.starts(topic)
        left = {p for p in ends if ends[p] > starts[p]}
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "group.id": uuid4().hex,
                "isolation.level": level,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
            }
        )
        consumer.assign([TopicPartition(topic, p, starts[p]) for p in left])
        records: list[Record] = []
        while left:
            for m in consumer.consume(10_000, 0.05):
                partition, offset = m.partition() or 0, m.offset() or 0
                if not m.error():
                    headers: Any = tuple(m.headers() or ())
                    records.append(Record(m.value(), m.key(), headers, partition, offset))
            for position in consumer.position([TopicPartition(topic, p) for p in left]):
                if position.offset >= ends[position.partition]:
                    left.discard(position.partition)
        consumer.close()
        return sorted((r for r in records if r.offset < ends[r.partition]), key=lambda r: (r.partition, r.offset))

    def count(self, job: Job, *, committed: bool = True) -> int:
        """Count the records in those of the job's topics that exist."""
        outputs = [sort.topic for sort in job.topic_sorts if describe_topic(self.admin, sort.topic)]
        return sum(len(self.read(topic, committed=committed)) for topic in outputs)

    def ledger(self, job: Job) -> Ledger:
        return read_ledger(self.connection, self.admin, job.ledger, job.name, 30)

    def group_offsets(self, job: Job) -> dict[int, int]:
        return group_offsets(self.connection, job.group, job.source_topic, self.ends(job.source_topic))


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def sort_key(sort: Sort, value: bytes) -> tuple[Any, ...]:
    """Return a record's key for Python's own sorted(); for rows without quotes."""
    fields = dict(zip(("id", "name", "address", "continent"), value.split(b","), strict=True))
    key: list[Any] = []
    for part in sort.by:
        raw: Any = int(fields[part.column]) if part.column == "id" else fields[part.column]
        if part.descending:
            raw = -raw if isinstance(raw, int) else (*(256 - b for b in raw), 257)
        key.append(raw)
    return tuple(key)


def is_row(value: bytes | None) -> bool:
    fields = (value or b"").split(b",")
    return len(fields) == 4 and len(fields[0]) < 30 and fields[0].strip().lstrip(b"-").isdigit()


def expected(sort: Sort, source: Sequence[Record]) -> list[Record]:
    """Return the records in the order the sort promises: by key, then source partition, then source offset."""
    rows = [r for r in source if is_row(r.value)]
    return sorted(rows, key=lambda r: (*sort_key(sort, r.value or b""), r.partition, r.offset))


def assert_expected(job: Job, sort: Sort, written: WrittenSort, source: Sequence[Record], found: list[Record]) -> None:
    """The records of a run in one output are the expected sequence, with the keys and partitions that the job wants."""
    copies = []
    for r in expected(sort, source):
        key = output_key(job, sort, r.value or b"", r.key)
        partition = output_partition(job, key, r.partition, written.partition_count)
        copies.append(replace(r, key=key, partition=partition))
    copies.sort(key=lambda r: r.partition)
    assert found == copies, f"{sort.topic} is not the expected sequence"
    if job.partition_by != "range":
        assert [r.partition for r in found] == [r.partition for r in copies], f"{sort.topic} has records elsewhere"


def assert_every_run(cluster: Cluster, job: Job) -> int:
    """The oracle for streams; returns the number of runs.

    Runs have numbers without a gap, each begins where the one before ended, and together they read all of the source,
    each record once. The output of each is the expected sequence of what it read, and the outputs hold nothing else.
    """
    ledger = cluster.ledger(job)
    runs = [ledger.runs[number] for number in sorted(ledger.runs)]
    assert [run.run for run in runs] == list(range(1, len(runs) + 1))
    assert ledger.last == runs[-1]
    positions = cluster.starts(job.source_topic)
    source = cluster.read(job.source_topic)
    for sort in job.sort_list:
        wait_for(lambda topic=sort.topic: cluster.ends(topic) == cluster.ends(topic, committed=False))  # type: ignore[misc]
    outputs = {sort.topic: cluster.read(sort.topic) for sort in job.sort_list}
    for run in runs:
        read = {r.partition: (r.start, r.end) for r in run.read}
        assert {p: start for p, (start, _) in read.items()} == {p: positions[p] for p in read}, f"run {run.run}"
        positions |= run.ends
        taken = [r for r in source if r.partition in read and read[r.partition][0] <= r.offset < read[r.partition][1]]
        for sort, written in zip(job.sort_list, run.sorts, strict=True):
            ranges = {w.partition: (w.first, w.last) for w in written.partitions}
            found = [
                r
                for r in outputs[sort.topic]
                if r.partition in ranges and ranges[r.partition][0] <= r.offset <= ranges[r.partition][1]
            ]
            assert_expected(job, sort, written, taken, found)
    assert positions == cluster.ends(job.source_topic)
    rows = sum(is_row(r.value) for r in source)
    assert {topic: len(records) for topic, records in outputs.items()} == dict.fromkeys(outputs, rows)
    assert cluster.group_offsets(job) == positions
    return len(runs)


def assert_sorted(cluster: Cluster, job: Job, runs: int = 1) -> None:
    """The oracle: outputs equal the expected sequence record for record, nothing hangs open, offsets and ledger agree.

    For a job whose runs together read all of its source; of several runs the last one is compared.
    """
    ledger = cluster.ledger(job)
    assert ledger.last is not None
    assert sorted(ledger.runs) == list(range(1, runs + 1))
    assert ledger.runs[runs] == ledger.last
    read = {r.partition: (r.start, r.end) for r in ledger.last.read}
    source = [r for r in cluster.read(job.source_topic) if read[r.partition][0] <= r.offset < read[r.partition][1]]
    for sort, written in zip(job.sort_list, ledger.last.sorts, strict=True):
        ranges = {w.partition: (w.first, w.last) for w in written.partitions}
        # A commit is answered before all its markers are written.
        wait_for(lambda topic=sort.topic: cluster.ends(topic) == cluster.ends(topic, committed=False))  # type: ignore[misc]
        output = cluster.read(sort.topic)
        last = [
            r for r in output if r.partition in ranges and ranges[r.partition][0] <= r.offset <= ranges[r.partition][1]
        ]
        assert_expected(job, sort, written, source, last)
        if runs == 1:
            assert len(output) == len(last), f"{sort.topic} holds records of no run"
    assert cluster.group_offsets(job) == {p: end for p, (_, end) in read.items()}
