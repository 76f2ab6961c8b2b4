"""Tests that ask for a version of transactions get a broker that speaks it."""

from tests.cluster import Cluster
from tests.features import BOTH_TRANSACTION_VERSIONS, active_features


@BOTH_TRANSACTION_VERSIONS
def test_the_broker_has_the_version_that_a_test_asks_for(cluster: Cluster, transaction_version: int) -> None:
    """The broker itself says which transaction.version is active."""
    host, port = cluster.bootstrap_servers.split(":")
    assert active_features(host, int(port))["transaction.version"] == transaction_version


def test_a_test_that_asks_for_no_version_gets_the_newest(cluster: Cluster) -> None:
    """The suite runs on what a new cluster has."""
    host, port = cluster.bootstrap_servers.split(":")
    assert active_features(host, int(port))["transaction.version"] == 2
