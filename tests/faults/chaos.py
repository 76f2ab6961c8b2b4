"""Random faults upon the runs of a job. The same seed does the same things, though not at the same instants."""

import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from signal import SIGSTOP

from tasks.settings.job import Job
from tests.cluster import Cluster, Record, sample_values
from tests.command import KILLED, Command, Outcome, Running
from tests.faults.oracle import Follower, assert_exact
from tests.faults.proxy import ProxiedBroker


class Chaos:
    """Runs one job after the other, each for some rounds: records, runs, faults, the oracle."""

    def __init__(self, broker: ProxiedBroker, cluster: Cluster, command: Command, seed: int) -> None:
        self.faults: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self._broker = broker
        self._cluster = cluster
        self._command = command
        self._chance = random.Random(seed)
        self._running: list[Running] = []
        self._timers: list[threading.Timer] = []

    def run_job(self, rounds: int, until: float) -> None:
        """Play rounds of one job, at most so many, until that time on the monotonic clock."""
        job = self._make_job()
        with Follower(self._cluster, job) as follower:
            for _ in range(rounds):
                self._play_round(job)
                runs = len(self._cluster.ledger(job).runs)
                print(
                    f"{job.name}: {runs} runs, faults {dict(self.faults)}, statuses {dict(self.statuses)}", flush=True
                )
                assert_exact(self._cluster, job, runs, follower)
                if time.monotonic() > until:
                    return

    def _make_job(self) -> Job:
        return self._command.job(
            self._cluster.make_topic(),
            retry_delay=0.2,
            request_timeout=20.0,
            transaction_timeout=self._chance.choice([None, 5.0, 20.0]),
        )

    def _play_round(self, job: Job) -> None:
        """Play faults beside one run or more, and then make a run without faults."""
        self._produce(job)
        self._running = [self._command.start(job)]
        for _ in range(self._chance.randint(1, 4)):
            time.sleep(self._chance.uniform(0, 3))
            self._do(
                self._chance.choice([self._kill, self._kill, self._stop, self._start, self._produce, *self._broken]),
                job,
            )
        for timer in self._timers:
            timer.join()
        for running in self._running:
            self._check(running.finish_awake())
        last = self._command.run(job)
        assert last.status == 0, last.err

    def _do(self, fault: Callable[[Job], None], job: Job) -> None:
        self.faults[fault.__name__.lstrip("_")] += 1
        fault(job)

    def _check(self, outcome: Outcome) -> None:
        """Check that a run was done, failed clean, was killed, or found no broker at its start."""
        self.statuses[outcome.status] += 1
        absent = any(words in outcome.err for words in ("no broker answered", "calls itself"))
        assert outcome.status in {0, 1, KILLED} or absent, outcome
        if outcome.status == 1:
            assert outcome.err.splitlines()[-1].startswith("kafka-sort: "), outcome.err

    @property
    def _broken(self) -> list[Callable[[Job], None]]:
        return [self._kill_broker, self._pause_broker]

    def _produce(self, job: Job) -> None:
        """Send rows, values that are no rows, and sometimes a transaction that is aborted."""
        values = sample_values(self._chance.randrange(1, 4000), seed=self._chance.randrange(2**31), ids=10**6)
        self._cluster.produce(job.source_topic, [*values, b"no row", None])
        if self._chance.random() < 0.3:
            aborted = [Record(value, partition=i % 4) for i, value in enumerate(values[:20])]
            self._cluster.produce_aborted(job.source_topic, aborted)

    def _start(self, job: Job) -> None:
        """Start another run beside those that work."""
        self._running.append(self._command.start(job))

    def _kill(self, _: Job) -> None:
        if running := self._any_running():
            running.process.kill()

    def _stop(self, _: Job) -> None:
        """Stop a run by SIGSTOP, maybe for longer than a lease or a transaction lasts."""
        if running := self._any_running():
            running.send(SIGSTOP)
            timer = threading.Timer(self._chance.uniform(0.1, 7), running.wake)
            timer.start()
            self._timers.append(timer)

    def _any_running(self) -> Running | None:
        alive = [running for running in self._running if running.process.exitcode is None]
        return self._chance.choice(alive) if alive else None

    def _kill_broker(self, _: Job) -> None:
        """Kill the broker by SIGKILL; it comes back within seconds."""
        self._broker.kill()
        time.sleep(self._chance.uniform(0, 3))
        self._broker.start()

    def _pause_broker(self, _: Job) -> None:
        """Stop the broker by SIGSTOP for a while."""
        pid = str(self._broker.pid)
        subprocess.run(["kill", "-STOP", pid], check=True)
        time.sleep(self._chance.uniform(0.5, 4))
        subprocess.run(["kill", "-CONT", pid], check=True)
