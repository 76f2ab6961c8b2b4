"""The flow `sort-topic` on the real broker, as a process."""

from tests.cluster import Cluster, Record, assert_sorted, sample_values
from tests.command import Command


def test_two_runs(cluster: Cluster, command: Command) -> None:
    """A run sorts the records that are there, the next one those that came since, a third finds nothing new."""
    source = cluster.make_topic()
    job = command.job(source)
    cluster.produce(source, sample_values(5000))
    first = command.run(job)
    assert first.status == 0, first.err
    assert_sorted(cluster, job)
    cluster.produce(source, sample_values(3000, seed=2))
    assert command.run(job).status == 0
    assert_sorted(cluster, job, runs=2)
    third = command.run(job)
    assert third.status == 0
    assert "nothing new" in third.out


def test_keys_headers_and_dead_letters(cluster: Cluster, command: Command) -> None:
    """Keys and headers come through; a record without a place is a dead letter, byte for byte, with the reason."""
    source = cluster.make_topic()
    job = command.job(source)
    rows = [Record(v, b"k%d" % i, (("h", b"%d" % i), ("h", None)), i % 4) for i, v in enumerate(sample_values(500))]
    bad = [
        Record(None, b"null", (), 0),
        Record(b"", None, (), 1),
        Record(b"x,name,address,Asia", b"\xff", (("__connect.errors.topic", b"mine"),), 2),
        Record(b"1,name,Asia", None, (), 3),
    ]
    cluster.produce_records(source, rows[:250] + bad + rows[250:])
    assert command.run(job).status == 0
    assert_sorted(cluster, job)
    letters = cluster.read(job.dead_letters)
    assert sorted((r.value or b"?", r.key or b"") for r in letters) == sorted(
        (r.value or b"?", r.key or b"") for r in bad
    )
    null = next(r for r in letters if r.key == b"null")
    assert null.value is None
    assert dict(null.headers)["__connect.errors.exception.message"] == b"null value"
    assert dict(null.headers)["__connect.errors.partition"] == b"0"
    kept = next(r for r in letters if r.key == b"\xff")
    assert [v for n, v in kept.headers if n == "__connect.errors.topic"] == [b"mine"]
