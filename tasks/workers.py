"""How tasks are run: so many at once, tried again only on transient errors, told by the error's class."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from prefect import State, Task
from prefect.client.schemas.objects import TaskRun
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import exponential_backoff

from tasks.errors import TransientError
from tasks.settings.job import Job

R = TypeVar("R")
_JITTER = 0.5


def is_transient(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    """Whether the task failed with an error that may pass. A plain function: Prefect ignores others in silence."""
    return isinstance(state.result(raise_on_failure=False), TransientError)


def with_retries(task: Task[..., R], job: Job) -> Task[..., R]:
    """The task with the job's retry policy: exponential backoff with jitter, transient errors only."""
    return task.with_options(
        retries=job.retries,
        retry_delay_seconds=exponential_backoff(job.retry_delay),
        retry_jitter_factor=_JITTER,
        retry_condition_fn=is_transient,
    )


def run_each(task: Task[..., R], requests: Iterable[Any], at_once: int, stop: Callable[[], None]) -> list[R]:
    """The task's results for all requests, at most `at_once` at a time. The first failure stops the others."""
    runner: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=at_once)
    with runner:
        futures: list[PrefectFuture[Any]] = [runner.submit(task, {"request": request}) for request in requests]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            stop()
            raise
    return [future.result() for future in futures]
