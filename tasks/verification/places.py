"""The places where the records of an output are read: partitions of a topic, or files of a folder."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from tasks.kafka.topics import EARLIEST, LATEST, Topic, describe_topic, list_offsets
from tasks.verification.plan import OutputPlan, PartitionPlan
from tasks.verification.reading import Block, await_stable
from tasks.verification.report import Findings
from tasks.verification.tools import Tools


class OutputPlace(Protocol):
    """The place of one run's records in an output. What is wrong with it goes to the findings."""

    def bound(self) -> tuple[Mapping[int, tuple[int, int]], bool]:
        """Return the offsets [start, end) that can be read, by partition; and whether all of the run's are there."""

    def read(self, partition: int, start: int, end: int) -> Iterator[Block]:
        """Yield the records with offsets in [start, end)."""


class TopicPlace:
    """A topic. Retention may have removed records, which then cannot be verified."""

    def __init__(self, tools: Tools, plan: OutputPlan, findings: Findings) -> None:
        self._tools = tools
        self._plan = plan
        self._name = plan.sort.topic
        self._findings = findings

    def bound(self) -> tuple[Mapping[int, tuple[int, int]], bool]:
        """Return the offsets that can be read, and whether retention has left all of the run's."""
        topic = self._find()
        return self._bound(topic) if topic is not None else ({}, False)

    def read(self, partition: int, start: int, end: int) -> Iterator[Block]:
        """Yield committed records."""
        return self._tools.reader.read(self._name, partition, start, end)

    def _find(self) -> Topic | None:
        topic = describe_topic(self._tools.admin, self._name)
        if topic is None:
            self._findings.add_general("the topic does not exist any more")
        elif topic.id != self._plan.sort.topic_id:
            self._findings.add_general("the topic was deleted and recreated since the run: its id differs")
        return topic

    def _bound(self, topic: Topic) -> tuple[Mapping[int, tuple[int, int]], bool]:
        known = [plan for plan in self._plan.partitions if plan.partition in topic.partitions]
        for plan in self._plan.partitions:
            if plan not in known:
                self._findings.add_general("the partition does not exist", plan.partition)
        numbers = [plan.partition for plan in known]
        highs = list_offsets(self._tools.admin, self._name, numbers, LATEST, committed=False)
        stops = {plan.partition: min(plan.stop, highs[plan.partition]) for plan in known}
        await_stable(self._tools.admin, self._name, stops, self._tools.patience)
        lows = list_offsets(self._tools.admin, self._name, numbers, EARLIEST)
        left = [self._is_left(plan, lows[plan.partition], highs[plan.partition]) for plan in known]
        ranges = {p.partition: (max(p.begin, lows[p.partition]), min(p.end, highs[p.partition])) for p in known}
        return ranges, all(left)

    def _is_left(self, plan: PartitionPlan, low: int, high: int) -> bool:
        if high < plan.stop:
            what = f"the partition ends before offset {plan.stop - 1}, the run's last"
            self._findings.add_general(what, plan.partition, high)
        if gone := min(low, plan.stop) > plan.first:
            offsets = f"offsets {plan.first} to {min(low, plan.stop) - 1}"
            self._tools.unverifiable.append(f"{self._name}: partition {plan.partition} {offsets} are gone")
        return not gone
