"""The sample that an inspection reads: bounded, from all parts of a topic, and without a trace."""

import pytest
from confluent_kafka import Producer

from tasks.errors import SettingsError
from tasks.inspection import reading
from tasks.inspection.reading import TopicSample, sample_topic
from tests.cluster import Cluster, Record, wait_for


def sample(cluster: Cluster, topic: str) -> TopicSample:
    return sample_topic(cluster.connection, cluster.admin, topic)


def places(found: TopicSample) -> list[tuple[int, int]]:
    columns = (found.records.column(name).to_pylist() for name in ("partition", "offset"))
    return list(zip(*columns, strict=True))


def test_a_sample_is_bounded(cluster: Cluster) -> None:
    """Of 20,000 records a bounded number is read, from the beginning, the middle and the end; their number is told."""
    topic = cluster.make_topic(2)
    cluster.produce(topic, (b"%d" % i for i in range(20_000)), 2)
    found = sample(cluster, topic)
    third = 2000 // 3
    assert len(found.records) == found.covered == 3 * 2 * third
    windows = [range(third), range(5000 - third // 2, 5000 + third // 2), range(10_000 - third, 10_000)]
    assert places(found) == [(partition, offset) for partition in (0, 1) for window in windows for offset in window]
    assert (found.offsets, found.estimate, found.is_whole) == (20_000, 20_000, False)


def test_many_partitions(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a topic of many partitions some are read, spread over all; empty ones are not among them."""
    monkeypatch.setattr(reading, "_PARTITIONS", 3)
    topic = cluster.make_topic(12)
    cluster.produce_records(topic, [Record(b"x", partition=p) for p in range(12) if p not in {0, 4}])
    found = sample(cluster, topic)
    assert places(found) == [(1, 0), (6, 0), (10, 0)]
    assert (found.read, len(found.ranges), found.estimate) == (3, 12, 10)


def test_bytes_are_bounded(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading ends at a number of bytes, and each part of the topic has its share of them."""
    monkeypatch.setattr(reading, "_BYTES", 2_400_000)
    topic = cluster.make_topic(1)
    cluster.produce(topic, [b"x" * 4000] * 3000, 1)
    offsets = [offset for _, offset in places(sample(cluster, topic))]
    parts = [sum(start <= offset < start + 1000 for offset in offsets) for start in (0, 1000, 2000)]
    # A client hands out 100 records at once.
    assert all(1 <= part <= 200 + 100 for part in parts)
    assert 600 <= sum(parts) <= 700


@pytest.mark.slow
def test_large_records(cluster: Cluster) -> None:
    """Records of 10 MB are read, a few of them."""
    topic = cluster.make_topic(1, max_message_bytes="20000000")
    large = [b"%d%s" % (i, b"x" * 10_000_000) for i in range(5)]
    cluster.produce(topic, large, 1, **{"message.max.bytes": 20_000_000})
    found = sample(cluster, topic)
    assert 1 <= len(found.records) <= 5
    assert found.records.column("value")[0].as_py() == large[0]


@pytest.mark.slow
def test_gaps(cluster: Cluster) -> None:
    """Where records are gone, those that are left are found and counted: aborted ones are none."""
    topic = cluster.make_topic(1)
    cluster.produce_aborted(topic, [Record(b"gone")] * 8000)
    cluster.produce_records(topic, [Record(b"%d" % i) for i in range(10)], **{"transactional.id": topic})
    wait_for(lambda: cluster.ends(topic) == cluster.ends(topic, committed=False))
    found = sample(cluster, topic)
    assert [value.as_py() for value in found.records.column("value")] == [b"%d" % i for i in range(10)]
    assert (found.estimate, found.is_whole, found.offsets) == (10, True, 8012)


@pytest.mark.parametrize("how", ["empty", "aborted"])
def test_nothing_to_inspect(cluster: Cluster, how: str) -> None:
    """A topic without a record is refused in one line."""
    topic = cluster.make_topic(2)
    if how == "aborted":
        cluster.produce_aborted(topic, [Record(b"gone")] * 3)
    with pytest.raises(SettingsError, match=f"topic {topic} holds no records"):
        sample(cluster, topic)


def test_open_transactions(cluster: Cluster) -> None:
    """What is behind one is not read, and its offsets are told, also where there is nothing else."""
    topic = cluster.make_topic(1)
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers, "transactional.id": topic})
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(topic, b"open")
    producer.flush()
    cluster.produce(topic, [b"behind"])
    with pytest.raises(SettingsError, match="holds no records, and 2 offsets behind open transactions, which"):
        sample(cluster, topic)
    producer.commit_transaction()
    wait_for(lambda: cluster.ends(topic) == cluster.ends(topic, committed=False))
    assert sample(cluster, topic).held_back == 0


def test_no_such_topic(cluster: Cluster) -> None:
    """The line names one that is like it."""
    topic = cluster.make_topic(1)
    with pytest.raises(SettingsError, match=f"there is no topic {topic}s; did you mean {topic}"):
        sample(cluster, f"{topic}s")
