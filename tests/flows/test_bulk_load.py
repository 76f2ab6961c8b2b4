"""Sorted records are loaded into other stores by the recipes of docs/reading.md."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from kafka_sort import SortedTopic
from tests.cluster import Cluster
from tests.command import Command

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if Path("/usr/lib/postgresql").exists() else []


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of the user as whom Postgres runs: it refuses to be root."""
    path = Path(tempfile.mkdtemp(prefix="bulk-"))
    if os.geteuid() == 0:
        owner = pwd.getpwnam("postgres")
        os.chown(path, owner.pw_uid, owner.pw_gid)
    yield path
    shutil.rmtree(path)


def run_postgres(folder: Path, name: str, *flags: str, sql: str = "") -> str:
    user = "postgres" if os.geteuid() == 0 else None
    command = [str(PROGRAMS[-1] / name), *flags, "-D", str(folder / "data")]
    command += ["postgres"] if sql else []
    done = subprocess.run(
        command, input=sql, capture_output=True, text=True, user=user, group=user, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not PROGRAMS, reason="Debian's package postgresql is not installed")
def test_postgres_and_duckdb_load_what_is_read(cluster: Cluster, command: Command, folder: Path) -> None:
    """COPY takes `raw` and `csv`, with nulls, quotes and line breaks as they are; DuckDB takes batches."""
    source = cluster.make_topic(1)
    job = command.job(source, sorts=[f"id=o-{source}"], columns="id:int,note")
    values = [b'2,"a ""b"", c"', b'1,"two\nlines"', b"3,"]
    cluster.produce(source, values, 1)
    assert command.run(job).status == 0
    for form in ("raw", "csv"):
        shown = command.start_flags("read", "--job-name", job.name, "--output", form).finish()
        assert shown.status == 0, shown.err
        (folder / form).write_text(shown.out)
    run_postgres(folder, "initdb", "-E", "UTF8", "--locale=C", "-U", "postgres")
    told = run_postgres(
        folder,
        "postgres",
        "--single",
        sql=(
            "CREATE TABLE orders (id bigint, note text)\n"
            f"COPY orders FROM '{folder}/raw' (FORMAT csv)\n"
            "CREATE TABLE events (key text, value text, time bigint, run int, part int, pos bigint)\n"
            f"COPY events FROM '{folder}/csv' (FORMAT csv)\n"
            "SELECT string_agg(id || ':' || coalesce(length(note), -1), ',' ORDER BY ctid) AS notes FROM orders\n"
            "SELECT string_agg(pos || ':' || length(value), ',' ORDER BY ctid) AS sizes FROM events WHERE key IS NULL\n"
        ),
    )
    assert 'notes = "1:9,2:8,3:-1"' in told, told
    assert 'sizes = "0:13,1:14,2:2"' in told, told
    opened = SortedTopic(job.name, bootstrap_servers=cluster.bootstrap_servers)
    with opened as topic, duckdb.connect() as connection:
        rows = connection.from_arrow(topic.to_arrow()).project("decode(value)").fetchall()
    assert [value.encode() for (value,) in rows] == sorted(values, key=lambda v: v[:1])
