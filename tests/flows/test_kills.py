"""SIGKILL at every step of the protocol, then another start: the output is the expected sequence, once."""

from pathlib import Path

import pytest

from tasks.failpoints import RUN_NAMES
from tests.cluster import Cluster, sample_values, wait_for
from tests.command import KILLED, Command
from tests.faults.oracle import Follower, assert_exact

# The steps at which the first run leaves records that only an uncommitted reader sees.
OPEN_TRANSACTION = (
    "after-flush",
    "before-ledger-record",
    "after-ledger-record",
    "before-offsets",
    "after-offsets",
    "before-commit",
)
# One runs in `make test`.
QUICK = {"before-commit"}
POINTS = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in RUN_NAMES]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("workdir", ["same", pytest.param("empty", marks=pytest.mark.slow)])
def test_killed_and_started_again(cluster: Cluster, command: Command, tmp_path: Path, point: str, workdir: str) -> None:
    """Whatever the instant, the next start neither loses nor doubles a record."""
    source = cluster.make_topic()
    job = command.job(source)
    cluster.produce(source, [*sample_values(2000), b"no row", None])
    with Follower(cluster, job) as follower:
        killed = command.run(job, failpoint=f"{point}=kill")
        assert killed.status == KILLED, killed.err
        if point == "after-commit":
            # A commit is answered before all its markers are written: readers see the partitions one by one.
            wait_for(lambda: cluster.count(job) == 6000)
        else:
            assert cluster.count(job) == 0
        if point in OPEN_TRANSACTION:
            assert cluster.count(job, committed=False) == 6000
        if workdir == "empty":
            command.workdir = tmp_path / "elsewhere"
            command.workdir.mkdir(0o700)
            job = job.model_copy(update={"workdir": command.workdir})
        again = command.run(job)
        assert again.status == 0, again.err
        assert ("nothing new" in again.out) == (point == "after-commit")
        assert_exact(cluster, job, follower=follower)
