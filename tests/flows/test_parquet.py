"""`--sort COLUMNS=parquet:DIR`: sorted files with the commit of the run, whole or not at all, for readers of tables."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tasks.errors import SettingsError
from tasks.folders.base import FilesLostError
from tasks.outputs import prepare_outputs
from tasks.plan import plan_run
from tasks.run import Run
from tasks.runners import ThreadRunner
from tasks.settings.budget import Budget
from tasks.settings.job import Job
from tasks.verify import verify_job
from tests.cluster import Cluster, Record, sample_values
from tests.command import KILLED, Command
from tests.faults.oracle import assert_exact
from tests.faults.proxy import ProxiedBroker
from tests.files import assert_placed, files_of, hidden_in, read_rows, runs_of, schema_of
from tests.stages import make_job, make_two_runs, owned, run_settled

REPLACE = ("--mode", "replace")
# From here on the run is committed.
COMMITTED = {"after-commit", "before-place", "after-place"}
POINTS = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("before-stage", "after-stage", "after-publish-batch", "before-commit", *sorted(COMMITTED))
]


def test_topics_and_folders_in_one_run(cluster: Cluster, command: Command, tmp_path: Path) -> None:
    """One run writes a topic and two folders with one commit, and shows both; verify reads both back."""
    source, one, two = cluster.make_topic(), tmp_path / "one", tmp_path / "two"
    job = command.job(source, sorts=[f"id=o-{source}", f"id=parquet:{one}", f"continent,name:desc=parquet:{two}"])
    cluster.produce(source, [*sample_values(1000), b"no row", b"1,\xff,a,b"])
    done = command.run(job)
    assert done.status == 0, done.err
    last = cluster.ledger(job).last
    assert last is not None
    assert (last.dead_letters, last.requires) == (2, ("parquet",))
    assert len(cluster.read(f"o-{source}")) == 1000
    for folder in (one, two):
        assert_placed(cluster, job, folder)
        assert (runs_of(folder), hidden_in(folder)) == (["run-000001"], [])
    assert all(word in done.out for word in ("parquet:", "run-000001", f"o-{source}"))
    verified = command.run(job, command="verify")
    assert verified.status == 0, verified.out + verified.err
    assert "not verifiable" not in verified.err
    assert "parquet:" in verified.out


@pytest.mark.slow
def test_without_a_topic(cluster: Cluster, tmp_path: Path) -> None:
    """The transaction then holds dead letters, ledger and offsets; each run adds a folder of its own."""
    source, folder = cluster.make_topic(), tmp_path / "out"
    job = make_job(source, tmp_path / "work", sorts=[f"continent:desc,id=parquet:{folder}"])
    cluster.produce(source, [*sample_values(300), b"no row"])
    run_settled(cluster, job, tmp_path)
    assert_placed(cluster, job, folder)
    assert len(cluster.read(job.dead_letters)) == 1
    cluster.produce(source, sample_values(100, seed=2))
    run_settled(cluster, job, tmp_path)
    assert_placed(cluster, job, folder)
    assert runs_of(folder) == ["run-000001", "run-000002"]
    assert cluster.group_offsets(job) == cluster.ends(source)
    with duckdb.connect() as connection:
        query = f"SELECT continent, id FROM '{folder}/run-*/*.parquet' WHERE filename LIKE '%run-000001%'"
        rows = connection.execute(query).fetchall()
    assert len(rows) == 300
    assert [row[0] for row in rows] == sorted((row[0] for row in rows), reverse=True)


def test_records_are_whole(cluster: Cluster, tmp_path: Path) -> None:
    """Key, headers, nulls and timestamps are in the file as in the source, and keys have the types of their columns."""
    source, folder = cluster.make_topic(1), tmp_path / "out"
    job = make_job(
        source,
        tmp_path / "work",
        columns="n:float,who:text(nocase),at:time",
        sorts=[f"n:nulls-last,who:desc,at,@key:nulls-first=parquet:{folder}"],
    )
    row = b"%s,%s,2026-01-31T12:00:00.000000001Z"
    cluster.produce_records(
        source,
        [
            Record(row % (b"nan", b"Bob"), b"k", (("h", b"1"), ("h", None))),
            Record(row % (b"1.5", b"anna"), None),
            Record(row % (b"1.5", b"ANNA"), b""),
            Record(row % (b"", b"x"), b"z"),
            Record(row % (b"1", b"x"), b"\xff"),
        ],
    )
    record = run_settled(cluster, job, tmp_path)
    # A key that is not UTF-8 is a dead letter, as the column is text.
    assert (record.records, record.dead_letters) == (5, 1)
    assert schema_of(folder, "run-000001").field("at").type == pa.timestamp("ns", "UTC")
    with duckdb.connect() as connection:
        table = connection.sql(f"FROM '{folder}/run-000001/*.parquet'").to_arrow_table()
    assert table.column("who").to_pylist() == ["anna", "ANNA", "Bob", "x"]
    assert table.column("@key").to_pylist() == [None, "", "k", "z"]
    assert table.column("key").to_pylist() == [None, b"", b"k", b"z"]
    assert [str(n) for n in table.column("n").to_pylist()] == ["1.5", "1.5", "nan", "None"]
    assert table.column("headers").to_pylist()[2] == [{"name": "h", "value": b"1"}, {"name": "h", "value": None}]
    assert table.column("offset").to_pylist() == [1, 2, 0, 3]
    assert table.column("value").to_pylist() == [cluster.read(source)[i].value for i in (1, 2, 0, 3)]
    assert min(table.column("timestamp").cast(pa.int64()).to_pylist()) > 1_700_000_000_000


@pytest.mark.parametrize("point", POINTS)
def test_killed_and_started_again(cluster: Cluster, command: Command, tmp_path: Path, point: str) -> None:
    """Whatever the instant, a reader sees the run whole or not at all; the next start finishes, and leaves nothing."""
    source, folder = cluster.make_topic(), tmp_path / "out"
    job = command.job(source, sorts=[f"id=o-{source}", f"id,name=parquet:{folder}"])
    cluster.produce(source, [*sample_values(500), b"no row"])
    killed = command.run(job, failpoint=f"{point}=kill")
    assert killed.status == KILLED, killed.err
    assert runs_of(folder) == (["run-000001"] if point == "after-place" else [])
    if point not in COMMITTED:
        assert cluster.count(job) == 0
    again = command.run(job)
    assert again.status == 0, again.err
    assert ("nothing new" in again.out) == (point in COMMITTED)
    assert (runs_of(folder), hidden_in(folder)) == (["run-000001"], [])
    assert_exact(cluster, job)
    assert_placed(cluster, job, folder)


@pytest.mark.slow
def test_replace_removes_former_folders(cluster: Cluster, tmp_path: Path) -> None:
    """A replacement leaves the one folder of all; a run that it does not know is not removed, but refuses it."""
    job, folder = make_two_runs(cluster, tmp_path)
    replacing = Job.model_validate({**job.model_dump(exclude_unset=True), "mode": "replace"})
    run_settled(cluster, replacing, tmp_path)
    assert runs_of(folder) == ["run-000003"]
    assert_placed(cluster, job, folder)
    with owned(cluster, replacing) as owner:
        run = Run(owner, ThreadRunner(), lambda _: prepare_outputs(owner), "again")
        assert not run.has_work(run.take_snapshot())
        files_of(folder, "run-000003")[0].unlink()
        assert run.has_work(run.take_snapshot())
    (folder / "run-000004").mkdir()
    with pytest.raises(SettingsError, match="holds run-000004, which no run in the ledger"):
        run_settled(cluster, replacing, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["before-commit", "before-place", "before-remove", "after-remove"])
def test_a_replacement_that_is_killed(cluster: Cluster, command: Command, tmp_path: Path, point: str) -> None:
    """The next start, of any mode, finishes what is committed: the new folder alone is left."""
    job, folder = make_two_runs(cluster, tmp_path)
    cluster.produce(job.source_topic, sample_values(50, seed=3))
    killed = command.run(job, *REPLACE, failpoint=f"{point}=kill")
    assert killed.status == KILLED, killed.err
    again = command.run(job, *(REPLACE if point == "before-commit" else ()))
    assert again.status == 0, again.err
    assert (runs_of(folder), hidden_in(folder)) == (["run-000003"], [])
    assert len(read_rows(folder, "run-000003")) == 450
    assert_placed(cluster, job, folder)


@pytest.mark.slow
@pytest.mark.raises("FilesNotPlacedError")
def test_files_that_cannot_be_placed(cluster: Cluster, command: Command, tmp_path: Path) -> None:
    """The run is committed, the line says so with exit status 1, and the next start places the files."""
    source, folder = cluster.make_topic(), tmp_path / "out"
    job = command.job(source, sorts=[f"id=parquet:{folder}"])
    cluster.produce(source, sample_values(100))
    failed = command.run(job, failpoint="before-place=raise")
    assert failed.status == 1
    assert "run 1 of job" in failed.err.splitlines()[-1]
    assert "is committed; the next start places its files" in failed.err.splitlines()[-1]
    assert runs_of(folder) == []
    again = command.run(job)
    assert again.status == 0, again.err
    assert_exact(cluster, job)


def spoil_value(folder: Path) -> None:
    """Write a file again with another value in its third row."""
    path = files_of(folder, "run-000001")[1]
    table = pq.read_table(path)
    values = table.column("value").to_pylist()
    values[2] = values[2][:-1] + b"?"
    pq.write_table(table.set_column(table.schema.get_field_index("value"), "value", pa.array(values)), path)


def spoil_key(folder: Path) -> None:
    path = files_of(folder, "run-000001")[1]
    table = pq.read_table(path)
    pq.write_table(
        table.set_column(0, "id", pc.add(table.column("id"), pc.equal(table.column("offset"), 3).cast("int64"))), path
    )


def swap_rows(folder: Path) -> None:
    path = files_of(folder, "run-000001")[1]
    table = pq.read_table(path)
    pq.write_table(table.take(list(reversed(range(len(table))))), path)


ALTERATIONS = {
    "a value": (spoil_value, "part-00001.parquet row 2: record of .* is altered"),
    "a typed key": (spoil_key, "digest differs"),
    "the order": (swap_rows, "part-00001.parquet row \\d+: the record is out of order"),
    "a file is gone": (lambda folder: files_of(folder, "run-000001")[1].unlink(), "the file is missing"),
    "a file is cut": (lambda folder: os.truncate(files_of(folder, "run-000001")[1], 100), "cannot be read"),
    "a file more": (lambda folder: (folder / "run-000001" / "x.parquet").touch(), "holds x.parquet"),
}


@pytest.fixture(scope="module")
def sorted_job(broker: ProxiedBroker, tmp_path_factory: pytest.TempPathFactory) -> tuple[Cluster, Job, Path]:
    """A job with one run into a folder, for tests that alter copies of it."""
    cluster, tmp_path = Cluster(broker.bootstrap_servers), tmp_path_factory.mktemp("sorted")
    source, folder = cluster.make_topic(), tmp_path / "out"
    job = make_job(source, tmp_path / "work", sorts=[f"id=parquet:{folder}"])
    cluster.produce(source, [*sample_values(400, ids=50), b"no row"])
    run_settled(cluster, job, tmp_path)
    return cluster, job, folder


@pytest.mark.parametrize("what", ALTERATIONS)
def test_verify_finds(sorted_job: tuple[Cluster, Job, Path], tmp_path: Path, what: str) -> None:
    """Each alteration of files is a difference, with its place."""
    cluster, job, folder = sorted_job
    alter, said = ALTERATIONS[what]
    shutil.copytree(folder, tmp_path / "kept")
    try:
        alter(folder)
        found = verify_job(job, cluster.connection)
    finally:
        shutil.rmtree(folder)
        shutil.move(tmp_path / "kept", folder)
    assert not found.ok
    assert any(re.search(said, str(difference)) for difference in found.differences), found.differences


@pytest.mark.slow
def test_verify_of_a_folder_that_was_removed(cluster: Cluster, tmp_path: Path) -> None:
    """A run's folder that a user has removed is no difference: it is not verifiable; the other runs are verified."""
    job, folder = make_two_runs(cluster, tmp_path)
    shutil.rmtree(folder / "run-000001")
    found = verify_job(job, cluster.connection)
    assert found.ok
    assert [line for line in found.unverifiable if "run-000001 was removed" in line]


