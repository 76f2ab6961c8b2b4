"""The ledger: what its old and new versions mean to a run, and how it stays small."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from tasks.kafka import ledger as ledger_module
from tasks.kafka.ledger import EARLIER, LAST, Ledger, NewerLedgerError, read_settled_ledger, run_key
from tasks.manifests import OffsetRange
from tasks.run_record import ReadRange, RunRecord
from tests.cluster import Cluster, Record, assert_sorted, sample_values
from tests.stages import make_job, owned, run_once

MADE = RunRecord("j", 1, "a", "s", "i", {}, (), (), 2, "d", 1, {}, (), "", "")


@pytest.mark.slow
def test_old_runs_are_folded(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the newest run records are kept; later transactions fold the older ones into one record."""
    monkeypatch.setattr(ledger_module, "KEPT_RUNS", 2)
    source = cluster.make_topic(1)
    job = make_job(source, tmp_path)
    written = []
    for number in range(1, 6):
        cluster.produce(source, sample_values(5, seed=number), 1)
        written.append(run_once(cluster, job, tmp_path))
    ledger = cluster.ledger(job)
    assert sorted(ledger.runs) == [4, 5]
    tombstones = [r.key for r in cluster.read(job.ledger) if r.value is None]
    assert tombstones == [run_key(1), run_key(2), run_key(3)]
    assert ledger.earlier is not None
    assert (ledger.earlier.first_run, ledger.earlier.last_run, ledger.earlier.records) == (1, 3, 15)
    (output,) = ledger.earlier.sorts
    for w in output.partitions:
        parts = [p for record in written[:3] for p in record.sorts[0].partitions if p.partition == w.partition]
        assert (w.first, w.last, w.count) == (parts[0].first, parts[-1].last, sum(p.count for p in parts))
    sums = sum(int(record.sorts[0].checksum, 16) for record in written[:3]) % 2**64
    assert output.checksum == f"{sums:016x}"


def test_what_a_stream_knows_of_its_ledger_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """With run after run on one owner, each old one is folded once, and memory has only the newest record."""
    monkeypatch.setattr(ledger_module, "KEPT_RUNS", 2)
    known, folded = Ledger(None, {}), list[int]()
    for number in range(1, 6):
        folded += known.outdated(number)
        known = known.followed_by(replace(MADE, run=number))
        assert list(known.runs) == [number]
        assert len(known.footprints) <= 2
    assert folded == [1, 2, 3]
    assert known.earlier is not None
    assert (known.earlier.first_run, known.earlier.last_run, known.earlier.records) == (1, 3, 6)


def write(cluster: Cluster, ledger: str, job: str, *records: Record) -> None:
    """Write as a run of the job would: committed by its transactional id."""
    cluster.produce_records(ledger, list(records), **{"transactional.id": job})


def test_a_feature_that_is_not_known_stops_before_the_fence(cluster: Cluster, tmp_path: Path) -> None:
    """If a newer version's run requires more than this one knows, this one stops, and fences nobody."""
    source = cluster.make_topic(1)
    cluster.produce(source, sample_values(5), 1)
    job = make_job(source, tmp_path)
    record = run_once(cluster, job, tmp_path)
    newer = replace(record, run=2, ledger=7, requires=("mirroring", "sharding"))
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers, "transactional.id": job.group})
    producer.init_transactions(30)
    producer.begin_transaction()
    for key in (run_key(2), LAST):
        producer.produce(job.ledger, newer.to_json(), key)
    producer.commit_transaction()
    with pytest.raises(NewerLedgerError, match="requires mirroring, sharding") as refused, owned(cluster, job):
        pass
    assert refused.value.features == ("mirroring", "sharding")
    # The newer version's producer was not fenced: it goes on.
    producer.begin_transaction()
    producer.produce(job.ledger, newer.to_json(), LAST)
    producer.commit_transaction()


def test_what_a_later_version_added_is_passed_over(cluster: Cluster, tmp_path: Path) -> None:
    """If it requires no new fields and keys, the next run goes on behind its run."""
    source = cluster.make_topic(1)
    cluster.produce(source, sample_values(5), 1)
    job = make_job(source, tmp_path)
    run_once(cluster, job, tmp_path)
    raw = json.loads(cluster.ledger(job).runs[1].to_json()) | {"ledger": 3, "statistics": [1, 2]}
    other = json.dumps({"job": job.name, "ledger": 3, "what": "is new"}).encode()
    data = json.dumps(raw).encode()
    write(cluster, job.ledger, job.group, Record(data, run_key(1)), Record(data, LAST), Record(other, b"statistics/1"))
    cluster.produce(source, sample_values(5, seed=2), 1)
    assert run_once(cluster, job, tmp_path).run == 2
    assert_sorted(cluster, job, runs=2)


def test_a_ledger_of_format_1_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    """A job has runs from before formats had a version: the next run follows them, and folds them."""
    source = cluster.make_topic(1)
    cluster.produce(source, sample_values(5), 1)
    job = make_job(source, tmp_path)
    run_once(cluster, job, tmp_path)
    raw = json.loads(cluster.ledger(job).runs[1].to_json())
    del raw["ledger"], raw["requires"], raw["sorts"][0]["checksum"]
    for written in raw["sorts"][0]["partitions"]:
        del written["first_bound"], written["last_bound"]
    data = json.dumps(raw).encode()
    write(cluster, job.ledger, job.group, Record(data, run_key(1)), Record(data, LAST))
    cluster.produce(source, sample_values(5, seed=2), 1)
    assert run_once(cluster, job, tmp_path).run == 2
    assert_sorted(cluster, job, runs=2)
    assert EARLIER not in {r.key for r in cluster.read(job.ledger)}


def test_a_commit_of_this_moment_is_seen(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at a job right after its run finds that run, though records may become visible a moment after a commit."""
    job = make_job(cluster.make_topic(1), tmp_path)
    cluster.make_topic(1, job.ledger, cleanup_policy="compact")
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers, "transactional.id": job.group})
    producer.init_transactions(30)
    producer.begin_transaction()
    record = replace(MADE, job=job.name)
    for key in (run_key(1), LAST):
        producer.produce(job.ledger, record.to_json(), key)
    producer.flush(30)
    looks = []

    def look(*about: Any) -> bool:
        looks.append(found := is_open(*about))
        if len(looks) == 1:
            producer.commit_transaction()
        return found

    is_open = ledger_module._is_open
    monkeypatch.setattr(ledger_module, "_is_open", look)
    monkeypatch.setattr(ledger_module, "_SETTLE_SECONDS", 30.0)
    assert read_settled_ledger(cluster.connection, cluster.admin, job.ledger, job.name, 30).last == record
    assert (looks[0], looks[-1]) == (True, False)


def test_what_was_read_with_each_dead_letter_topic() -> None:
    """Offsets whose dead letters are in one topic are not known in another, whatever was used in between."""
    known = Ledger(None, {})
    for number, topic in enumerate("dedx", 1):
        read = (ReadRange(0, number * 10, number * 10 + 10),)
        known = known.followed_by(replace(MADE, run=number, read=read, dead_letter_topic=topic, format={"rules": "2"}))
    everything = [OffsetRange(0, 0, 100)]
    assert known.read_before(("i", "2", "d"), everything) == (ReadRange(0, 10, 20), ReadRange(0, 30, 40))
    assert known.read_before(("i", "2", "y"), everything) == known.read_before(("i", "3", "d"), everything) == ()
    assert known.read_of("i") == (ReadRange(0, 10, 50),)
