"""Step 4, snapshot: decides which offsets of the source this run reads.

Guarantee 3 (nothing lost in silence): a run starts where the ledger says the last one ended; offsets that are gone
since then are named. The end is the last stable offset, so another producer's open transaction holds it back, but
nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.errors import SettingsError, SourceLostError, TerminalError
from tasks.failpoints import reach
from tasks.inference import infer_types, refuse_unlike, warn_of_types
from tasks.kafka.clients import KafkaTerminalError
from tasks.kafka.ledger import Ledger
from tasks.kafka.topics import EARLIEST, LATEST, Topic, group_offsets, list_offsets
from tasks.manifests import LostRange, OffsetRange, Snapshot
from tasks.observe.logs import get_logger, log_context
from tasks.output_folders import check_folder_space
from tasks.ownership import JobView, Owner
from tasks.publishers.plan import plan_publishers, warn_of_fewer
from tasks.replacement import is_current
from tasks.run_record import RunRecord
from tasks.sample import Sample, is_judged, refuse_mostly_dead, take_sample
from tasks.settings.budget import MB
from tasks.settings.job import Job
from tasks.source import (
    SourceTruncatedError,
    check_leaders,
    check_same_topic,
    end_offsets,
    require_source,
    start_offsets,
)
from tasks.workdir import free_bytes

# The rates that the plan of a publication assumes: far below the measured ones (2,000,000 records/s, 100 MB/s), since
# users have other brokers.
_PLANNED_RECORDS_PER_SECOND = 400_000
_PLANNED_BYTES_PER_SECOND = 40_000_000
_PLANNED_SHARE_OF_TIMEOUT = 0.7
# The reason of a snapshot that is capped by what can be published in time.
TRANSACTION_CAP = "the transaction timeout"
_FOR_MORE = "more --publishers, or a higher transaction.max.timeout.ms on the brokers"
# The factors for chunks and the spill of one sort. With the parts of all sorts, 15.3 GB were measured for 50 million
# records of the sample, where this says 23 GB; 1.0 GB for 10 million, which fit the memory and need no parts.
_DISK_FACTOR = 2.0
_RECORD_OVERHEAD_BYTES = 40


class PartitionsSkippedError(TerminalError):
    """The run is done as far as possible: `partitions` had no leader, and are the next run's."""

    action = "Start the brokers that hold the partitions; the next run takes what was left."
    at_risk = "No: the others are published, and the ledger knows what was skipped."

    def __init__(self, topic: str, partitions: Sequence[int]) -> None:
        super().__init__(
            f"source {topic} has no leader for partition {', '.join(map(str, partitions))}: skipped, the others are "
            "sorted; start its brokers, the next run takes what was left"
        )
        self.partitions = tuple(partitions)


@dataclass(frozen=True)
class BatchLimits:
    """The limits of a micro-batch, and the mean size of the last one's records: 0 if it is not known yet."""

    records: int
    bytes: int
    mean_record_bytes: float = 0.0


def take_snapshot(view: JobView, limits: BatchLimits | None = None) -> Snapshot:
    """Take the next run's offset ranges: every partition's start, end and topic id, capped by what fits a transaction.

    `limits`: those of a micro-batch. MostlyDeadLettersError if this is the job's first run and few of its records are
    of the job's format; SettingsError if a type is not given and cannot be inferred.
    """
    reach("before-snapshot")
    job = view.job
    snapshot = cap_offsets(_take_ranges(view), job.max_records, "max_records")
    if limits is not None:
        snapshot = split_evenly(snapshot, max(1, limits.records))
    known = limits.mean_record_bytes if limits else 0.0
    sample = Sample() if known and not (is_judged(view) or job.untyped) else take_sample(view, snapshot)
    mean = known or sample.mean_record_bytes
    snapshot = replace(snapshot, mean_record_bytes=mean)
    if limits is not None:
        snapshot = split_evenly(snapshot, max(1, int(limits.bytes / max(mean, 1.0))))
    publishers, fewer = plan_publishers(view, snapshot.span) if job.topic_sorts else (1, "")
    snapshot = replace(snapshot, publishers=publishers, fewer_publishers=fewer)
    snapshot = fit_transaction(snapshot, len(job.topic_sorts), view.transaction_seconds)
    require_whole(job, snapshot)
    snapshot = replace(snapshot, disk_bytes=estimate_disk(job, snapshot))
    check_disk(job, snapshot)
    check_folder_space(job, snapshot)
    snapshot = replace(snapshot, types=_judge(view, sample.within(snapshot)))
    reach("after-snapshot")
    return snapshot


