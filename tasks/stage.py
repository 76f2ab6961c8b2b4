"""A stage of a run: work that is done request by request, wherever its runner does it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from prefect import Task

from tasks.settings.job import Job


class Request(Protocol):
    """The input of a stage's task: a frozen dataclass, small and picklable, so that the task can run elsewhere."""

    @property
    def job(self) -> Job:
        """The job, whose limits are those of the task."""

    @property
    def folder(self) -> Path:
        """The run's private folder, on the machine of the process that runs the job."""

    @property
    def title(self) -> str:
        """The name of its task for people."""


@dataclass(frozen=True)
class Capacity:
    """The room that a runner has: the number of tasks at once, and the job with the limits of each of them."""

    tasks: int
    job: Job


Q = TypeVar("Q", bound=Request)
R = TypeVar("R")


@dataclass(frozen=True)
class Stage(Generic[Q, R]):
    """A stage whose requests do not wait for each other. `work`: does one request; `task`: does it as a Prefect task.

    `meter`: the name of its progress. `at_once`: how many of its tasks one process does at once. `source`: for a stage
    that reads Kafka, the topic of a request, with the id that it must have.
    """

    name: str
    meter: str
    work: Callable[[Q], R]
    task: Task[[Q], R]
    at_once: Callable[[Job], int]
    source: Callable[[Q], tuple[str, str]] | None = None
