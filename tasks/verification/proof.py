"""The quick pass of a verification: shows that nothing differs, by sums of marks, in one pass over each topic.

It says nothing of what differs. What it cannot show is left to the thorough pass, which names the records; so whatever
is out of the ordinary ends it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TypeVar

from tasks.kafka.range_reader import RangeEndError
from tasks.verification.dead_letters import DeadLetterCheck
from tasks.verification.fetched import Fetched, FetchedReader, UnprovenError, require
from tasks.verification.forms import OutputForm
from tasks.verification.key_columns import KeyEncoder
from tasks.verification.keys import RecordKeys
from tasks.verification.marks import Marker, NewestMarks, PlainMarks, RankedMarks, SourceMarks, without_tombstones
from tasks.verification.output_marks import OutputMarks
from tasks.verification.places import TopicPlace
from tasks.verification.plan import RunPlan
from tasks.verification.report import Findings
from tasks.verification.source import SourceRange
from tasks.verification.terms import SortKey
from tasks.verification.tools import Tools

T = TypeVar("T")
# Makes the encoder of rows, from the sorts that are wanted and all sorts of the job.
MakeRowKeys = Callable[[Sequence[SortKey], Sequence[SortKey]], RecordKeys]


class QuickPass:
    """The quick pass over one run, whose keys can be judged. `keys`: the columns of its sorts.

    `folder`: for 16 bytes a record and sort; `tools`: of its own, since what is noted there is not reported.
    """

    def __init__(
        self,
        plan: RunPlan,
        tools: Tools,
        reader: FetchedReader,
        keys: Sequence[SortKey],
        make_row_keys: MakeRowKeys,
        folder: Path,
    ) -> None:
        self.records = 0
        # The outputs whose sums are not those of the source.
        self.unlike: frozenset[int] = frozenset()
        self._plan = plan
        self._record = plan.record
        self._tools = tools
        self._reader = reader
        self._keys = keys
        self._make_row_keys = make_row_keys
        self._folder = folder
        self._marker = Marker()
        self._forms = [OutputForm.of(self._record, s, key) for s, key in zip(self._record.sorts, keys, strict=True)]

    def prove(self, dead: DeadLetterCheck) -> frozenset[int]:
        """Return the numbers of the outputs in which nothing differs. 1. Marks of outputs. 2. Marks of the source.

        None if not all is well with the source. `dead` gets its records that cannot be sorted.
        """
        findings = Findings(self._record.run, self._record.source_topic)
        source = SourceRange(self._tools, self._plan, findings, by_sums=True)
        known = [i for i, form in enumerate(self._forms) if _is_simple(form, self._keys[i])]
        if not known or self._plan.contradictions or not source.find():
            return frozenset()
        # Step 1.
        outputs = {i: marks for i in known if (marks := _attempt(partial(self._read_output, i))) is not None}
        # Step 2.
        sums = _attempt(partial(self._read_source, source, outputs, dead)) if outputs else None
        if sums is None:
            return frozenset()
        shown = frozenset(i for i, marks in outputs.items() if sums[i] == marks.sum)
        self.unlike = frozenset(outputs) - shown
        return shown

    def _read_source(
        self, source: SourceRange, outputs: Mapping[int, OutputMarks], dead: DeadLetterCheck
    ) -> dict[int, int]:
        """Return for each output the sum of the source's marks. Without equal keys all ranks are 0."""
        record = self._record
        with ExitStack() as stack:
            marks = {i: self._make_marks(stack, output) for i, output in outputs.items()}
            sorts = [self._keys[i] for i in outputs]
            # Record keys that are sort keys are printed from what single rows give.
            by_rows = any(self._forms[i].output_key == "sort" for i in outputs)
            encoder = self._make_encoder(sorts, self._keys, by_rows=by_rows)
            for r in source.ranges:
                for fetched in self._reader.read(record.source_topic, r.partition, r.start, r.end):
                    self.records += len(fetched)
                    self._tools.count(len(fetched))
                    self._add_source(fetched, encoder, marks, dead)
            require(self.records == record.records and dead.rejected.rows == record.dead_letters)
            return {i: source_marks.sum() for i, source_marks in marks.items()}

    def _make_marks(self, stack: ExitStack, output: OutputMarks) -> SourceMarks:
        records = self._record.records
        if self._plan.newest:
            return stack.enter_context(NewestMarks(self._folder, self._marker, records))
        if output.has_ties:
            return stack.enter_context(RankedMarks(self._folder, self._marker, records))
        return PlainMarks(self._marker)

    def _make_encoder(
        self, sorts: Sequence[SortKey], all_sorts: Sequence[SortKey], *, by_rows: bool = False
    ) -> KeyEncoder:
        rows = self._make_row_keys(sorts, all_sorts)
        return KeyEncoder(rows, self._record.format, sorts, all_sorts, by_rows=by_rows)

    def _add_source(
        self,
        fetched: Fetched,
        encoder: KeyEncoder,
        marks: Mapping[int, SourceMarks],
        dead: DeadLetterCheck,
    ) -> None:
        encoded = encoder.encode(fetched)
        block = dead.take_rejected(fetched.listed, encoded.rejected)
        for (i, source), keys in zip(marks.items(), encoded.keys, strict=True):
            form = self._forms[i]
            expected = form.expect(block, encoded.encoded)
            partitions = form.belong(expected)
            found = form.mark(self._marker, expected, partitions)
            if self._plan.newest:
                # The newest record of a key may be in any partition.
                partitions = None
                found = found if self._plan.keeps_tombstones else without_tombstones(found, expected.values)
            source.add(keys, partitions, found)

    def _read_output(self, number: int) -> OutputMarks:
        """Return the marks of an output, which is in order. 1. Its place and counts. 2. Its records."""
        # Step 1.
        record, plan = self._record, self._plan.outputs[number]
        placed = sum(p.count for p in plan.partitions) + plan.sort.superseded
        require(placed == record.records - record.dead_letters)
        findings = Findings(record.run, plan.sort.topic)
        ranges, whole = TopicPlace(self._tools, plan, findings).bound()
        require(whole and not findings.differences and ranges.keys() == {p.partition for p in plan.partitions})
        # Step 2.
        # Whether all sorts can place its records is judged in the source: if the sums agree, it has no others.
        sorts = [self._keys[number]]
        encoder, topic = self._make_encoder(sorts, sorts), plan.sort.topic
        output = OutputMarks(self._tools, self._reader, topic, self._forms[number], encoder, self._marker)
        for partition in plan.partitions:
            output.read(partition, *ranges[partition.partition])
        require(not (self._plan.newest and output.has_ties))
        return output


def _is_simple(form: OutputForm, key: SortKey) -> bool:
    """Whether the quick pass can judge an output: not records that lack a column of the sort, and not files."""
    return form.carried(key) == key and not form.in_files


def _attempt(work: Callable[[], T]) -> T | None:
    try:
        return work()
    except (UnprovenError, RangeEndError):
        return None
