"""Readers beside all that changes an output: each answer is a whole number of runs, as the ledger has them.

The expectation comes from the source and the ledger alone: after run n an output shows each record that runs 1 to n
have read, once, whether these runs were appended, or others have taken their places.
"""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kafka_sort import SortedTopic
from tasks.reading.runs import RunDeletedError
from tasks.run_record import RunRecord
from tasks.settings.job import Job
from tests.cluster import Cluster, wait_for
from tests.command import KILLED, Command
from tests.flows.test_replace_again import replace_all
from tests.processes import KAFKA_SORT, Program
from tests.stages import make_stream, run_once, serving

CONTINENTS = (b"Africa", b"Asia", b"Europe")
# A value, and the number of the run that shows it.
Rows = list[tuple[bytes, int]]


def number(value: bytes) -> int:
    return int(value.split(b",")[0])


@dataclass(frozen=True)
class Answer:
    """What a reader has shown. `before`, `after`: the newest run when it asked, and when it had its answer."""

    reader: str
    before: int
    after: int
    runs: tuple[int, ...]
    rows: Rows
    is_whole: bool = True


@dataclass
class Scene:
    """A job by two sorts, whose outputs are changed while others read them."""

    cluster: Cluster
    command: Command
    folder: Path
    job: Job = field(init=False)
    sent: int = 0
    answers: list[Answer] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        source = self.cluster.make_topic()
        self.job = self.command.job(source, sorts=[f"id=i-{source}", f"continent,id:desc=c-{source}"])

    def produce(self, count: int = 40) -> None:
        """Send rows with ids of their own, in no order."""
        numbers = [(self.sent + i) * 7919 % 100_003 for i in range(count)]
        self.sent += count
        self.cluster.produce(self.job.source_topic, [b"%d,a,b,%s" % (n, CONTINENTS[n % 3]) for n in numbers])

    def records(self) -> list[RunRecord]:
        """Return the record that each run has written, also those of runs that others took the place of."""
        found = [r.value for r in self.cluster.read(self.job.ledger) if (r.key or b"").startswith(b"run/")]
        return [RunRecord.from_json(value) for value in found if value]

    @property
    def newest(self) -> int:
        return max(record.run for record in self.records())

    def open(self, sort: str, **how: Any) -> SortedTopic:
        return SortedTopic(self.job.name, sort, bootstrap_servers=self.cluster.bootstrap_servers, **how)

    def await_answers(self) -> None:
        """Wait until each reader has begun and ended an answer."""
        done = len(self.answers)
        wait_for(lambda: {a.reader for a in self.answers[done:]} == READERS.keys() or self.ended.is_set(), 120)
        done = len(self.answers)
        wait_for(lambda: {a.reader for a in self.answers[done:]} == READERS.keys() or self.ended.is_set(), 120)


def iterate(scene: Scene) -> Iterator[Answer]:
    """Open the topic and read all of it, again and again."""
    while True:
        before = scene.newest
        with scene.open("id") as topic:
            rows: Rows = []
            is_whole = False
            try:
                for record in topic:
                    rows.append((record.value or b"", record.run))
                is_whole = True
            except RunDeletedError:
                pass
            yield Answer("iterate", before, scene.newest, topic.runs, rows, is_whole)


def look_up(scene: Scene) -> Iterator[Answer]:
    """Look a prefix up in a topic that stays open, and is refreshed."""
    with scene.open("continent,id:desc") as topic:
        while True:
            before = scene.newest
            topic.refresh()
            try:
                found = [(record.value or b"", record.run) for record in topic.get("Asia")]
            except RunDeletedError:
                continue
            yield Answer("look up", before, scene.newest, topic.runs, found)


def command_read(scene: Scene) -> Iterator[Answer]:
    """Run `kafka-sort read`, again and again."""
    while True:
        before = scene.newest
        here = ("--bootstrap-servers", scene.cluster.bootstrap_servers)
        line = [KAFKA_SORT, "read", *here, "--job-name", scene.job.name, "--sort", "id"]
        # Not by the server that forks commands: two threads that wait for its processes take each other's status.
        done = Program.start(line, scene.folder, preexec_fn=None).finish(120)
        assert done.status == 0 or (done.status == 1 and "were deleted while they were read" in done.err), done.err
        members = [json.loads(line) for line in done.out.splitlines()]
        rows = [(m["value"].encode(), m["run"]) for m in members]
        shown = tuple(sorted({run for _, run in rows}))
        yield Answer("read", before, scene.newest, shown, rows, done.status == 0)


READERS = {"iterate": iterate, "look up": look_up, "read": command_read}


@contextmanager
def reading(scene: Scene) -> Iterator[None]:
    """Let all readers read during the block; raise their errors."""

    def collect(reader: Callable[[Scene], Iterator[Answer]]) -> None:
        try:
            for answer in reader(scene):
                scene.answers.append(answer)
                if scene.ended.is_set():
                    return
        finally:
            scene.ended.set()

    with ThreadPoolExecutor(len(READERS)) as pool:
        running = [pool.submit(collect, reader) for reader in READERS.values()]
        try:
            yield
        finally:
            scene.ended.set()
        for future in running:
            future.result()


@dataclass(frozen=True)
class State:
    """An output after a run: its current runs, and all rows by id."""

    runs: tuple[int, ...]
    rows: Rows

    def shown_to(self, reader: str) -> Rows:
        if reader != "look up":
            return self.rows
        return [row for row in reversed(self.rows) if row[0].endswith(b",Asia")]