def _take_ranges(view: JobView) -> Snapshot:
    """Take all that is there up to the job's end, whatever its size."""
    job, last = view.job, view.ledger.last
    source = require_source(view.admin, job.source_topic)
    if not job.replaces:
        check_same_topic(source, last)
    check_leaders(source, job, last)
    ranges, lost, behind = _ranges(view, replace(source, partitions=source.led))
    # A partition that is skipped stays where it is; one that no run has read stays unknown to the ledger.
    skipped = (OffsetRange(p, last.ends[p], last.ends[p]) for p in source.leaderless if last and p in last.ends)
    ranges = tuple(sorted((*ranges, *skipped), key=lambda r: r.partition))
    return Snapshot(
        (last.run if last else 0) + 1,
        source.id,
        ranges,
        lost,
        source.leaderless,
        lag=_lag(ranges, behind, last if last and last.source_topic_id == source.id else None),
        behind=behind,
        replaces=job.replaces,
    )


def _lag(ranges: Sequence[OffsetRange], behind: Mapping[int, int], last: RunRecord | None) -> dict[int, int]:
    """Return partition → offsets that no run has read, those behind the job's end included.

    `last`: the last run that read this very topic. A run that replaces others reads theirs again.
    """
    ends = last.ends if last else {}
    unread = {r.partition: max(0, r.end - max(r.start, ends.get(r.partition, 0))) for r in ranges}
    return {partition: count + behind.get(partition, 0) for partition, count in unread.items()}


def require_whole(job: Job, snapshot: Snapshot) -> None:
    """Raise SettingsError if a run that replaces others would leave records to the next one."""
    if snapshot.replaces and snapshot.capped:
        raise SettingsError(
            f"--mode replace publishes all of source {job.source_topic} in one transaction, and {snapshot.capped} "
            f"permits {snapshot.span:,} of its offsets at once with publishers: {snapshot.publishers}. Take more of "
            "them (--publishers), raise transaction.max.timeout.ms on the broker (and --transaction-timeout, if "
            "given), sort fewer columns, or sort what is new with --mode append"
        )


def _judge(view: JobView, sample: Sample) -> Mapping[str, str]:
    """Return the types that the sample tells; raise if the job's settings do not fit it."""
    job = view.job
    refuse_unlike(job, sample)
    if is_judged(view):
        refuse_mostly_dead(job, sample)
    types = infer_types(job, sample)
    warn_of_types(job, sample, types)
    return types


def _ranges(view: JobView, source: Topic) -> tuple[tuple[OffsetRange, ...], tuple[LostRange, ...], dict[int, int]]:
    """Return ranges from where the run begins to the job's end, what was lost, and the offsets behind the end.

    The end is the last stable offset, or lies before it where the job asks for less, but never before the start.
    """
    starts = start_offsets(view, source)
    log_starts = list_offsets(view.admin, source.name, source.partitions, EARLIEST)
    latest = list_offsets(view.admin, source.name, source.partitions, LATEST)
    lost = find_lost(_unread(view.ledger, source, starts, log_starts) if view.job.replaces else starts, log_starts)
    if lost and not view.job.skip_lost:
        raise SourceLostError(source.name, lost)
    whole = [OffsetRange(p, max(starts[p], log_starts[p]), latest[p]) for p in source.partitions]
    for r in whole:
        if r.end < r.start:
            raise SourceTruncatedError(
                f"source {source.name} partition {r.partition} ends at offset {r.end}, before {r.start}, where the "
                "last run ended: its log was truncated; take another --job-name with --append"
            )
    ends = end_offsets(view.admin, view.job, source, latest)
    ranges = tuple(replace(r, end=max(r.start, ends[r.partition])) for r in whole)
    return ranges, lost, {r.partition: latest[r.partition] - r.end for r in ranges}


