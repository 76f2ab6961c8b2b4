"""A source, outputs and a ledger, written without the sorter, for tests of verification."""

import random
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from tasks.broker.embedded import EmbeddedBroker
from tasks.kafka.clients import make_admin, make_producer
from tasks.kafka.ledger import LAST, ensure_ledger, run_key
from tasks.kafka.topics import LATEST, create_topic, describe_topic, list_offsets
from tasks.run_record import ReadRange, RunRecord, WrittenRange, WrittenSort
from tasks.settings.connection import Connection
from tasks.settings.job import Job
from tasks.settings.sorts import parse_columns, parse_sort
from tasks.verification.terms import RULES
from tasks.verify import Verification, verify_job

COLUMNS = "id:int,name,continent"
SORTS = ("id", "continent,id:desc")
SOURCE_PARTITIONS, OUTPUT_PARTITIONS = 3, 3
PATIENCE = 15.0
CONTINENTS = (b"Asia", b"Africa", b"Europe")
Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True)
class Row:
    """A record; `fields` is None if it cannot be sorted."""

    value: bytes | None
    fields: tuple[bytes, ...] | None = None
    key: bytes | None = None
    headers: Headers = ()
    # In ms; 0 lets the producer take the time of sending.
    time: int = 0
    partition: int = 0
    offset: int = -1

    @property
    def place(self) -> str:
        return f"/{self.partition} offset {self.offset}"


Outputs = dict[str, list[list[Row]]]


def row(*fields: bytes, key: bytes | None = None, headers: Headers = ()) -> Row:
    return Row(b",".join(fields), fields, key, headers)


def sort_rows(rows: list[Row], columns: str) -> list[Row]:
    """Sort with plain Python's stable sort, by the least significant column first."""
    names = list(parse_columns(COLUMNS))
    ordered = sorted(rows, key=lambda r: (r.partition, r.offset))
    for key in reversed(parse_sort(columns)[0]):
        index = names.index(key.column)
        convert: Callable[[bytes], int | bytes] = int if key.column == "id" else bytes

        def field_of(r: Row, index: int = index, convert: Callable[[bytes], int | bytes] = convert) -> int | bytes:
            assert r.fields is not None
            return convert(r.fields[index])

        ordered.sort(key=field_of, reverse=key.descending)
    return ordered


def divide(rows: list[Row], parts: int = OUTPUT_PARTITIONS) -> list[list[Row]]:
    size = len(rows) // parts
    return [rows[i * size : (i + 1) * size if i < parts - 1 else None] for i in range(parts)]


