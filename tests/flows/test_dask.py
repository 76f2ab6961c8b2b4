"""A run on workers of Dask: exact, whatever dies."""

import pytest

from tests.cluster import Cluster, sample_values
from tests.command import Command
from tests.faults.oracle import assert_exact

pytestmark = pytest.mark.slow


def test_sorted_on_workers(cluster: Cluster, command: Command) -> None:
    """Workers of this machine sort a topic exactly, and the run is like any other."""
    source = cluster.make_topic()
    job = command.job(source, runner="dask")
    cluster.produce(source, [*sample_values(2000), b"no row", None])
    outcome = command.run(job)
    assert outcome.status == 0, outcome.err
    assert_exact(cluster, job)
    print(outcome.err, outcome.out)
