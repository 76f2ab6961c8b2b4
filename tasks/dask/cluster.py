"""Dask's workers for one run: those of a scheduler elsewhere, checked first, or processes of this machine.

Guarantee: every worker there is at the start has the run's release, sees its work folder and does one task at a time.
"""

import json
import logging
import signal
import socket
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

from prefect.context import FlowRunContext
from prefect.settings import get_current_settings

from tasks.dask.orders import UnfitWorkerError, bequeath
from tasks.errors import TransientError
from tasks.manifests import read_location
from tasks.observe.logs import get_logger
from tasks.settings.budget import MB, bytes_of_worker, most_workers
from tasks.settings.connection import Connection, is_loopback
from tasks.settings.job import Job
from tasks.settings.scheduler import certificate_files
from tasks.storage.base import write_file
from tasks.storage.registry import open_file, open_storage
from tasks.workdir import private_files, shared_folder

if TYPE_CHECKING:
    from prefect_dask.client import PrefectDaskClient

# Packages whose releases must be equal on all hosts: their objects and files go from one to the other.
_SAME: Final = ("kafka-sorting-pipeline", "prefect", "distributed", "cloudpickle", "pyarrow", "duckdb", "numpy")
_CONNECT_SECONDS: Final = 5.0
# The part of a worker's own limit at which Dask ends it.
_KILLED_AT: Final = 0.95
_SILENT: Final = logging.CRITICAL


class SchedulerUnavailableError(TransientError):
    """No scheduler of Dask answered within the start timeout, or it has no worker."""

    exit_code = 2
    action = "Start the scheduler and its workers, or correct `--scheduler`."
    at_risk = "No: nothing was begun."


@dataclass(frozen=True)
class Workers:
    """Workers that take tasks, by the one client of the run. `per_machine`: the most that share one machine."""

    client: "PrefectDaskClient"
    count: int
    per_machine: int


def count_local(job: Job) -> int:
    """Return how many workers this machine has for the job."""
    return max(1, min(_wanted(job), most_workers(job)))


def _wanted(job: Job) -> int:
    return max(job.dump_concurrency, job.sort_concurrency)


@contextmanager
def local_workers(job: Job, connection: Connection, folder: Path) -> Iterator[Workers]:
    """Start processes on this machine, for this run alone: as many as partitions are to be read or sorts made at once.

    They are fewer if the memory limit does not bear so many. Scheduler and workers speak TLS with certificates of their
    own, so that no other user of the machine can give them code.
    """
    from distributed import LocalCluster

    wanted, count = _wanted(job), count_local(job)
    if count < wanted:
        get_logger().warning("fewer workers than asked for, by the memory limit", workers=count, asked=wanted)
    _quiet_dask()
    try:
        cluster = LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            security=True,
            dashboard_address=None,
            # The limit of a job is kept by its parts; Dask's own would kill a worker for what the system caches.
            memory_limit=0,
            local_directory=str(folder),
            silence_logs=_SILENT,
            env=bequeath(connection),
        )
    except (OSError, RuntimeError) as error:
        raise SchedulerUnavailableError(
            f"{count} workers of Dask could not be started on this machine ({error}): make room, or sort with --runner "
            "threads"
        ) from error
    with cluster, _connect(cluster, job) as client:
        client.register_plugin(_deaf())
        yield Workers(client, count, count)


def _deaf() -> Any:
    """Return the plugin of workers that leave Ctrl-C, which a terminal sends to all processes, to the driver."""
    from distributed import WorkerPlugin

    class Deaf(WorkerPlugin):
        def setup(self, worker: Any) -> None:  # noqa: ARG002  # Dask's
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    return Deaf()


@contextmanager
def shared_workers(job: Job, scheduler: str) -> Iterator[Workers]:
    """Connect to a scheduler and check its workers.

    SchedulerUnavailableError if there are none; UnfitWorkerError names one that does not fit.
    """
    from distributed.security import Security

    _quiet_dask()
    security = Security(require_encryption=True, **certificate_files()) if scheduler.startswith("tls://") else None
    with ExitStack() as stack:
        try:
            client = stack.enter_context(_connect(scheduler, job, security))
        except OSError as error:
            raise SchedulerUnavailableError(
                f"no scheduler of Dask answers at {scheduler} within {job.start_timeout:g} s ({error}): start it, or "
                "correct --scheduler"
            ) from error
        found = _find_workers(client, job, scheduler)
        per_machine = max(Counter(str(worker["host"]) for worker in found.values()).values())
        _check_sizes(job, found, bytes_of_worker(job, per_machine))
        _check_sights(client, job)
        yield Workers(client, len(found), per_machine)


