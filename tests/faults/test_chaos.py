"""Faults at random instants, for as long as one likes: `make chaos ARGS="--seed N --minutes M"`."""

import random
import time

import pytest

from tests.cluster import Cluster, sample_values
from tests.command import KILLED, Command
from tests.faults.chaos import Chaos
from tests.faults.oracle import Follower, assert_exact
from tests.faults.proxy import ProxiedBroker

ROUNDS = 50
_RUNS_OF_A_JOB = 10


@pytest.mark.slow
def test_fifty_kills(cluster: Cluster, command: Command) -> None:
    """After fifty kills at random instants, each with new records, every run is there once and whole."""
    seed = random.randrange(2**31)
    chance = random.Random(seed)
    print("seed", seed)
    source = cluster.make_topic()
    job = command.job(source, session_timeout=1.0)
    cluster.produce(source, sample_values(4000))
    with Follower(cluster, job) as follower:
        began = time.monotonic()
        assert command.run(job).status == 0
        whole = time.monotonic() - began
        statuses = []
        for number in range(ROUNDS):
            cluster.produce(source, sample_values(chance.randrange(1, 4000), seed=number))
            began = time.monotonic()
            running = command.start(job)
            running.process.join(chance.uniform(0, whole))
            running.process.kill()
            statuses.append(running.finish().status)
            if not statuses[-1]:
                # The instants lie within a run as fast as the fastest so far.
                whole = min(whole, time.monotonic() - began)
        assert command.run(job).status == 0
        assert set(statuses) <= {0, KILLED}, statuses
        assert statuses.count(KILLED) >= ROUNDS // 2, statuses
        assert_exact(cluster, job, len(cluster.ledger(job).runs), follower)


@pytest.mark.slow
def test_chaos(mortal: ProxiedBroker, cluster: Cluster, command: Command, request: pytest.FixtureRequest) -> None:
    """After kills, stops, starts beside others and broker faults in any order, every run is there once and whole."""
    seed = request.config.getoption("--seed", None)
    seed = random.randrange(2**31) if seed is None else seed
    print(f"\nseed {seed}", flush=True)
    until = time.monotonic() + 60 * (request.config.getoption("--minutes", None) or 1)
    chaos = Chaos(mortal, cluster, command, seed)
    while time.monotonic() < until:
        chaos.run_job(_RUNS_OF_A_JOB, until)
    assert chaos.faults.total() > 0
    print(f"seed {seed}: faults {dict(chaos.faults)}, statuses {dict(chaos.statuses)}")
