"""A run as the run history shows it: observed while it works, and ended in a state that says what happened.

Guarantee: a flow run's final state has one line as its message, which is the error's own if the run failed. One event
`kafka-sort.…` reports it. The flow's caller gets its result, or the error, as if nothing were observed. The one
exception is a run that Prefect's runner cancels: the runner sets the state, and the line is in the run's log.
"""

from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final

from prefect import State
from prefect.client.schemas.objects import StateType
from prefect.exceptions import Abort
from prefect.states import Cancelled, Completed, Crashed, Failed

from tasks.errors import NOTHING_VISIBLE, CancelledError, KafkaSortError, RunTimeoutError, StoppedError
from tasks.manifests import Snapshot
from tasks.observe.flow_run import emit, has_runner, is_cancelled, rename_run, tag_run, untagged_tasks
from tasks.observe.logs import configure_logging, get_logger
from tasks.observe.report import artifact_key, format_count, headline, publish_plan, publish_summary, report_progress
from tasks.observe.signals import stop_on_signals
from tasks.run_context import RunContext, Stop, run_context
from tasks.run_record import RunRecord
from tasks.settings.job import Job

NOTHING_NEW: Final = "nothing new"
NOTHING_TO_MERGE: Final = "nothing to merge"
# A runner that lost its event connection polls every 10 s: this is the longest time from a cancel to its SIGTERM.
_RUNNER_SECONDS: Final = 30.0
# The meaning of a stop, by kind of run.
_CONSEQUENCES: Final = {
    "run": NOTHING_VISIBLE,
    "generation": "the records sent before that stay in the topic",
    "verification": "not all was verified; nothing was changed",
}
_EVENTS: Final = {
    StateType.COMPLETED: "completed",
    StateType.FAILED: "failed",
    StateType.CANCELLED: "cancelled",
    StateType.CRASHED: "stopped",
}


def observe_run(kind: str, job: str, work: Callable[[RunContext], State[Any]], run_timeout: float | None = None) -> Any:
    """Do a flow's work with a log, progress, signals, cancellation and a timeout; return the state it is to end in.

    `kind` begins the names of its events: `run` gives `kafka-sort.run.completed` and so on. The flow returns the state:
    Prefect takes it apart, so that the flow's caller gets the result in it.
    """
    key = artifact_key("progress", *([] if kind == "run" else [kind]), job)
    stop = Stop(_CONSEQUENCES[kind])
    with run_context(stop) as context, report_progress(context.progress, key, run_timeout):
        return end_run(kind, job, work, context)


def end_run(kind: str, job: str, work: Callable[[RunContext], State[Any]], context: RunContext) -> Any:
    """Do the same as `observe_run`, for a flow that reports its progress in its own way."""
    configure_logging()
    with stop_on_signals(context.stop) as signals, untagged_tasks():
        tag_run(f"job:{job}")
        try:
            state = _end(context, work)
        except Exception as error:
            emit(f"{kind}.failed", job, {"message": f"{type(error).__name__}: {error}"})
            raise
        _tell(kind, job, state)
        if state.is_cancelled() and has_runner():
            _leave_to_runner(state, signals)
        return state


def show_plan(job: Job, snapshot: Snapshot) -> None:
    """Show what the run is going to do, in its name and an artifact."""
    rename_run(_name(job, snapshot.run, snapshot.span))
    publish_plan(job, snapshot)


def nothing_new(job: Job) -> State[None]:
    """Return the state of a run that had nothing to do."""
    rename_run(f"{job.title} · {NOTHING_NEW}")
    return Completed(message=NOTHING_NEW, data=None)


def show_merge(job: Job, records: int, snapshot: Snapshot) -> None:
    """Show what a merge is going to do, in its name. `records`: of the runs that it takes."""
    rename_run(f"{job.name} · merge of {format_count(records)} records · run {snapshot.run}")


def nothing_to_merge(job: Job) -> State[None]:
    """Return the state of a merge that had nothing to do."""
    rename_run(f"{job.name} · {NOTHING_TO_MERGE}")
    return Completed(message=NOTHING_TO_MERGE, data=None)


def published(job: Job, record: RunRecord) -> State[RunRecord]:
    """Return the state of a run that was committed, and publish its summary."""
    # The snapshot knew only the offsets, some of which hold no record.
    if record.is_merge:
        rename_run(f"{job.name} · merge of {format_count(record.records)} records · run {record.run}")
    else:
        rename_run(_name(job, record.run, record.records))
    publish_summary(record)
    return Completed(message=headline(record), data=record)


def _name(job: Job, run: int, records: int) -> str:
    return f"{job.title} · {format_count(records)} records · run {run}"


def _end(context: RunContext, work: Callable[[RunContext], State[Any]]) -> State[Any]:
    try:
        state = work(context)
    except KafkaSortError as error:
        return _unfinished(context.stop, error)
    if context.stop.is_set() and not state.is_cancelled() and is_cancelled():
        # Prefect gives a run that is being cancelled no other final state.
        late = KafkaSortError(f"done before it saw that it was cancelled: {state.message}")
        return Cancelled(message=str(late), data=late)
    return state


def _unfinished(stop: Stop, error: KafkaSortError) -> State[KafkaSortError]:
    """Return the state for an error. Prefect's own message would put its words before the line."""
    error = stop.cause_of(error)
    if isinstance(error, CancelledError) or (isinstance(error, StoppedError) and is_cancelled()):
        return Cancelled(message=str(error), data=error)
    if isinstance(error, RunTimeoutError):
        return Failed(name="TimedOut", message=str(error), data=error)
    if isinstance(error, StoppedError):
        return Crashed(message=str(error), data=error)
    return Failed(message=str(error), data=error)


def _leave_to_runner(state: State[Any], signals: SimpleQueue[int]) -> None:
    """Abort once the runner has sent its SIGTERM, which ends the process and not the run.

    Seconds later the runner finds that the process is gone, and marks the run Cancelled, whatever state it has by then.
    If it were Cancelled already, and retried, the retry would be lost. If no SIGTERM comes, there is no runner any
    more.
    """
    try:
        signals.get(timeout=_RUNNER_SECONDS)
    except Empty:
        return
    get_logger().info(state.message)
    raise Abort(state.message)


def _tell(kind: str, job: str, state: State[Any]) -> None:
    record = state.data if isinstance(state.data, RunRecord) else None
    facts: dict[str, Any] = {"message": state.message}
    if record is not None:
        facts |= {"run": record.run, "records": record.records, "dead_letters": record.dead_letters}
    emit(
        f"{kind}.{'nothing-new' if state.message in {NOTHING_NEW, NOTHING_TO_MERGE} else _EVENTS[state.type]}",
        job,
        facts,
    )
    if record is not None and record.dead_letters:
        emit(f"{kind}.dead-letters", job, facts)