def _connect(cluster: Any, job: Job, security: Any = None) -> "PrefectDaskClient":
    """Return a client of this very cluster; one that the process has besides is left alone."""
    from prefect_dask.client import PrefectDaskClient

    how = {"security": security} if security is not None else {}
    return PrefectDaskClient(
        cluster, timeout=job.start_timeout, name=f"kafka-sort-{job.name}", set_as_default=False, **how
    )


def _find_workers(client: "PrefectDaskClient", job: Job, scheduler: str) -> Mapping[str, Any]:
    """Return the facts that the scheduler has of each worker, by its address."""
    try:
        client.wait_for_workers(1, job.start_timeout)
    except TimeoutError as error:
        raise SchedulerUnavailableError(f"scheduler {scheduler} has no worker: start some, then again") from error
    workers: Mapping[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    return workers


def _check_sizes(job: Job, found: Mapping[str, Any], needed: int) -> None:
    """Raise UnfitWorkerError if a worker has several threads, or a limit that ends it before ours does."""
    for address, worker in found.items():
        if worker["nthreads"] != 1:
            raise UnfitWorkerError(
                f"worker {address} has {worker['nthreads']} threads, and a task takes the memory and the cores of one: "
                "start it with --nthreads 1 (and more workers with --nworkers)"
            )
        if 0 < (worker["memory_limit"] or 0) * _KILLED_AT < needed:
            raise UnfitWorkerError(
                f"worker {address} has a limit of {worker['memory_limit'] / MB:.0f} MB, and a task may take "
                f"{needed / MB:.0f} MB by --memory-limit {job.memory_limit}: start it with --memory-limit 0, "
                "or lower ours"
            )


def _check_sights(client: "PrefectDaskClient", job: Job) -> None:
    """Raise UnfitWorkerError unless each worker sees the work folder, and has the releases that this process has."""
    token, place = uuid4().hex, shared_folder(job)
    name = f"shared-{token}"
    with private_files():
        write_file(open_storage(place), name, token.encode())
    try:
        seen = client.run(look_around, str(open_storage(place).locate(name)), _local_api(), on_error="return")
    finally:
        open_storage(place).remove(name)
    for address, sight in seen.items():
        _check_sight(job, address, sight, token)


def look_around(file: str, api: str | None) -> str:
    """Return what a worker sees, as JSON: the content of the driver's file, its releases, whether Prefect answers."""
    return json.dumps(
        {
            "content": _content(file),
            "releases": _releases(),
            "reaches": api is None or _answers(api),
        }
    )


def _content(file: str) -> str | None:
    try:
        with open_file(read_location(file)) as source:
            return bytes(source.read()).decode()
    except OSError:
        return None


def _check_sight(job: Job, address: str, sight: Any, token: str) -> None:
    """Raise UnfitWorkerError if a worker is not like the driver."""
    if not isinstance(sight, str):
        raise UnfitWorkerError(
            f"worker {address} cannot do tasks of this release ({type(sight).__name__}: {sight}): install "
            f"kafka-sorting-pipeline[dask] {version(_SAME[0])} there"
        )
    facts = json.loads(sight)
    for name, own in _releases().items():
        if facts["releases"].get(name) != own:
            raise UnfitWorkerError(
                f"worker {address} has {name} {facts['releases'].get(name)}, and this process has {own}: they must be "
                "equal; install the same lock on all hosts"
            )
    if facts["content"] != token:
        raise UnfitWorkerError(
            f"worker {address} does not see what is written to {shared_folder(job)}: give a folder with --workdir that "
            "all workers share, and start them as the same user; or s3://BUCKET/PREFIX, with the same variables for S3"
        )
    if not facts["reaches"]:
        raise UnfitWorkerError(
            f"worker {address} does not reach Prefect's server at {_local_api()}, which is on this machine alone: set "
            "PREFECT_API_URL to an address that all hosts reach"
        )


def _quiet_dask() -> None:
    """Keep Dask's own lines from the terminal: what they report, the run reports in its own words."""
    import distributed  # noqa: F401  # it sets the levels of its loggers when it is imported

    for name in (name for name in logging.root.manager.loggerDict if name.split(".")[0] == "distributed"):
        logging.getLogger(name).setLevel(_SILENT)


def _releases() -> dict[str, str]:
    return {"python": f"{sys.version_info[0]}.{sys.version_info[1]}", **{name: version(name) for name in _SAME}}


def api_url() -> str | None:
    """Return the address of the Prefect server that has the flow run; outside of one, that of the settings."""
    context = FlowRunContext.get()
    return get_current_settings().api.url if context is None else str(context.client.api_url)


def _local_api() -> str | None:
    """Return the address of Prefect's server if other hosts cannot reach it."""
    url = api_url()
    return url if url is not None and is_loopback(urlsplit(url).netloc) else None


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 80), _CONNECT_SECONDS):
            return True
    except OSError:
        return False
