"""The scheduler of a simulation: it chooses which process goes on, and kills, delays and loses as a seed tells it.

A process is a generator that yields what it waits for: an answer to a request, or a condition. Half of the seeds choose
by chance among what is ready. The others give each process a priority, and lower it at few points (PCT, Burckhardt et
al. 2010), which finds an order of events that needs few switches.
"""

from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from random import Random
from typing import Any

from tests.simulation.model import LOST, RETRY, Answer, Kafka

# Each seed has a number of these, or none.
_LIMITED = ("kills", "lost answers", "deadlines", "timeouts", "starts")
_MOST_ASLEEP = 3
Request = Callable[[], Answer]


@dataclass(frozen=True)
class Wait:
    """Wait for a condition, or until a deadline, which comes whenever the adversary likes."""

    condition: Callable[[], bool]


# It is sent the answer to a request, and None where it waited.
Process = Generator[Request | Wait, Any, None]


@dataclass
class _Running:
    process: Process
    priority: float
    waits_for: Request | Wait


@dataclass(frozen=True, eq=False)
class _Late:
    """A request whose sender is gone, or waits no longer: it may arrive from step `due` on."""

    request: Request
    priority: float
    due: int


@dataclass
class Adversary:
    """Steps through a schedule. `starters` begin another process of the tested protocol, unasked."""

    seed: int
    kafka: Kafka
    starters: list[Callable[[], None]] = field(default_factory=list)
    calm: bool = False

    def __post_init__(self) -> None:
        self.chance = Random(self.seed)
        self.steps = 0
        # Which kinds of harm were done, and how often.
        self.harm: Counter[str] = Counter()
        self._by_priority = self.seed % 2 == 1
        self._running: dict[str, _Running] = {}
        self._asleep: set[str] = set()
        self._late: list[_Late] = []
        self._broker_priority = self.chance.random()
        # Each seed leaves out some kinds of faults (swarm testing, Groce et al. 2012): they hide each other's effects.
        self._left = {kind: self.chance.choice((0, 1)) * self.chance.randint(1, 6) for kind in _LIMITED}

    def spawn(self, name: str, process: Process) -> None:
        """Add a process, which begins when its turn comes."""
        self._running[name] = _Running(process, self.chance.random(), Wait(lambda: True))

    def is_alive(self, name: str) -> bool:
        return name in self._running

    def kill(self, name: str) -> None:
        """End a process; what it has sent may still arrive at any time."""
        running = self._forget(name)
        running.process.close()
        if not isinstance(running.waits_for, Wait) and self.chance.random() < 0.7:
            self._delay(running.waits_for)

    def calm_down(self) -> None:
        """Kill all; from now on nothing fails, but what is on its way still arrives."""
        for name in sorted(self._running):
            self.kill(name)
        self.calm = True
        self._asleep.clear()

    @property
    def has_late_requests(self) -> bool:
        return bool(self._late)

    def step(self) -> None:
        """Let one fault happen, or none, and then one event."""
        self.steps += 1
        if not self.calm:
            self._harm()
        actions = self._actions()
        if not actions:
            return
        by_priority = self._by_priority and not self.calm
        chosen = max(actions, key=itemgetter(0)) if by_priority else self.chance.choice(actions)
        chosen[1]()

    def _harm(self) -> None:
        drawn, names = self.chance.random(), sorted(self._running)
        if not names:
            return
        name = self.chance.choice(names)
        if drawn < 0.02 and self._may("kills"):
            self.kill(name)
        elif drawn < 0.04 and len(self._asleep) < _MOST_ASLEEP:
            self._asleep.add(name)
            self.harm["sleeps"] += 1
        elif drawn < 0.045 and self.kafka.has_open_transaction and self._may("timeouts"):
            self.kafka.time_out()
        elif drawn < 0.06 and self._may("starts"):
            self.chance.choice(self.starters)()
        elif drawn < 0.08 and isinstance(self._running[name].waits_for, Wait) and self._may("deadlines"):
            self._resume(name, None)
        elif drawn < 0.12:
            self._running[name].priority -= 1
        elif drawn > 0.97:
            self._asleep.discard(name)

    def _may(self, kind: str) -> bool:
        """Take one fault of this kind, if the seed has one left."""
        if not self._left[kind]:
            return False
        self._left[kind] -= 1
        self.harm[kind] += 1
        return True

    def _actions(self) -> list[tuple[float, Callable[[], None]]]:
        """Return what may happen next, each with its priority."""
        late = [each for each in self._late if self.calm or each.due <= self.steps]
        ready = [name for name in sorted(self._running) if name not in self._asleep and self._is_ready(name)]
        return [
            *((self._broker_priority, partial(self._mark, partition)) for partition in self.kafka.unmarked),
            *((each.priority, partial(self._deliver, each)) for each in late),
            *((self._running[name].priority, partial(self._advance, name)) for name in ready),
        ]

    def _is_ready(self, name: str) -> bool:
        waits_for = self._running[name].waits_for
        return not isinstance(waits_for, Wait) or waits_for.condition()

    def _mark(self, partition: str) -> None:
        self.kafka.write_marker(partition)
        self._broker_priority = self.chance.random()

    def _delay(self, request: Request) -> None:
        due = self.steps + self.chance.randint(0, self.chance.choice((5, 50)))
        self._late.append(_Late(request, self.chance.random(), due))

    def _deliver(self, late: _Late) -> None:
        self._late.remove(late)
        self.harm["late requests"] += 1
        late.request()

    def _advance(self, name: str) -> None:
        running = self._running[name]
        answer = None if isinstance(running.waits_for, Wait) else self._ask(running.waits_for)
        if answer == RETRY:
            # It asks again later: others go first.
            running.priority -= 1
        self._resume(name, answer)

    def _ask(self, request: Request) -> Answer:
        if self.calm or self.chance.random() >= 0.1 or not self._may("lost answers"):
            return request()
        if self.chance.random() < 0.5:
            request()
        else:
            self._delay(request)
        return LOST

    def _resume(self, name: str, value: Any) -> None:
        running = self._running[name]
        try:
            running.waits_for = running.process.send(value)
        except StopIteration:
            self._forget(name)

    def _forget(self, name: str) -> _Running:
        self._asleep.discard(name)
        return self._running.pop(name)
