"""The names on the cluster that derive from a job's name (DESIGN 3). Other names would be another job's."""

from dataclasses import dataclass
from typing import Self

from tasks.settings.sorts import LONGEST_TOPIC

_PREFIX = "kafka-sort."
_LEDGER = ".ledger"


@dataclass(frozen=True)
class JobNames:
    """Groups and topics of the job called `job`."""

    job: str

    @property
    def group(self) -> str:
        """Consumer group of the courtesy offsets; also the transactional id."""
        return f"{_PREFIX}{self.job}"

    @property
    def owner_group(self) -> str:
        """Consumer group that is the lease."""
        return f"{self.group}.owner"

    @property
    def ledger(self) -> str:
        """Topic of the run records."""
        return f"{self.group}{_LEDGER}"

    @classmethod
    def of_ledger(cls, topic: str) -> Self | None:
        """The names of the job whose ledger `topic` is; None for any other topic."""
        is_ledger = topic.startswith(_PREFIX) and topic.endswith(_LEDGER)
        job = topic[len(_PREFIX) : -len(_LEDGER)] if is_ledger else ""
        return cls(job) if job else None


# A longer one has a ledger that no topic can be.
LONGEST_JOB_NAME = LONGEST_TOPIC - len(JobNames("").ledger)
# Every ledger's name, for a person.
ANY_LEDGER = JobNames("*").ledger