@dataclass
class World:
    """A source, outputs and a ledger, written without the sorter."""

    connection: Connection
    workdir: Path
    producer: Producer
    name: str = field(default_factory=lambda: f"t-{uuid.uuid4().hex[:10]}")
    sorts: tuple[str, ...] = SORTS
    runs: list[RunRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.admin: AdminClient = make_admin(self.connection)
        self.job = Job(source_topic=self.name, workdir=self.workdir, request_timeout=PATIENCE)
        self.source_id = create_topic(self.admin, self.name, SOURCE_PARTITIONS).id
        self.dead_letters = f"{self.name}-dead-letters"
        create_topic(self.admin, self.dead_letters, 1)
        ensure_ledger(self.admin, self.job.ledger, None)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda topic: create_topic(self.admin, topic, OUTPUT_PARTITIONS), self.outputs))

    @property
    def outputs(self) -> list[str]:
        return [f"{self.name}-{i}" for i in range(len(self.sorts))]

    def send(self, topic: str, rows: list[Row], *, commit: bool = True) -> None:
        """Send in one transaction, each to its partition; return once the markers, which have offsets, are written."""
        counts = Counter(r.partition for r in rows)
        before = self.ends(topic, max(counts, default=-1) + 1)
        self.producer.begin_transaction()
        for r in rows:
            self.producer.produce(topic, r.value, r.key, r.partition, headers=list(r.headers), timestamp=r.time)
        self.producer.flush(PATIENCE)
        (self.producer.commit_transaction if commit else self.producer.abort_transaction)(PATIENCE)
        while any(end < before[p] + counts[p] + 1 for p, end in self.ends(topic, len(before)).items() if counts[p]):
            time.sleep(0.01)

    def ends(self, topic: str, partitions: int) -> dict[int, int]:
        return list_offsets(self.admin, topic, range(partitions), LATEST, committed=False)

    def fill(self, rows: list[Row]) -> list[Row]:
        """Send rows to the source, in turn over its partitions; return them with their places."""
        ends, now = self.ends(self.name, SOURCE_PARTITIONS), round(time.time() * 1000)
        placed = []
        for i, r in enumerate(rows):
            partition = i % SOURCE_PARTITIONS
            placed.append(replace(r, partition=partition, offset=ends[partition], time=r.time or now - 1000 + i))
            ends[partition] += 1
        self.send(self.name, placed)
        return placed

    def sorted(self, rows: list[Row]) -> Outputs:
        """Return the content that the outputs must have."""
        good = [r for r in rows if r.fields is not None]
        return {t: divide(sort_rows(good, s)) for t, s in zip(self.outputs, self.sorts, strict=True)}

    def letters(self, rows: list[Row]) -> list[Row]:
        return [replace(r, partition=0, headers=(*r.headers, *self.errors(r))) for r in rows if r.fields is None]

    def errors(self, r: Row) -> Headers:
        facts = {"topic": self.name, "partition": str(r.partition), "offset": str(r.offset), "exception.message": "no"}
        return tuple((f"__connect.errors.{name}", text.encode()) for name, text in facts.items())

    def publish(
        self,
        rows: list[Row],
        outputs: Outputs | None = None,
        letters: list[Row] | None = None,
        claimed: dict[int, int] | None = None,
        **changes: object,
    ) -> RunRecord:
        """Write a run that claims to have sorted `rows`; `claimed`: what the ledger says of the first output."""
        written = []
        for (topic, parts), columns in zip((outputs or self.sorted(rows)).items(), self.sorts, strict=True):
            counts = claimed if claimed and topic == self.outputs[0] else {p: len(part) for p, part in enumerate(parts)}
            firsts = self.ends(topic, OUTPUT_PARTITIONS)
            self.send(topic, [replace(r, partition=p) for p, part in enumerate(parts) for r in part])
            ranges = tuple(WrittenRange(p, firsts[p], firsts[p] + n - 1, n) for p, n in counts.items() if n)
            found = describe_topic(self.admin, topic)
            assert found is not None
            written.append(WrittenSort(topic, found.id, columns, ranges, partition_count=OUTPUT_PARTITIONS))
        self.send(self.dead_letters, self.letters(rows) if letters is None else letters)
        record = replace(self.record(rows, tuple(written)), **changes)  # type: ignore[arg-type]  # named by the test
        payload = record.to_json()
        self.send(self.job.ledger, [Row(payload, key=run_key(record.run)), Row(payload, key=LAST)])
        self.runs.append(record)
        return record

    def record(self, rows: list[Row], sorts: tuple[WrittenSort, ...]) -> RunRecord:
        starts = self.runs[-1].ends if self.runs else dict.fromkeys(range(SOURCE_PARTITIONS), 0)
        ends = self.ends(self.name, SOURCE_PARTITIONS)
        return RunRecord(
            job=self.job.name,
            run=len(self.runs) + 1,
            attempt=uuid.uuid4().hex,
            source_topic=self.name,
            source_topic_id=self.source_id,
            format={"columns": COLUMNS, "delimiter": ",", "rules": RULES},
            read=tuple(ReadRange(p, starts[p], ends[p]) for p in range(SOURCE_PARTITIONS)),
            lost=(),
            records=len(rows),
            dead_letter_topic=self.dead_letters,
            dead_letters=sum(r.fields is None for r in rows),
            checksum={},
            sorts=sorts,
            started="",
            published="",
        )

    def truncate(self, topic: str, partition: int, before: int) -> None:
        [future] = self.admin.delete_records([TopicPartition(topic, partition, before)]).values()
        future.result(PATIENCE)

    def verify(self, runs: int | None = None, **settings: object) -> Verification:
        """Verify by the job with these settings besides."""
        job = Job.model_validate({**self.job.model_dump(exclude_unset=True), **settings})
        return verify_job(job, self.connection, runs)

    def differences(self) -> list[str]:
        """Return differences without the run's number, and with short topic names."""
        verification = self.verify()
        assert not verification.ok
        return [str(d).partition(": ")[2].replace(self.name, "source") for d in verification.differences]


def make_transactional(broker: EmbeddedBroker) -> Producer:
    own = {"transactional.id": f"tx-{uuid.uuid4().hex}"}
    producer = make_producer(Connection(broker.bootstrap_servers), **own)
    producer.init_transactions(PATIENCE)
    return producer


MakeWorld = Callable[..., World]


def people(count: int, seed: int = 1) -> list[Row]:
    """Make rows with distinct ids, three continents, some keys and headers."""
    chance = random.Random(seed)
    ids = chance.sample(range(-1000, 1000), count)
    return [
        row(
            str(number).encode(),
            b"name-%d" % i,
            chance.choice(CONTINENTS),
            key=b"key-%d" % i if i % 3 else None,
            headers=(("trace", b"%d" % i), ("empty", None)) if i % 5 == 0 else (),
        )
        for i, number in enumerate(ids)
    ]


def change(outputs: Outputs, topic: str, edit: Callable[[list[list[Row]]], None]) -> Outputs:
    """Return the outputs with one of them corrupted."""
    changed = {name: [list(part) for part in parts] for name, parts in outputs.items()}
    edit(changed[topic])
    return changed


REJECTED = [
    Row(None, key=b"null"),
    Row(b""),
    Row(b"1,two"),
    Row(b"1,2,3,4"),
    Row(b"x,y,z"),
    Row(b"+1,y,z"),
    Row(b"1_0,y,z"),
    Row(b"9223372036854775808,y,z"),
    Row(b'1,"y,z', headers=(("trace", None),)),
    Row(b"1,y,z\n2,y,z"),
]
