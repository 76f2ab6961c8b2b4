"""A machine whose clock is wrong: nothing is decided by it."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cluster import Cluster, sample_values
from tests.command import Command, flags_of
from tests.faults.oracle import Follower, assert_exact

# Of Debian's package libfaketime.
LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


@pytest.mark.slow
@pytest.mark.skipif(LIBRARY is None, reason="the package libfaketime is not installed")
@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_is_an_hour_off(cluster: Cluster, command: Command, tmp_path: Path, hours: int) -> None:
    """A run on a machine ahead of the broker or behind it, then one on a machine that is right: both exact."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(5000))
    job = command.job(source)
    # The monotonic clock stays: it has no hour to be wrong by.
    faked = {"LD_PRELOAD": str(LIBRARY), "FAKETIME": f"{hours:+}h", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    started = [sys.executable, "-m", "kafka_sort.main", "sort", "--bootstrap-servers", cluster.bootstrap_servers]
    with Follower(cluster, job) as follower:
        done = subprocess.run(
            [*started, *flags_of(job)], env=os.environ | faked, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        last = cluster.ledger(job).last
        assert last is not None
        off = (datetime.fromisoformat(last.published) - datetime.now(UTC)).total_seconds() / 3600
        assert round(off) == hours
        cluster.produce(source, sample_values(1000, seed=2))
        assert command.run(job).status == 0
        assert_exact(cluster, job, runs=2, follower=follower)
