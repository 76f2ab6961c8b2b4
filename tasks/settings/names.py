"""The names on the cluster that derive from a job's name (DESIGN 3). With other names it would be another job."""

from dataclasses import dataclass
from typing import Self

from tasks.settings.sorts import LONGEST_TOPIC, check_topic_name

_PREFIX = "kafka-sort."
_LEDGER = ".ledger"
_OF_KAFKA = {
    "__consumer_offsets",
    "__transaction_state",
    "__share_group_state",
    "__cluster_metadata",
    "__remote_log_metadata",
}


@dataclass(frozen=True)
class JobNames:
    """The groups and topics of the job called `job`."""

    job: str

    @property
    def group(self) -> str:
        """The consumer group of the courtesy offsets; also the transactional id."""
        return f"{_PREFIX}{self.job}"

    @property
    def owner_group(self) -> str:
        """The consumer group that is the lease."""
        return f"{self.group}.owner"

    @property
    def ledger(self) -> str:
        """The topic of the run records."""
        return f"{self.group}{_LEDGER}"

    @property
    def index(self) -> str:
        """The topic of the sparse indexes of runs."""
        return f"{self.group}.index"

    @classmethod
    def of_ledger(cls, topic: str) -> Self | None:
        """Return the names of the job with the ledger `topic`; None for any other topic."""
        is_ledger = topic.startswith(_PREFIX) and topic.endswith(_LEDGER)
        job = topic[len(_PREFIX) : -len(_LEDGER)] if is_ledger else ""
        return cls(job) if job else None


def check_written_topic(name: str, what: str) -> None:
    """Apply the rules for topics that are written to: none of Kafka's own, and no ledger. ValueError names the rule."""
    check_topic_name(name, what)
    if name in _OF_KAFKA:
        raise ValueError(f"{what} {name!r} has the name of a topic of Kafka's own")
    if names := JobNames.of_ledger(name):
        raise ValueError(f"{what} {name!r} has the name of the ledger of job {names.job}")


# The ledger of a job with a longer name would have no valid topic name.
LONGEST_JOB_NAME = LONGEST_TOPIC - len(JobNames("").ledger)
# The pattern of all ledgers' names, for a person.
ANY_LEDGER = JobNames("*").ledger
