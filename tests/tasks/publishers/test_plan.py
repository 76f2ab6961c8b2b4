"""The number of publishers of a run: what was asked for, where it is safe, and the reason where it is not."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

from tasks.errors import SettingsError
from tasks.kafka.native_adopt import PlaceNotFoundError
from tasks.kafka.topics import Topic, all_broker_settings
from tasks.publishers.plan import AUTO_OFFSETS, plan_publishers
from tasks.settings.budget import MB, PublisherBudget, most_publishers
from tasks.settings.job import Job, load_job
from tasks.settings.streaming import check_streamable
from tests.cluster import Cluster

SAFE = {"transaction.partition.verification.enable": "true"}
UNSAFE = {"transaction.partition.verification.enable": "false"}


@pytest.fixture(autouse=True)
def world() -> Iterator[dict[str, Any]]:
    """Brokers and topics as a test wants them; a source of 8 partitions, and no output yet."""
    found: dict[str, Any] = {
        "all_broker_settings": {1: SAFE, 2: SAFE},
        "describe_topics": {"source": Topic("source", "id", tuple(range(8)))},
        "self_test": None,
    }

    def answer(name: str) -> Any:
        def act(*_: object) -> Any:
            if isinstance(found[name], Exception):
                raise found[name]
            return found[name]

        return act

    with (
        patch("tasks.publishers.plan.all_broker_settings", answer("all_broker_settings")),
        patch("tasks.publishers.plan.describe_topics", answer("describe_topics")),
        patch("tasks.publishers.plan.self_test", answer("self_test")),
    ):
        yield found


def plan(offsets: int = 1000, **job: Any) -> tuple[int, str]:
    view: Any = SimpleNamespace(job=Job(**{"memory_limit": "64GB", **job}), admin=None)
    return plan_publishers(view, offsets)


@pytest.mark.parametrize(
    ("job", "offsets", "count"),
    [
        ({}, 10**9, 1),
        ({"runner": "dask"}, AUTO_OFFSETS - 1, 1),
        ({"runner": "dask", "dump_concurrency": 3}, AUTO_OFFSETS, 3),
        ({"runner": "dask", "scheduler": "tcp://127.0.0.1:1"}, AUTO_OFFSETS, 4),
        ({"publishers": "7"}, 1, 7),
        ({"publishers": 2}, 10**9, 2),
        ({"publishers": "1", "runner": "dask"}, 10**9, 1),
    ],
    ids=["threads", "few offsets", "workers here", "a scheduler", "seven", "a whole number", "one"],
)
def test_what_is_asked_for(job: dict[str, Any], offsets: int, count: int) -> None:
    """An explicit number is obeyed; by itself a run has several for many offsets on Dask alone."""
    assert plan(offsets, **job) == (count, "")


def test_no_more_than_partitions(world: dict[str, Any]) -> None:
    """Outputs that exist have their partitions, those that are created the job's or the source's."""
    assert plan(publishers="64", sorts=["id"]) == (8, "a partition has one publisher, and the outputs have no more")
    assert plan(publishers="64", sorts=["id", "name"], output_partitions=3)[0] == 6
    world["describe_topics"]["id"] = Topic("id", "of-output", (0, 1))
    assert plan(publishers="64", sorts=["id", "name"])[0] == 10


@pytest.mark.parametrize(
    ("limit", "runner", "count"),
    [("768MB", "threads", 1), ("2GB", "threads", 8), ("2GB", "dask", 12), ("64GB", "threads", 64)],
    ids=["least", "default", "default on Dask", "large"],
)
def test_no_more_than_the_memory_bears(limit: str, runner: str, count: int) -> None:
    """Publishers of one machine share its limit, and the reason says so."""
    job = Job(memory_limit=limit, runner=runner, sorts=["id"])
    assert most_publishers(job) == count
    found = plan(publishers="64", memory_limit=limit, runner=runner, output_partitions=100)
    assert found[0] == count
    assert ("--memory-limit" in found[1]) == (count < 64)


def test_publishers_divide_the_memory() -> None:
    """Queues of all publishers together stay within what processes leave, and one is never too small to work."""
    assert PublisherBudget.of(1000 * MB, 4) == PublisherBudget(75 * MB, 4)
    assert PublisherBudget.of(10**12, 2).queue_bytes == 128 * MB
    assert PublisherBudget.of(-5, 2).queue_bytes == 16 * MB


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("all_broker_settings", {1: SAFE, 2: UNSAFE}, "broker 2 has transaction.partition.verification.enable=false"),
        ("all_broker_settings", {1: {}}, "broker 1 has transaction.partition.verification.enable=false"),
        ("all_broker_settings", {}, "DescribeConfigs on the cluster is not permitted"),
        ("self_test", PlaceNotFoundError("no place"), "no place"),
    ],
    ids=["one broker", "an old broker", "not permitted", "no place"],
)
def test_where_it_is_not_safe(world: dict[str, Any], name: str, value: Any, why: str) -> None:
    """Where brokers do not verify partitions, or librdkafka is another, there is one publisher, and a reason."""
    world[name] = value
    count, told = plan(publishers="4")
    assert count == 1
    assert told.startswith(why)
    assert plan() == (1, "")


def test_the_settings_of_real_brokers(cluster: Cluster) -> None:
    """Kafka's own default is that partitions are verified."""
    (settings,) = all_broker_settings(cluster.admin).values()
    assert settings["transaction.partition.verification.enable"] == "true"


@pytest.mark.parametrize("value", ["0", "65", "-1", "four", "", "1.5"])
def test_no_such_number(value: str) -> None:
    """Anything but auto and 1 to 64 is refused, with what is right."""
    with pytest.raises(SettingsError, match=r"publishers \(--publishers\).*use auto, or a number from 1 to 64"):
        load_job({"publishers": value}, {})


def test_a_stream_has_none() -> None:
    """A stream refuses them: a batch is shorter than their start."""
    with pytest.raises(SettingsError, match="--publishers is for kafka-sort sort"):
        check_streamable(Job(publishers="2"))
    check_streamable(Job(publishers="auto"))
