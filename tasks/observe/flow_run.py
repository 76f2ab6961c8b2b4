"""The flow run in Prefect: its name and tags, requests to cancel it, and the events that automations trigger on.

Guarantee: a Prefect server that is away, or refuses, never ends a run. Outside of a flow run nothing happens.
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
    """Keep task runs of the block from inheriting the tags that `prefect.tags` gave to the flow run.

    Before a task with tags starts, Prefect asks its server for a slot of each tag: up to seconds, where its database
    is busy.
    """
    with TagsContext(current_tags=set()):
        yield


def rename_run(name: str) -> None:
    """Rename the run as soon as more is known of it than its parameters."""
    with suppress(Exception):
        client, run = _current()
        client.update_flow_run(run.id, name=name)


def tag_run(*tags: str) -> None:
    """Add tags to the run; Prefect's pages filter runs by them."""
    with suppress(Exception):
        client, run = _current()
        client.update_flow_run(run.id, tags=[*run.tags, *(tag for tag in tags if tag not in run.tags)])


def is_cancelled() -> bool:
    """Whether somebody asked Prefect to cancel this run. Without a deployment, only the run itself checks that."""
    with suppress(Exception):
        client, run = _current()
        state = client.read_flow_run(run.id).state
        return state is not None and (state.is_cancelling() or state.is_cancelled())
    return False


def has_runner() -> bool:
    """Whether one of Prefect's runners, a worker's or `serve`'s, started this run in a process of its own."""
    with suppress(Exception):
        _, run = _current()
        # Prefect's own engine uses this variable. A run below another flow runs in that flow's process.
        return run.parent_task_run_id is None and os.environ.get(_RUNNER_VARIABLE) == "false"
    return False


def emit(event: str, job: str, facts: dict[str, Any]) -> None:
    """Emit `kafka-sort.EVENT` of the resource `kafka-sort.job.JOB`; Prefect adds the run, its flow and its tags."""
    resource = {"prefect.resource.id": f"kafka-sort.job.{job}", "prefect.resource.name": job}
    with suppress(Exception):
        emit_event(f"kafka-sort.{event}", resource, payload=facts)


def _current() -> tuple[SyncPrefectClient, FlowRun]:
    """Return client and run of the current flow, also in threads that were given its context."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or not isinstance(context.client, SyncPrefectClient):
        raise LookupError("not in a flow run")
    return context.client, context.flow_run
