"""`--sort COLUMNS=parquet:DIR`: sorted files with the commit of the run, whole or not at all, for readers of tables."""

from pathlib import Path

from tests.cluster import Cluster, sample_values
from tests.command import Command
from tests.files import assert_placed, hidden_in, runs_of


def test_topics_and_folders_in_one_run(cluster: Cluster, command: Command, tmp_path: Path) -> None:
    """One run writes a topic and two folders with one commit; the next run adds another folder of files."""
    source = cluster.make_topic()
    one, two = tmp_path / "one", tmp_path / "two"
    job = command.job(source, sorts=[f"id=o-{source}", f"id=parquet:{one}", f"continent,name:desc=parquet:{two}"])
    cluster.produce(source, [*sample_values(1000), b"no row", b"1,\xff,a,b"])
    done = command.run(job)
    assert done.status == 0, done.err
    print(done.out)
    last = cluster.ledger(job).last
    print(last)
    assert last is not None
    assert last.dead_letters == 2
    for folder in (one, two):
        assert_placed(cluster, job, folder)
        assert runs_of(folder) == ["run-000001"]
        assert hidden_in(folder) == []
    cluster.produce(source, sample_values(100, seed=2))
    again = command.run(job)
    assert again.status == 0, again.err
    for folder in (one, two):
        assert_placed(cluster, job, folder)
        assert runs_of(folder) == ["run-000001", "run-000002"]
    verified = command.run(job, command="verify")
    assert verified.status == 0, verified.out + verified.err
    assert "not verifiable" not in verified.err
    print(verified.out)
