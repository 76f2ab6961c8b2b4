"""Several producers write into one transaction; one that adopted nothing is refused, and nothing of it is written.

The driver is the producer that inits last and commits; the others are its publishers.
"""

import contextlib
import ctypes
import struct
import threading
import time
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from tasks.broker.embedded import EmbeddedBroker
from tasks.kafka import native_adopt
from tasks.kafka.clients import make_producer
from tasks.kafka.native_adopt import IdentityLog, PlaceNotFoundError, ProducerIdentity, adopt, find_place, search
from tasks.kafka.native_produce import handle_of
from tests.cluster import Cluster, Record, wait_for
from tests.features import BOTH_TRANSACTION_VERSIONS

COUNT = 500
OWN = ProducerIdentity(1234, 7)


class Member:
    """A producer of a transactional id that has its turn as the newest, until the next one inits."""

    def __init__(self, cluster: Cluster, transactional_id: str) -> None:
        log = IdentityLog()
        over = {"transactional.id": transactional_id, "delivery.report.only.error": True, **log.properties}
        self.producer: Producer = make_producer(cluster.connection, **over)
        self.producer.list_topics(timeout=30)  # with a connection, librdkafka looks for the coordinator at once
        self.producer.init_transactions(30)
        self.own = log.learn(self.producer)

    def join(self, shared: ProducerIdentity) -> None:
        adopt(self.producer, self.own, shared)
        self.producer.begin_transaction()

    def send(self, topic: str, partition: int) -> None:
        """Send rows to a partition that nobody else sends to, and wait for the broker's answers."""
        for number in range(COUNT):
            self.producer.produce(topic, value_of(partition, number), partition=partition)
        with contextlib.suppress(KafkaException):  # a fatal error, which `refusal` tells
            self.producer.flush(30)

    def refusal(self) -> int:
        """Return the error that the transaction has, or that it has none (_STATE, since it is open)."""
        with pytest.raises(KafkaException) as caught:
            self.producer.begin_transaction()
        return int(caught.value.args[0].code())


def value_of(partition: int, number: int) -> bytes:
    return b"%d %d" % (partition, number)


def rows_of(*partitions: int) -> list[tuple[int, bytes]]:
    return [(partition, value_of(partition, number)) for partition in partitions for number in range(COUNT)]


def shown(records: list[Record]) -> list[tuple[int, bytes | None]]:
    return [(r.partition, r.value) for r in records]


@pytest.fixture
def transactional_id() -> str:
    return f"id-{uuid4().hex[:12]}"


@pytest.fixture
def mock() -> tuple[Producer, ProducerIdentity]:
    """A producer of librdkafka's mock cluster, whose memory a test may spoil."""
    log = IdentityLog()
    producer = Producer({"test.mock.num.brokers": 1, "transactional.id": "spoilt", **log.properties})
    producer.list_topics(timeout=10)
    producer.init_transactions(10)
    return producer, log.learn(producer)


@BOTH_TRANSACTION_VERSIONS
def test_the_drivers_commit_commits_the_rows_of_those_that_adopted(cluster: Cluster, transactional_id: str) -> None:
    """Three producers write to a partition each, two of them end, and one commit shows all rows at once, in order."""
    topic = cluster.make_topic(3)
    publishers = [Member(cluster, transactional_id) for _ in range(2)]
    driver = Member(cluster, transactional_id)
    driver.producer.begin_transaction()
    for partition, publisher in enumerate(publishers):
        publisher.join(driver.own)
        publisher.send(topic, partition)
        assert publisher.refusal() == KafkaError._STATE
    assert len({publisher.own for publisher in publishers} | {driver.own}) == 3
    del publishers[:], publisher
    assert shown(cluster.read(topic)) == []
    assert shown(cluster.read(topic, committed=False)) == rows_of(0, 1)
    driver.send(topic, 2)
    driver.producer.commit_transaction(30)
    wait_for(lambda: cluster.ends(topic) == cluster.ends(topic, committed=False))
    assert shown(cluster.read(topic)) == rows_of(0, 1, 2)


@BOTH_TRANSACTION_VERSIONS
def test_one_that_adopted_nothing_is_refused(cluster: Cluster, transactional_id: str) -> None:
    """Its first request is fenced, nothing of it is written, and the driver's transaction goes on."""
    topic = cluster.make_topic(2)
    publisher, driver = (Member(cluster, transactional_id) for _ in range(2))
    driver.producer.begin_transaction()
    publisher.producer.begin_transaction()
    publisher.send(topic, 0)
    assert publisher.refusal() == KafkaError._FENCED
    driver.send(topic, 1)
    driver.producer.commit_transaction(30)
    wait_for(lambda: cluster.ends(topic) == cluster.ends(topic, committed=False))
    assert shown(cluster.read(topic, committed=False)) == rows_of(1)


