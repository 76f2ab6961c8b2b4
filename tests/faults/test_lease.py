"""Ownership under faults: starts beside a working run, a lease that is lost or wrong, an attempt that still lives."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from tasks.dump import DumpRequest, dump_range
from tasks.errors import TransientError
from tasks.kafka import lease as lease_module
from tasks.kafka.lease import Lease, describe_owner
from tasks.manifests import Chunk
from tasks.outputs import prepare_outputs
from tasks.ownership import Owner
from tasks.publication import Publication
from tasks.publish import SupersededError, publish_run
from tasks.settings.connection import use_connection
from tasks.snapshot import take_snapshot
from tasks.sort import SortRequest, sort_chunks
from tests.cluster import Cluster, sample_values, wait_for
from tests.command import Command
from tests.faults import proxy as kafka
from tests.faults.oracle import Follower, assert_exact
from tests.faults.proxy import Proxy
from tests.stages import make_job, owned, prepare


@pytest.mark.slow
def test_starts_every_two_seconds(cluster: Cluster, command: Command, proxied_command: Command, proxy: Proxy) -> None:
    """However often a job is started while it runs, the run goes on; each start names the live run, and exits 1."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(5000))
    job = command.job(source)
    with Follower(cluster, job) as follower:
        held = proxy.hold(kafka.PRODUCE)
        working = proxied_command.start(job)
        assert held.caught.wait(90), working.err
        others = []
        for _ in range(4):
            others.append(command.start(job))
            time.sleep(2)
        for outcome in [other.finish() for other in others]:
            assert outcome.status == 1, outcome
            assert f"another run of job {source} is alive" in outcome.err.splitlines()[-1]
        assert working.process.exitcode is None, working.err
        held.release()
        done = working.finish()
        assert done.status == 0, done.err
        assert_exact(cluster, job, follower=follower)


@pytest.mark.slow
def test_a_lease_whose_polling_starves(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that cannot poll loses its lease; if nobody else took it, it takes the lease again and finishes."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(500))
    job = make_job(source, tmp_path)
    fed = threading.Event()
    fed.set()

    def poll_when_fed(self: Lease) -> None:
        while not self._closing.is_set():
            fed.wait()
            self._consumer.poll(0.1)
        self._consumer.close()

    monkeypatch.setattr(lease_module, "_POLL_INTERVAL_MS", 2000)
    monkeypatch.setattr(Lease, "_poll", poll_when_fed)
    with Follower(cluster, job) as follower:
        with owned(cluster, job) as owner:
            publication = prepare(owner, tmp_path)
            assert describe_owner(cluster.admin, job.owner_group)
            fed.clear()
            wait_for(lambda: describe_owner(cluster.admin, job.owner_group) is None)
            fed.set()
            wait_for(lambda: not owner._lease.held)
            owner.fence()
            assert publish_run(owner, publication).run == 1
        assert_exact(cluster, job, follower=follower)


class Granted:
    """A lease with a wrong judgement: it says yes to everybody."""

    def regain(self, admin: AdminClient, job: str) -> None: ...

    def require(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.slow
def test_two_owners_publish_at_once(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the lease is wrong and two runs work at once, one attempt of each run is committed, the other superseded."""
    source = cluster.make_topic()
    job = make_job(source, tmp_path)
    with Follower(cluster, job) as follower:
        with owned(cluster, job) as owner, monkeypatch.context() as patch:
            rival = Owner(job, cluster.connection)
            for each in (owner, rival):
                patch.setattr(each, "_lease", Granted())
            for number in range(1, 4):
                cluster.produce(source, sample_values(2000, seed=number))
                owner.fence()
                rival.ledger = owner.ledger
                both = [(owner, prepare(owner, tmp_path)), (rival, prepare(rival, tmp_path))]
                with ThreadPoolExecutor() as pool:
                    outcomes = list(pool.map(publish_until_settled, both))
                assert sorted(outcomes) == ["committed", "superseded"]
            rival.close()
        assert_exact(cluster, job, runs=3, follower=follower)


def publish_until_settled(attempt: tuple[Owner, Publication]) -> str:
    owner, publication = attempt
    while True:
        try:
            publish_run(owner, publication)
        except SupersededError:
            return "superseded"
        except TransientError:
            continue
        else:
            return "committed"


@pytest.mark.slow
def test_an_attempt_beside_one_that_still_lives(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three attempts of a dump and of a sort work at once in one folder: each file is whole, and of one attempt."""
    source = cluster.make_topic(1)
    cluster.produce(source, sample_values(20_000), 1)
    job = make_job(source, tmp_path)
    together = threading.Barrier(3)
    for module in ("dump", "sort"):
        step = "before-dump-chunk" if module == "dump" else "before-sort"
        monkeypatch.setattr(
            f"tasks.{module}.reach", lambda name, step=step: together.wait(60) if name == step else None
        )
    with Follower(cluster, job) as follower:
        with owned(cluster, job) as owner, ThreadPoolExecutor() as pool:
            outputs, snapshot = prepare_outputs(owner), take_snapshot(owner)
            request = DumpRequest(job, snapshot.run, snapshot.source_topic_id, snapshot.ranges[0], tmp_path)

            def dump(request: DumpRequest) -> list[Chunk]:
                with use_connection(cluster.connection):
                    return list(dump_range(request).chunks)

            dumped = list(pool.map(dump, [request] * 3))
            assert [[c.records for c in chunks] for chunks in dumped] == [[20_000]] * 3
            order = SortRequest(job, job.sort_list[0], tuple(dumped[0]), 1, tmp_path)
            files = list(pool.map(sort_chunks, [order] * 3))
            # Each has a duration of its own.
            assert [replace(done, seconds=0) for done in files] == [replace(files[0], seconds=0)] * 3
            assert not list(tmp_path.rglob("*.part"))
            last = Publication("last", snapshot, tuple(dumped[2]), (files[2],), outputs, datetime.now(UTC))
            publish_run(owner, last)
        assert_exact(cluster, job, follower=follower)
