"""Runs `kafka-sort` as a user does: a process with flags, an exit status and two streams.

The processes are forked from a server that has imported Prefect already, which saves six seconds each.
"""

import multiprocessing
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from tasks.failpoints import VARIABLE
from tasks.settings.job import Job
from tests import raised
from tests.cluster import Cluster, wait_for

_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload(["tests.preload"])
KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


@dataclass
class Running:
    """A command under way."""

    process: ForkServerProcess
    folder: Path
    environment: dict[str, str] = field(repr=False)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid or 0, number)

    @property
    def is_stopped(self) -> bool:
        status = Path(f"/proc/{self.process.pid}/stat").read_text()
        return status.rpartition(")")[2].split()[0] in {"T", "t"}

    def wait_until_stopped(self) -> Self:
        """Wait until it stops at its failpoint."""
        wait_for(lambda: self.process.exitcode is not None or self.is_stopped, 120)
        assert self.process.exitcode is None, self.err
        return self

    def finish_awake(self) -> Outcome:
        """Finish a run, waking it whenever it stops at its failpoint again; return its outcome."""
        with suppress(AssertionError):  # The error of `finish` has what it printed.
            wait_for(lambda: self.process.exitcode is not None or self.wake(), 180)
        return self.finish(1.0)

    def wake(self) -> bool:
        if self.process.exitcode is None:
            with suppress(ProcessLookupError):  # It may end between the look at its exit code and the signal.
                self.send(signal.SIGCONT)
        return False

    @property
    def err(self) -> str:
        return self._told("err")

    def _told(self, stream: str) -> str:
        """Return what it printed; nothing if it was killed before it printed."""
        path = self.folder / stream
        return path.read_text() if path.exists() else ""

    def finish(self, seconds: float = 120) -> Outcome:
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"not finished after {seconds} s:\n{self.err}")
        raised.note_child(self.folder)
        return Outcome(self.process.exitcode, self._told("out"), self.err)


def run_main(arguments: list[str], environment: dict[str, str], folder: Path) -> None:
    """Become `kafka-sort` with these arguments, in the child."""
    for name, descriptor in (("out", 1), ("err", 2)):
        target = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, descriptor)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    os.environ.update(environment)
    sys.argv = ["kafka-sort", *arguments]
    raised.watch_child(folder)
    from kafka_sort.process import main

    main()


class Command:
    """`kafka-sort` on the suite's broker and Prefect server."""

    def __init__(self, cluster: Cluster, workdir: Path) -> None:
        self.cluster = cluster
        self.workdir = workdir

    def job(self, source: str, **over: object) -> Job:
        """Make a job over `source` with outputs of its own."""
        suffix = uuid4().hex[:8]
        sorts = [f"{column}=o-{suffix}-{column}" for column in ("id", "name", "continent")]
        fields = {"source_topic": source, "sorts": sorts, "workdir": self.workdir, "session_timeout": 1.5, **over}
        return Job.model_validate(fields)

    def start(
        self,
        job: Job,
        *flags: str,
        failpoint: str | None = None,
        command: str = "sort",
        environment: dict[str, str] | None = None,
    ) -> Running:
        return self.start_flags(command, *flags_of(job), *flags, failpoint=failpoint, environment=environment)

    def start_flags(
        self, command: str, *flags: str, failpoint: str | None = None, environment: dict[str, str] | None = None
    ) -> Running:
        """Start the command with these flags alone."""
        folder = self.workdir.parent / f"run-{uuid4().hex[:8]}"
        folder.mkdir()
        arguments = [command, "--bootstrap-servers", self.cluster.bootstrap_servers, *flags]
        environment = {**(environment or {}), **({VARIABLE: failpoint} if failpoint else {})}
        process = _FORKSERVER.Process(target=run_main, args=(arguments, environment, folder))
        process.start()
        return Running(process, folder, environment)

    def run(self, job: Job, *flags: str, **how: Any) -> Outcome:
        """Run the command to its end; `how` is what `start` takes."""
        return self.start(job, *flags, **how).finish()

    def succeed_while_away(self, job: Job, point: str) -> None:
        """Stop a run at the point, let another one commit, and wake the first: it fails, and says why in one line."""
        old = self.start(job, failpoint=f"{point}=stop")
        try:
            old.wait_until_stopped()
            successor = self.run(job)
        finally:
            outcome = old.finish_awake()
        assert successor.status == 0, successor.err
        assert outcome.status == 1, outcome.out + outcome.err
        last = outcome.err.splitlines()[-1]
        assert last.startswith("kafka-sort: ")
        assert "lease" in last or "superseded" in last, outcome.err


def flags_of(job: Job) -> list[str]:
    """Return the flags that make this job."""
    flags = [flag for text in job.sorts for flag in ("--sort", text)]
    for name in job.model_fields_set - {"sorts"}:
        value = getattr(job, name)
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(flag if value else f"--no-{flag[2:]}")
        elif value is not None:
            flags += [flag, str(value)]
    return flags
