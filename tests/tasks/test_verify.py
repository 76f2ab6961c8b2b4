"""Verification finds what differs, and where, and nothing else: on outputs corrupted on purpose, by a real broker."""

import random
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from tasks.broker.embedded import EmbeddedBroker
from tasks.errors import SettingsError, TransientError
from tasks.kafka.clients import make_admin, make_producer
from tasks.kafka.ledger import LAST, ensure_ledger, run_key
from tasks.kafka.topics import LATEST, create_topic, describe_topic, list_offsets
from tasks.manifests import LostRange
from tasks.run_record import ReadRange, RunRecord, WrittenRange, WrittenSort
from tasks.settings.connection import Connection
from tasks.settings.job import Job
from tasks.settings.sorts import parse_columns, parse_sort
from tasks.verification.rows import RULES
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
            written.append(WrittenSort(topic, found.id, columns, ranges))
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

    def verify(self, runs: int | None = None) -> Verification:
        return verify_job(self.job, self.connection, runs)

    def differences(self) -> list[str]:
        """Return differences without the run's number, and with short topic names."""
        verification = self.verify()
        assert not verification.ok
        return [str(d).partition(": ")[2].replace(self.name, "source") for d in verification.differences]


@pytest.fixture(scope="module")
def producer(broker: EmbeddedBroker) -> Producer:
    return make_transactional(broker)


def make_transactional(broker: EmbeddedBroker) -> Producer:
    own = {"transactional.id": f"tx-{uuid.uuid4().hex}"}
    producer = make_producer(Connection(broker.bootstrap_servers), **own)
    producer.init_transactions(PATIENCE)
    return producer


MakeWorld = Callable[..., World]


@pytest.fixture
def make_world(broker: EmbeddedBroker, producer: Producer, tmp_path: Path) -> MakeWorld:
    return partial(World, Connection(broker.bootstrap_servers), tmp_path, producer)


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return make_world()


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


def test_a_sorted_run_is_verified(world: World) -> None:
    """A sorted, whole and unaltered output has no difference, with composite and descending keys, keys and headers."""
    rows = world.fill(people(200))
    world.publish(rows)
    verification = world.verify()
    assert verification.lines() == []
    assert [(r.run, r.records, r.outputs) for r in verification.runs] == [(1, 200, tuple(world.outputs))]


def test_a_lost_record_is_found(world: World) -> None:
    """A record that an output does not hold is named by its source offset, at the place where it belongs."""
    rows = world.fill(people(60))
    outputs = world.sorted(rows)
    lost = outputs[world.outputs[0]][1][7]
    world.publish(rows, change(outputs, world.outputs[0], lambda parts: parts[1].remove(lost)))
    assert world.differences() == [
        f"source-0/1 offset 7: record of source{lost.place} is missing",
        "source-0: the ledger says 59 records in all partitions, of 60 that were sorted",
    ]


def test_a_record_lost_against_the_ledger_is_found(world: World) -> None:
    """A partition that holds fewer records than the ledger says is a difference at that partition."""
    rows = world.fill(people(60))
    outputs = world.sorted(rows)
    lost = outputs[world.outputs[0]][1][7]
    short = change(outputs, world.outputs[0], lambda parts: parts[1].remove(lost))
    world.publish(rows, short, claimed={0: 20, 1: 20, 2: 20})
    assert world.differences() == [
        f"source-0/1 offset 7: record of source{lost.place} is missing",
        "source-0/1: the partition has 19 records of the run, the ledger says 20",
    ]


def test_a_doubled_record_is_found(world: World) -> None:
    """A record that is in an output twice is named, at its second place."""
    rows = world.fill(people(60))
    outputs = world.sorted(rows)
    twice = outputs[world.outputs[1]][2][3]
    world.publish(rows, change(outputs, world.outputs[1], lambda parts: parts[2].insert(4, twice)))
    assert world.differences()[0] == f"source-1/2 offset 4: record of source{twice.place} is there again"


