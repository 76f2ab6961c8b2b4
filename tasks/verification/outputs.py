"""Checks one output of one run: the topic and its offsets, counts, order within and across partitions, content."""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter

from confluent_kafka.admin import AdminClient

from tasks.kafka.topics import EARLIEST, LATEST, Topic, describe_topic, list_offsets
from tasks.run_context import current_run
from tasks.run_record import RunRecord
from tasks.verification.compare import Kind, Mismatch, compare_spills
from tasks.verification.content import digest_all
from tasks.verification.forms import OutputForm, lead_digests, lead_keys
from tasks.verification.keys import RecordKeys
from tasks.verification.partitions import Partitions
from tasks.verification.plan import OutputPlan, PartitionPlan
from tasks.verification.reading import Block, TopicReader, await_stable
from tasks.verification.report import Findings, Place
from tasks.verification.spill import Rows, Spill, make_rows
from tasks.verification.types.base import Keys

# Missing records whose place is searched, at some hundredths of a second each; others are only counted.
_MOST_SEARCHES = 50


@dataclass
class Tools:
    """The tools of every check of a run."""

    admin: AdminClient
    reader: TopicReader
    patience: float
    unverifiable: list[str] = field(default_factory=list)

    def count(self, records: int) -> None:
        """Progress."""
        current_run().progress.meter("verify").add(records)


@dataclass(frozen=True)
class Judge:
    """The columns of a sort, from the most significant one, by which an output's records are judged.

    `is_whole`: these are all columns, so that ties are judged too. If not, records are compared by their contents.
    """

    encoder: RecordKeys
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
        form: OutputForm,
        judge: Judge | None,
        findings: Findings,
    ) -> None:
        self._tools = tools
        self._record = record
        self._plan = plan
        self._topic = plan.sort.topic
        self._form = form
        self._judge = judge
        # Records are compared key by key, and in order of arrival within each.
        self._keyed = judge.encoder if judge and judge.is_whole else None
        self._findings = findings
        # The first key and place of each block, in output order.
        self._blocks: list[tuple[bytes, Place]] = []
        self._last: tuple[bytes, Place] | None = None
        self._ranges: dict[int, tuple[int, int]] = {}
        self._searches = _MOST_SEARCHES

    def check(self, source: Spill | None, spill: Spill, find_key: Callable[[Place], bytes]) -> None:
        """Check the output. 1. The topic. 2. Its offsets. 3. Its counts and order. 4. Content, if both sides are whole.

        `source` is None if the source cannot be read any more; `spill` must be empty.
        """
        # Step 1.
        self._check_sum()
        topic = self._find_topic()
        if topic is None:
            return
        # Step 2.
        whole = self._bound_ranges(topic)
        # Step 3.
        for plan in self._plan.partitions:
            if plan.partition in self._ranges:
                self._check_partition(plan, spill)
        # Step 4.
        if source is not None and whole:
            for mismatch in compare_spills(source, spill, in_order=self._keyed is not None):
                self._add_mismatch(mismatch, find_key)

    def _check_sum(self) -> None:
        written = sum(plan.count for plan in self._plan.partitions)
        expected = self._record.records - self._record.dead_letters
        if written != expected:
            what = f"the ledger says {written} records in all partitions, of {expected} that were sorted"
            self._findings.add_general(what)

    def _find_topic(self) -> Topic | None:
        topic = describe_topic(self._tools.admin, self._topic)
        if topic is None:
            self._findings.add_general("the topic does not exist any more")
        elif topic.id != self._plan.sort.topic_id:
            self._findings.add_general("the topic was deleted and recreated since the run: its id differs")
        return topic

    def _bound_ranges(self, topic: Topic) -> bool:
        """Set the offsets that can be read of each partition; return whether retention has left all of the run's."""
        known = [plan for plan in self._plan.partitions if plan.partition in topic.partitions]
        for plan in self._plan.partitions:
            if plan not in known:
                self._findings.add_general("the partition does not exist", plan.partition)
        numbers = [plan.partition for plan in known]
        highs = list_offsets(self._tools.admin, self._topic, numbers, LATEST, committed=False)
        stops = {plan.partition: min(plan.stop, highs[plan.partition]) for plan in known}
        await_stable(self._tools.admin, self._topic, stops, self._tools.patience)
        lows = list_offsets(self._tools.admin, self._topic, numbers, EARLIEST)
        left = [self._bound_partition(plan, lows, highs) for plan in known]
        return all(left)

    def _bound_partition(self, plan: PartitionPlan, lows: Mapping[int, int], highs: Mapping[int, int]) -> bool:
        partition, low, high = plan.partition, lows[plan.partition], highs[plan.partition]
        if high < plan.stop:
            what = f"the partition ends before offset {plan.stop - 1}, the run's last"
            self._findings.add_general(what, partition, high)
        self._ranges[partition] = max(plan.begin, low), min(plan.end, high)
        if gone := min(low, plan.stop) > plan.first:
            offsets = f"offsets {plan.first} to {min(low, plan.stop) - 1}"
            self._tools.unverifiable.append(f"{self._topic}: partition {partition} {offsets} are gone")
        return not gone

    def _check_partition(self, plan: PartitionPlan, spill: Spill) -> None:
        start, end = self._ranges[plan.partition]
        count = 0
        for block in self._tools.reader.read(self._topic, plan.partition, start, end):
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
        return make_record_rows(self._form.find(block), keys, self._form.are(block), self._record)

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
        former = f"{self._topic}/{before.partition} offset {before.offset}"
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

    def _find_gap(self, encoder: RecordKeys, key: bytes) -> Place | None:
        """Return the place where a record with a missing key would stand: that of the first record behind it."""
        after = bisect_right(self._blocks, key, key=itemgetter(0))
        if not after:
            return self._blocks[0][1] if self._blocks else None
        start = self._blocks[after - 1][1]
        end = self._ranges[start.partition][1]
        block = next(self._tools.reader.read(self._topic, start.partition, start.offset, end))
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


def make_record_rows(block: Block, keys: Keys | None, partitions: Partitions | None, record: RunRecord) -> Rows:
    """Make rows for comparison key by key; if keys are None, a record's content stands for its key.

    `partitions`: the output's partitions of the records, where these matter.
    """
    contents, times = block.digests(), block.times() if record.keeps_timestamps else None
    digests = lead_digests(contents if keys is None else digest_all(keys), partitions)
    return make_rows(digests, contents, block.partition, block.offsets, times)


def _place(block: Block, index: int) -> Place:
    return Place(block.partition, int(block.offsets[index]))
