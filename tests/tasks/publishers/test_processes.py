"""Several publishers in processes of this machine: one transaction, exact, and nothing of them is left."""

from pathlib import Path

import pytest

from tasks.publish import publish_run
from tasks.settings.job import Job
from tests.cluster import Cluster, sample_values
from tests.faults.oracle import Follower, assert_exact
from tests.publishers import find_publishers, local
from tests.stages import make_job, owned, prepare


@pytest.fixture
def job(cluster: Cluster, tmp_path: Path) -> Job:
    """A job of two sorts over 1000 records in 4 partitions, with dead letters."""
    source = cluster.make_topic()
    cluster.produce(source, [*sample_values(1000), b"no row", None])
    return make_job(source, tmp_path, sorts=[f"id=o-{source}-id", f"continent=o-{source}-continent"])


def test_two_publishers_and_one_transaction(cluster: Cluster, job: Job, tmp_path: Path) -> None:
    """What two processes send is one run, exact to a reader that follows; the processes end."""
    with Follower(cluster, job) as follower:
        with owned(cluster, job) as owner:
            publication = prepare(owner, tmp_path)
            record = publish_run(owner, publication, local(cluster.connection))
        assert (record.run, record.records, record.dead_letters) == (1, 1002, 2)
        assert_exact(cluster, job, follower=follower)
    assert find_publishers() == []