@pytest.mark.parametrize(
    "alter",
    [
        lambda r: replace(r, value=(r.value or b"").replace(b"name", b"nine")),
        lambda r: replace(r, key=b"another"),
        lambda r: replace(r, key=None if r.key is not None else b""),
        lambda r: replace(r, headers=(*r.headers, ("more", b""))),
        lambda r: replace(r, headers=(("trace", b"0"), ("empty", b""))),
    ],
    ids=["value", "key", "null key", "header added", "header value"],
)
def test_an_altered_record_is_found(world: World, alter: Callable[[Row], Row]) -> None:
    """A byte of the value, the key or a header that differs is found, and so is null in place of empty."""
    rows = world.fill(people(60))
    outputs = world.sorted(rows)
    parts = outputs[world.outputs[0]]
    partition, offset, record = next((p, i, r) for p, part in enumerate(parts) for i, r in enumerate(part) if r.headers)

    def edit(parts: list[list[Row]]) -> None:
        parts[partition][offset] = alter(record)

    world.publish(rows, change(outputs, world.outputs[0], edit))
    assert world.differences() == [f"source-0/{partition} offset {offset}: record of source{record.place} is altered"]


@pytest.mark.parametrize(("timestamps", "found"), [("keep", True), ("new", False)])
def test_another_timestamp_is_found(world: World, timestamps: str, *, found: bool) -> None:
    """If a run keeps timestamps, one that differs by a millisecond is found; otherwise they are no promise."""
    rows = world.fill(people(60))
    outputs = world.sorted(rows)
    record = outputs[world.outputs[1]][2][5]

    def edit(parts: list[list[Row]]) -> None:
        parts[2][5] = replace(record, time=record.time + 1)

    world.publish(rows, change(outputs, world.outputs[1], edit), options={"timestamps": timestamps})
    if found:
        what = f"record of source{record.place} has the timestamp {record.time + 1} in place of {record.time}"
        assert world.differences() == [f"source-1/2 offset 5: {what}"]
    else:
        assert world.verify().ok


@pytest.mark.parametrize("swapped", [False, True])
def test_timestamps_of_equal_records(make_world: MakeWorld, *, swapped: bool) -> None:
    """Equal records that came at different times keep their order by these; a record without a time may get any."""
    world = make_world(sorts=("continent",))
    same = [row(b"1", b"x", b"Asia") for _ in range(6)]
    rows = world.fill([*same[:5], replace(same[5], time=-1)])

    def edit(parts: list[list[Row]]) -> None:
        assert parts[2][1].time == -1
        parts[2][1] = replace(parts[2][1], time=rows[0].time)
        if swapped:
            parts[1].reverse()

    world.publish(rows, change(world.sorted(rows), world.outputs[0], edit), options={"timestamps": "keep"})
    if swapped:
        what = f"record of source/1 offset 0 has the timestamp {rows[4].time} in place of {rows[1].time}"
        assert world.differences() == [f"source-0/1 offset 0: {what}"]
    else:
        assert world.verify().lines() == []


def test_an_altered_sort_key_is_found(world: World) -> None:
    """A record whose sort key was altered is one that is missing and one that is not of the source."""
    rows = world.fill(people(60))
    outputs = world.sorted(rows)
    record = outputs[world.outputs[0]][2][-1]

    def edit(parts: list[list[Row]]) -> None:
        parts[2][-1] = replace(record, value=b"2" + (record.value or b""))

    world.publish(rows, change(outputs, world.outputs[0], edit))
    assert world.differences() == [
        f"source-0/2 offset 19: record of source{record.place} is missing",
        "source-0/2 offset 19: the record is not in the source range",
    ]


def test_neighbours_that_changed_places_are_found(world: World) -> None:
    """Two neighbours in the wrong order are found at the second, where the order breaks."""
    rows = world.fill(people(60))

    def edit(parts: list[list[Row]]) -> None:
        parts[1][5], parts[1][6] = parts[1][6], parts[1][5]

    world.publish(rows, change(world.sorted(rows), world.outputs[0], edit))
    assert world.differences() == [
        "source-0/1 offset 6: the record is out of order: its key belongs before that of source-0/1 offset 5"
    ]


