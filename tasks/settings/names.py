"""The names on the cluster that derive from a job's name (DESIGN 3). With other names it would be another job."""

from dataclasses import dataclass
from typing import Self

from tasks.settings.sorts import LONGEST_TOPIC

_PREFIX = "kafka-sort."
_LEDGER = ".ledger"


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


# The ledger of a job with a longer name would have no valid topic name.
LONGEST_JOB_NAME = LONGEST_TOPIC - len(JobNames("").ledger)
# The pattern of all ledgers' names, for a person.
ANY_LEDGER = JobNames("*").ledger
