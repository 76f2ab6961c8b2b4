"""The flow run in Prefect: its name and tags, the wish to cancel it, and the events automations trigger on.

Guarantee: that Prefect's server is away, or refuses, never ends a run. Outside of a flow run nothing happens.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext, TagsContext
from prefect.events import emit_event

_RUNNER_VARIABLE: Final = "PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS"


@contextmanager
def untagged_tasks() -> Iterator[None]:
    """Task runs of the block do not inherit the tags that the flow run was given by `prefect.tags`.

    Before a task with tags starts, Prefect asks its server for a slot of each tag: up to seconds, where its database
    is busy.
    """
    with TagsContext(current_tags=set()):
        yield


def rename_run(name: str) -> None:
    """Give the run another name, as soon as more is known of it than its parameters."""
    with suppress(Exception):
        client, run = _current()
        client.update_flow_run(run.id, name=name)


def tag_run(*tags: str) -> None:
    """Tag the run, besides the tags it has; Prefect's pages filter runs by them."""
    with suppress(Exception):
        client, run = _current()
        client.update_flow_run(run.id, tags=[*run.tags, *(tag for tag in tags if tag not in run.tags)])


def is_cancelled() -> bool:
    """Whether somebody asked Prefect to cancel this run. Without a deployment, nobody but the run itself looks."""
    with suppress(Exception):
        client, run = _current()
        state = client.read_flow_run(run.id).state
        return state is not None and (state.is_cancelling() or state.is_cancelled())
    return False


def has_runner() -> bool:
    """Whether a runner of Prefect's, a worker's or `serve`'s, started this run in a process of its own."""
    with suppress(Exception):
        _, run = _current()
        # Prefect's own engine goes by this variable. One that runs below another flow runs in that one's process.
        return run.parent_task_run_id is None and os.environ.get(_RUNNER_VARIABLE) == "false"
    return False


def emit(event: str, job: str, facts: dict[str, Any]) -> None:
    """`kafka-sort.EVENT` of the resource `kafka-sort.job.JOB`; Prefect adds the run, its flow and its tags."""
    resource = {"prefect.resource.id": f"kafka-sort.job.{job}", "prefect.resource.name": job}
    with suppress(Exception):
        emit_event(f"kafka-sort.{event}", resource, payload=facts)


def _current() -> tuple[SyncPrefectClient, FlowRun]:
    """Client and run of the flow under way, also from threads that were given its context."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or not isinstance(context.client, SyncPrefectClient):
        raise LookupError("not in a flow run")
    return context.client, context.flow_run
