"""The source range of a run: whether all that the run read is still there, and as many records as the ledger says."""

from tasks.kafka.topics import EARLIEST, LATEST, describe_topic, list_offsets, topic_settings
from tasks.run_record import ReadRange
from tasks.verification.plan import RunPlan
from tasks.verification.report import Findings
from tasks.verification.tools import Tools


class SourceRange:
    """The offsets of the source that a run read, or the runs of a merge. It notes what differs, and what is gone.

    `by_sums`: whether only sums are compared, which also tell of the newest record of each key.
    """

    def __init__(self, tools: Tools, plan: RunPlan, findings: Findings, *, by_sums: bool = False) -> None:
        self._tools = tools
        self._plan = plan
        self._record = plan.record
        self._findings = findings
        self._by_sums = by_sums

    def find(self) -> bool:
        """Return whether the source still has the offsets that the run read."""
        name = self._record.source_topic
        if self._plan.unread and not (self._by_sums and self._plan.newest):
            self._tools.unverifiable.append(
                f"{name}: {self._plan.unread}; only order and counts of outputs were checked"
            )
            return False
        topic = describe_topic(self._tools.admin, name)
        if topic is None or topic.id != self._record.source_topic_id:
            what = "does not exist any more" if topic is None else "was deleted and recreated since the run"
            self._tools.unverifiable.append(f"{name}: the topic {what}; only order and counts of outputs were checked")
            return False
        return self._find_ranges()

    def _find_ranges(self) -> bool:
        name, partitions = self._record.source_topic, [r.partition for r in self._record.read]
        lows = list_offsets(self._tools.admin, name, partitions, EARLIEST)
        ends = list_offsets(self._tools.admin, name, partitions, LATEST)
        gone = []
        for r in self._record.read:
            start, low, end = self._start(r), lows[r.partition], ends[r.partition]
            gone += [(r.partition, start, min(low, r.end))] if start < min(low, r.end) else []
            gone += [(r.partition, max(end, start), r.end)] if max(end, start) < r.end else []
        for partition, start, stop in gone:
            self._tools.unverifiable.append(f"{name}: partition {partition} offsets {start} to {stop - 1} are gone")
        return not gone

    @property
    def ranges(self) -> list[ReadRange]:
        """The offsets that existed when they were read, in the order of arrival."""
        return [ReadRange(r.partition, self._start(r), r.end) for r in self._plan.reads]

    def _start(self, r: ReadRange) -> int:
        """Return the first offset of the range that existed when the run read it."""
        start = r.start
        for lost in sorted(self._record.lost, key=lambda lost: lost.start):
            if lost.partition == r.partition and lost.start <= start < lost.end:
                start = min(lost.end, r.end)
        return start

    def count(self, records: int) -> bool:
        """Compare with the ledger's count; fewer records in a compacted topic cannot be judged."""
        expected, name = self._record.records, self._record.source_topic
        if records == expected:
            return True
        compacted = "compact" in topic_settings(self._tools.admin, name).get("cleanup.policy", "")
        if compacted and records < expected:
            self._tools.unverifiable.append(f"{name}: compaction has removed {expected - records} of the records")
            return False
        self._findings.add_general(f"the source range has {records} records, the ledger says {expected}")
        return True