def test_a_record_in_another_partition_is_found(world: World) -> None:
    """Order holds across partitions: a record at the end of the next one breaks it there."""
    rows = world.fill(people(60))

    def edit(parts: list[list[Row]]) -> None:
        parts[1].append(parts[0].pop(3))

    world.publish(rows, change(world.sorted(rows), world.outputs[0], edit))
    assert world.differences() == [
        "source-0/1 offset 20: the record is out of order: its key belongs before that of source-0/1 offset 19"
    ]


def test_a_first_record_below_the_partition_before_is_found(world: World) -> None:
    """Order holds from the last record of a partition to the first one of the next that is not empty."""
    rows = world.fill(people(60))

    def edit(parts: list[list[Row]]) -> None:
        parts[2], parts[1] = [parts[0].pop(), *parts[1], *parts[2]], []
        parts[0].append(parts[2].pop(1))

    world.publish(rows, change(world.sorted(rows), world.outputs[0], edit))
    assert world.differences() == [
        "source-0/2 offset 0: the record is out of order: its key belongs before that of source-0/0 offset 19"
    ]


def test_ties_that_changed_places_are_found(make_world: MakeWorld) -> None:
    """Records with equal keys keep their order of arrival: two that changed places are both named."""
    world = make_world(sorts=("continent",))
    rows = world.fill(people(60))
    outputs = world.sorted(rows)
    first, second = outputs[world.outputs[0]][0][4:6]

    def edit(parts: list[list[Row]]) -> None:
        parts[0][4:6] = [second, first]

    world.publish(rows, change(outputs, world.outputs[0], edit))
    assert first.fields
    assert second.fields
    assert first.fields[2] == second.fields[2]
    what = f"record of source{second.place} stands before that of source{first.place}, of equal key, which came first"
    assert world.differences() == [f"source-0/0 offset 4: {what}"]


def test_a_record_behind_the_run_is_found(world: World) -> None:
    """Outputs have one writer: a record that no run of the ledger wrote is a difference."""
    rows = world.fill(people(60))
    world.publish(rows)
    world.send(world.outputs[0], [row(b"5000", b"x", b"Asia")])
    assert world.differences() == ["source-0/0 offset 21: the record was written by no run of the job"]


def test_a_record_between_runs_is_found(world: World) -> None:
    """A stray record is found even if later runs follow; runs before it stay verified."""
    world.publish(world.fill(people(30)))
    world.send(world.outputs[1], [replace(row(b"5000", b"x", b"Asia"), partition=2)])
    world.publish(world.fill(people(30, seed=2)))
    verification = world.verify()
    assert [len(r.differences) for r in verification.runs] == [0, 1]
    assert (verification.differences[0].partition, verification.differences[0].offset) == (2, 11)
    assert [r.run for r in world.verify(1).runs] == [2]


def test_a_record_before_the_first_run_is_found(world: World) -> None:
    """A record in an output from before the job's first run is a difference."""
    world.send(world.outputs[0], [row(b"5000", b"x", b"Asia")])
    world.publish(world.fill(people(30)))
    assert world.differences() == ["source-0/0 offset 0: the record was written by no run of the job"]


def test_a_job_that_appends(world: World) -> None:
    """A job that may append does not answer for records from before its first run."""
    world.send(world.outputs[0], [row(b"5000", b"x", b"Asia")])
    world.publish(world.fill(people(30)), options={"append": True})
    assert world.verify().lines() == []


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


def test_dead_letters_are_verified(world: World) -> None:
    """Records that cannot be sorted are expected in the dead-letter topic, byte for byte, and in no output."""
    rows = world.fill(people(60) + REJECTED)
    world.publish(rows)
    # They are of another range, another topic, and another job: not ours.
    strange = {"offset": b"999999", "topic": b"elsewhere", "connector.name": b"another"}
    letter = world.letters(rows)[0]
    others = [
        replace(letter, headers=(*letter.headers, (f"__connect.errors.{name}", text))) for name, text in strange.items()
    ]
    world.send(world.dead_letters, others)
    verification = world.verify()
    assert verification.lines() == []
    assert verification.runs[0].dead_letters == len(REJECTED)


