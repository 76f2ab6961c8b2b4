"""Random jobs, with runs, merges, failures and retention in random order, beside a model that sorts in Python."""

import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import SettingsError
from tasks.failpoints import RUN_NAMES, VARIABLE, InjectedError
from tasks.replacement import DeletionError
from tasks.run_record import RunRecord
from tasks.settings.job import Job
from tasks.sorting.newest import Newest
from tasks.verify import verify_job
from tests.cluster import Cluster, Record
from tests.faults.oracle import in_run
from tests.merges import merge, records_of
from tests.placed import murmur2
from tests.stages import make_job, owned, run_settled

STEPS = 9
COLUMNS = "a:int,b:text,c:decimal,d:text(nocase)"
READ: dict[str, Callable[[bytes], Any]] = {
    "a": int,
    "b": bytes,
    "c": lambda raw: Decimal(raw.decode()),
    "d": bytes.lower,
}
# A merge takes no snapshot, and stages nothing.
POINTS = [*(p for p in RUN_NAMES if not p.endswith(("snapshot", "stage"))), "before-delete", "after-delete"]


@dataclass(frozen=True)
class Item:
    """A record of the source, and the run that read it."""

    run: int
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None

    @property
    def age(self) -> tuple[int, int, int]:
        return self.run, self.partition, self.offset


@dataclass(frozen=True)
class Term:
    """One term of a sort, as Python compares it."""

    column: str
    descending: bool
    nulls: str = ""

    def __str__(self) -> str:
        return self.column + ":desc" * self.descending + (f":{self.nulls}" if self.nulls else "")

    def of(self, item: Item) -> tuple[int, Any]:
        raw = item.key if self.column == "@key" else (item.value or b"").split(b",")["abcd".index(self.column)]
        if raw is None:
            return (0 if (self.nulls == "nulls-first") != self.descending else 2), b""
        return 1, READ.get(self.column, bytes)(raw)


# Partition, offset, item.
Placed = tuple[int, int, Item]


@dataclass
class Output:
    """One output as it must be: run → its records with their places; and how many each run has left out."""

    terms: tuple[Term, ...]
    runs: dict[int, list[Placed]] = field(default_factory=dict)
    superseded: dict[int, int] = field(default_factory=dict)

    def key(self, item: Item) -> tuple[Any, ...]:
        return tuple(term.of(item) for term in self.terms)

    def in_order(self, items: Iterable[Item]) -> list[Item]:
        ordered = sorted(items, key=lambda item: item.age)
        for term in reversed(self.terms):
            ordered.sort(key=term.of, reverse=term.descending)
        return ordered

    def newest(self, items: Iterable[Item], newest: Newest) -> list[Item]:
        """Return the last item of each key; items come in the order of their arrival."""
        last = {self.key(item): item for item in items}
        return [item for item in last.values() if item.value is not None or not newest.drop_tombstones]


