"""The plan of a run: it is the run's own snapshot and refusals, and nothing is changed by it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import KafkaSortError, TransientError
from tasks.kafka.topics import EARLIEST, LATEST, list_all_offsets
from tasks.manifests import Snapshot
from tasks.plan import RunPlan, plan_run
from tasks.publish import publish_run
from tasks.settings.connection import use_connection
from tasks.settings.job import Job
from tasks.snapshot import take_snapshot
from tests.cluster import Cluster, Record, assert_sorted, sample_values
from tests.stages import make_job, owned, prepare, run_once

JSON = [b'{"id": %d, "name": "c"}' % i for i in range(40)]


def plan(cluster: Cluster, job: Job) -> RunPlan:
    with use_connection(cluster.connection):
        return plan_run(job, cluster.connection)


def snapshot_of(cluster: Cluster, job: Job) -> Snapshot:
    with owned(cluster, job) as owner:
        return take_snapshot(owner)


def state(cluster: Cluster, job: Job, workdir: Path) -> list[Any]:
    """Return all that a run could change: topics with their offsets, groups, the job's offsets, files."""
    topics = {n: list(t.partitions) for n, t in cluster.admin.list_topics(timeout=10).topics.items() if n[:2] != "__"}
    offsets = [list_all_offsets(cluster.admin, topics, spec, committed=False) for spec in (EARLIEST, LATEST)]
    groups = cluster.admin.list_consumer_groups().result().valid
    files = sorted(workdir.rglob("*"))
    ours = {group.group_id for group in groups} & {job.group, job.owner_group}
    return [topics, offsets, ours, cluster.group_offsets(job), files]


def test_nothing_is_changed(cluster: Cluster, tmp_path: Path) -> None:
    """Neither before the first run nor after it does a plan create, send, commit or write anything."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(400))
    job = make_job(source, tmp_path / "work")
    before = state(cluster, job, tmp_path)
    first = plan(cluster, job)
    assert state(cluster, job, tmp_path) == before
    assert first.created == (job.ledger, job.sort_list[0].topic, job.dead_letters)
    run_once(cluster, job, tmp_path)
    cluster.produce(source, sample_values(40, seed=2))
    before = state(cluster, job, tmp_path)
    second = plan(cluster, job)
    assert state(cluster, job, tmp_path) == before
    assert (second.created, second.snapshot.run, second.snapshot.span) == ((), 2, 40)


def test_the_plan_is_the_runs_snapshot(cluster: Cluster, tmp_path: Path) -> None:
    """Ranges, lag, caps, types and the need of disk are those of the run that follows, first or not."""
    source = cluster.make_topic()
    cluster.produce(source, JSON * 20)
    job = make_job(source, tmp_path, format="json", sorts=[f"name=o-{source}"], max_records=500)
    planned = plan(cluster, job)
    assert planned.snapshot == snapshot_of(cluster, job)
    assert planned.snapshot.types == {"name": "text"}
    assert (planned.snapshot.capped, planned.runs, planned.snapshot.span) == ("max_records", 2, 500)
    record = run_once(cluster, job, tmp_path)
    assert record.records == planned.estimates.records
    second = plan(cluster, job)
    assert second.snapshot == snapshot_of(cluster, job)
    assert (second.snapshot.run, second.snapshot.span, second.runs) == (2, 300, 1)
    assert [str(key.type) for key in second.job.key_columns] == ["text"]


@pytest.mark.slow
def test_a_replacement(cluster: Cluster, tmp_path: Path) -> None:
    """The plan of a run that replaces others reads all again, says so, and deletes nothing."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(40))
    job = make_job(source, tmp_path)
    run_once(cluster, job, tmp_path)
    replacing = job.model_copy(update={"mode": "replace"})
    assert not plan(cluster, replacing).has_work
    cluster.produce(source, sample_values(40, seed=2))
    before = state(cluster, job, tmp_path)
    planned = plan(cluster, replacing)
    assert state(cluster, job, tmp_path) == before
    assert (planned.snapshot.replaces, planned.snapshot.span, planned.runs) == (True, 80, 1)
    assert planned.snapshot == snapshot_of(cluster, replacing)


def test_what_a_transaction_can_take_caps_it(cluster: Cluster, tmp_path: Path) -> None:
    """A run that would take longer to publish than a transaction may is capped, and the plan counts the runs."""
    source = cluster.make_topic(1)
    cluster.produce(source, sample_values(3000), 1)
    planned = plan(cluster, make_job(source, tmp_path, transaction_timeout=0.004))
    assert planned.snapshot.capped == "the transaction timeout"
    assert planned.snapshot.span == 1120
    assert planned.runs == 3


@pytest.mark.slow
def test_nothing_new(cluster: Cluster, tmp_path: Path) -> None:
    """A run that would find nothing is planned as such; one that would record where the job starts is not."""
    source = cluster.make_topic(1)
    job = make_job(source, tmp_path)
    assert not (found := plan(cluster, job)).has_work
    # The ledger alone is there afterwards.
    assert (found.runs, found.created) == (0, (job.ledger,))
    cluster.produce(source, sample_values(5), 1)
    assert plan(cluster, job).has_work
    assert plan(cluster, job.model_copy(update={"start": "latest"})).has_work
    run_once(cluster, job, tmp_path)
    assert not plan(cluster, job).has_work