@pytest.mark.slow
@pytest.mark.parametrize("by", ["hash", "source"])
def test_partitions_and_record_keys(cluster: Cluster, tmp_path: Path, by: str) -> None:
    """Files have the partitions and record keys that the job asks for, as topics have them."""
    source, folder = cluster.make_topic(), tmp_path / "out"
    sorts = [f"id,name=parquet:{folder}", f"id=o-{source}"]
    job = make_job(source, tmp_path / "work", sorts=sorts, partition_by=by, output_key="sort")
    cluster.produce(source, sample_values(300, ids=50))
    run_settled(cluster, job, tmp_path)
    assert_exact(cluster, job)
    assert verify_job(job, cluster.connection).ok


def test_texts_as_they_were_written(cluster: Cluster, tmp_path: Path) -> None:
    """A key that compares without regard to case, or by a language, is in the file as in the record; JSON's too."""
    source, folder = cluster.make_topic(1), tmp_path / "out"
    sorts = [f"a:text(nocase),b.c:text(sv)=parquet:{folder}"]
    job = make_job(source, tmp_path / "work", format="json", sorts=sorts)
    texts = [("Ä", "z"), ("a", "Ö"), ("A", "å"), ("a", "Z")]
    values = [json.dumps({"a": a, "b": {"c": c}}).encode() for a, c in texts]
    cluster.produce(source, [*values, b'{"a": 1}'], 1)
    run_settled(cluster, job, tmp_path)
    rows = read_rows(folder, "run-000001")
    assert [(row["a"], row["b.c"]) for row in rows] == [("a", "Z"), ("A", "å"), ("a", "Ö"), ("Ä", "z")]
    assert verify_job(job, cluster.connection).ok


