"""Runs tasks: a limited number at once, with retries for transient errors only, which the error's class tells."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from typing import Any, TypeVar

from prefect import Flow, State, Task
from prefect.client.schemas.objects import TaskRun
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import ThreadPoolTaskRunner

from tasks.errors import TransientError
from tasks.observe.logs import get_logger
from tasks.observe.metrics import current_metrics
from tasks.run_context import current_run
from tasks.settings.job import Job

T = TypeVar("T")
R = TypeVar("R")
_JITTER = 0.5
_SIGNAL_SECONDS = 0.5


def with_retries(
    task: Task[..., R], job: Job, within: Callable[[], AbstractContextManager[object]] = nullcontext
) -> Task[..., R]:
    """Give the task the job's retry policy: exponential backoff with jitter, transient errors only.

    `within`: the context of the run, where the task's thread has none by itself.

    The delay is spent here, in the condition for a retry, and not by Prefect, whose sleep sees no stop: a run that
    waits for its next attempt stops at once. The condition is a nested function: Prefect ignores callables of other
    kinds.
    """

    def wants_retry(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
        error = state.result(raise_on_failure=False)
        if not isinstance(error, TransientError):
            return False
        with within():
            return wait_for_retry(task, run, error)

    def wait_for_retry(task: Task[..., Any], run: TaskRun, error: TransientError) -> bool:
        delay = job.retry_delay * 2 ** (run.run_count - 1) * random.uniform(1, 1 + _JITTER)
        get_logger().warning(
            "retrying", task=run.name, attempt=run.run_count + 1, in_seconds=round(delay, 1), after=str(error)
        )
        if not current_run().stop.sleep(delay):
            return False
        current_metrics().count_retry(task.name)
        return True

    return task.with_options(retries=job.retries, retry_condition_fn=wants_retry)


def run_each(task: Task[..., R], requests: Iterable[Any], at_once: int, stop: Callable[[], None]) -> list[R]:
    """Return the task's results for all requests, at most `at_once` at a time. The first failure stops the others."""
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


def run_threads(work: Callable[[T], R], items: Iterable[T], pool: ThreadPoolExecutor) -> list[R]:
    """Return the results for all items, in threads that Prefect does not see; raise the first error after all ended."""
    futures = [pool.submit(copy_context().run, work, item) for item in items]
    wait(futures)
    return [future.result() for future in futures]


def run_in_thread(thread: ThreadPoolExecutor, flow: Flow[..., Coroutine[Any, Any, R]], *arguments: object) -> R:
    """Run a flow below the present one in a thread, so that this process's signal handlers stay what they are."""

    async def run() -> R:
        return await flow(*arguments)

    future = thread.submit(copy_context().run, lambda: asyncio.run(run()))
    # This thread handles a signal that another thread received, once it wakes.
    while not wait([future], _SIGNAL_SECONDS).done:
        pass
    return future.result()
