"""Sends Prefect tasks to workers of Dask, without the secrets of this process and the module of its flow."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prefect import Flow, Task
from prefect.context import FlowRunContext, SettingsContext

from tasks.dask.cluster import api_url
from tasks.observe.logs import LOGGER

if TYPE_CHECKING:
    from prefect_dask.client import PrefectDaskClient
    from prefect_dask.task_runners import PrefectDaskFuture


def submit(client: "PrefectDaskClient", task: Task[..., Any], given: Mapping[str, Any]) -> "PrefectDaskFuture[Any]":
    """Send a task with these parameters to a worker; return its future."""
    from prefect_dask.task_runners import PrefectDaskFuture

    with _without_secrets(), _without_flow():
        sent: Any = client.submit(task, parameters=dict(given), return_type="state")
    return PrefectDaskFuture(wrapped_future=sent, task_run_id=sent.task_run_id)


class _SentSettings(SettingsContext):
    """Prefect's settings of this process, of which only the server's address and the log are sent to workers."""

    def serialize(self, include_secrets: bool = True) -> dict[str, Any]:  # noqa: ARG002, FBT001, FBT002  # Prefect's
        return {
            "profile": {"name": self.profile.name, "env": {}},
            # The worker adds what it has itself, such as a key of the API.
            "settings": {"api": {"url": api_url()}, "logging": {"extra_loggers": [LOGGER]}},
        }


@contextmanager
def _without_secrets() -> Iterator[None]:
    """Keep Prefect's settings with their secrets from what is sent to a worker."""
    own = SettingsContext.get()
    if own is None:
        yield
        return
    with _SentSettings(profile=own.profile, settings=own.settings):
        yield


def _stand_in() -> None:
    """Stand in for a flow: a worker needs its name alone."""


@contextmanager
def _without_flow() -> Iterator[None]:
    """Keep the flow from what is sent: a deployment loads its file as a module that no other process knows."""
    own = FlowRunContext.get()
    if own is None or own.flow is None:
        yield
        return
    with own.model_copy(update={"flow": Flow(_stand_in, name=own.flow.name)}):
        yield
