"""Dask's workers: which schedulers and workers a run takes, and which it refuses before any work."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from distributed import Client, LocalCluster
from distributed.security import Security

from tasks.dask import cluster as workers
from tasks.dask.cluster import SchedulerUnavailableError, local_workers, shared_workers
from tasks.dask.orders import UnfitWorkerError
from tasks.settings.connection import Connection
from tasks.settings.job import Job
from tasks.settings.scheduler import CERTIFICATES
from tests.s3_server import running_s3
from tests.security.certificates import Issued, issue, make_authority

HERE: dict[str, Any] = {
    "processes": False,
    "host": "127.0.0.1",
    "dashboard_address": None,
    "silence_logs": logging.CRITICAL,
}


@contextmanager
def started(workers: int = 1, threads: int = 1, memory: int = 0, **how: Any) -> Iterator[str]:
    """The address of a scheduler, with workers in this process."""
    how = {"protocol": "tcp://", **HERE, **how}
    with LocalCluster(n_workers=workers, threads_per_worker=threads, memory_limit=memory, **how) as running:
        yield running.scheduler_address


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(source_topic="s", workdir=tmp_path, runner="dask", start_timeout=5, memory_limit="4GB")


def test_workers_that_fit_are_taken(job: Job) -> None:
    """Workers that see the work folder and have the same releases are taken; nothing is left in the folder."""
    with started(2) as scheduler, shared_workers(job, scheduler) as found:
        assert found.per_machine == 2
        assert found.client.submit(sum, [1, 2]).result() == 3
    assert list((job.local_workdir / job.name).iterdir()) == []


def test_workers_that_share_a_bucket(job: Job) -> None:
    """Workers that see what the driver writes to the bucket are taken, and others refused; nothing is left there."""
    with running_s3() as s3, started() as scheduler:
        there = job.model_copy(update={"workdir": f"s3://{s3.bucket}/work"})
        refuse(there, scheduler)
        with look(content=None), pytest.raises(UnfitWorkerError, match=r"to s3://.*/work/s: .* or s3://BUCKET/PREFIX"):
            refuse(there, scheduler)
        assert s3.keys("work") == []


def test_the_scheduler_that_was_named_is_taken(job: Job) -> None:
    """A client that the process has besides, as its default, is left alone."""
    with started() as other, Client(other), started() as scheduler, shared_workers(job, scheduler) as found:
        assert found.client.scheduler_info()["address"] == scheduler


def test_no_scheduler(job: Job) -> None:
    """The error names the address at which nothing answers."""
    with (
        pytest.raises(SchedulerUnavailableError, match=r"no scheduler of Dask answers at tcp://127.0.0.1:1 within 1 s"),
        shared_workers(job.model_copy(update={"start_timeout": 1.0}), "tcp://127.0.0.1:1"),
    ):
        pass


def test_no_workers(job: Job) -> None:
    """A scheduler without workers is reported, not waited for without an end."""
    with started(0) as scheduler, pytest.raises(SchedulerUnavailableError, match="has no worker"):
        refuse(job.model_copy(update={"start_timeout": 1.0}), scheduler)


def refuse(job: Job, scheduler: str) -> None:
    with shared_workers(job, scheduler):
        pass


def test_a_worker_of_several_threads(job: Job) -> None:
    """A task has the memory and the cores of its worker, so each has one thread."""
    with started(threads=2) as scheduler, pytest.raises(UnfitWorkerError, match=r"has 2 threads.*--nthreads 1"):
        refuse(job, scheduler)


@pytest.mark.parametrize(("limit", "fits"), [("2500MB", True), ("4GB", False)])
def test_a_limit_that_dask_has_of_its_own(job: Job, limit: str, *, fits: bool) -> None:
    """A worker that Dask would kill before our limit ends its task is refused."""
    job = Job.model_validate({**job.model_dump(exclude_unset=True), "memory_limit": limit})
    with started(memory=2_500_000_000) as scheduler:
        if fits:
            refuse(job, scheduler)
        else:
            with pytest.raises(UnfitWorkerError, match=r"a limit of 2500 MB.*may take 3580 MB by --memory-limit 4GB"):
                refuse(job, scheduler)


def look(**seen: Any) -> Any:
    """Make all workers see this."""
    real = workers.look_around

    def look_around(file: str, api: str | None) -> str:
        return json.dumps({**json.loads(real(file, api)), **seen})

    return patch.object(workers, "look_around", look_around)


SIGHTS: dict[str, tuple[dict[str, Any], str]] = {
    "another folder": ({"content": None}, r"does not see what is written to .*/s: give a folder with --workdir"),
    "another release": (
        {"releases": {**workers._releases(), "pyarrow": "1.0"}},
        "has pyarrow 1.0, and this process has .*: they must be equal",
    ),
    "no prefect": ({"reaches": False}, "does not reach Prefect's server at .*set PREFECT_API_URL"),
}


@pytest.mark.parametrize("name", SIGHTS)
def test_a_worker_that_is_not_like_the_driver(job: Job, name: str) -> None:
    """The error names the worker, what differs, and the way out."""
    seen, told = SIGHTS[name]
    with started() as scheduler, look(**seen), pytest.raises(UnfitWorkerError, match=told) as caught:
        refuse(job, scheduler)
    assert scheduler.rpartition(":")[0] in str(caught.value)
    assert list((job.local_workdir / job.name).iterdir()) == []


def test_a_worker_without_the_product(job: Job) -> None:
    """A worker that cannot even look around is told to be of another release."""

    def look_around(_: str, __: str | None) -> str:
        raise ModuleNotFoundError("No module named 'tasks'")

    with (
        started() as scheduler,
        patch.object(workers, "look_around", look_around),
        pytest.raises(UnfitWorkerError, match=r"cannot do tasks of this release \(ModuleNotFoundError: No module"),
    ):
        refuse(job, scheduler)


def test_a_local_api_is_asked_for(job: Job) -> None:
    """Prefect's server on this machine alone must answer to workers; one that has a name of its own is not tried."""
    assert not json.loads(workers.look_around("/none", "http://127.0.0.1:1/api"))["reaches"]
    assert json.loads(workers.look_around("/none", None))["reaches"]