def test_what_was_adopted_ends_with_the_next_init(cluster: Cluster, transactional_id: str) -> None:
    """A successor's init aborts the rows of those that adopted, and what they send later is refused."""
    topic = cluster.make_topic(2)
    publisher, driver = (Member(cluster, transactional_id) for _ in range(2))
    publisher.join(driver.own)
    publisher.send(topic, 0)
    Member(cluster, transactional_id)
    publisher.send(topic, 0)
    assert publisher.refusal() == KafkaError._FENCED
    assert shown(cluster.read(topic, committed=False)) == rows_of(0)
    wait_for(lambda: cluster.ends(topic) == cluster.ends(topic, committed=False))
    assert shown(cluster.read(topic)) == []


@BOTH_TRANSACTION_VERSIONS
def test_an_abort_lets_a_late_publisher_into_the_next_transaction(cluster: Cluster, transactional_id: str) -> None:
    """librdkafka's abort keeps the epoch, so an attempt must not end by it: what is late is committed with the next."""
    topic = cluster.make_topic(2)
    late, driver = (Member(cluster, transactional_id) for _ in range(2))
    late.join(driver.own)
    driver.producer.begin_transaction()
    driver.send(topic, 1)
    driver.producer.abort_transaction(30)
    driver.producer.begin_transaction()
    driver.send(topic, 1)
    late.send(topic, 0)
    assert late.refusal() == KafkaError._STATE
    driver.producer.commit_transaction(30)
    wait_for(lambda: cluster.ends(topic) == cluster.ends(topic, committed=False))
    assert shown(cluster.read(topic)) == rows_of(0, 1)


def test_the_identity_of_another_transactional_id_is_refused(cluster: Cluster, transactional_id: str) -> None:
    """Kafka keeps the producer id of each transactional id: rows under a foreign one are not written."""
    topic = cluster.make_topic(1)
    publisher, stranger = Member(cluster, transactional_id), Member(cluster, f"{transactional_id}-other")
    publisher.join(stranger.own)
    publisher.send(topic, 0)
    assert publisher.refusal() == KafkaError.INVALID_PRODUCER_ID_MAPPING
    assert shown(cluster.read(topic, committed=False)) == []


@pytest.mark.slow
def test_another_producer_id_of_the_same_transactional_id_is_adopted(transactional_id: str) -> None:
    """A transactional id that expired, or used up its epochs, gets a new producer id, which the older ones adopt."""
    expiring = {
        "transactional.id.expiration.ms": "1000",
        "transaction.remove.expired.transaction.cleanup.interval.ms": "500",
    }
    with EmbeddedBroker(properties=expiring) as broker:
        cluster = Cluster(broker.bootstrap_servers)
        topic, publisher = cluster.make_topic(2), Member(cluster, transactional_id)
        drivers = [Member(cluster, transactional_id)]

        def has_another() -> bool:
            time.sleep(2)
            drivers[:] = [Member(cluster, transactional_id)]
            return drivers[0].own.id != publisher.own.id

        wait_for(has_another)
        driver = drivers[0]
        driver.producer.begin_transaction()
        publisher.join(driver.own)
        publisher.send(topic, 0)
        driver.send(topic, 1)
        driver.producer.commit_transaction(30)
        wait_for(lambda: cluster.ends(topic) == cluster.ends(topic, committed=False))
        assert shown(cluster.read(topic)) == rows_of(0, 1)


@pytest.mark.parametrize(
    ("distance", "form", "value"),
    [
        pytest.param(-16, "<i", 5, id="another state"),
        pytest.param(-8, "<q", 1, id="older than this process"),
        pytest.param(-8, "<q", 2**62, id="in the future"),
        pytest.param(0, "<q", 999, id="another producer id"),
        pytest.param(8, "<h", 99, id="another epoch"),
        pytest.param(16, "<i", 2, id="a second epoch"),
    ],
)
def test_a_place_that_does_not_look_right_is_not_written_to(
    mock: tuple[Producer, ProducerIdentity], distance: int, form: str, value: int
) -> None:
    """Whatever a newer librdkafka moves, it is noticed before a row is sent, and no byte is changed."""
    producer, own = mock
    place = find_place(producer, own)
    ctypes.memmove(place + distance, struct.pack(form, value), struct.calcsize(form))
    before = ctypes.string_at(place - 16, 36)
    with pytest.raises(PlaceNotFoundError, match="0 places"):
        adopt(producer, own, OWN)
    assert ctypes.string_at(place - 16, 36) == before


