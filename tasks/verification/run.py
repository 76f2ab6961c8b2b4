"""Verifies one run: reads its source range once, then compares each output and the dead letters with it.

Guarantee: it shares no sorting, parsing or checksum code with the sorter; one pass over each topic; bounded memory.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from confluent_kafka.admin import AdminClient

from tasks.errors import TransientError
from tasks.verification.dead_letters import DeadLetterCheck
from tasks.verification.fetched import FetchedReader
from tasks.verification.files import FolderPlace
from tasks.verification.formats.schemas import NO_SCHEMAS, NoSchemaError, Schemas
from tasks.verification.forms import OutputForm, lead_keys
from tasks.verification.keys import ColumnKeys, RecordKeys
from tasks.verification.outputs import Judge, OutputCheck
from tasks.verification.places import OutputPlace, TopicPlace
from tasks.verification.plan import OutputPlan, RunPlan
from tasks.verification.proof import QuickPass
from tasks.verification.reading import Block, TopicReader, paused_collection
from tasks.verification.report import Findings, Place, RunVerification, collect
from tasks.verification.source import SourceRange
from tasks.verification.spill import FLUSH_ROWS, Spill, count_buckets
from tasks.verification.terms import OLDEST_RULES, RULES, SortKey, carried, is_carried, read_sort
from tasks.verification.tools import Tools

# What is said of a run whose keys cannot be judged.
_CHECKED = (
    "counts and contents were checked; the order of the outputs was not, nor which records had to be dead letters"
)


class RunCheck:
    """The check of one run. `folder`: for spills of about 40 bytes a record and sort; `schemas`: where schemas are."""

    def __init__(
        self,
        plan: RunPlan,
        admin: AdminClient,
        reader: TopicReader,
        fetched_reader: FetchedReader,
        patience: float,
        folder: Path,
        schemas: Schemas = NO_SCHEMAS,
    ) -> None:
        self._plan = plan
        self._record = plan.record
        self._folder = folder
        self._schemas = schemas
        self._tools = Tools(admin, reader, patience)
        self._fetched_reader = fetched_reader
        self._facts = plan.record.format
        self._keys: list[SortKey] = []
        self._unjudged = self._read_facts()
        self._spills: dict[int, Spill] = {}
        self._records = 0
        self._findings = {
            name: Findings(plan.record.run, name)
            for name in (plan.record.source_topic, *(s.topic for s in plan.record.sorts), plan.record.dead_letter_topic)
        }

    def verify(self) -> RunVerification:
        """Verify the run. 1. The quick pass. 2. The thorough pass, of what is not shown yet. 3. Dead letters.

        Order, and which records must be dead letters, are judged by this version's parse rules, so only for runs with
        the same rules, and of a format that it knows; for others, counts and contents are compared.
        """
        started, record = time.monotonic(), self._record
        with ExitStack() as stack, paused_collection():
            # Step 1.
            dead = stack.enter_context(self._make_dead_letters())
            shown = self._prove(dead) if self._judged else frozenset[int]()
            left = [index for index in range(len(record.sorts)) if index not in shown]
            # Step 2.
            whole = True
            if left:
                dead = stack.enter_context(self._make_dead_letters())
                whole = self._check_thoroughly(left, dead, stack)
            # Step 3.
            if whole:
                dead.check()
        differences, hidden = collect(self._findings.values())
        return RunVerification(
            run=record.run,
            records=self._records,
            dead_letters=dead.rejected.rows,
            outputs=tuple(sort.topic for sort in record.sorts),
            differences=differences,
            hidden=hidden,
            unverifiable=tuple(self._tools.unverifiable),
            seconds=round(time.monotonic() - started, 3),
        )

    def _make_dead_letters(self) -> DeadLetterCheck:
        findings = self._findings[self._record.dead_letter_topic]
        has_older = self._plan.has_older_letters
        return DeadLetterCheck(self._tools, self._record, self._folder, findings, has_older_letters=has_older)

    def _prove(self, dead: DeadLetterCheck) -> frozenset[int]:
        """Return the numbers of the outputs in which nothing differs, as far as the quick pass shows it."""
        tools = Tools(self._tools.admin, self._tools.reader, self._tools.patience)
        quick = QuickPass(self._plan, tools, self._fetched_reader, self._keys, self._make_row_keys, self._folder)
        shown = quick.prove(dead)
        self._records = quick.records
        for index in quick.unlike if self._plan.newest else ():
            # The thorough pass compares record by record, so it cannot tell which ones.
            self._findings[self._record.sorts[index].topic].add_general(
                "its records are not the newest of each key of the source"
            )
        return shown

    def _check_thoroughly(self, left: Sequence[int], dead: DeadLetterCheck, stack: ExitStack) -> bool:
        """Compare outputs with the source. 1. Source range. 2. Each output. Return whether the source is whole."""
        self._records = 0
        if self._judged:
            self._tools.expect(self._record.records * (1 + len(left)))
        self._spills = {index: stack.enter_context(self._make_spill()) for index in left}
        for topic, what in self._plan.contradictions:
            self._findings[topic].add_general(what)
        # Step 1.
        if not self._judged:
            self._tools.unverifiable.append(self._unjudged)
            dead.load_origins()
        whole = self._read_source(dead) and (self._judged or dead.are_all_named())
        # Step 2.
        for index in left:
            self._check_output(index, whole)
        return whole

    @property
    def _judged(self) -> bool:
        return not self._unjudged

    def _read_facts(self) -> str:
        """Read the keys of the sorts; return why keys cannot be judged, if so."""
        rules = self._facts.get("rules", OLDEST_RULES)
        why = f"the run parsed values by rules {rules}, this version has rules {RULES}" if rules != RULES else ""
        try:
            if not why:
                self._keys = [read_sort(sort.columns, self._facts) for sort in self._record.sorts]
                self._encoder(*self._keys)
        except NoSchemaError as error:
            why = str(error)
        except ValueError as error:
            why = f"this version cannot read the keys of the run: {error}"
        return f"{why}: {_CHECKED}" if why else ""

    def _make_spill(self) -> Spill:
        flush_rows = max(1, FLUSH_ROWS // len(self._record.sorts))
        return Spill(self._folder, count_buckets(self._record.records), flush_rows)

    def _encoder(self, *sorts: SortKey) -> RecordKeys:
        return self._make_row_keys(sorts, self._keys)

    def _make_row_keys(self, sorts: Sequence[SortKey], all_sorts: Sequence[SortKey]) -> RecordKeys:
        return RecordKeys(self._facts, sorts, all_sorts, self._schemas)

    def _form(self, index: int) -> OutputForm:
        sort = self._keys[index] if self._judged else None
        return OutputForm.of(self._record, self._record.sorts[index], sort)

    def _read_source(self, dead: DeadLetterCheck) -> bool:
        """Fill the spills; return whether all that the run read is still there, so that contents can be compared."""
        record = self._record
        source = SourceRange(self._tools, self._plan, self._findings[record.source_topic])
        if not source.find():
            return False
        encoder = self._encoder(*(self._keys[index] for index in self._spills)) if self._judged else None
        for r in source.ranges:
            for block in self._tools.reader.read(record.source_topic, r.partition, r.start, r.end):
                self._add_source(block, encoder, dead)
        return source.count(self._records)

    def _add_source(self, block: Block, encoder: RecordKeys | None, dead: DeadLetterCheck) -> None:
        self._records += len(block)
        self._tools.count(len(block))
        if encoder is None:
            return self._add_unjudged(block, dead)
        encoded = encoder.encode(block)
        block = dead.take_rejected(block, encoded.rejected)
        for (index, spill), keys in zip(self._spills.items(), encoded.keys, strict=True):
            form = self._form(index)
            expected = form.expect(block, encoded)
            whole = form.carried(self._keys[index]) == self._keys[index]
            spill.add(form.make_rows(expected, keys if whole else None, form.belong(expected)))
        return None

    def _add_unjudged(self, block: Block, dead: DeadLetterCheck) -> None:
        block = dead.take_rejected(block, dead.find_named(block))
        for index, spill in self._spills.items():
            form = self._form(index)
            expected = form.expect(block, None)
            spill.add(form.make_rows(expected, None, form.belong(expected)))

    def _check_output(self, index: int, whole: bool) -> None:  # noqa: FBT001  # private, named at the call
        plan, source = self._plan.outputs[index], self._spills[index]
        judge = self._judge(index) if self._judged else None
        form, findings = self._form(index), self._findings[plan.sort.topic]
        if form.has_unknown_keys:
            self._tools.unverifiable.append(f"{plan.sort.topic}: its record keys, which are made of its sort keys")
        place = self._place(index, plan, findings)
        check = OutputCheck(self._tools, self._record, plan, place, form, judge, findings)
        with self._make_spill() as spill:
            check.check(source if whole else None, spill, lambda place: self._find_key(index, place))

    def _place(self, index: int, plan: OutputPlan, findings: Findings) -> OutputPlace:
        if not plan.sort.has_folder:
            return TopicPlace(self._tools, plan, findings)
        return FolderPlace(self._tools, plan, self._keys[index] if self._judged else (), findings)

    def _judge(self, index: int) -> Judge:
        """Return the judge of an output; note what its records do not tell of its order."""
        sort, topic = self._keys[index], self._record.sorts[index].topic
        if self._plan.outputs[index].sort.has_folder:
            return Judge(ColumnKeys(sort), is_whole=True)
        known = carried(sort, self._record.output_key)
        if len(known) < len(sort):
            lost = ", ".join(key.name for key in sort[len(known) :])
            what = f"its order by {lost}, which its records do not have; their contents were compared"
            self._tools.unverifiable.append(f"{topic}: {what}")
        # A record of the output is judged without the fields that it has of its own.
        others = [[key for key in other if is_carried(key.column, self._record.output_key)] for other in self._keys]
        encoder = self._make_row_keys([known], [tuple(other) for other in others])
        return Judge(encoder, is_whole=len(known) == len(sort))

    def _find_key(self, index: int, place: Place) -> bytes:
        """Return the encoded key of a source record, behind the partition where it matters."""
        encoder, form = self._encoder(self._keys[index]), self._form(index)
        topic, offset = self._record.source_topic, place.offset
        for block in self._tools.reader.read(topic, place.partition, offset, offset + 1):
            encoded = encoder.encode(block)
            return lead_keys(encoded.keys[0], form.belong(form.expect(block, encoded)))[0]
        raise TransientError(f"{topic}/{place.partition} offset {offset} was removed during verification")