def _unread(ledger: Ledger, source: Topic, starts: Mapping[int, int], log_starts: Mapping[int, int]) -> dict[int, int]:
    """Return where the offsets begin that no run has read: to lose those that were read before loses nothing.

    Neither is one lost that lies before the first record of the time at which the run starts.
    """
    last = ledger.last
    unread = dict(last.ends) if last and last.source_topic_id == source.id else {}
    # A run that ended earlier than its predecessor leaves offsets which that one had read.
    for r in ledger.read_of(source.id):
        if r.start <= unread.get(r.partition, r.end) < r.end:
            unread[r.partition] = r.end
    return {p: start if start > log_starts[p] else unread.get(p, start) for p, start in starts.items()}


def records_start(job: Job, ledger: Ledger) -> bool:
    """Whether a run that read nothing is recorded: a job's first position must not move with each start."""
    return ledger.last is None and not job.starts_at_beginning


def has_work(view: JobView, snapshot: Snapshot) -> bool:
    """Whether there is something to publish, or at least to record."""
    if snapshot.replaces:
        return not is_current(view, snapshot)
    return bool(snapshot.span or snapshot.lost) or records_start(view.job, view.ledger)


def require_none_skipped(job: Job, snapshot: Snapshot) -> None:
    """Raise PartitionsSkippedError, once all else is done, if the run left partitions out."""
    if snapshot.skipped:
        raise PartitionsSkippedError(job.source_topic, snapshot.skipped)


def estimate_disk(job: Job, snapshot: Snapshot) -> int:
    """Estimate the bytes a run needs in the work folder: chunks, spill of the sorts at once, parts of all sorts."""
    # Chunks and parts have the record keys of the outputs besides, if these are made of sort keys.
    overhead = _RECORD_OVERHEAD_BYTES * (2 if job.output_key == "sort" else 1)
    values = snapshot.span * (snapshot.mean_record_bytes + overhead)
    if job.keeps_sorted_files(snapshot.publishers):
        # The divided chunks of all sorts, and their sorted files.
        return int(values * 2 * len(job.sort_list))
    return int(values * (_DISK_FACTOR * job.sort_concurrency + len(job.sort_list)))


def check_disk(job: Job, snapshot: Snapshot) -> None:
    """Raise SettingsError if the work folder has too little space, before any work."""
    needed, free = snapshot.disk_bytes, free_bytes(job)
    if free is not None and needed > free:
        raise SettingsError(
            f"work folder {job.workdir} has {free / 1e9:.2f} GB free, the run may need {needed / 1e9:.2f} GB: "
            "make space, choose another with --workdir, or take less at once with --max-records"
        )


def find_lost(starts: Mapping[int, int], log_starts: Mapping[int, int]) -> tuple[LostRange, ...]:
    """Find the offsets between the point where a run goes on and the present beginning of the log."""
    return tuple(LostRange(p, starts[p], log_starts[p]) for p in sorted(log_starts) if log_starts[p] > starts[p])


def cap_offsets(snapshot: Snapshot, most: int | None, reason: str) -> Snapshot:
    """Take at most so many offsets, of every partition in proportion; the rest is the next run's."""
    if most is None or snapshot.span <= most:
        return snapshot
    ranges, given, seen = [], 0, 0
    for r in snapshot.ranges:
        seen += r.span
        share = most * seen // snapshot.span - given
        given += share
        ranges.append(replace(r, end=r.start + share))
    return replace(snapshot, ranges=tuple(ranges), capped=reason)