@pytest.mark.slow
def test_while_a_run_is_alive(cluster: Cluster, tmp_path: Path) -> None:
    """A plan names the run that owns the job, and does not fence it: the transaction under way is committed."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(200))
    job = make_job(source, tmp_path)
    assert plan(cluster, job).holder is None
    with owned(cluster, job) as owner:
        publication = prepare(owner, tmp_path)
        producer = owner.healthy_producer()
        planned = plan(cluster, job)
        assert planned.holder is not None
        assert planned.holder.startswith("kafka-sort pid ")
        assert planned.snapshot.span == 200
        assert publish_run(owner, publication).run == 1
        assert owner.healthy_producer() is producer
    assert_sorted(cluster, job)


def mostly_dead(cluster: Cluster, job: Job) -> Job:
    cluster.produce(job.source_topic, JSON)
    return job


def no_source(cluster: Cluster, job: Job) -> Job:
    return job.model_copy(update={"source_topic": "there-is-none", "job_name": job.name})


def somebodys_output(cluster: Cluster, job: Job) -> Job:
    cluster.produce(job.source_topic, sample_values(4))
    cluster.produce(cluster.make_topic(1, job.sort_list[0].topic), [b"x"], 1)
    return job


def another_job(cluster: Cluster, job: Job) -> Job:
    cluster.produce(job.source_topic, sample_values(4))
    run_once(cluster, job, job.local_workdir)
    return job.model_copy(update={"sorts": [f"name={job.sort_list[0].topic}"]})


def no_type(cluster: Cluster, job: Job) -> Job:
    cluster.produce(job.source_topic, [b'{"id": 1}', b'{"id": "a"}'])
    return job.model_copy(update={"format": "json"})


def a_ledger_of_two_partitions(cluster: Cluster, job: Job) -> Job:
    cluster.make_topic(2, job.ledger, cleanup_policy="compact")
    return job


def too_long_a_transaction(cluster: Cluster, job: Job) -> Job:
    return job.model_copy(update={"transaction_timeout": 10_000_000.0})


def too_many_replicas(cluster: Cluster, job: Job) -> Job:
    cluster.produce(job.source_topic, sample_values(4))
    return job.model_copy(update={"replication_factor": 3})


REFUSED = [
    mostly_dead,
    no_source,
    somebodys_output,
    another_job,
    no_type,
    a_ledger_of_two_partitions,
    too_long_a_transaction,
    too_many_replicas,
]


@pytest.mark.parametrize("make", REFUSED)
def test_what_a_run_refuses(cluster: Cluster, tmp_path: Path, make: Callable[[Cluster, Job], Job]) -> None:
    """The plan ends with the run's error: the same line, the same exit status."""
    job = make_job(cluster.make_topic(), tmp_path)
    job = Job.model_validate(make(cluster, job).model_dump(exclude_unset=True))
    with pytest.raises(KafkaSortError) as planned:
        plan(cluster, job)
    with pytest.raises(KafkaSortError) as refused:
        snapshot_of(cluster, job)
    assert (str(planned.value), planned.value.exit_code) == (str(refused.value), refused.value.exit_code)
    assert type(planned.value) is type(refused.value)


@pytest.mark.slow
def test_first_and_last_keys(cluster: Cluster, tmp_path: Path) -> None:
    """Each partition of an output has its keys, and about its records: of few records all are looked at."""
    source = cluster.make_topic()
    cluster.produce(source, [*sample_values(900), b"no row", b"no row"])
    job = make_job(source, tmp_path, sorts=[f"id:desc=o-{source}"], output_partitions=3)
    planned = plan(cluster, job)
    (output,) = planned.outputs
    assert planned.estimates.dead_letters == 2
    record = run_once(cluster, job, tmp_path)
    written = [(w.partition, w.count, w.first_key, w.last_key) for w in record.sorts[0].partitions]
    assert [(r.partition, r.count, r.first_key, r.last_key) for r in output.ranges] == written


@pytest.mark.parametrize("scheme", ["hash", "source"])
@pytest.mark.slow
def test_partitions_that_are_no_ranges(cluster: Cluster, tmp_path: Path, scheme: str) -> None:
    """Where another rule than the key's range places records, the plan has the first and last key by that rule.

    An output that lacks partitions of the source is named, and left as it is.
    """
    source = cluster.make_topic(3)
    rows = [Record(v, key=b"k%d" % i, partition=i % 3) for i, v in enumerate(sample_values(90))]
    cluster.produce_records(source, rows)
    job = make_job(source, tmp_path, partition_by=scheme, append=True)
    name = cluster.make_topic(2, job.sort_list[0].topic)
    planned = plan(cluster, job)
    assert planned.grown == ((name,) if scheme == "source" else ())
    assert len(cluster.ends(name)) == 2
    record = run_once(cluster, job, tmp_path)
    written = [(w.partition, w.count, w.first_key, w.last_key) for w in record.sorts[0].partitions]
    assert [(r.partition, r.count, r.first_key, r.last_key) for r in planned.outputs[0].ranges] == written


@pytest.mark.slow
def test_offsets_without_a_record(cluster: Cluster, tmp_path: Path) -> None:
    """Records that were aborted are not counted as such: the sample tells how many offsets hold one."""
    source = cluster.make_topic(1)
    rows = [Record(value) for value in sample_values(3000)]
    for first in range(0, 3000, 1000):
        cluster.produce_records(source, rows[first : first + 500])
        cluster.produce_aborted(source, rows[first + 500 : first + 1000])
    planned = plan(cluster, make_job(source, tmp_path))
    assert planned.snapshot.span == 3003
    assert planned.estimates.records == 1500


@pytest.mark.slow
def test_a_run_that_is_committed_meanwhile(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs that a first run has filled since the ledger was read are not taken for somebody else's."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(20))
    job = make_job(source, tmp_path)
    monkeypatch.setattr("tasks.plan.take_up_job", lambda _: run_once(cluster, job, tmp_path))
    with pytest.raises(TransientError, match="was committed meanwhile"):
        plan(cluster, job)
