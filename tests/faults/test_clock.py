"""Clocks that differ between a run and its broker: nothing is decided by them."""

import time
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tasks.broker.embedded import EmbeddedBroker
from tests.cluster import Cluster, sample_values
from tests.conftest import BROKER_PROPERTIES
from tests.faults.oracle import Follower, assert_exact
from tests.stages import make_job, run_once

# Of Debian's package libfaketime. It is the broker that is given another time: librdkafka does not start under it.
LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


@pytest.mark.slow
@pytest.mark.skipif(LIBRARY is None, reason="the package libfaketime is not installed")
@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_is_an_hour_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    """A broker an hour ahead of the runs, or behind them, and then one that is right: every run exact."""
    broker = EmbeddedBroker(data=tmp_path / "data", properties=BROKER_PROPERTIES)
    with monkeypatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(LIBRARY))
        patch.setenv("FAKETIME", f"{hours:+}h")
        # The monotonic clock stays: it has no hour to be wrong by.
        patch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        broker.start(300)
    try:
        cluster = Cluster(broker.bootstrap_servers)
        assert round((broker_time(cluster) - time.time()) / 3600) == hours
        source = cluster.make_topic()
        cluster.produce(source, sample_values(2000))
        job = make_job(source, tmp_path)
        with Follower(cluster, job) as follower:
            run_once(cluster, job, tmp_path)
            cluster.produce(source, sample_values(1000, seed=2))
            run_once(cluster, job, tmp_path)
            assert_exact(cluster, job, runs=2, follower=follower)
        broker.kill()
        broker.start()
        assert round((broker_time(cluster) - time.time()) / 3600) == 0
        cluster.produce(source, sample_values(1000, seed=3))
        run_once(cluster, job, tmp_path)
        assert_exact(cluster, job, runs=3)
    finally:
        broker.stop()


def broker_time(cluster: Cluster) -> float:
    """What the broker stamps on a record that it appends now."""
    times: list[int] = []
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers})
    topic = cluster.make_topic(1, **{"message.timestamp.type": "LogAppendTime"})
    producer.produce(topic, b"now", on_delivery=lambda _, message: times.append(message.timestamp()[1]))
    assert producer.flush(30) == 0
    return times[0] / 1000