def states_of(scene: Scene) -> dict[int, State]:
    """Return by number of the newest run what the outputs show then."""
    records = sorted(scene.records(), key=lambda record: record.run)
    assert [record.run for record in records] == list(range(1, len(records) + 1))
    source = scene.cluster.read(scene.job.source_topic)
    states: dict[int, State] = {}
    taken: dict[bytes, int] = {}
    ends: dict[int, int] = {}
    for record in records:
        ends |= record.ends
        for r in source:
            if r.offset < ends.get(r.partition, 0):
                # The run that has read it first.
                taken.setdefault(r.value or b"", record.run)
        current = {first: _shown_by(first, records[: record.run]) for first in range(1, record.run + 1)}
        rows = sorted(((value, current[first]) for value, first in taken.items()), key=lambda row: number(row[0]))
        states[record.run] = State(tuple(sorted(set(current.values()))), rows)
    assert len(states[len(records)].rows) == scene.sent
    return states


def _shown_by(first: int, records: list[RunRecord]) -> int:
    """Return the newest run that is this one, or has taken its place."""
    return max(r.run for r in records if r.run == first or any(c.first <= first <= c.last for c in r.covers))


def assert_whole(answer: Answer, states: dict[int, State]) -> None:
    """Check that it is what the output showed after one of the runs that were the newest while it was made."""
    possible = [states[n] for n in range(answer.before, answer.after + 1)]
    wanted = [(state.runs, state.shown_to(answer.reader)) for state in possible]
    if not answer.is_whole:
        wanted = [(answer.runs, rows[: len(answer.rows)]) for _, rows in wanted]
    assert (answer.runs, answer.rows) in wanted, (answer.reader, answer.before, answer.after, answer.runs)


# What changes the outputs: each makes several runs, in one way.


def stream_batches(scene: Scene) -> None:
    """Commit micro-batches of a stream that lives all the while."""
    with serving(scene.cluster, make_stream(scene.cluster, scene.job)):
        for _ in range(20):
            before = scene.newest
            scene.produce()
            wait_for(lambda before=before: scene.newest > before, 60)  # type: ignore[misc]


def append_runs(scene: Scene) -> None:
    """Sort again and again."""
    for _ in range(6):
        scene.produce()
        run_once(scene.cluster, scene.job, scene.folder)


def replace_runs(scene: Scene) -> None:
    """Sort everything again and again, and delete what was there."""
    for _ in range(8):
        scene.produce()
        assert replace_all(scene.cluster, scene.job, scene.folder) is not None


def kill_attempts(scene: Scene) -> None:
    """Kill attempts whose records are in the log by then, and sort after each."""
    for point in ("after-flush", "after-ledger-record", "before-commit"):
        scene.produce()
        assert scene.command.run(scene.job, failpoint=f"{point}=kill").status == KILLED
        # The records of the attempt are there, and its transaction is open.
        committed = scene.cluster.count(scene.job)
        assert scene.cluster.count(scene.job, committed=False) > committed
        scene.await_answers()
        assert scene.cluster.count(scene.job) == committed
        run_once(scene.cluster, scene.job, scene.folder)


def merge_runs(scene: Scene) -> None:
    """Sort twice, and make one run of all, again and again."""
    for _ in range(3):
        for _ in range(2):
            scene.produce()
            run_once(scene.cluster, scene.job, scene.folder)
        flags = ("--job-name", scene.job.name, "--workdir", str(scene.command.workdir))
        done = scene.command.start_flags("merge", *flags).finish()
        assert done.status == 0, done.err


WRITERS = {
    "micro-batches of a stream": stream_batches,
    "appended runs": append_runs,
    "replacements": replace_runs,
    "merges": merge_runs,
    "killed attempts": kill_attempts,
}


@pytest.mark.slow
@pytest.mark.parametrize("writer", WRITERS)
def test_whole_runs_beside_writers(cluster: Cluster, command: Command, tmp_path: Path, writer: str) -> None:
    """Whoever reads, and whatever is written meanwhile: what is shown is all of the runs that were current then.

    An answer that ended because its run was deleted is the beginning of that run alone.
    """
    scene = Scene(cluster, command, tmp_path)
    scene.produce()
    run_once(cluster, scene.job, tmp_path)
    with reading(scene):
        WRITERS[writer](scene)
        scene.await_answers()
    states = states_of(scene)
    for answer in scene.answers:
        assert_whole(answer, states)
    assert len(states) > 3
    # They did not all read before the first change, or behind the last.
    assert len({answer.after for answer in scene.answers}) > 2
    assert {answer.reader for answer in scene.answers if answer.after == len(states)} == READERS.keys()


@pytest.mark.slow
@pytest.mark.raises("RunDeletedError")
def test_a_run_deleted_in_the_middle(
    cluster: Cluster, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that has shown a part of a run when that is replaced ends with an error, and mixes nothing in."""
    # So that most of the run is not fetched yet.
    for name in ("_BYTES", "_FEWEST_BYTES"):
        monkeypatch.setattr(f"tasks.reading.streams.{name}", 100_000)
    source = cluster.make_topic()
    job = command.job(source, sorts=[f"id=i-{source}"])
    values = [b"%d,%s,b,Asia" % (i, b"a" * 500) for i in range(4000)]
    cluster.produce(source, values)
    run_once(cluster, job, tmp_path)
    with SortedTopic(job.name, "id", bootstrap_servers=cluster.bootstrap_servers) as topic:
        records = iter(topic)
        shown = [next(records)]
        cluster.produce(source, [b"5000,x,b,Asia"])
        assert replace_all(cluster, job, tmp_path) is not None
        with pytest.raises(RunDeletedError, match=r"records of run 1 in .* were deleted"):
            shown.extend(records)
        assert {record.run for record in shown} == {1}
        assert [record.value for record in shown] == values[: len(shown)]
        topic.refresh()
        assert [(record.value, record.run) for record in topic] == [(v, 2) for v in [*values, b"5000,x,b,Asia"]]
