"""Topics that Kafka cannot create: the error says why."""

import pytest

from tasks.errors import SettingsError
from tasks.kafka.clients import KafkaTerminalError
from tasks.kafka.topics import create_topic
from tests.cluster import Cluster


def test_a_name_that_collides(cluster: Cluster) -> None:
    """The line names the other topic, and asks for no permission."""
    there = cluster.make_topic().replace("-", ".")
    cluster.make_topic(name=there)
    with pytest.raises(SettingsError, match=f"cannot be created: .*{there}.*another name") as raised:
        create_topic(cluster.admin, there.replace(".", "_"), 1)
    assert "Create" not in str(raised.value)


def test_what_is_wrong_is_not_a_permission(cluster: Cluster) -> None:
    """The line names Create only if it is missing."""
    with pytest.raises(KafkaTerminalError, match="could not be created: INVALID_CONFIG") as raised:
        create_topic(cluster.admin, f"{cluster.make_topic()}-2", 1, 1, {"no.such.setting": "1"})
    assert "Create" not in str(raised.value)
