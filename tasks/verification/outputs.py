"""Checks one output of one run: the topic and its offsets, counts, order within and across partitions, content."""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import itemgetter

from tasks.run_record import RunRecord
from tasks.verification.compare import Kind, Mismatch, compare_spills
from tasks.verification.forms import OutputForm, lead_keys
from tasks.verification.keys import ColumnKeys, RecordKeys
from tasks.verification.places import OutputPlace
from tasks.verification.plan import OutputPlan, PartitionPlan
from tasks.verification.reading import Block
from tasks.verification.report import Findings, Place, name_place
from tasks.verification.spill import Rows, Spill
from tasks.verification.tools import Tools
from tasks.verification.types.base import Keys

# Missing records whose place is searched, at some hundredths of a second each; others are only counted.
_MOST_SEARCHES = 50


@dataclass(frozen=True)
class Judge:
    """The columns of a sort, from the most significant one, by which an output's records are judged.

    `is_whole`: these are all columns, so that ties are judged too. If not, records are compared by their contents.
    """

    encoder: RecordKeys | ColumnKeys
    is_whole: bool


class OutputCheck:
    """The check of one output against the source's spill; `find_key` returns the key of a source record.

    `judge` is None if keys cannot be judged: then records are compared, and their order is not.
    """

    def __init__(
        self,
        tools: Tools,
        record: RunRecord,
        plan: OutputPlan,
        output: OutputPlace,
        form: OutputForm,
        judge: Judge | None,
        findings: Findings,
    ) -> None:
        self._tools = tools
        self._record = record
        self._plan = plan
        self._topic = plan.sort.topic
        self._output = output
        self._form = form
        self._judge = judge
        # Records are compared key by key, and in order of arrival within each.
        self._keyed = judge.encoder if judge and judge.is_whole else None
        self._findings = findings
        # The first key and place of each block, in output order.
        self._blocks: list[tuple[bytes, Place]] = []
        self._last: tuple[bytes, Place] | None = None
        self._ranges: Mapping[int, tuple[int, int]] = {}
        self._searches = _MOST_SEARCHES

    def check(self, source: Spill | None, spill: Spill, find_key: Callable[[Place], bytes]) -> None:
        """Check the output. 1. Its sum. 2. Its place. 3. Its counts and order. 4. Content, if both sides are whole.

        `source` is None if the source cannot be read any more; `spill` must be empty.
        """
        # Step 1.
        self._check_sum()
        # Step 2.
        self._ranges, whole = self._output.bound()
        # Step 3.
        for plan in self._plan.partitions:
            if plan.partition in self._ranges:
                self._check_partition(plan, spill)
        # Step 4.
        if source is not None and whole:
            for mismatch in compare_spills(source, spill, in_order=self._keyed is not None):
                self._add_mismatch(mismatch, find_key)

    def _check_sum(self) -> None:
        if self._record.is_merge:
            # The plan has compared it with the runs that were merged.
            return
        written = sum(plan.count for plan in self._plan.partitions)
        expected = self._record.records - self._record.dead_letters
        if written != expected:
            what = f"the ledger says {written} records in all partitions, of {expected} that were sorted"
            self._findings.add_general(what)

    def _check_partition(self, plan: PartitionPlan, spill: Spill) -> None:
        start, end = self._ranges[plan.partition]
        count = 0
        for block in self._output.read(plan.partition, start, end):
            ours = block.within(plan.first, plan.stop)
            self._check_strays(plan, block)
            if ours:
                self._check_block(ours, spill)
            count += len(ours)
            self._tools.count(len(block))
        if count != plan.count and start <= plan.first:
            what = f"the partition has {count} records of the run, the ledger says {plan.count}"
            self._findings.add_general(what, plan.partition)

    def _check_strays(self, plan: PartitionPlan, block: Block) -> None:
        for start, end in ((plan.begin, plan.first), (plan.stop, plan.end)):
            for offset in block.within(start, end).offsets[: self._findings.limit].tolist():
                self._findings.add("the record was written by no run of the job", Place(plan.partition, offset))

    def _check_block(self, block: Block, spill: Spill) -> None:
        for i, partition in self._form.find_misplaced(block)[: self._findings.limit]:
            self._findings.add(f"the record belongs to partition {partition} by its key", _place(block, i))
        if self._judge is None:
            spill.add(self._make_rows(block))
        else:
            self._check_keys(block, self._judge, spill)

    def _make_rows(self, block: Block, keys: Keys | None = None) -> Rows:
        return self._form.make_rows(self._form.find(block), keys, self._form.are(block))

    def _check_keys(self, block: Block, judge: Judge, spill: Spill) -> None:
        encoded = judge.encoder.encode(block)
        for i in encoded.rejected[: self._findings.limit]:
            self._findings.add("the record cannot be sorted: it is no row of the format", _place(block, i))
        block, keys = block.without(encoded.rejected), encoded.keys[0]
        if keys:
            self._check_order(block, lead_keys(keys, self._form.are(block)))
            spill.add(self._make_rows(block, keys if judge.is_whole else None))

    def _check_order(self, block: Block, keys: Keys) -> None:
        self._blocks.append((keys[0], _place(block, 0)))
        before = self._last
        self._last = keys[-1], _place(block, -1)
        # Timsort takes one comparison a key if they are in order.
        if (before is None or before[0] <= keys[0]) and sorted(keys) == keys:
            return
        if before is not None and before[0] > keys[0]:
            self._add_disorder(_place(block, 0), before[1])
        for i in [i for i in range(1, len(keys)) if keys[i] < keys[i - 1]][: self._findings.limit]:
            self._add_disorder(_place(block, i), _place(block, i - 1))

    def _add_disorder(self, where: Place, before: Place) -> None:
        former = name_place(self._topic, before.partition, before.offset)
        self._findings.add(f"the record is out of order: its key belongs before that of {former}", where)

    def _add_mismatch(self, mismatch: Mismatch, find_key: Callable[[Place], bytes]) -> None:
        if mismatch.output is not None or mismatch.source is None:
            self._findings.add(self._describe(mismatch), mismatch.output or Place(0, 0))
        elif not self._searches:
            self._findings.hidden += 1
        elif self._keyed is None:
            self._searches -= 1
            self._findings.add_general(self._describe(mismatch))
        else:
            self._searches -= 1
            where = self._find_gap(self._keyed, find_key(mismatch.source))
            self._findings.add(self._describe(mismatch), where or Place(0, 0))

    def _find_gap(self, encoder: RecordKeys | ColumnKeys, key: bytes) -> Place | None:
        """Return the place where a record with a missing key would stand: that of the first record behind it."""
        after = bisect_right(self._blocks, key, key=itemgetter(0))
        if not after:
            return self._blocks[0][1] if self._blocks else None
        start = self._blocks[after - 1][1]
        end = self._ranges[start.partition][1]
        block = next(self._output.read(start.partition, start.offset, end))
        encoded = encoder.encode(block)
        block = block.without(encoded.rejected)
        keys = lead_keys(encoded.keys[0], self._form.are(block))
        behind = [index for index, other in enumerate(keys) if other > key]
        return _place(block, behind[0]) if behind else Place(start.partition, int(block.offsets[-1]) + 1)

    def _describe(self, mismatch: Mismatch) -> str:
        expected, actual = self._name(mismatch.source), self._name(mismatch.actual)
        time, found = mismatch.times or (0, 0)
        return {
            Kind.MISSING: f"record of {expected} is missing",
            Kind.ALTERED: f"record of {expected} is altered",
            Kind.RETIMED: f"record of {expected} has the timestamp {found} in place of {time}",
            Kind.DOUBLED: f"record of {actual} is there again",
            Kind.FOREIGN: "the record is not in the source range"
            + ("" if self._keyed else ", or is there too often, or is a dead letter too"),
            Kind.MISPLACED: f"record of {actual} stands before that of {expected}, of equal key, which came first",
        }[mismatch.kind]

    def _name(self, place: Place | None) -> str:
        return f"{self._record.source_topic}/{place.partition} offset {place.offset}" if place else ""


def _place(block: Block, index: int) -> Place:
    return Place(block.partition, int(block.offsets[index]))
