"""The stages of a run as plain functions in this process, without Prefect, so that a test can stand between two."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

from tasks.outputs import check_former_runs, prepare_outputs
from tasks.ownership import Owner, own_job
from tasks.preflight import check_before_lease, take_up_job
from tasks.publication import Publication
from tasks.publish import publish_run
from tasks.run import Run
from tasks.run_record import RunRecord
from tasks.runners import ThreadRunner
from tasks.settings.connection import use_connection
from tasks.settings.job import Job
from tasks.settings.streaming import Streaming
from tasks.settlement import settle, take_over
from tasks.stream import Stream
from tests.cluster import Cluster, sample_values


def make_job(source: str, workdir: Path, **over: object) -> Job:
    """Make a job over `source` with one output of its own, sorted by id."""
    sorts = [f"id=o-{uuid4().hex[:8]}-id"]
    return Job.model_validate(
        {"source_topic": source, "sorts": sorts, "workdir": workdir, "session_timeout": 1.5, **over}
    )


@contextlib.contextmanager
def owned(cluster: Cluster, job: Job) -> Iterator[Owner]:
    """Do steps 1 to 3, with the checks before and behind them."""
    with use_connection(cluster.connection):
        check_before_lease(job, cluster.connection, cluster.admin)
        with own_job(job, cluster.connection) as owner:
            take_up_job(owner)
            take_over(owner)
            check_former_runs(owner)
            yield owner


def prepare(owner: Owner, folder: Path, attempt: str | None = None) -> Publication:
    """Do steps 4 and 5: afterwards all is there for publishing."""
    attempt = attempt or uuid4().hex
    folder = folder / attempt
    folder.mkdir()
    run = Run(owner, ThreadRunner(), lambda _: prepare_outputs(owner), attempt)
    return run.prepare(run.take_snapshot(), folder)


def run_once(cluster: Cluster, job: Job, folder: Path) -> RunRecord:
    """Make a whole run."""
    with owned(cluster, job) as owner:
        return publish_run(owner, prepare(owner, folder))


def make_stream(cluster: Cluster, job: Job, **streaming: object) -> Stream:
    """Make a stream that does not wait long for anything."""
    settings = Streaming.model_validate({"max_latency": 0.2, "drain_timeout": 20.0, **streaming})
    return Stream(job, settings, cluster.connection)


def serve(cluster: Cluster, stream: Stream) -> None:
    """Run a whole stream, in this thread, without Prefect."""
    with use_connection(cluster.connection):
        check_before_lease(stream.job, cluster.connection, cluster.admin)
        stream.serve(lambda: run_segment(stream))


def run_segment(stream: Stream) -> None:
    while (limits := stream.wait()) is not None:
        stream.run_batch(limits)


@contextlib.contextmanager
def serving(cluster: Cluster, stream: Stream) -> Iterator[None]:
    """Run a stream in a thread for the time of the block, then drain it; raise its error, if it ended with one."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(serve, cluster, stream)
        try:
            yield
        finally:
            stream.drain.set()
            future.result()


def run_settled(cluster: Cluster, job: Job, folder: Path) -> RunRecord:
    """Make a whole run, with what the commit leaves to be done."""
    with owned(cluster, job) as owner:
        record = publish_run(owner, prepare(owner, folder))
        settle(owner)
        return record


def make_two_runs(cluster: Cluster, tmp_path: Path, **over: object) -> tuple[Job, Path]:
    """Make a job of a folder and a topic with two runs."""
    source, folder = cluster.make_topic(), tmp_path / "out"
    sorts = [f"id=o-{source}", f"id:desc=parquet:{folder}"]
    job = make_job(source, tmp_path / "work", sorts=sorts, **over)
    for seed in (1, 2):
        cluster.produce(source, sample_values(200, seed=seed))
        run_settled(cluster, job, tmp_path)
    return job, folder
