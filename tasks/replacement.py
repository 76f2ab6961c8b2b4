"""Replacement of former runs: what must hold before a run may take their place, and the deletion once it has.

Guarantee 2 (all or nothing, exactly once): only a committed record permits a deletion, and it names what to delete.
Every start of the job finishes a deletion that is not done, whatever the start is for; to do it twice changes nothing.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from tasks.errors import KafkaSortError, SettingsError, TerminalError, TransientError
from tasks.failpoints import reach
from tasks.folders.base import find_marker
from tasks.folders.registry import open_folder
from tasks.formats.known_schemas import without_schemas
from tasks.formats.registry import describe_format
from tasks.kafka.clients import await_answer, kafka_errors
from tasks.kafka.ledger import Ledger
from tasks.kafka.topics import EARLIEST, LATEST, REQUEST_TIMEOUT, Topic, describe_topic, describe_topics, list_offsets
from tasks.kafka.windows import Windows, holds_committed
from tasks.manifests import Snapshot
from tasks.observe.logs import get_logger
from tasks.output_folders import known_runs
from tasks.ownership import JobView, Owner
from tasks.run_record import EarlierRuns, RunRecord, WrittenSort
from tasks.settings.job import Job
from tasks.targets.base import OutputChangedError


class DeletionError(TerminalError):
    """A run that replaces others is committed, but the records of the others could not be deleted."""

    action = "Remove the cause that the line names, and start the job again: each start finishes the deletion first."
    at_risk = "No: the run is committed. Until the deletion is done, the outputs hold the former records beside it."


def require_own_outputs(view: JobView) -> None:
    """Raise SettingsError if an output holds a committed record that no run of this job wrote."""
    if topic := _find_foreign(view):
        raise SettingsError(
            f"output {topic} holds records that no run of job {view.job.name} wrote: a replacement would delete them; "
            "empty the topic, or choose another"
        )


def refuse_newcomers(owner: Owner) -> None:
    """Raise OutputChangedError if something else has written to an output since the run began.

    Where the former records end is known by then, so what comes later than this is not deleted.
    """
    if topic := _find_foreign(owner):
        raise OutputChangedError(
            f"output {topic} got records during the run that no run of job {owner.job.name} wrote, and a replacement "
            "would delete them: nothing was published; stop the other writer, and empty the topic or choose another"
        )


def _find_foreign(view: JobView) -> str | None:
    """Return an output that holds a committed record which no run of this job wrote; None if there is none."""
    admin, written = view.admin, view.ledger.written()
    for topic in describe_topics(admin, [sort.topic for sort in view.job.topic_sorts]).values():
        starts = list_offsets(admin, topic.name, topic.partitions, EARLIEST)
        ends = list_offsets(admin, topic.name, topic.partitions, LATEST)
        gaps = {p: list(find_gaps(_ranges_of(written, topic, p), starts[p], ends[p])) for p in topic.partitions}
        for windows in _take_turns(gaps):
            if holds_committed(view.connection, view.job.group, topic.name, windows, view.job.request_timeout):
                # If we were away for long, a successor's run may be what was found.
                view.require_current_ledger()
                return topic.name
    return None


def _ranges_of(written: Iterable[EarlierRuns], topic: Topic, partition: int) -> Iterator[tuple[int, int]]:
    """Yield the offsets [first, end) of each run, or of the folded runs together, in one partition."""
    sorts = (s for run in written for s in run.sorts if (s.topic, s.topic_id) == (topic.name, topic.id))
    return ((w.first, w.last + 1) for s in sorts for w in s.partitions if w.partition == partition and w.count)


def find_gaps(ranges: Iterable[tuple[int, int]], start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the offsets [start, end) of a partition that are in none of the ranges, except each run's own marker."""
    for first, stop in sorted(ranges):
        if first > start:
            yield start, min(first, end)
        # The marker of the run's commit follows its last record.
        start = max(start, stop + 1)
        if start >= end:
            return
    yield start, end


def _take_turns(gaps: Mapping[int, list[tuple[int, int]]]) -> Iterator[Windows]:
    """Yield one gap of each partition at a time."""
    for turn in zip_longest(*gaps.values()):
        windows = {p: gap for p, gap in zip(gaps, turn, strict=True) if gap is not None and gap[0] < gap[1]}
        if windows:
            yield windows