def laid_out(*offsets: int, size: int = 512, own: ProducerIdentity = OWN, count: int = 1) -> bytes:
    """Memory with the neighbours of an identity at each offset."""
    memory = bytearray(size)
    for at in offsets:
        changed = round(native_adopt._clock() * 1e6)
        struct.pack_into("<iiqqhhii", memory, at - 16, 6, 0, changed, own.id, own.epoch, 0, 0, count)
    return bytes(memory)


def test_a_place_is_found_from_the_first_byte_to_the_last() -> None:
    """The search covers all of the memory, and does not read beyond it."""
    first, last = 16, 512 - 24
    assert search(laid_out(first, last), OWN) == ([first, last], [first, last])
    assert search(laid_out(last)[: last + 16], OWN) == ([], [])
    assert search(laid_out(first, last, count=2), OWN) == ([], [first, last])
    assert search(b"", OWN) == ([], [])


def test_two_places_are_one_too_many(mock: tuple[Producer, ProducerIdentity], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two places look right, none is written to."""
    producer, own = mock
    twice = ctypes.create_string_buffer(laid_out(64, 256, own=own))
    monkeypatch.setattr(native_adopt, "handle_of", lambda _: ctypes.addressof(twice))
    with pytest.raises(PlaceNotFoundError, match=r"2 places in \d+ bytes .*\[64, 256\]"):
        adopt(producer, own, OWN)
    assert search(twice.raw, own)[0] == [64, 256]


def test_a_write_elsewhere_is_noticed(mock: tuple[Producer, ProducerIdentity], monkeypatch: pytest.MonkeyPatch) -> None:
    """The adopted identity must be found where it was written: a write that did not arrive is an error."""
    producer, own = mock
    monkeypatch.setattr(ctypes, "memmove", lambda *_: None)
    with pytest.raises(PlaceNotFoundError, match="0 places"):
        adopt(producer, own, OWN)


def test_a_producer_that_is_not_init_has_no_identity() -> None:
    """It is said after some time that librdkafka told none."""
    log = IdentityLog()
    producer = Producer({"test.mock.num.brokers": 1, "transactional.id": "none", **log.properties})
    with pytest.raises(PlaceNotFoundError, match=r"no producer id within 0\.1 s"):
        log.learn(producer, 0.1)


def test_a_closed_producer_has_no_place(mock: tuple[Producer, ProducerIdentity]) -> None:
    """No memory is read that was given back."""
    producer, own = mock
    producer.close()
    assert handle_of(producer) == 0
    with pytest.raises(PlaceNotFoundError, match="closed"):
        find_place(producer, own)


def test_the_self_test_runs_once_and_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It adopts on a mock cluster, leaves no thread and no line behind, and a success is kept."""
    native_adopt.self_test.cache_clear()
    before = threading.active_count()
    native_adopt.self_test()
    monkeypatch.setattr(native_adopt, "Producer", None)
    native_adopt.self_test()
    assert threading.active_count() == before
    assert capfd.readouterr() == ("", "")


def test_the_self_test_fails_where_memory_is_laid_out_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A librdkafka with another layout is found out each time, before a run takes several publishers."""
    native_adopt.self_test.cache_clear()
    monkeypatch.setattr(native_adopt, "_ASSIGNED", 7)
    for _ in range(2):
        with pytest.raises(PlaceNotFoundError, match=r"0 places .* around it at \[\d+"):
            native_adopt.self_test()


def test_the_self_test_fails_on_a_platform_without_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the size of an allocation is not known, no memory is searched."""
    native_adopt.self_test.cache_clear()
    monkeypatch.setattr(native_adopt, "_CALLS", None)
    with pytest.raises(PlaceNotFoundError, match="this platform"):
        native_adopt.self_test()


def test_debug_lines_stay_inside(
    cluster: Cluster, transactional_id: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """No line of librdkafka reaches a terminal or a log, and none is made once the identity is known."""
    topic, lines = cluster.make_topic(1), []

    class Counting(IdentityLog):
        def log(self, *line: object) -> None:
            lines.append(line)
            super().log(*line)

    log = Counting()
    producer = make_producer(cluster.connection, **{"transactional.id": transactional_id, **log.properties})
    producer.init_transactions(30)
    log.learn(producer)
    producer.poll(0.1)
    before = len(lines)
    producer.begin_transaction()
    producer.produce(topic, b"x")
    producer.commit_transaction(30)
    producer.poll(0.1)
    assert (before > 0, len(lines) - before) == (True, 0)
    assert (capfd.readouterr(), caplog.records) == (("", ""), [])