def test_certificates(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler with TLS is reached by the certificates that the variables name, and without them not at all."""
    authority = make_authority(tmp_path, "authority")
    both, stranger = issue(tmp_path, "both", authority), make_authority(tmp_path, "stranger")
    theirs = Security(
        require_encryption=True,
        tls_ca_file=str(authority.path),
        **{
            f"tls_{who}_{what}": str(p)
            for who in ("scheduler", "worker", "client")
            for what, p in files_of(both).items()
        },
    )
    with started(protocol="tls://", security=theirs) as scheduler:
        for name, path in zip(CERTIFICATES.values(), (authority.path, both.path, both.key_path), strict=True):
            monkeypatch.setenv(name, str(path))
        refuse(job, scheduler)
        monkeypatch.setenv(CERTIFICATES["tls_client_cert"], str(stranger.path))
        monkeypatch.setenv(CERTIFICATES["tls_client_key"], str(stranger.key_path))
        with pytest.raises(SchedulerUnavailableError, match="no scheduler of Dask answers at tls://"):
            refuse(job.model_copy(update={"start_timeout": 1.0}), scheduler)


def files_of(issued: Issued) -> dict[str, Path]:
    return {"cert": issued.path, "key": issued.key_path}


@pytest.mark.slow
def test_workers_of_this_machine_take_no_one_else(job: Job, tmp_path: Path) -> None:
    """Processes start by themselves and inherit the connection; without their certificates nobody gets in."""
    own = Connection("127.0.0.1:9", {"sasl.password": "s3cr3t"})
    with local_workers(job, own, tmp_path) as found:
        seen = found.client.run(lambda: __import__("os").environ["KAFKA_SORT_WORKER_CONNECTION"])
        assert len(seen) == found.per_machine == 2
        assert all(Connection(**json.loads(text)) == own for text in seen.values())
        address = str(found.client.scheduler_info()["address"])
        assert address.startswith("tls://127.0.0.1:")
        stranger = Security.temporary()
        with pytest.raises(OSError, match="."):
            Client(address, timeout=1, security=stranger, set_as_default=False)


@pytest.mark.slow
def test_fewer_workers_than_the_memory_bears(job: Job, tmp_path: Path) -> None:
    """A memory limit that does not bear a process for each partition read at once has fewer."""
    job = Job.model_validate({**job.model_dump(exclude_unset=True), "memory_limit": "1200MB", "dump_concurrency": 4})
    with local_workers(job, Connection(), tmp_path) as found:
        assert found.per_machine == 1
