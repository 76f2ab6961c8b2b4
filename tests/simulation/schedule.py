"""One schedule from a seed, and the oracle that looks at Kafka after each of its steps."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.simulation.adversary import Adversary
from tests.simulation.model import LEDGER, BrokerRules, Decision, Kafka, Row
from tests.simulation.protocol import Job, Mutation, Run

_STEPS_OF_CALM = 4000
_STARTED_AGAIN = 0.1


@dataclass(frozen=True)
class Setting:
    """What is simulated, and for how many steps the adversary does harm."""

    rules: BrokerRules = field(default_factory=BrokerRules)
    mutation: Mutation | None = None
    publishers: int = 2
    rows: int = 24
    steps: int = 400


@dataclass(frozen=True)
class Outcome:
    """How a schedule ended. `wrong` says what a reader saw that it must not see; it is empty if there is nothing."""

    seed: int
    wrong: str
    is_finished: bool
    steps: int
    runs: int
    harm: Counter[str]

    @property
    def is_exact(self) -> bool:
        return self.is_finished and not self.wrong


@dataclass
class Oracle:
    """Guarantee 2: a run is visible whole and once, or not at all, and the ledger says which runs are."""

    kafka: Kafka
    outputs: list[str]
    wrong: str = ""
    _judged: int = 0
    _seen: object = None
    _runs: list[Run] = field(default_factory=list)
    _expected: defaultdict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    _ends: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(lambda: {0}))

    def look(self) -> None:
        """Judge what was decided since the last look, and what a `read_committed` reader gets now."""
        seen = (self.kafka.state, [log.end for log in self.kafka.logs.values()])
        if seen == self._seen:
            return
        self._seen = seen
        for decision in self.kafka.decisions[self._judged :]:
            self._judge(decision)
        self._judged = len(self.kafka.decisions)
        for name in (LEDGER, *self.outputs):
            self._compare(name, self.kafka.logs[name].committed)

    def _judge(self, decision: Decision) -> None:
        """Check a commit: one ledger record, of the next run, beside the rows of that run and no others."""
        if not decision.rows:
            return
        records = decision.rows.get(LEDGER, ())
        if len(records) != 1:
            self._note(f"a commit of {len(records)} ledger records")
            return
        (run,) = records
        follows = (self._runs[-1].number + 1, self._runs[-1].end) if self._runs else (1, 0)
        if (run.number, run.start) != follows:
            self._note(f"{run} is committed after {self._runs}")
        self._runs.append(run)
        self._expect(LEDGER, [run])
        for index, name in enumerate(self.outputs):
            self._expect(name, list(run.share(index, len(self.outputs))))

    def _expect(self, name: str, rows: list[Row]) -> None:
        self._expected[name] += rows
        self._ends[name].add(len(self._expected[name]))

    def _compare(self, name: str, seen: list[Row]) -> None:
        expected = self._expected[name]
        if seen != expected[: len(seen)] or len(seen) not in self._ends[name]:
            self._note(f"{name} shows {seen} of {expected}")
        if self.kafka.is_at_rest and seen != expected:
            self._note(f"{name} shows {seen} at rest, in place of {expected}")

    def _note(self, what: str) -> None:
        self.wrong = self.wrong or what


def simulate(seed: int, setting: Setting) -> Outcome:
    """Run one schedule: first with all the harm that the seed has, then one driver alone in calm."""
    kafka = Kafka(setting.rules)
    adversary = Adversary(seed, kafka)
    job = Job(kafka, adversary, setting.publishers, setting.rows, setting.mutation)
    adversary.starters = [job.start_driver, job.start_twin]
    oracle = Oracle(kafka, job.outputs)
    for _ in range(adversary.chance.choice((1, 1, 2, 3))):
        job.start_driver()
    _run(adversary, oracle, setting.steps, lambda: _keep_driven(job))
    adversary.calm_down()
    job.is_done = False
    job.start_driver()
    _run(adversary, oracle, _STEPS_OF_CALM, lambda: job.is_done and not adversary.has_late_requests)
    return Outcome(seed, oracle.wrong, job.is_done, adversary.steps, len(kafka.decisions), adversary.harm)


def _keep_driven(job: Job) -> bool:
    """Start a driver where none is left, some time later; return whether all runs are there."""
    if not job.has_driver and job.adversary.chance.random() < _STARTED_AGAIN:
        job.start_driver()
    return job.is_done


def _run(adversary: Adversary, oracle: Oracle, steps: int, is_done: Callable[[], bool]) -> None:
    for _ in range(steps):
        if oracle.wrong or is_done():
            return
        adversary.step()
        oracle.look()
