"""A stop is never lost: each command as a real process, and signals at instants all over its life."""

import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.cluster import Cluster, sample_values, wait_for
from tests.command import Outcome
from tests.kafka_sort.test_process import CAN_UNSHARE
from tests.processes import KAFKA_SORT, Program

pytestmark = pytest.mark.slow

INSTANTS = int(os.environ.get("KAFKA_SORT_INSTANTS", "8"))
SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Commands that go on until a signal, and the text that they print once they serve.
SERVES = {"broker": "ready ", "ui": "Ctrl-C ends both"}
UI = [sys.executable, "-c", "from pathlib import Path; from kafka_sort.process import run; import kafka_sort.ui as ui"]


@dataclass
class Commands:
    """Each command with arguments that make it do its work, on a topic that has records and a job that has a run."""

    cluster: Cluster
    folder: Path
    environment: Mapping[str, str]
    source: str = ""
    count: int = 0
    made: list[str] = field(default_factory=list)

    def line(self, name: str) -> list[str]:
        here = ["--bootstrap-servers", self.cluster.bootstrap_servers]
        job = [*here, "--source-topic", self.source, "--sort", f"id={self.source}-id", "--workdir", str(self.folder)]
        lines = {
            "broker": ["--port", "0"],
            "generate": [*here, "--topic", f"{self.source}-made", "--records", "200000"],
            "load": [*here, "--topic", f"{self.source}-loaded", str(self.folder / "lines.txt")],
            "sort": job,
            "stream": [*job, "--max-runtime", "3"],
            "verify": job,
            "status": here,
            "demo": ["--records", "20000"],
        }
        return [KAFKA_SORT, name, *lines[name]]

    def start(self, name: str, prefix: tuple[str, ...] = ()) -> Program:
        if name in {"sort", "stream"}:
            self.cluster.produce(self.source, sample_values(5000, seed=self.count))
            self.count += 1
        return Program.start([*prefix, *self.line(name)], self.folder, self.environment)


@pytest.fixture
def commands(cluster: Cluster, prefect_server: str, tmp_path: Path) -> Commands:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    tmp_path.chmod(0o700)
    made = Commands(cluster, tmp_path, {"PREFECT_API_URL": prefect_server, "TMPDIR": str(temporary)})
    (tmp_path / "lines.txt").write_bytes(b"a line\n" * 1_000_000)
    made.source = cluster.make_topic()
    assert made.start("sort").finish(120).status == 0
    return made


@pytest.mark.parametrize("name", ["broker", "generate", "load", "sort", "stream", "verify", "status", "demo"])
def test_at_any_instant(name: str, commands: Commands, tmp_path: Path) -> None:
    """From the first line on: the signal's status, no traceback, no process and no temporary folder left behind."""
    life = life_of(name, commands)
    for index in range(INSTANTS):
        number = SIGNALS[index % 2]
        program = commands.start(name).wait_until_watched()
        time.sleep(life * (index + 0.5) / INSTANTS)
        children, done = program.children(), program.is_over
        outcome = program.send(number).finish()
        assert_stopped(name, outcome, number, done=done)
        wait_for(lambda left=children: not any(map(is_alive, left)), 20)  # type: ignore[misc]
        assert not list((tmp_path / "tmp").glob("kafka-sort-*"))


def life_of(name: str, commands: Commands) -> float:
    """Seconds from the first line to the end, undisturbed; or a little longer than it takes to serve."""
    program, began = commands.start(name).wait_until_watched(), time.monotonic()
    if name not in SERVES:
        assert program.finish(300).status == 0
        return time.monotonic() - began
    program.wait_for_line(SERVES[name])
    life = time.monotonic() - began
    assert program.send(signal.SIGTERM).finish().status == 0
    return life * 1.2


def assert_stopped(name: str, outcome: Outcome, number: signal.Signals, *, done: bool) -> None:
    told = outcome.out + outcome.err
    assert "Traceback" not in told, told
    assert "Exception ignored" not in told, told
    if name == "broker" and "ready" in outcome.out:
        allowed = {0}
    elif name == "stream":
        # Once it serves, a signal is how it ends. It says so itself.
        allowed = {0} if " batches, " in outcome.out else {128 + number}
    else:
        allowed = {128 + number}
    # All was done and reported: nothing was left to stop.
    reported = {
        "generate": "generated ",
        "load": "loaded ",
        "sort": "stages",
        "verify": "verified",
        "status": "jobs at",
        "demo": "README.md has",
    }
    if done or reported.get(name, "\0") in outcome.out:
        allowed |= {0}
    assert outcome.status in allowed, (outcome, number)
    if outcome.status:
        last = outcome.err.splitlines()[-1]
        assert last.startswith("kafka-sort: "), outcome
        assert number.name in last, outcome
        assert ("nothing of this run is visible" in last) <= (name in {"sort", "stream"}), outcome


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.mark.skipif(CAN_UNSHARE.returncode != 0, reason="no namespace of processes may be made here")
@pytest.mark.parametrize("name", ["broker", "sort", "demo"])
def test_as_the_first_process_of_a_container(name: str, commands: Commands, tmp_path: Path) -> None:
    """No signal kills a container's first process by default, and nothing outlives it."""
    life = life_of(name, commands)
    for index in range(INSTANTS // 2):
        number = SIGNALS[index % 2]
        program = commands.start(name, ("unshare", "--pid", "--fork"))
        wait_for(lambda held=program: held.is_over or bool(held.children()))  # type: ignore[misc]
        first = program.children()[0]
        time.sleep(0.5 + life * index / (INSTANTS // 2))
        done = not first.is_running()
        if not done:
            first.send_signal(number)
        outcome = program.finish()
        assert_stopped(name, outcome, number, done=done)
        assert not list((tmp_path / "tmp").glob("kafka-sort-*"))


@pytest.mark.parametrize("number", SIGNALS)
def test_between_the_steps_of_a_demo(number: signal.Signals, commands: Commands) -> None:
    """A stop between two steps goes no further, and reports that all of it is gone."""
    for step in range(2, 7):
        program = commands.start("demo").wait_for_line(f"\n{step}. ")
        outcome = program.send(number).finish()
        assert outcome.status == 128 + number, outcome
        assert "Traceback" not in outcome.err
        # It may print one more title, of the step that was beginning.
        assert f"\n{step + 2}. " not in outcome.out
