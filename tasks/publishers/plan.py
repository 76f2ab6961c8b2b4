"""How many publishers a run has, decided once its snapshot is taken: as many as asked for, where that is safe.

More than one are safe where brokers verify that a partition is in the transaction that writes to it: without it, a late
record of an attempt that was given up could hang in the log, and hold readers back.
"""

from typing import Final

from tasks.kafka.native_adopt import PlaceNotFoundError, self_test
from tasks.kafka.topics import all_broker_settings, describe_topics
from tasks.manifests import Snapshot
from tasks.observe.logs import get_logger
from tasks.ownership import JobView
from tasks.settings.budget import most_publishers, most_workers
from tasks.settings.job import Job

# From so many offsets on, several publishers are worth their start.
AUTO_OFFSETS: Final = 5_000_000
# The publishers on workers of a scheduler that is elsewhere, of whose number the job says nothing.
_AUTO_ELSEWHERE: Final = 4
_VERIFICATION: Final = "transaction.partition.verification.enable"


def plan_publishers(view: JobView, offsets: int) -> tuple[int, str]:
    """Return the number of publishers for a run of so many offsets, and why it is less than asked for; empty if not.

    The publish takes fewer where fewer output partitions get rows.
    """
    asked = _asked(view.job, offsets)
    if asked == 1:
        return 1, ""
    if hindrance := _find_hindrance(view):
        return 1, hindrance
    limits = (
        (asked, ""),
        (_count_partitions(view, view.job), "a partition has one publisher, and the outputs have no more"),
        (most_publishers(view.job), f"--memory-limit {view.job.memory_limit} bears no more on this machine"),
    )
    count, why = min(limits, key=lambda limit: limit[0])
    return count, why


def _asked(job: Job, offsets: int) -> int:
    if job.publisher_count is not None:
        return job.publisher_count
    if job.runner != "dask" or offsets < AUTO_OFFSETS:
        return 1
    started_here = max(1, min(max(job.dump_concurrency, job.sort_concurrency), most_workers(job)))
    return started_here if job.scheduler is None else _AUTO_ELSEWHERE


def _find_hindrance(view: JobView) -> str:
    """Return why several publishers are not safe here, or do not work; empty if they are, and do."""
    settings = all_broker_settings(view.admin)
    if not settings:
        return f"DescribeConfigs on the cluster is not permitted, so {_VERIFICATION} of the brokers is not known"
    for broker, values in sorted(settings.items()):
        if values.get(_VERIFICATION) != "true":
            return f"broker {broker} has {_VERIFICATION}={values.get(_VERIFICATION, 'false')}: set it to true"
    try:
        self_test()
    except PlaceNotFoundError as error:
        return str(error)
    return ""


def _count_partitions(view: JobView, job: Job) -> int:
    """Return the number of partitions of all outputs that are topics, those that will be created included."""
    names = [sort.topic for sort in job.topic_sorts]
    found = describe_topics(view.admin, [job.source_topic, *names])
    source = len(found[job.source_topic].partitions) if job.source_topic in found else 1
    created = job.output_partitions or source
    return max(1, sum(len(found[name].partitions) if name in found else created for name in names))


def warn_of_fewer(snapshot: Snapshot) -> None:
    """Warn if a run has fewer publishers than were asked for."""
    if snapshot.fewer_publishers:
        told = "fewer publishers than asked for"
        get_logger().warning(told, publishers=snapshot.publishers, why=snapshot.fewer_publishers)