def test_a_missing_dead_letter_is_found(world: World) -> None:
    """A record in no output and not in the dead-letter topic is a difference."""
    rows = world.fill(people(60) + REJECTED)
    world.publish(rows, letters=world.letters(rows)[1:])
    assert world.differences() == [f"source-dead-letters: the dead letter of source{rows[60].place} is missing"]


def test_a_dead_letter_of_another_time_is_found(world: World) -> None:
    """Dead letters keep their timestamps, whatever the outputs do."""
    rows = world.fill([*people(30), Row(b"no row")])
    (letter,) = world.letters(rows)
    world.publish(rows, letters=[replace(letter, time=letter.time + 7)])
    what = f"has the timestamp {letter.time + 7} in place of {letter.time}"
    assert world.differences() == [f"source-dead-letters/0 offset 0: the dead letter of source/0 offset 10 {what}"]


def test_altered_and_doubled_dead_letters_are_found(world: World) -> None:
    """A dead letter is byte for byte what came in, and there once."""
    rows = world.fill(people(60) + REJECTED)
    letters = world.letters(rows)
    letters[3] = replace(letters[3], value=b"1,2,3,5")
    letters.append(letters[1])
    world.publish(rows, letters=letters)
    assert world.differences() == [
        f"source-dead-letters/0 offset 3: the dead letter of source{rows[63].place} is altered",
        "source-dead-letters/0 offset 10: the dead letter is there again",
    ]


def test_a_dead_letter_that_can_be_sorted_is_found(world: World) -> None:
    """A record must not be a dead letter without reason."""
    rows = world.fill(people(60))
    world.publish(rows, letters=[replace(rows[5], partition=0, headers=world.errors(rows[5]))])
    assert world.differences() == ["source-dead-letters/0 offset 0: the dead letter is of a record that can be sorted"]


def test_dead_letters_of_dead_letters(world: World) -> None:
    """A source that is itself a dead-letter topic: error headers that a record brings along are not overwritten."""
    brought = tuple((f"__connect.errors.{name}", b"elsewhere") for name in ("topic", "partition", "offset"))
    rows = world.fill([*people(30), Row(b"no row", headers=brought)])
    world.publish(rows, letters=[replace(rows[30], partition=0)])
    assert world.verify().lines() == []


def test_an_output_cut_by_retention_is_not_verifiable(world: World) -> None:
    """Records that retention removed from an output are named, no difference; the other outputs are verified."""
    rows = world.fill(people(60))
    world.publish(rows)
    world.truncate(world.outputs[0], 1, 5)
    verification = world.verify()
    assert verification.ok
    assert verification.runs[0].unverifiable == (f"{world.outputs[0]}: partition 1 offsets 0 to 4 are gone",)


def test_a_source_cut_by_retention_is_not_verifiable(world: World) -> None:
    """Records that retention removed from the source are named, no difference; a later run is verified."""
    world.publish(world.fill(people(60)))
    world.publish(world.fill(people(60, seed=2)))
    world.truncate(world.name, 2, 3)
    verification = world.verify()
    assert verification.ok
    assert [r.unverifiable for r in verification.runs] == [(f"{world.name}: partition 2 offsets 0 to 2 are gone",), ()]


def test_order_is_verified_without_the_source(world: World) -> None:
    """If the source is gone, outputs out of order are a difference all the same."""
    rows = world.fill(people(60))
    world.publish(rows, change(world.sorted(rows), world.outputs[0], lambda parts: parts[1].reverse()))
    world.truncate(world.name, 0, 1)
    assert "source-0/1 offset 1: the record is out of order" in world.differences()[0]


def test_lost_ranges_are_no_difference(world: World) -> None:
    """Offsets that the run itself recorded as lost are not expected."""
    rows = world.fill(people(60))
    world.truncate(world.name, 1, 4)
    left = [r for r in rows if r.partition != 1 or r.offset >= 4]
    world.publish(left, lost=(LostRange(1, 0, 4),))
    assert world.verify().lines() == []


