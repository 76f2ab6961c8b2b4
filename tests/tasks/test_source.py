"""The wait for a source that is not there yet."""

import threading
from uuid import uuid4

import pytest

import tasks.source
from tasks.errors import SettingsError, StoppedError
from tasks.kafka.topics import Topic
from tasks.run_context import run_context
from tasks.source import require_source
from tests.cluster import Cluster

AGES = 600.0


def test_a_topic_that_comes(cluster: Cluster) -> None:
    """The wait ends when the topic is there, long before its time is over."""
    name = f"late-{uuid4().hex[:8]}"
    timer = threading.Timer(0.3, cluster.make_topic, [2], {"name": name})
    timer.start()
    topic = require_source(cluster.admin, name, AGES)
    assert (topic.name, topic.partitions) == (name, (0, 1))
    timer.join()


def test_a_topic_that_does_not_come(cluster: Cluster) -> None:
    """The line says how long it was waited for; without a wait it does not."""
    with pytest.raises(SettingsError, match=r"there is no topic absent-topic after a wait of 0\.[2-9] s: check"):
        require_source(cluster.admin, "absent-topic", 0.2)
    with pytest.raises(SettingsError, match="there is no topic absent-topic: check"):
        require_source(cluster.admin, "absent-topic")


def test_a_stop(cluster: Cluster) -> None:
    """A stop ends the wait at once."""
    with run_context() as context:
        timer = threading.Timer(0.2, context.stop.ask, [StoppedError("SIGTERM", 15)])
        timer.start()
        with pytest.raises(StoppedError, match="SIGTERM"):
            require_source(cluster.admin, "absent-topic", AGES)


def test_a_topic_without_leaders(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition that has no leader yet is waited for as well; one that gets none is left to the run to judge."""
    without, led = Topic("t", "id", (0, 1), (1,)), Topic("t", "id", (0, 1))
    answers = [None, without, led]
    monkeypatch.setattr(tasks.source, "describe_topic", lambda *_: answers.pop(0))
    monkeypatch.setattr(tasks.source, "_LOOK_SECONDS", 0.01)
    assert require_source(cluster.admin, "t", AGES) == led
    monkeypatch.setattr(tasks.source, "describe_topic", lambda *_: without)
    assert require_source(cluster.admin, "t", 0.05) == without
    assert require_source(cluster.admin, "t") == without
