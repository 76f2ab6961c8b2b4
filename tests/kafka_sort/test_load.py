"""`kafka-sort load` as a person runs it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from kafka_sort.main import cli
from tasks.errors import KafkaSortError
from tests.cluster import Cluster, wait_for
from tests.processes import KAFKA_SORT, Program

TEXT = b"".join(b"%d,name %d\n" % (i, i) for i in range(5000))
# The command, which also prints at its end whether Prefect was imported.
PROGRAM = """
import atexit, sys
from kafka_sort.process import main

atexit.register(lambda: print("prefect" in sys.modules))
main()
"""


def run(cluster: Cluster, *arguments: str, stdin: bytes = b"", code: str = "") -> "subprocess.CompletedProcess[bytes]":
    program = [sys.executable, "-c", code] if code else [KAFKA_SORT]
    command = [*program, "load", "--bootstrap-servers", cluster.bootstrap_servers, *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=60)


def test_what_it_prints(cluster: Cluster, tmp_path: Path) -> None:
    """A line with the lines, the files and the topic, what was left out, and the next step; Prefect is not needed."""
    topic, path = f"{cluster.make_topic(1)}-new", tmp_path / "a.csv"
    path.write_bytes(b"id,x\n1,a\n\n2,b,c\n3,d\n")
    flags = ["--topic", topic, "--partitions", "2", "--skip-header", "--key", "id"]
    done = run(cluster, str(path), *flags, code=PROGRAM)
    assert done.returncode == 0, done.stderr
    first, *others = done.stdout.decode().splitlines()
    assert first.startswith(f"loaded 3 lines of 1 file into {topic} (2 partitions) in ")
    assert others == [
        "1 empty line skipped",
        f"1 record without a key; the first is {path}, line 4: 3 fields, expected 2: '2,b,c'",
        f"next: kafka-sort inspect {topic}",
        "False",
    ]


def test_a_load_of_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """A file without a record is no error, and there is nothing to look at next."""
    topic, path = cluster.make_topic(1), tmp_path / "a.csv"
    path.write_bytes(b"id,x\n")
    done = run(cluster, str(path), "--topic", topic, "--skip-header")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.decode().splitlines()
    assert line.startswith(f"loaded 0 lines of 1 file into {topic}")


def test_standard_input(cluster: Cluster, tmp_path: Path) -> None:
    """`-` is standard input, also among files, and is read in its place."""
    topic, path = cluster.make_topic(1), tmp_path / "a.txt"
    path.write_bytes(b"first\n")
    done = run(cluster, str(path), "-", str(path), "--topic", topic, stdin=TEXT)
    assert done.stdout.startswith(b"loaded 5,002 lines of 3 files into"), done.stderr
    values = [record.value for record in cluster.read(topic)]
    assert values == [b"first", *TEXT.splitlines(), b"first"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.csv"], "absent.csv: No such file"),
        (["."], "is a folder"),
        (["-", "-"], "is given twice"),
        (["a.csv", "--topic", "no spaces"], "not a valid topic name"),
        (["a.csv", "--key", "id"], "give --skip-header"),
        (["a.csv", "--skip-header", "--key", "ID"], "no column is called 'ID'"),
        (["a.csv", "--columns", "a,b", "--key", "c"], "no column is called 'c'"),
        (["a.csv", "--columns", "a,a"], "given twice"),
        (["a.csv", "--delimiter", "ab"], "delimiter 'ab'"),
        (["a.csv", "b.json"], "files of CSV and of JSON"),
        (["a.csv", "--format", "lines", "--key", "id"], "lines have no columns"),
        (["b.json", "--delimiter", ";"], "only for --format csv"),
        (["b.json", "--key", "a..b"], "path 'a..b'"),
        (["a.csv", "--from-line", "0"], "--from-line"),
        (["a.csv", "--partitions", "1000000"], "--partitions"),
        (["a.csv", "--replication-factor", "100"], "--replication-factor"),
        ([], "FILE"),
    ],
)
def test_wrong_settings_are_told_before_any_work(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line with exit status 2, without a look at a broker."""
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_bytes(b"id,x\n1,2\n")
    Path("b.json").write_bytes(b'{"a": 1}\n')
    topic = [] if "--topic" in arguments else ["--topic", "t"]
    outcome = run_in_process(["load", "--bootstrap-servers", "127.0.0.1:1", *arguments, *topic])
    assert outcome[0] == 2
    assert message in outcome[1]


def run_in_process(arguments: list[str]) -> tuple[int, str]:
    """Return the exit status of the error that the command ends with, and its text."""
    try:
        cli(arguments, standalone_mode=False)
    except click.ClickException as error:
        return error.exit_code, error.format_message()
    except KafkaSortError as error:
        return error.exit_code, str(error)
    return 0, ""


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A pipe that stays open, and its end for writing."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    end = os.open(path, os.O_RDWR)
    yield path, end
    os.close(end)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal(cluster: Cluster, pipe: tuple[Path, int], tmp_path: Path, number: signal.Signals) -> None:
    """A load that waits for more is stopped with the signal's status, and says how many lines the topic has."""
    topic, (path, end) = cluster.make_topic(2), pipe
    command = [KAFKA_SORT, "load", str(path), "--bootstrap-servers", cluster.bootstrap_servers, "--topic", topic]
    program = Program.start(command, tmp_path)
    assert os.write(end, b"1\n2\n\n4") == 6
    wait_for(lambda: sum(cluster.ends(topic).values()) == 2)
    outcome = program.send(number).finish()
    assert outcome.status == 128 + number
    assert outcome.err.splitlines()[-1] == (
        f"kafka-sort: {number.name}: stopped after 3 lines of {path}: topic {topic} has 2 records of this load; "
        f"to go on, load {path} with --from-line 4"
    )
    assert outcome.out == ""
