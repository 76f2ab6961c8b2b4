"""Whether a process reaches the cluster and the topics that a run means, whatever its environment says."""

import os
from collections.abc import Mapping

from tasks.errors import SettingsError
from tasks.kafka.clients import make_admin
from tasks.kafka.topics import cluster_id, describe_topics
from tasks.settings.connection import Connection


class OtherClusterError(SettingsError):
    """A worker of a run reaches another Kafka cluster, or another topic of the same name, than the run means."""

    action = (
        "Give the workers the connection of the run: the same profile in `KAFKA_SORT_PROFILES`, or the same `KAFKA_…` "
        "variables."
    )


def require_cluster(connection: Connection, cluster: str, topics: Mapping[str, str], consequence: str) -> None:
    """Raise OtherClusterError unless the connection leads to this cluster, and there to topics with these ids.

    `topics`: name → id. `consequence`: what has not happened, for the error.
    """
    where = f"a worker on {os.uname().nodename} reaches Kafka at {connection.bootstrap_servers}"
    admin = make_admin(connection)
    if (found := cluster_id(admin)) != cluster:
        raise OtherClusterError(
            f"{where}, the cluster {found}, and the run reads {cluster}: {consequence}; give the worker "
            "the connection of the run"
        )
    known = describe_topics(admin, list(topics))
    for name, wanted in topics.items():
        if name not in known or known[name].id != wanted:
            seen = f"has the id {known[name].id}" if name in known else "is not there"
            raise OtherClusterError(
                f"{where}, where topic {name} {seen}, and the run knows the one with the id {wanted}: {consequence}; "
                "start again"
            )
