"""Clocks that differ between a run and its broker. Records carry the run's time, and nothing is decided by it."""

import re
import time
from pathlib import Path

import pyarrow as pa
import pytest
from confluent_kafka import KafkaError

from tasks.kafka.clients import KafkaTerminalError
from tasks.kafka.sender import Sender
from tasks.publish import publish_run
from tests.cluster import Cluster, sample_values
from tests.faults.oracle import assert_exact
from tests.stages import make_job, owned, prepare, run_once

ROOT = Path(__file__).parents[2]
# The places that read the wall clock: times for people, in the ledger and in metrics; and the end of a job that is a
# time, at which a stream stops. A wrong clock stops it early or late, and what is left is the next run's.
TOLD = {"tasks/publish.py", "tasks/run.py", "tasks/source.py", "tasks/streaming/stats.py", "tasks/streaming/trigger.py"}


def stamp_with(patch: pytest.MonkeyPatch, seconds: float) -> None:
    """Give the outputs' records the time of a machine with a wrong clock, as librdkafka would there."""
    send = Sender.send

    def send_stamped(
        self: Sender,
        topic: str,
        partition: int,
        values: pa.Array,
        keys: pa.Array | None = None,
        headers: pa.Array | None = None,
        _: pa.Array | None = None,
    ) -> None:
        stamps = pa.array([round((time.time() + seconds) * 1000)] * len(values), pa.int64())
        send(self, topic, partition, values, keys, headers, stamps)

    patch.setattr(Sender, "send", send_stamped)


@pytest.mark.slow
@pytest.mark.parametrize("minutes", [59, -60])
def test_a_clock_that_is_an_hour_off(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: int
) -> None:
    """Records are stamped ahead of the broker or behind it, then by a machine with the right time: exact."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(500))
    job = make_job(source, tmp_path)
    with monkeypatch.context() as patch:
        stamp_with(patch, 60 * minutes)
        run_once(cluster, job, tmp_path)
    cluster.produce(source, sample_values(500, seed=2))
    run_once(cluster, job, tmp_path)
    assert_exact(cluster, job, runs=2)


@pytest.mark.slow
def test_a_clock_that_is_further_ahead_than_the_broker_takes(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka refuses records from more than an hour ahead: a clear error, nothing visible, and a right clock goes on."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(500))
    job = make_job(source, tmp_path)
    with owned(cluster, job) as owner:
        publication = prepare(owner, tmp_path)
        with monkeypatch.context() as patch:
            stamp_with(patch, 7200)
            with pytest.raises(KafkaTerminalError, match="INVALID_TIMESTAMP") as refused:
                publish_run(owner, publication)
        assert refused.value.code == KafkaError.INVALID_TIMESTAMP
        assert cluster.count(job) == 0
        publish_run(owner, publication)
    assert_exact(cluster, job)


def test_the_wall_clock_decides_nothing() -> None:
    """Code reads it for times that people see or give, and nowhere else: waits and expiries use the monotonic clock."""
    read = re.compile(r"\btime\.time\(|\.now\(|utcnow|localtime")
    files = [file for folder in ("flows", "tasks") for file in (ROOT / folder).rglob("*.py")]
    assert {str(file.relative_to(ROOT)) for file in files if read.search(file.read_text())} <= TOLD
