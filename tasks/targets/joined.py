"""Outputs of several kinds as one target: each sort goes to its own."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tasks.kafka.topics import Topic
from tasks.kafka.transaction import TransactionalProducer
from tasks.manifests import Snapshot, SortedRows
from tasks.run_record import WrittenSort
from tasks.targets.base import Columns, Sent, Target, Writing


@dataclass(frozen=True)
class JoinedTargets:
    """The targets of a job's sorts, at least one."""

    parts: tuple[Target, ...]

    @property
    def sorts(self) -> frozenset[str]:
        """The names of all sorts."""
        return frozenset[str]().union(*(part.sorts for part in self.parts))

    @property
    def staged(self) -> frozenset[str]:
        """The names of the sorts that are written before the transaction."""
        return frozenset[str]().union(*(part.staged for part in self.parts))

    @property
    def topics(self) -> Mapping[str, Topic]:
        """The topics of all parts."""
        return {name: topic for part in self.parts for name, topic in part.topics.items()}

    def partitions(self, sort: str) -> int:
        """Return the number of partitions of a sort's output."""
        return next(part.partitions(sort) for part in self.parts if sort in part.sorts)

    def takes(self, snapshot: Snapshot) -> bool:
        """Whether all parts take it."""
        return all(part.takes(snapshot) for part in self.parts)

    def check(self) -> None:
        """Check all parts."""
        for part in self.parts:
            part.check()

    @contextmanager
    def stage(self, attempt: str, run: int, sorts: Sequence[SortedRows]) -> Iterator[Writing]:
        """Stage in all parts."""
        with ExitStack() as stack:
            writings = [stack.enter_context(part.stage(attempt, run, sorts)) for part in self.parts]
            yield self._join(writings)

    def begin(self, producer: TransactionalProducer) -> Writing:
        """Begin in all parts."""
        return self._join([part.begin(producer) for part in self.parts])

    def _join(self, writings: Sequence[Writing]) -> Writing:
        return _JoinedWriting(self.parts, tuple(writings))


@dataclass(frozen=True)
class _JoinedWriting:
    parts: tuple[Target, ...]
    writings: tuple[Writing, ...]

    def write(self, sort: str, partition: int, columns: Columns) -> None:
        """Write to the part that has the sort."""
        next(w for part, w in zip(self.parts, self.writings, strict=True) if sort in part.sorts).write(
            sort, partition, columns
        )

    def finish(self, sent: list[Sent]) -> tuple[WrittenSort, ...]:
        """Finish all parts; return what was written in the order of `sent`."""
        pairs = zip(self.parts, self.writings, strict=True)
        written = [w for part, writing in pairs for w in writing.finish([s for s in sent if s.rows.sort in part.sorts])]
        by_name = {sort.topic: sort for sort in written}
        return tuple(by_name[done.rows.sort] for done in sent)
