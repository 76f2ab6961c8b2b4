"""The sample data: its schema, its determinism, and that all that is sent arrives."""

import re
from collections import Counter
from collections.abc import Iterator

import pytest
from confluent_kafka import TopicPartition

from tasks.broker.embedded import EmbeddedBroker
from tasks.errors import BrokerUnavailableError, SettingsError, TerminalError
from tasks.generate import GenerationStoppedError, generate_records, make_block
from tasks.kafka import native_produce
from tasks.kafka.clients import make_admin, make_consumer, make_producer
from tasks.kafka.topics import LATEST, create_topic, describe_topic, list_offsets
from tasks.run_context import current_run, run_context
from tasks.settings.connection import Connection

RECORD = re.compile(
    rb"(\d{1,10}),[A-Za-z]{10,15},[A-Za-z0-9 ]{15,20},(North America|Asia|South America|Europe|Africa|Australia)"
)


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running:
        yield running


@pytest.fixture
def connection(broker: EmbeddedBroker) -> Connection:
    return Connection(broker.bootstrap_servers)


@pytest.fixture(params=["native", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "plain":
        monkeypatch.setattr(native_produce, "AVAILABLE", False)
    elif not native_produce.AVAILABLE:
        pytest.skip("librdkafka's symbols are not to be had here")
    return str(request.param)


def read_topic(connection: Connection, topic: str) -> dict[int, list[bytes | None]]:
    """Return partition → values in their order."""
    admin = make_admin(connection)
    found = describe_topic(admin, topic)
    assert found is not None
    ends = list_offsets(admin, topic, found.partitions, LATEST)
    return {p: read_partition(connection, topic, p, end) for p, end in ends.items()}


def read_partition(connection: Connection, topic: str, partition: int, end: int) -> list[bytes | None]:
    consumer = make_consumer(connection, "test")
    values: list[bytes | None] = []
    try:
        consumer.assign([TopicPartition(topic, partition, 0)])
        while len(values) < end:
            messages = consumer.consume(end - len(values), 10.0)
            assert messages
            assert not any(message.error() for message in messages)
            values.extend(message.value() for message in messages)
    finally:
        consumer.close()
    return values


def test_records_have_the_schema() -> None:
    """Every record is a row of the sample schema, with an id that fits int32."""
    for record in make_block(7, 0, 60_000).to_pylist():
        match = RECORD.fullmatch(record)
        assert match, record
        assert int(match[1]) < 2**31
        assert str(int(match[1])).encode() == match[1]


def test_values_are_spread() -> None:
    """All lengths and continents occur about equally often, and ids reach over the whole range."""
    rows = [record.split(b",") for record in make_block(7, 0, 60_000).to_pylist()]
    for counts in (Counter(len(r[1]) for r in rows), Counter(len(r[2]) for r in rows), Counter(r[3] for r in rows)):
        assert len(counts) == 6
        assert all(0.9 < count / 10_000 < 1.1 for count in counts.values())
    ids = sorted(int(row[0]) for row in rows)
    assert ids[len(ids) // 2] == pytest.approx(2**30, rel=0.05)
    assert len(set(ids)) > 59_900


def test_a_record_does_not_depend_on_its_block() -> None:
    """Record i is the same wherever a block begins and ends."""
    whole = make_block(3, 0, 1000).to_pylist()
    parts = [make_block(3, first, 7).to_pylist() for first in range(0, 1001, 7)]
    assert [record for part in parts for record in part][:1000] == whole


def test_the_records_of_a_seed_stay_what_they_are() -> None:
    """A seed's records are the same with every version of NumPy, Arrow and this project."""
    assert make_block(1, 0, 2).to_pylist() == [
        b"984695151,vOieDqQJyNGPV,kEErqZ5HvTEAMC4,South America",
        b"1761938435,LYVoMdMrDXpfVj,orcTHaeUTg0rhGk,Australia",
    ]


def test_seeds_differ() -> None:
    """Two seeds share no record."""
    assert not set(make_block(1, 0, 5000).to_pylist()) & set(make_block(2, 0, 5000).to_pylist())


def test_record_i_is_in_partition_i_mod_n(connection: Connection, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """With either way of sending, all records arrive once, in order, in the partition that i says; keys are null."""
    monkeypatch.setattr("tasks.generate.BLOCK_RECORDS", 1001)
    topic = f"dealt-{way}"
    assert generate_records(connection, topic, 10_007, 5, 3) == 10_007
    expected = make_block(5, 0, 10_007).to_pylist()
    assert read_topic(connection, topic) == {p: expected[p::3] for p in range(3)}


def test_a_full_queue_loses_nothing(connection: Connection, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Records that find the queue full are sent later, once, and in order."""
    monkeypatch.setattr("tasks.fill.QUEUE_MESSAGES", 1000)
    topic = f"full-{way}"
    generate_records(connection, topic, 5000, 6, 2)
    expected = make_block(6, 0, 5000).to_pylist()
    assert read_topic(connection, topic) == {p: expected[p::2] for p in range(2)}


def test_generating_appends_to_a_topic_as_it_is(connection: Connection) -> None:
    """A topic that exists keeps its partitions and its records; new ones come behind them."""
    create_topic(make_admin(connection), "appended", 2)
    generate_records(connection, "appended", 100, 1, 4)
    generate_records(connection, "appended", 50, 2, 4)
    old, new = make_block(1, 0, 100).to_pylist(), make_block(2, 0, 50).to_pylist()
    assert read_topic(connection, "appended") == {p: old[p::2] + new[p::2] for p in range(2)}


def test_no_records_make_an_empty_topic(connection: Connection) -> None:
    """Zero records are a topic with its partitions and nothing in it."""
    assert generate_records(connection, "none", 0, 1, 5) == 0
    assert read_topic(connection, "none") == {p: [] for p in range(5)}


def test_growth_that_differs_is_an_error(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition that did not grow by what was sent is reported, by its number."""
    create_topic(make_admin(connection), "contested", 2)

    def make_block_and_write(seed: int, first: int, count: int) -> object:
        other = make_producer(connection)
        other.produce("contested", b"of somebody else", partition=1)
        other.flush(10)
        return make_block(seed, first, count)

    monkeypatch.setattr("tasks.generate.make_block", make_block_and_write)
    with pytest.raises(TerminalError, match="contested, partition 1: 5 records were sent, but it grew by 6"):
        generate_records(connection, "contested", 10, 1, 2)


def test_records_that_the_broker_refuses_are_an_error(connection: Connection) -> None:
    """A record that Kafka refuses is not ignored in silence."""
    create_topic(make_admin(connection), "refusing", 1, config={"max.message.bytes": "100"})
    with pytest.raises(TerminalError, match="MSG_SIZE_TOO_LARGE"):
        generate_records(connection, "refusing", 1000, 1, 1)


def test_a_stop_is_seen_between_blocks(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop ends it at the next block, and the message says how many records stay."""
    monkeypatch.setattr("tasks.generate.BLOCK_RECORDS", 100)

    def make_block_and_stop(seed: int, first: int, count: int) -> object:
        if first == 200:
            current_run().stop.set()
        return make_block(seed, first, count)

    monkeypatch.setattr("tasks.generate.make_block", make_block_and_stop)
    with run_context() as context, pytest.raises(GenerationStoppedError, match="stopped after 300 records") as stopped:
        generate_records(connection, "stopped", 1000, 1, 1)
    assert stopped.value.sent == context.progress.meter("generate").done == 300
    assert len(read_topic(connection, "stopped")[0]) == 300


@pytest.mark.parametrize(
    ("topic", "records", "seed"), [("no spaces", 1, 1), ("t", -1, 1), ("t", 1, -1), ("t", 1, 2**64)]
)
def test_wrong_settings_are_found_before_any_work(topic: str, records: int, seed: int) -> None:
    """Settings are checked before a broker is contacted."""
    with pytest.raises(SettingsError):
        generate_records(Connection("127.0.0.1:1"), topic, records, seed, 1)


def test_no_broker_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a broker the error names the address and what to do."""
    monkeypatch.setattr("tasks.fill.START_SECONDS", 0.5)
    with pytest.raises(BrokerUnavailableError, match="127.0.0.1:1.*kafka-sort broker"):
        generate_records(Connection("127.0.0.1:1"), "t", 1, 1, 1)