@pytest.mark.slow
def test_parts_that_do_not_fit_the_memory(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that were divided before the sort have all columns that files need."""
    budget = Budget.of(Job())
    monkeypatch.setattr(Budget, "of", lambda _: replace(budget, part_bytes=40_000))
    source, folder = cluster.make_topic(), tmp_path / "out"
    job = make_job(source, tmp_path / "work", sorts=[f"name:text(nocase),id=parquet:{folder}", f"id=o-{source}"])
    cluster.produce(source, sample_values(1000))
    run_settled(cluster, job, tmp_path)
    assert verify_job(job, cluster.connection).ok
    assert len(read_rows(folder, "run-000001")) == 1000


@pytest.mark.slow
def test_a_plan(cluster: Cluster, tmp_path: Path) -> None:
    """A dry run plans folders as it plans topics, makes nothing, and refuses what the run would refuse."""
    source, folder = cluster.make_topic(), tmp_path / "out"
    sorts = [f"name:text(nocase),id=parquet:{folder}", f"id=o-{source}"]
    job = make_job(source, tmp_path / "work", sorts=sorts)
    cluster.produce(source, sample_values(200))
    plan = plan_run(job, cluster.connection)
    assert [(output.topic, len(output.ranges)) for output in plan.outputs] == [
        (f"parquet:{folder}", 4),
        (f"o-{source}", 4),
    ]
    assert not folder.exists()
    run_settled(cluster, job, tmp_path)
    cluster.produce(source, sample_values(20, seed=2))
    assert plan_run(job, cluster.connection).has_work
    shutil.rmtree(folder / "run-000001")
    with pytest.raises(FilesLostError, match="--rewrite 1"):
        plan_run(job, cluster.connection)
