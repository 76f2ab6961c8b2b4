"""Topics that Kafka cannot make say why."""

import pytest

from tasks.errors import SettingsError
from tasks.kafka.clients import KafkaTerminalError
from tasks.kafka.topics import create_topic
from tests.cluster import Cluster


def test_a_name_that_collides(cluster: Cluster) -> None:
    """The other topic is named, and no permission is asked for."""
    there = cluster.make_topic().replace("-", ".")
    cluster.make_topic(name=there)
    with pytest.raises(SettingsError, match=f"cannot be created: .*{there}.*another name") as raised:
        create_topic(cluster.admin, there.replace(".", "_"), 1)
    assert "Create" not in str(raised.value)


def test_what_is_wrong_is_not_a_permission(cluster: Cluster) -> None:
    """Create is named where it is missing, and nowhere else."""
    with pytest.raises(KafkaTerminalError, match="could not be created: INVALID_CONFIG") as raised:
        create_topic(cluster.admin, f"{cluster.make_topic()}-2", 1, 1, {"no.such.setting": "1"})
    assert "Create" not in str(raised.value)