def test_gaps_are_no_records(world: World) -> None:
    """Aborted transactions and control records in the source, also at its end or as a whole range, are no gap."""
    rows = world.fill(people(30))
    world.send(world.name, [replace(r, partition=p) for r in people(20) for p in range(2)], commit=False)
    more = world.fill(people(30, seed=2))
    world.send(world.name, [replace(r, partition=p) for r in people(20) for p in range(3)], commit=False)
    world.publish([*rows, *more])
    world.send(world.name, [replace(r, partition=1) for r in people(20)], commit=False)
    world.publish([])
    verification = world.verify()
    assert verification.lines() == []
    assert [r.records for r in verification.runs] == [60, 0]


def test_aborted_publishing_is_no_record(world: World) -> None:
    """A run that was published at the second attempt holds its records once for a committed reader."""
    rows = world.fill(people(60))
    world.send(world.outputs[0], [replace(r, partition=2) for r in rows], commit=False)
    world.publish(rows)
    assert world.verify().lines() == []


def test_text_is_compared_by_bytes(make_world: MakeWorld) -> None:
    """Text that is not UTF-8, holds NUL, quotes or line breaks, or is empty, sorts by its bytes, descending too."""
    world = make_world(sorts=("name", "name:desc,id", "continent:desc,name"))
    names = [
        b"",
        b"\0",
        b"\0\0",
        b"\0\xff",
        b"a",
        b"a\0",
        b"a\0b",
        b"ab",
        b"\xff",
        b"\xff\xfe",
        b"\xc3\xa4",
        b"A",
        b"a\xff",
    ]
    plain = [row(b"%d" % (i % 7), name, CONTINENTS[i % 3]) for i, name in enumerate(names * 4)]
    quoted = [Row(b'%d,"a""b,\n",Asia' % i, (b"%d" % i, b'a"b,\n', b"Asia")) for i in range(5)]
    world.publish(world.fill(plain + quoted))
    assert world.verify().lines() == []


def test_an_output_that_was_made_again_is_a_difference(world: World) -> None:
    """A deleted output is a difference, and so is another topic of the same name, even if it is empty."""
    world.publish(world.fill(people(30)))
    topic = world.outputs[0]
    world.admin.delete_topics([topic])[topic].result(PATIENCE)
    while describe_topic(world.admin, topic) is not None:
        pass
    assert world.differences() == ["source-0: the topic does not exist any more"]
    create_topic(world.admin, topic, OUTPUT_PARTITIONS)
    found = world.differences()
    assert "source-0: the topic was deleted and recreated since the run: its id differs" in found
    assert "source-0/1 offset 0: the partition ends before offset 9, the run's last" in found


def test_a_source_that_was_made_again_is_not_verifiable(world: World) -> None:
    """A run of a source that is gone cannot be compared, which is no difference."""
    world.publish(world.fill(people(30)), source_topic_id="another")
    verification = world.verify()
    assert verification.ok
    assert "deleted and recreated" in verification.headline()


def test_counts_of_the_ledger_are_compared(world: World) -> None:
    """Records and dead letters are as many as the ledger says."""
    rows = world.fill([*people(30), *REJECTED])
    world.publish(rows, records=41, dead_letters=11)
    assert world.differences() == [
        "source: the source range has 40 records, the ledger says 41",
        "source-dead-letters: the source range has 10 records that cannot be sorted, the ledger says 11",
    ]


BOM = b"\xef\xbb\xbf"
# The format as in ledgers from before rules were recorded, and as a later version may have it.
OTHER_RULES = [{"columns": COLUMNS, "delimiter": ","}, {"columns": COLUMNS, "delimiter": ",", "rules": "99"}]


def publish_by_other_rules(world: World, fmt: dict[str, str], edit: Callable[[list[list[Row]]], None]) -> list[Row]:
    """Publish by rules that make a mark part of the number: one dead letter can be sorted now, one row cannot."""
    marked = Row(BOM + b"7,marked,Asia", key=b"k")
    kept = replace(row(BOM + b"8", b"first of its block", b"Asia"), fields=(b"8", b"", b"Asia"))
    rows = world.fill([*people(60), kept, marked, *REJECTED])
    outputs = world.sorted(rows)
    for parts in outputs.values():
        parts[1].reverse()
    world.publish(rows, change(outputs, world.outputs[0], edit), format=fmt)
    return rows


