"""`kafka-sort get` and `read` in a pipe: a reader that stops early, and a disk that is full."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kafka_sort.reading import run_get
from kafka_sort.streams import _Output
from tasks.broker.embedded import EmbeddedBroker
from tasks.reading.reader import OutputReader
from tasks.reading.runs import Choice
from tasks.settings.connection import use_connection
from tasks.settings.job import Job
from tasks.settings.options import JobOptions
from tests.cluster import Cluster
from tests.command import Outcome
from tests.kafka_sort.test_streams import LOST, full, without_reader
from tests.processes import KAFKA_SORT, Program
from tests.stages import make_job, run_once

# Far more than a pipe holds, in each form.
ROWS = 20_000
# A range and a prefix that hold all of them, and one key.
COMMANDS = {"read": ["read"], "read a range": ["read", "--from", "x"], "get": ["get", "x"]}


@pytest.fixture(scope="module")
def job(broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> Job:
    cluster = Cluster(broker.bootstrap_servers)
    source = cluster.make_topic(1)
    folder = tmp_path_factory.mktemp("sorted")
    job = make_job(source, folder, columns="kind,id:int", sorts=[f"kind,id=o-{source}"])
    cluster.produce(source, [b"x,%d" % i for i in range(ROWS)], 1)
    run_once(cluster, job, folder)
    return job


def line_of(cluster: Cluster, job: Job, arguments: list[str], form: str) -> list[str]:
    here = ["--bootstrap-servers", cluster.bootstrap_servers, "--job-name", job.name, "--output", form]
    return [KAFKA_SORT, *arguments, *here]


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("form", ["jsonl", "raw", "csv"])
def test_the_first_lines_are_enough(cluster: Cluster, job: Job, name: str, form: str) -> None:
    """`| head -3` gets its lines; the command ends with status 0 and says nothing."""
    pipe = '"$0" "$@" | head -3; echo "${PIPESTATUS[0]}"'
    command = ["bash", "-c", pipe, *line_of(cluster, job, COMMANDS[name], form)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    *lines, status = done.stdout.splitlines()
    assert (status, done.stderr) == ("0", "")
    assert [f"x,{i}" in line for i, line in enumerate(lines)] == [True] * 3


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_nobody_reads(cluster: Cluster, job: Job, name: str, tmp_path: Path) -> None:
    """A reader that has gone is no error. A full disk is one, and a line: the records are all of the work."""
    line = line_of(cluster, job, COMMANDS[name], "raw")
    assert Program.start(line, tmp_path, stdout=without_reader()).finish() == Outcome(0, "", "")
    assert Program.start(line, tmp_path, stdout=full()).finish() == Outcome(1, "", LOST)


@pytest.mark.slow
def test_all_of_it(cluster: Cluster, job: Job, tmp_path: Path) -> None:
    """A reader that stays gets every record, in order."""
    done = Program.start(line_of(cluster, job, ["read"], "raw"), tmp_path).finish()
    assert (done.status, done.err) == (0, "")
    assert done.out == "".join(f"x,{i}\n" for i in range(ROWS))


@pytest.mark.slow
def test_keys_that_nobody_wants(cluster: Cluster, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the reader has gone, the next keys are not looked for."""
    looked: list[bytes] = []
    plain = OutputReader.get

    def counted(self: OutputReader, key: bytes, **how: Any) -> Any:
        looked.append(key)
        return plain(self, key, **how)

    monkeypatch.setattr(OutputReader, "get", counted)
    with without_reader() as pipe, use_connection(cluster.connection):
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(_Output(pipe.fileno()))))
        run_get(cluster.connection, JobOptions(job_name=job.name), ("x", "x", "x"), Choice(), "raw")
    assert len(looked) == 1