def is_current(view: JobView, snapshot: Snapshot) -> bool:
    """Whether the outputs are the job's full sort of just these offsets already, so that nothing is to be replaced."""
    last = view.ledger.last
    if last is None:
        return not snapshot.span
    read = [(r.partition, r.start, r.end) for r in last.read]
    same = read == [(r.partition, r.start, r.end) for r in snapshot.ranges] and not snapshot.lost
    alone = last.run == 1 or any(c.first == 1 and c.last == last.run - 1 for c in last.covers)
    same = same and last.source_topic_id == snapshot.source_topic_id and is_made_alike(view.job, last)
    return same and alone and _are_whole(view.admin, last.sorts)


def is_made_alike(job: Job, record: RunRecord) -> bool:
    """Whether the job would write what the run wrote, if it read the same: by its rules, sorts and other settings."""
    wanted = (str(record.options.get("timestamps")), bool(record.options.get("split_heavy_keys")))
    return (
        wanted == (job.timestamps, job.split_heavy_keys)
        and [(sort.columns, sort.topic) for sort in record.sorts] == [(s.columns, s.topic) for s in job.sort_list]
        and record.dead_letter_topic == job.dead_letters
        and without_schemas(record.format) == describe_format(job)
    )


def _are_whole(admin: AdminClient, sorts: Iterable[WrittenSort]) -> bool:
    """Whether the outputs still hold all that was written, in as many partitions.

    Retention removes records, and people remove topics, or add partitions.
    """
    for sort in sorts:
        if sort.has_folder:
            if not _has_files(sort):
                return False
            continue
        topic = describe_topic(admin, sort.topic)
        if topic is None or topic.id != sort.topic_id or sort.partition_count not in {0, len(topic.partitions)}:
            return False
        starts = list_offsets(admin, sort.topic, [w.partition for w in sort.partitions], EARLIEST)
        if any(starts[w.partition] > w.first for w in sort.partitions):
            return False
    return True


def _has_files(sort: WrittenSort) -> bool:
    try:
        return open_folder(sort.topic).sizes(sort.folder) == {file.name: file.bytes for file in sort.files}
    except OSError as error:
        raise TransientError(f"output {sort.topic}: {error}") from error


def finish_deletion(owner: Owner) -> None:
    """Delete what the newest covering run took the place of, unless that is done. DeletionError says why not."""
    record = owner.ledger.covering
    if record is None:
        return
    try:
        deleted = sum(delete_former(owner.admin, sort) for sort in record.sorts if not sort.has_folder)
        removed = sum(remove_former(owner.ledger, record, sort) for sort in record.sorts if sort.has_folder)
    except (KafkaSortError, OSError) as error:
        raise DeletionError(
            f"run {record.run} of job {record.job} is committed; the next start deletes the former records of its "
            f"outputs, which failed now: {error}"
        ) from error
    if deleted or removed:
        get_logger().info("deleted former records", run=record.run, offsets=deleted, folders=removed)


def remove_former(ledger: Ledger, record: RunRecord, sort: WrittenSort) -> int:
    """Remove the folders of the runs that the record covers; return how many, 0 if that is done."""
    folder = open_folder(sort.topic)
    marker = find_marker(folder)
    if marker is None or marker.id != sort.topic_id:
        # The files went with the folder; what stands there now is not ours.
        return 0
    known, there = known_runs(ledger, sort.topic, marker), folder.runs()
    former = [name for name, run in known.items() if any(c.first <= run <= c.last for c in record.covers)]
    for name in sorted(there.intersection(former)):
        folder.remove_run(name)
    return len(there.intersection(former))


def delete_former(admin: AdminClient, sort: WrittenSort) -> int:
    """Delete what lies before the run's own records in an output; return the number of offsets, 0 if that is done."""
    topic = describe_topic(admin, sort.topic)
    if topic is None or topic.id != sort.topic_id:
        # The records went with the topic; what stands there now is not ours.
        return 0
    starts = list_offsets(admin, topic.name, topic.partitions, EARLIEST)
    wanted = {d.partition: d.before for d in sort.delete_before if starts.get(d.partition, d.before) < d.before}
    if not wanted:
        return 0
    reach("before-delete")
    places = [TopicPartition(topic.name, partition, before) for partition, before in wanted.items()]
    with kafka_errors(f"deletion of the former records of output {topic.name}"):
        for answer in admin.delete_records(places, request_timeout=REQUEST_TIMEOUT).values():
            await_answer(answer, REQUEST_TIMEOUT)
    reach("after-delete")
    return sum(before - starts[partition] for partition, before in wanted.items())
