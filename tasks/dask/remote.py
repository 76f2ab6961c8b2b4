"""The stages of a run as Prefect tasks on workers of Dask: any stage, by its name and an order."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.dask.orders import Order
from tasks.stage import Stage
from tasks.stages import STAGES


@task(task_run_name="{order.name}", cache_policy=NO_CACHE, persist_result=False)
def work_on_worker(stage: str, requests: tuple[Any, ...], order: Order) -> list[Any]:
    """Do requests of a stage; one that reads Kafka reads the run's own cluster and topic.

    Done again after its worker was lost, it finds the files that were finished.
    """
    with order.taken_up():
        return [_work(STAGES[stage], request, order) for request in requests]


def _work(stage: Stage[Any, Any], request: Any, order: Order) -> Any:
    with _connected(stage, request, order):
        return stage.task.fn(request)


def _connected(stage: Stage[Any, Any], request: Any, order: Order) -> AbstractContextManager[None]:
    return nullcontext() if stage.source is None else order.connected(*stage.source(request))