def split_evenly(snapshot: Snapshot, most: int) -> Snapshot:
    """Take at most so many offsets: from each partition an equal part, and what one does not need from the others.

    In proportion to their sizes, as in `cap_offsets`, a hot partition would leave the others next to nothing.
    """
    if snapshot.span <= most:
        return snapshot
    parts: dict[int, int] = {}
    left = most
    for i, r in enumerate(sorted(snapshot.ranges, key=lambda r: r.span)):
        parts[r.partition] = min(r.span, left // (len(snapshot.ranges) - i))
        left -= parts[r.partition]
    ranges = tuple(replace(r, end=r.start + parts[r.partition]) for r in snapshot.ranges)
    return replace(snapshot, ranges=ranges, capped="the batch's limits")


def fit_transaction(snapshot: Snapshot, sorts: int, transaction_seconds: float) -> Snapshot:
    """Take no more than can be published in time: a transaction's timeout counts from its beginning.

    `sorts`: the number of those whose outputs are topics; all others are written before.
    """
    if not sorts:
        return snapshot
    most = snapshot.publishers * most_records(snapshot.mean_record_bytes, sorts, transaction_seconds)
    return cap_offsets(snapshot, max(most, len(snapshot.ranges)), TRANSACTION_CAP)


def most_records(mean_record_bytes: float, sorts: int, transaction_seconds: float) -> int:
    """Return how many records one publisher can send for so many sorts within a transaction's timeout."""
    seconds = max(
        1 / _PLANNED_RECORDS_PER_SECOND, (mean_record_bytes + _RECORD_OVERHEAD_BYTES) / _PLANNED_BYTES_PER_SECOND
    )
    return int(transaction_seconds * _PLANNED_SHARE_OF_TIMEOUT / (seconds * sorts))


@task(task_run_name="snapshot {owner.job.source_topic}", cache_policy=NO_CACHE, persist_result=False)
def snapshot_source(owner: Owner, limits: BatchLimits | None = None) -> Snapshot:
    """Note the offset range of every partition."""
    snapshot = take_snapshot(owner, limits)
    with log_context(stage="snapshot", run=snapshot.run):
        log = get_logger()
        needed = snapshot.disk_bytes // MB
        log.info("snapshot", offsets=snapshot.span, partitions=len(snapshot.ranges), disk_needed_mb=needed)
        if owner.job.end_moment is not None:
            log.info("the snapshot ends where it was told to", end=owner.job.end, offsets_behind=snapshot.behind_end)
        if snapshot.capped:
            way_out = {"for_more": _FOR_MORE} if snapshot.capped == TRANSACTION_CAP else {}
            log.warning("the snapshot is capped, the rest is the next run", by=snapshot.capped, **way_out)
        warn_of_fewer(snapshot)
        for lost in snapshot.lost:
            log.warning("records were removed before they were read", lost=str(lost))
        for partition in snapshot.skipped:
            log.warning("a partition has no leader, the next run takes it", partition=partition)
        _warn_of_open_transactions(owner, snapshot)
        _warn_of_group_offsets(owner)
    return snapshot


def held_back(view: JobView, snapshot: Snapshot) -> dict[int, int]:
    """Return partition → offsets from the first open transaction on, which no run can read yet."""
    topic = view.job.source_topic
    partitions = [r.partition for r in snapshot.ranges if r.partition not in snapshot.skipped]
    stable = list_offsets(view.admin, topic, partitions, LATEST)
    ends = list_offsets(view.admin, topic, partitions, LATEST, committed=False)
    return {p: ends[p] - stable[p] for p in partitions if ends[p] > stable[p]}


def _warn_of_open_transactions(owner: Owner, snapshot: Snapshot) -> None:
    """Warn that the snapshot ends before open transactions, and before all that lies behind them."""
    if held := held_back(owner, snapshot):
        get_logger().warning(
            "an open transaction of another producer holds offsets of the source back, a later run takes them",
            offsets=sum(held.values()),
            partitions=",".join(map(str, held)),
        )


def _warn_of_group_offsets(owner: Owner) -> None:
    """Warn of other group offsets: they are a courtesy to Kafka's tools, and reset or expired they change nothing."""
    job, last = owner.job, owner.ledger.last
    if last is None:
        return
    try:
        found: object = group_offsets(owner.connection, job.group, job.source_topic, last.ends)
    except KafkaTerminalError as error:
        found = str(error)
    if found != last.ends:
        get_logger().warning("the group's offsets are not those of the last run: the ledger decides", group=job.group)