@pytest.mark.parametrize("fmt", OTHER_RULES, ids=["rules 1", "rules 99"])
def test_a_run_of_other_rules(world: World, fmt: dict[str, str]) -> None:
    """Its counts and contents are checked, dead letters too; its order is not, and the result says why."""
    publish_by_other_rules(world, fmt, lambda _: None)
    verification = world.verify()
    assert verification.differences == ()
    [run] = verification.runs
    assert (run.records, run.dead_letters) == (62 + len(REJECTED), 1 + len(REJECTED))
    [reason] = run.unverifiable
    assert reason.startswith(f"the run parsed values by rules {fmt.get('rules', '1')}, this version has rules {RULES}")
    assert "order of the outputs was not" in reason


@pytest.mark.parametrize("fmt", OTHER_RULES, ids=["rules 1", "rules 99"])
def test_contents_of_a_run_of_other_rules_are_compared(world: World, fmt: dict[str, str]) -> None:
    """A record that is missing and one that is altered are found all the same."""
    lost: list[Row] = []

    def edit(parts: list[list[Row]]) -> None:
        lost.append(parts[0].pop(2))
        parts[0][4] = replace(parts[0][4], value=b"0,other,Asia")

    publish_by_other_rules(world, fmt, edit)
    found = world.differences()
    assert f"source-0: record of source{lost[0].place} is missing" in found
    assert any(text.startswith("source-0/0 offset 4: the record is not in the source range") for text in found)
    assert "source-0: the ledger says 60 records in all partitions, of 61 that were sorted" in found


def test_dead_letters_of_a_run_of_other_rules(world: World) -> None:
    """A dead letter that is missing is a difference; the outputs are not compared without it."""
    rows = world.fill([*people(30), *REJECTED])
    world.publish(rows, letters=world.letters(rows)[1:], format=OTHER_RULES[0])
    assert world.differences() == ["source-dead-letters: the topic has dead letters of 9 records, the ledger says 10"]


def test_dead_letters_of_a_run_of_other_rules_that_are_gone(world: World) -> None:
    """If retention has removed a dead letter, the outputs cannot be compared, which is no difference."""
    rows = world.fill([*people(30), *REJECTED])
    world.publish(rows, format=OTHER_RULES[0])
    world.truncate(world.dead_letters, 0, 1)
    verification = world.verify()
    assert verification.ok
    what = "9 of the run's 10 dead letters are left: the contents of the outputs were not compared"
    assert f"{world.dead_letters}: {what}" in verification.runs[0].unverifiable


def test_an_open_transaction_is_waited_for(world: World, broker: EmbeddedBroker) -> None:
    """A commit is answered before its markers are written: unreadable offsets are an error, not a difference."""
    producer = make_transactional(broker)
    producer.begin_transaction()
    producer.produce(world.outputs[0], b"1,a,b", partition=1)
    producer.flush(PATIENCE)
    world.publish(world.fill(people(30)))
    world.job = world.job.model_copy(update={"request_timeout": 1.0})
    with pytest.raises(TransientError, match=r"-0/1 can be read to offset 0 of 11 only"):
        world.verify()
    producer.abort_transaction(PATIENCE)
    assert "the record was written by no run" not in str(world.verify().lines())


def test_nothing_to_verify(world: World) -> None:
    """A job that found nothing so far has nothing wrong; one that never started is a wrong setting."""
    found = world.verify()
    assert found.ok
    assert found.table() == []
    assert "has no run yet, so there is nothing to verify" in found.headline()
    nobody = Job(source_topic=world.name, job_name="nobody", workdir=world.workdir)
    with pytest.raises(SettingsError, match="has no ledger kafka-sort.nobody.ledger.*--job-name"):
        verify_job(nobody, world.connection)
    with pytest.raises(SettingsError, match="0 runs"):
        world.verify(0)