class Model:
    """A random job, what was done with it, and what its outputs must hold."""

    def __init__(self, cluster: Cluster, folder: Path, seed: int) -> None:
        self.cluster, self.folder, self.chance = cluster, folder, random.Random(seed)
        self.source = cluster.make_topic(self.chance.randint(1, 3))
        self.ends = cluster.ends(self.source)
        self.is_none = self.chance.random() < 0.4
        self.outputs = [Output(terms) for terms in self._choose_sorts()]
        self.job = self._make_job()
        self.placed: dict[int, int] = {}
        self.done: list[str] = []

    def _choose_sorts(self) -> list[tuple[Term, ...]]:
        chance = self.chance
        if self.is_none:
            return [(Term("@key", chance.random() < 0.5, chance.choice(["nulls-first", "nulls-last"])),)]
        wanted = {tuple(chance.sample("abcd", chance.randint(1, 2))) for _ in range(chance.randint(1, 3))}
        return [tuple(Term(column, chance.random() < 0.5) for column in by) for by in sorted(wanted)]

    def _make_job(self) -> Job:
        chance = self.chance
        by = chance.choice(["range", "source", *(["hash"] if self.is_none else ["range"])])
        over: dict[str, Any] = {"partition_by": by, "timestamps": chance.choice(["new", "keep"])}
        if by != "source":
            over["output_partitions"] = chance.randint(1, 4)
        if by == "range":
            over["split_heavy_keys"] = chance.random() < 0.5
        if self.is_none:
            over["format"] = "none"
        else:
            over |= {"columns": COLUMNS, "output_key": chance.choice(["keep", "sort", "none"])}
        sorts = [f"{','.join(map(str, o.terms))}=o{i}-{self.source}" for i, o in enumerate(self.outputs)]
        return make_job(self.source, self.folder, sorts=sorts, **over)

    def play(self) -> None:
        acts = [self.run, self.run, self.run, self.merge, self.merge_few, self.merge_newest, self.expire, self.fail]
        for step in range(STEPS):
            act = self.run if step < 2 else self.chance.choice(acts)
            self.done.append(act.__name__)
            act()
            self.check()
        verification = verify_job(self.job, self.cluster.connection)
        assert verification.differences == (), (self.done, verification.lines())

    def run(self) -> None:
        """Make a run of some records."""
        items = [self._make_item() for _ in range(self.chance.choice([1, 5, 50, 300, 2500]))]
        self.cluster.produce_records(self.source, [Record(i.value, i.key, (), i.partition) for i in items])
        record = run_settled(self.cluster, self.job, self.folder)
        self.placed[record.run] = record.placed
        for number, output in enumerate(self.outputs):
            output.superseded[record.run] = 0
            self._place(record, number, [replace(item, run=record.run) for item in items])

    def _make_item(self) -> Item:
        chance = self.chance
        ids = chance.choice([3, 20, 1000])
        partition = chance.choice(list(self.ends))
        key = chance.choice([None, b"", b"k%d" % chance.randrange(ids)])
        self.ends[partition] += 1
        return Item(0, partition, self.ends[partition] - 1, key, self._make_value(ids))

    def _make_value(self, ids: int) -> bytes | None:
        chance = self.chance
        if self.is_none:
            return chance.choice([None, b"", b"v%d" % chance.randrange(10**6)])
        texts = b"", b"Aa", b"aA", b"B%d" % chance.randrange(ids), b"b%d" % chance.randrange(ids)
        number, decimal = chance.randrange(-ids, ids), (chance.randrange(ids), chance.randrange(3))
        return b"%d,%b,%d.%d,%b" % (number, chance.choice([*texts, b"\xff\0"]), *decimal, chance.choice(texts))

    def merge(self) -> None:
        self._note(merge(self.cluster, self.job, self.folder), None)

    def merge_few(self) -> None:
        """Merge what fits a small transaction, if two runs do."""
        most = self.chance.choice([60, 400, 3000])
        with pytest.MonkeyPatch.context() as patch, suppress(SettingsError):
            patch.setattr("tasks.merging.plan.most_records", lambda *_: most)
            self._note(merge(self.cluster, self.job, self.folder), None)

    def merge_newest(self) -> None:
        newest = Newest(drop_tombstones=self.chance.random() < 0.5)
        self._note(merge(self.cluster, self.job, self.folder, newest), newest)
        assert merge(self.cluster, self.job, self.folder, newest) is None

    def expire(self) -> None:
        """Delete the first records of a partition, as retention does."""
        topic = self.chance.choice(self.job.sort_list).topic
        starts, ends = self.cluster.starts(topic), self.cluster.ends(topic)
        partition = self.chance.choice(list(starts))
        at = self.chance.choice([ends[partition], self.chance.randint(starts[partition], ends[partition])])
        self.cluster.delete_below(topic, {partition: at})
        for number in range(len(self.outputs)):
            self._forget(number)

    def _forget(self, number: int) -> None:
        output, starts = self.outputs[number], self.cluster.starts(self.job.sort_list[number].topic)
        output.runs = {run: [p for p in placed if p[1] >= starts[p[0]]] for run, placed in output.runs.items()}

    def fail(self) -> None:
        """Merge, and fail at a step; a start of the job finishes what was committed."""
        point, newest = self.chance.choice(POINTS), self.chance.choice([None, Newest()])
        self.done.append(point)
        before = self.cluster.ledger(self.job).last
        with pytest.MonkeyPatch.context() as patch, suppress(InjectedError, DeletionError):
            patch.setenv(VARIABLE, f"{point}=raise")
            merge(self.cluster, self.job, self.folder, newest)
        with owned(self.cluster, self.job) as owner:
            last = owner.ledger.last
        assert before is not None
        assert last is not None
        if last.run != before.run:
            self._note(last, newest)

    def _note(self, record: RunRecord | None, newest: Newest | None) -> None:
        """Check what a merge has made, and go on from it."""
        if record is None:
            return
        taken = [run for run in self.placed if any(c.first <= run <= c.last for c in record.covers)]
        self.placed[record.run] = sum(self.placed.pop(run) for run in taken)
        assert (record.records, record.dead_letters) == (self.placed[record.run], 0)
        for number, output in enumerate(self.outputs):
            items = [item for run in taken for _, _, item in output.runs.pop(run)]
            kept = output.newest(sorted(items, key=self._arrival), newest) if newest else items
            left_out = sum(output.superseded.pop(run) for run in taken) + len(items) - len(kept)
            output.superseded[record.run] = left_out
            written = record.sorts[number]
            assert (written.superseded, written.count) == (left_out, len(kept))
            assert written.expired == record.records - left_out - len(kept)
            self._place(record, number, kept)

    def _place(self, record: RunRecord, number: int, items: Iterable[Item]) -> None:
        """Check that a run's records are these in their order, and note where they are."""
        output, topic = self.outputs[number], self.job.sort_list[number].topic
        count = record.sorts[number].partition_count
        ordered = sorted(output.in_order(items), key=lambda item: self._partition(item, count))
        found = in_run(record.sorts[number], records_of(self.cluster, topic))
        assert [r.value for r in found] == [item.value for item in ordered], (topic, record.run)
        if self.job.output_key == "keep":
            assert [r.key for r in found] == [item.key for item in ordered]
        if self.job.partition_by != "range":
            assert [r.partition for r in found] == [self._partition(item, count) for item in ordered]
        output.runs[record.run] = [(r.partition, r.offset, item) for r, item in zip(found, ordered, strict=True)]

    def _arrival(self, item: Item) -> tuple[int, ...]:
        """Return what decides which of two items is newer: null keys that are hashed lie in several partitions."""
        return item.run, self._partition(item, self.job.output_partitions or 1), item.partition, item.offset

    def _partition(self, item: Item, count: int) -> int:
        """Return the partition of a record; 0 where ranges decide."""
        if self.job.partition_by == "hash":
            return item.partition % count if item.key is None else murmur2(item.key) % count
        return item.partition if self.job.partition_by == "source" else 0

    def check(self) -> None:
        """The outputs hold the current runs and nothing else, and the job is where its last run left the source."""
        ledger = self.cluster.ledger(self.job)
        assert ledger.last is not None
        assert [record.run for record in ledger.current] == sorted(self.placed)
        assert ledger.last.ends == self.ends == self.cluster.group_offsets(self.job)
        for sort, output in zip(self.job.sort_list, self.outputs, strict=True):
            found = [(r.partition, r.offset, r.value) for r in records_of(self.cluster, sort.topic)]
            placed = [(p, o, item.value) for of_run in output.runs.values() for p, o, item in of_run]
            assert found == sorted(placed, key=lambda place: place[:2]), sort.topic


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_random_jobs(cluster: Cluster, tmp_path: Path, seed: int) -> None:
    """Whatever came before, each run and merge is what Python makes of the same records; nothing else is there."""
    model = Model(cluster, tmp_path, seed)
    try:
        model.play()
    except BaseException as error:
        error.add_note(f"seed {seed}: {', '.join(model.done)}; {model.job}")
        raise
