"""The door between the publish of a run and whoever sends its rows."""

from contextlib import AbstractContextManager
from typing import Protocol

from tasks.kafka.transaction import TransactionalProducer
from tasks.ownership import Owner
from tasks.publication import Publication
from tasks.targets.base import Sent, Writing


class Crew(Protocol):
    """The publishers of one attempt."""

    def fence(self) -> TransactionalProducer:
        """Return the producer of the newest holder of the job's transactional id, whose ledger was read after that."""

    def write(self, producer: TransactionalProducer, writing: Writing) -> list[Sent]:
        """Send the rows of all sorts that are not staged, in the transaction that `producer` has begun.

        ContentError if they are not the rows that were read.
        """

    def give_up(self, producer: TransactionalProducer) -> None:
        """End the attempt after an error, for the readers that wait behind its transaction. It never raises."""

    def note_committed(self, producer: TransactionalProducer) -> None:
        """Note that the producer's transaction is committed."""


class Publishers(Protocol):
    """The interface that gathers publishers for an attempt to publish."""

    def gather(self, owner: Owner, publication: Publication) -> AbstractContextManager[Crew]:
        """Gather them for the time of the block."""
