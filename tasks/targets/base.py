"""The interface between a run and its outputs, of whatever kind they are."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

import pyarrow as pa

from tasks.errors import TerminalError
from tasks.kafka.topics import Topic
from tasks.kafka.transaction import TransactionalProducer
from tasks.manifests import Snapshot, SortedRows
from tasks.run_record import WrittenSort

# The columns of a record: value, and key, headers and timestamp if any record has them.
Columns = Mapping[str, pa.Array]


class OutputChangedError(TerminalError):
    """An output was replaced, changed its partitions, or has another writer."""

    action = "Stop the other program that writes to the outputs or deletes them; then start again."
    at_risk = "Perhaps: what others wrote to or removed from the outputs. This run has published nothing."


@dataclass(frozen=True)
class Sent:
    """A sort whose rows were all written. `columns`: its keys as the job names them. `checksum`: of these records."""

    rows: SortedRows
    columns: str
    checksum: int


class Writing(Protocol):
    """The outputs while one attempt of a run writes to them."""

    def write(self, sort: str, partition: int, columns: Columns) -> None:
        """Append records to a partition of a sort's output, in order."""

    def finish(self, sent: list[Sent]) -> tuple[WrittenSort, ...]:
        """Return what was written, once the producer is flushed; OutputChangedError unless that was sent.

        `delete_before` is set to where each partition of a topic ended before.
        """


class _NoWriting:
    """The writing of no sort."""

    def write(self, sort: str, partition: int, columns: Columns) -> None:
        del partition, columns
        raise KeyError(sort)

    def finish(self, sent: list[Sent]) -> tuple[WrittenSort, ...]:
        del sent
        return ()


NO_WRITING: Final[Writing] = _NoWriting()


class Target(Protocol):
    """The outputs of a run, as they were when it began.

    Each sort is written within the run's transaction, or staged: written before the transaction, where no reader looks.
    """

    @property
    def sorts(self) -> frozenset[str]:
        """The names of the sorts whose outputs these are."""

    @property
    def staged(self) -> frozenset[str]:
        """The names of those that are staged."""

    @property
    def topics(self) -> Mapping[str, Topic]:
        """The topics of the sorts that are not staged, by name, as they must be when the run publishes."""

    def partitions(self, sort: str) -> int:
        """Return the number of partitions of a sort's output."""

    def takes(self, snapshot: Snapshot) -> bool:
        """Whether there is a partition for all that the snapshot reads."""

    def check(self) -> None:
        """Raise OutputChangedError unless the outputs are still those of the run's beginning."""

    def stage(self, attempt: str, run: int, sorts: Sequence[SortedRows]) -> AbstractContextManager[Writing]:
        """Stage an attempt of a run; the end of the block without `finish` removes what was written.

        `sorts`: all of the run.
        """

    def begin(self, producer: TransactionalProducer) -> Writing:
        """Prepare for writing, right before the transaction begins."""
