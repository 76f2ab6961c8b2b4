"""Standard streams that are closed, full, or a pipe without a reader, and a command's answer to them."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from tests.cluster import Cluster, sample_values, wait_for
from tests.command import Outcome
from tests.processes import KAFKA_SORT, Program

LOST = "kafka-sort: standard output: No space left on device: what was to be shown there is lost\n"


def works(line: str) -> list[str]:
    """Run a command's frame with work that does nothing but this."""
    work = f"from kafka_sort.process import run\ndef work():\n    {line}\n    return 0\nrun(work)"
    return [sys.executable, "-c", work]


def closed(descriptor: int) -> dict[str, Any]:
    return {"preexec_fn": lambda: os.close(descriptor)}


def full() -> BinaryIO:
    return Path("/dev/full").open("wb")


def without_reader() -> BinaryIO:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "wb")


def test_the_faults_are_there() -> None:
    """A plain program does meet them."""
    program = [sys.executable, "-c", "print('shown')"]
    for stdout, error in ((full(), "No space left"), (without_reader(), "Broken pipe")):
        done = subprocess.run(program, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode
        assert error in done.stderr


@pytest.mark.parametrize("flag", ["--help", "--version"])
@pytest.mark.parametrize(
    ("streams", "status", "err"),
    [
        (lambda: {"stdout": full()}, 1, LOST),
        (lambda: {"stdout": without_reader()}, 0, ""),
        (lambda: closed(0), 0, ""),
        (lambda: closed(1), 0, ""),
        (lambda: closed(2), 0, ""),
        (lambda: {"stdout": full(), "stderr": full()}, 1, ""),
    ],
    ids=["full", "no reader", "no input", "no output", "no error", "all full"],
)
def test_what_only_shows_something(
    flag: str, streams: Callable[[], dict[str, Any]], status: int, err: str, tmp_path: Path
) -> None:
    """A full disk is status 1 and a line; a reader that has gone, or a stream closed by others, is neither."""
    outcome = Program.start([KAFKA_SORT, flag], tmp_path, **streams()).finish()
    assert (outcome.status, outcome.err) == (status, err)


@pytest.mark.parametrize("stdout", [full, without_reader])
def test_what_works(stdout: Callable[[], BinaryIO], tmp_path: Path) -> None:
    """Work that is done is status 0, whatever becomes of its report; a full disk is a line."""
    outcome = Program.start(works("print('done'); print('more')"), tmp_path, stdout=stdout()).finish()
    assert (outcome.status, outcome.err) == (0, LOST if stdout is full else "")


def test_a_limit_for_files(tmp_path: Path) -> None:
    """`ulimit -f` is a full disk like any other."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2, 2))

    program = Program.start(works("print('done')"), tmp_path, preexec_fn=limit, stderr=subprocess.PIPE)
    assert program.process.stderr
    assert "File too large" in program.process.stderr.read().decode()
    assert program.finish().status == 0


def test_what_is_closed_is_nobody_elses(tmp_path: Path) -> None:
    """The next file that is opened is not descriptor 1, which would get what we print."""
    file = tmp_path / "file"

    def close_all() -> None:
        for descriptor in range(3):
            os.close(descriptor)

    opened = f"import os, sys; fd = os.open({str(file)!r}, os.O_RDWR | os.O_CREAT)"
    printed = "print('ours'); print('ours', file=sys.stderr); assert fd > 2"
    assert Program.start(works(f"{opened}; {printed}"), tmp_path, preexec_fn=close_all).finish().status == 0
    assert file.read_text() == ""


def test_no_wait_for_a_stream_that_others_made_so(tmp_path: Path) -> None:
    """A pipe that does not wait, as some programs leave it, is written whole, once there is room."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    program = Program.start(works("print('x' * 1_000_000)"), tmp_path, stdout=writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert len(pipe.read()) == 1_000_001
    assert program.finish().status == 0


def test_characters_that_the_stream_does_not_have(tmp_path: Path) -> None:
    """They are shown as escapes; a report that cannot be encoded does not fail the work it reports."""
    program = Program.start(works("print('a → b')"), tmp_path, {"PYTHONIOENCODING": "ascii"})
    assert program.finish() == Outcome(0, "a \\u2192 b\n", "")


def test_log_lines_that_cannot_be_written(tmp_path: Path) -> None:
    """For a person or for a collector, there is no traceback, and the status is the work's."""
    text = """
from kafka_sort.process import run
def work():
    from tasks.observe.logs import configure_logging, get_logger
    configure_logging(terminal=True)
    get_logger().warning("a line")
    return 0
run(work)
"""
    command = [sys.executable, "-c", text]
    json = {"KAFKA_SORT_LOG_FORMAT": "json"}
    assert Program.start(command, tmp_path, json, stdout=full()).finish() == Outcome(0, "", LOST)
    assert Program.start(command, tmp_path, json, stdout=without_reader()).finish() == Outcome(0, "", "")
    assert Program.start(command, tmp_path, stderr=full()).finish().status == 0
    assert Program.start(command, tmp_path, stderr=without_reader()).finish().status == 0


def test_a_stop_while_nobody_reads(tmp_path: Path) -> None:
    """A pipe that is full, as behind a pager that was left: the command waits to write, and a signal ends it."""
    reader, writer = os.pipe()
    program = Program.start(works("print('x' * 1_000_000)"), tmp_path, stdout=writer, stderr=writer)
    os.close(writer)
    pid = program.process.pid
    wait_for(lambda: waits_to_write(pid), 30)
    assert program.send(signal.SIGTERM).finish().status == 128 + signal.SIGTERM
    os.close(reader)


def waits_to_write(pid: int) -> bool:
    """Whether some thread is in the system call `write` to descriptor 1."""
    calls = (path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/syscall"))
    return any(call[:2] == ["1", "0x1"] for call in calls)


def test_a_terminal_that_goes_away(tmp_path: Path) -> None:
    """After SIGHUP, with writes that fail from then on, the status is 129."""
    master, slave = os.openpty()
    text = """
import fcntl, sys, termios, time
from kafka_sort.process import run
from tasks import signals
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
def work():
    with signals.holding(), open("STARTED", "w"):
        while signals.asked() is None:
            time.sleep(0.01)
        print("the report")
        print("the report", file=sys.stderr)
    return 0
run(work)
""".replace("STARTED", str(tmp_path / "started"))
    terminal: dict[str, Any] = {"stdin": slave, "stdout": slave, "stderr": slave, "start_new_session": True}
    program = Program.start(
        [sys.executable, "-c", text.replace("pass", "__import__('time').sleep(0.01)")], tmp_path, **terminal
    )
    os.close(slave)
    wait_for((tmp_path / "started").exists)
    os.close(master)
    assert program.finish().status == 128 + signal.SIGHUP


def test_status(cluster: Cluster, tmp_path: Path) -> None:
    """Its table is its purpose: a full disk is status 1; a closed stream, or one without a reader, is no loss."""
    command = [KAFKA_SORT, "status", "--bootstrap-servers", cluster.bootstrap_servers]
    assert Program.start(command, tmp_path, stdout=full()).finish() == Outcome(1, "", LOST)
    for streams in ({"stdout": without_reader()}, closed(0), closed(1), closed(2)):
        outcome = Program.start(command, tmp_path, **streams).finish()
        assert (outcome.status, outcome.err) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_committed_run(cluster: Cluster, prefect_server: str, log_format: str, tmp_path: Path) -> None:
    """Generate, sort, a stream and a verification do their work, and say so by their status, with any streams."""
    source = cluster.make_topic()
    cluster.produce(source, sample_values(100))
    here = ["--bootstrap-servers", cluster.bootstrap_servers]
    job = [*here, "--source-topic", source, "--sort", f"id={source}-id", "--workdir", str(tmp_path / "work")]
    environment = {"KAFKA_SORT_LOG_FORMAT": log_format, "PREFECT_API_URL": prefect_server}
    (tmp_path / "work").mkdir(mode=0o700)
    kinds: list[Callable[[], dict[str, Any]]] = [
        lambda: {"stdout": full()},
        lambda: {"stdout": without_reader(), "stderr": without_reader()},
        lambda: {"stdout": full(), "stderr": full()},
        lambda: closed(0),
        lambda: closed(1),
        lambda: closed(2),
    ]
    commands = [
        ["generate", *here, "--topic", source, "--records", "100"],
        ["sort", *job],
        ["stream", *job, "--max-runtime", "1"],
        ["verify", *job],
    ]
    for streams in kinds:
        for command in commands:
            outcome = Program.start([KAFKA_SORT, *command], tmp_path, environment, **streams()).finish(120)
            assert outcome.status == 0, (command, outcome)
            assert "Traceback" not in outcome.err
            assert "Logging error" not in outcome.err
