"""Dump and sort as Prefect tasks on workers of Dask: the stages of `tasks.dump` and `tasks.sort`, by an order."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.dask.orders import Order
from tasks.dump import DumpRequest, dump_partition
from tasks.manifests import Dumped, SortedRows
from tasks.sort import SortRequest, sort_records


@task(name="dump_partition", task_run_name="{order.name}", cache_policy=NO_CACHE, persist_result=False)
def dump_on_worker(requests: tuple[DumpRequest, ...], order: Order) -> list[Dumped]:
    """Read partitions into chunks, of the run's own cluster and topic.

    Done again after its worker was lost, it finds the chunks that were finished.
    """
    with order.taken_up():
        return [_dump(request, order) for request in requests]


def _dump(request: DumpRequest, order: Order) -> Dumped:
    with order.connected(request.topic_name, request.topic_id):
        return dump_partition.fn(request)


@task(name="sort_records", task_run_name="{order.name}", cache_policy=NO_CACHE, persist_result=False)
def sort_on_worker(requests: tuple[SortRequest, ...], order: Order) -> list[SortedRows]:
    """Order all chunks by the key columns of each sort."""
    with order.taken_up():
        return [sort_records.fn(request) for request in requests]
