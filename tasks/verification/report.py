"""The results of verification: differences with the place of each, and what could not be verified."""

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, order=True)
class Place:
    """A record's partition and offset, in the order in which partitions are read in turn."""

    partition: int
    offset: int


def name_place(output: str, partition: int | None, offset: int | None) -> str:
    """Name a record, a partition or all of an output: a topic, or a folder, where partitions are files."""
    if partition is None:
        return output
    part, unit = (f"part-{partition:05}.parquet", "row") if output.startswith("parquet:") else (partition, "offset")
    return f"{output}/{part}" if offset is None else f"{output}/{part} {unit} {offset}"


@dataclass(frozen=True)
class Difference:
    """A contradiction to the run's record and its source. `partition` and `offset` are those of `topic`."""

    run: int
    topic: str
    what: str
    partition: int | None = None
    offset: int | None = None

    def __str__(self) -> str:
        return f"run {self.run}: {name_place(self.topic, self.partition, self.offset)}: {self.what}"


@dataclass(frozen=True)
class RunVerification:
    """The result of one run. `records`: how many the source range gave; `hidden`: differences that are not listed."""

    run: int
    records: int
    dead_letters: int
    outputs: tuple[str, ...]
    differences: tuple[Difference, ...]
    hidden: int
    unverifiable: tuple[str, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing differs; what cannot be verified is no difference."""
        return not self.differences

    def row(self) -> dict[str, str]:
        """Return the cells for a table of runs."""
        return {
            "run": str(self.run),
            "records": f"{self.records:,}",
            "dead letters": f"{self.dead_letters:,}",
            "outputs": ", ".join(self.outputs),
            "differences": "; ".join(map(str, self.differences)) or "none",
            "not verifiable": "; ".join(self.unverifiable),
            "seconds": f"{self.seconds:.1f}",
        }


@dataclass(frozen=True)
class Verification:
    """The results of a job's runs, in their order."""

    job: str
    runs: tuple[RunVerification, ...]

    @property
    def ok(self) -> bool:
        """Whether no run differs."""
        return all(run.ok for run in self.runs)

    @property
    def differences(self) -> tuple[Difference, ...]:
        """The differences of all runs, the first one first."""
        return tuple(difference for run in self.runs for difference in run.differences)

    @property
    def unverifiable(self) -> tuple[str, ...]:
        """All that could not be verified, of all runs."""
        return tuple(f"run {run.run}: {what}" for run in self.runs for what in run.unverifiable)

    def headline(self) -> str:
        """Say in one line what differs first, or what was verified."""
        if self.differences:
            count = len(self.differences) + sum(run.hidden for run in self.runs)
            others = f" (the first of {count} differences)" if count > 1 else ""
            return f"job {self.job}: {self.differences[0]}{others}"
        if not self.runs:
            return f"job {self.job} has no run yet, so there is nothing to verify: it has found nothing to sort so far"
        records = sum(run.records for run in self.runs)
        limits = f"; not verifiable: {len(self.unverifiable)}, {self.unverifiable[0]}" if self.unverifiable else ""
        runs = f"{len(self.runs)} run{'s' if len(self.runs) > 1 else ''}"
        return f"job {self.job}: {runs}, {records:,} records read, no difference{limits}"

    def lines(self) -> list[str]:
        """List all differences, and all that could not be verified."""
        return [*map(str, self.differences), *(f"not verifiable: {what}" for what in self.unverifiable)]

    def table(self) -> list[dict[str, str]]:
        """Return one row for each run."""
        return [run.row() for run in self.runs]


@dataclass
class Findings:
    """Collects the first `limit` differences of one topic by their place, and counts the others."""

    run: int
    topic: str
    limit: int = 10
    hidden: int = 0
    _placed: list[tuple[Place, str]] = field(default_factory=list)
    _general: list[Difference] = field(default_factory=list)

    def add(self, what: str, place: Place) -> None:
        """Add a difference of one record."""
        insort(self._placed, (place, what))
        if len(self._placed) > self.limit:
            self._placed.pop()
            self.hidden += 1

    def add_general(self, what: str, partition: int | None = None, offset: int | None = None) -> None:
        """Add a difference of a partition or the topic; it is listed after those of records, which say more."""
        self._general.append(Difference(self.run, self.topic, what, partition, offset))

    @property
    def differences(self) -> list[Difference]:
        """All differences: those of records first, by place."""
        records = [Difference(self.run, self.topic, what, at.partition, at.offset) for at, what in self._placed]
        return records + self._general


def collect(findings: Iterable[Findings]) -> tuple[tuple[Difference, ...], int]:
    """Return the differences of all topics, and how many more there are."""
    known = list(findings)
    return tuple(d for f in known for d in f.differences), sum(f.hidden for f in known)
