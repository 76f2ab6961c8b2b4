"""The quick pass of a verification: shows that nothing differs, by sums of marks, in one pass over each topic.

It says nothing of what differs. What it cannot show is left to the thorough pass, which names the records; so whatever
is out of the ordinary ends it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tasks.kafka.range_reader import RangeEndError
from tasks.verification.content import digest_all
from tasks.verification.dead_letters import DeadLetterCheck
from tasks.verification.fetched import Fetched, FetchedReader, UnprovenError, require
from tasks.verification.forms import OutputForm, lead_digests
from tasks.verification.key_columns import KeyEncoder
from tasks.verification.keys import RecordKeys
from tasks.verification.marks import Marker, SourceMarks
from tasks.verification.output_marks import OutputMarks
from tasks.verification.places import TopicPlace
from tasks.verification.plan import RunPlan
from tasks.verification.report import Findings
from tasks.verification.source import SourceRange
from tasks.verification.terms import SortKey
from tasks.verification.tools import Tools

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
        """Return the numbers of the outputs in which nothing differs; none if not all is well with the source.

        `dead` gets the source's records that cannot be sorted.
        """
        with ExitStack() as stack:
            marks = {
                i: stack.enter_context(SourceMarks(self._folder, self._marker, self._record.records))
                for i, form in enumerate(self._forms)
                # Records that lack a column of the sort, and files, are left to the thorough pass.
                if form.carried(self._keys[i]) == self._keys[i] and not form.in_files
            }
            if not marks or not _is_shown(partial(self._read_source, marks, dead)):
                return frozenset()
            return frozenset(i for i, source in marks.items() if _is_shown(partial(self._check_output, i, source)))

    def _read_source(self, marks: Mapping[int, SourceMarks], dead: DeadLetterCheck) -> None:
        """Read the marks of the source's records."""
        record = self._record
        source = SourceRange(self._tools, record, Findings(record.run, record.source_topic))
        require(source.find())
        sorts, by_rows = [self._keys[i] for i in marks], any(form.output_key == "sort" for form in self._forms)
        rows = self._make_row_keys(sorts, self._keys)
        encoder = KeyEncoder(rows, record.format, sorts, self._keys, by_rows=by_rows)
        for r in source.ranges:
            for fetched in self._reader.read(record.source_topic, r.partition, r.start, r.end):
                self.records += len(fetched)
                self._tools.count(len(fetched))
                self._add_source(fetched, encoder, marks, dead)
        require(self.records == record.records and dead.rejected.rows == record.dead_letters)

    def _add_source(
        self, fetched: Fetched, encoder: KeyEncoder, marks: Mapping[int, SourceMarks], dead: DeadLetterCheck
    ) -> None:
        encoded = encoder.encode(fetched)
        block = dead.take_rejected(fetched.listed, encoded.rejected)
        for (i, source), keys in zip(marks.items(), encoded.keys, strict=True):
            form = self._forms[i]
            expected = form.expect(block, encoded.encoded)
            partitions = form.belong(expected)
            digests = lead_digests(digest_all(keys.to_pylist()), partitions)
            source.add(digests, form.mark(self._marker, expected, partitions))

    def _check_output(self, number: int, source: SourceMarks) -> None:
        """Check one output against the marks of the source. 1. Its place and counts. 2. Its records. 3. All of them."""
        # Step 1.
        record, plan, form = self._record, self._plan.outputs[number], self._forms[number]
        require(sum(p.count for p in plan.partitions) == record.records - record.dead_letters)
        findings = Findings(record.run, plan.sort.topic)
        ranges, whole = TopicPlace(self._tools, plan, findings).bound()
        require(whole and not findings.differences and ranges.keys() == {p.partition for p in plan.partitions})
        # Step 2.
        # Whether all sorts can place its records is judged in the source: if the sums agree, it has no others.
        sorts = [self._keys[number]]
        encoder = KeyEncoder(self._make_row_keys(sorts, sorts), record.format, sorts, sorts)
        output = OutputMarks(self._tools, self._reader, plan.sort.topic, form, encoder, self._marker)
        for partition in plan.partitions:
            output.read(partition, *ranges[partition.partition])
        # Step 3.
        require(output.sum == (source.sum() if output.has_ties else source.unranked_sum()))


def _is_shown(check: Callable[[], None]) -> bool:
    try:
        check()
    except (UnprovenError, RangeEndError):
        return False
    return True
