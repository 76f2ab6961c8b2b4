"""The process of the run as its own and only publisher."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from tasks.kafka.transaction import TransactionalProducer
from tasks.ownership import Owner
from tasks.publication import Publication
from tasks.publishers.base import Crew, Publishers
from tasks.publishers.rows import write_sorts
from tasks.targets.base import Sent, Writing


@dataclass(frozen=True)
class _OnePublisher:
    owner: Owner
    publication: Publication

    def fence(self) -> TransactionalProducer:
        """Return the producer of the last fence, or fence again if that one is spent."""
        return self.owner.healthy_producer()

    def write(self, producer: TransactionalProducer, writing: Writing) -> list[Sent]:
        """Write the rows of one sort after the other."""
        del producer
        target = self.publication.target
        return write_sorts(self.owner.job, writing, self.publication, target.sorts - target.staged)

    def give_up(self, producer: TransactionalProducer) -> None:
        """Abort: whatever the error was, this instance begins nothing again, and nobody else has its epoch."""
        producer.abort()

    def note_committed(self, producer: TransactionalProducer) -> None:
        """Keep the producer: it serves run after run."""


class _Alone:
    """The publishers of a run that has none besides its own process."""

    @contextmanager
    def gather(self, owner: Owner, publication: Publication) -> Iterator[Crew]:
        yield _OnePublisher(owner, publication)


ALONE: Final[Publishers] = _Alone()
