"""The flow `stream-topic`: a job without an end. It makes run after run, and each run is one micro-batch.

The flow owns the job. The batches are task runs of child flow runs `stream-batches`, one after the other, so that no
flow run grows beyond what Prefect can show. Kafka does not see these borders: lease, producer and consumers live on.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from prefect import State, flow
from prefect.states import Cancelled, Completed

from tasks.kafka.clients import make_admin
from tasks.observe.export import export_metrics
from tasks.observe.flow_run import is_cancelled
from tasks.observe.flow_states import end_run
from tasks.observe.logs import log_context
from tasks.preflight import check_before_lease
from tasks.run_context import run_context
from tasks.settings.connection import ProfileName, current_connection, use_profile
from tasks.settings.job import Job
from tasks.settings.streaming import Streaming, check_streamable
from tasks.stream import (
    SEGMENT_BATCHES,
    Stream,
    StreamCancelledError,
    count_errors,
    current_stream,
    stream_batch,
    use_stream,
)
from tasks.streaming.report import quiet_tasks, report_stream, stream_headline
from tasks.streaming.stats import StreamStatus
from tasks.task_runs import run_in_thread

# The form shows their defaults.
_SAMPLE, _USUAL = Job(), Streaming()


@flow(name="stream-topic", flow_run_name="{job.title} · stream", persist_result=False)
def stream_topic(job: Job = _SAMPLE, streaming: Streaming = _USUAL, connection: ProfileName = None) -> StreamStatus:
    """Sort the records that arrive, batch by batch, exactly once, until the stream is stopped.

    Args:
        job: What to sort, into which topics, within which limits.
        streaming: When a batch closes, and when the stream ends.
        connection: Name of the connection to Kafka; empty: the connection of the process that runs the flow.
    """
    with log_context(job=job.name), use_profile(connection), export_metrics(job.name):
        stream = Stream(job, streaming, current_connection())
        with run_context(stream.drain) as context, report_stream(stream.stats), quiet_tasks():
            status: StreamStatus = end_run("stream", job.name, lambda _: serve(stream), context)
            return status


def serve(stream: Stream) -> State[Any]:
    """Run all batches, in child flow runs one after the other."""
    with use_stream(stream), count_errors():
        check_streamable(stream.job)
        check_before_lease(stream.job, stream.connection, make_admin(stream.connection))
        with ThreadPoolExecutor(1) as thread:
            stream.serve(lambda: run_in_thread(thread, stream_batches, stream.job.title, stream.next_run))
    status = stream.stats.status()
    if is_cancelled():
        error = StreamCancelledError(f"cancelled in Prefect: {stream_headline(status)}")
        return Cancelled(message=str(error), data=error)
    return Completed(message=stream_headline(status), data=status)


@flow(name="stream-batches", flow_run_name="{title} · from run {first_run}", persist_result=False)
async def stream_batches(title: str, first_run: int) -> None:  # noqa: ARG001  # they name the flow run
    """Run the next batches of the stream that this process serves.

    The function is async in name alone: at their end, other flows wait up to a second for their heartbeat's thread.
    """
    stream = current_stream()
    for _ in range(SEGMENT_BATCHES):
        if (limits := stream.wait()) is None:
            return
        stream_batch(stream, limits, stream.next_run)


if __name__ == "__main__":
    stream_topic()
