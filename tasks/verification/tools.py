"""The tools that the checks of a run share."""

from dataclasses import dataclass, field

from confluent_kafka.admin import AdminClient

from tasks.run_context import current_run
from tasks.verification.reading import TopicReader


@dataclass
class Tools:
    """The tools of every check of a run. `unverifiable`: what cannot be verified, as they find it."""

    admin: AdminClient
    reader: TopicReader
    patience: float
    unverifiable: list[str] = field(default_factory=list)

    def count(self, records: int) -> None:
        """Progress."""
        current_run().progress.meter("verify").add(records)

    def expect(self, records: int) -> None:
        """Expect so many records more."""
        current_run().progress.meter("verify").total += records
