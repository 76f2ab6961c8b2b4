"""Dump and sort as Prefect tasks on workers of Dask: the stages of `tasks.dump` and `tasks.sort`, by an order."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.dask.orders import Order
from tasks.dump import DumpRequest, dump_partition
from tasks.manifests import Dumped, SortedRows
from tasks.sort import SortRequest, sort_records


@task(
    name="dump_partition",
    task_run_name="dump {request.topic_name}/{request.range.partition}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def dump_on_worker(request: DumpRequest, order: Order) -> Dumped:
    """Read one partition into chunks, of the run's own cluster and topic.

    Done again after its worker was lost, it finds the chunks that were finished.
    """
    with order.taken_up(), order.connected(request.topic_name, request.topic_id):
        return dump_partition.fn(request)


@task(
    name="sort_records",
    task_run_name="sort {request.sort.name}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def sort_on_worker(request: SortRequest, order: Order) -> SortedRows:
    """Order all chunks by one sort's key columns."""
    with order.taken_up():
        return sort_records.fn(request)
