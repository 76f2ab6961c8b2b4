"""Outputs that are folders: the checks before a run, their creation, and the space that a run needs in them.

A folder belongs to one job, whose name and cluster are in a marker. It holds the runs of that job, and nothing else
but what readers skip.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from os.path import realpath
from uuid import uuid4

from confluent_kafka.admin import AdminClient

from tasks.errors import SettingsError
from tasks.folders.base import Marker, OutputFolder, find_marker, lost
from tasks.folders.registry import open_folder
from tasks.kafka.ledger import Ledger
from tasks.kafka.topics import cluster_id
from tasks.manifests import Snapshot
from tasks.ownership import JobView, Owner
from tasks.run_record import WrittenSort
from tasks.settings.job import Job
from tasks.settings.outputs import S3, check_folders, folder_of
from tasks.targets.parquet_folders import ParquetFolders, reaching

# Files take less than the records do: two thirds of the sample's. So this is for records that zstd does not shrink.
_ROW_OVERHEAD_BYTES = 20


def check_output_folders(job: Job, admin: AdminClient) -> None:
    """Raise SettingsError if a folder cannot be used, holds something else, or is another job's. Nothing is created."""
    if not job.folder_sorts:
        return
    _check_links(job)
    cluster = cluster_id(admin)
    for folder in _folders(job):
        with _named(folder):
            folder.check()
            _check_owner(job, folder, cluster)


def _folders(job: Job) -> list[OutputFolder]:
    return [open_folder(sort.topic) for sort in job.folder_sorts]


def _check_links(job: Job) -> None:
    """Check what the settings have checked for paths again for what the paths lead to."""
    try:
        folders = [folder_of(sort.topic) for sort in job.folder_sorts]
        check_folders([_resolve(name) for name in folders], _resolve(str(job.workdir)))
    except ValueError as error:
        raise SettingsError(str(error)) from None


def _resolve(folder: str) -> str:
    return folder if folder.startswith(S3) else realpath(folder)


def _check_owner(job: Job, folder: OutputFolder, cluster: str) -> None:
    marker = find_marker(folder)
    if marker is not None and (marker.job, marker.cluster) != (job.name, cluster):
        where = "" if marker.cluster == cluster else f" of the cluster {marker.cluster}"
        raise SettingsError(
            f"output {folder.output} belongs to job {marker.job}{where}: choose another folder for job {job.name}"
        )
    foreign = folder.foreign() or (sorted(folder.runs()) if marker is None else [])
    if foreign and not job.append:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise SettingsError(
            f"output {folder.output} holds {foreign[0]!r}{more}, which job {job.name} did not write: "
            "choose an empty folder or a new one, or permit it with --append"
        )


@contextmanager
def _named(folder: OutputFolder) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SettingsError(f"output {folder.output} cannot be used: {error}") from error


def check_former_folders(view: JobView) -> None:
    """Raise SettingsError if the folders contradict the ledger: runs that it does not know, or none that it knows."""
    job, ledger = view.job, view.ledger
    if job.append and not job.replaces:
        return
    for folder in _folders(job):
        with reaching(folder.output):
            marker = find_marker(folder)
            runs, stages = folder.runs(), folder.stages()
        newest = next((s for s in ledger.last.sorts if s.topic == folder.output), None) if ledger.last else None
        if newest is not None and not {newest.folder, newest.staged} & {*runs, *stages}:
            # A run has settled by now; a run that is only planned would find this first.
            raise lost(newest)
        last = _last_written(ledger, folder.output)
        if last is not None and not job.replaces and (marker is None or marker.id != last.topic_id):
            raise SettingsError(
                f"output {folder.output} was removed or replaced since the last run of job {job.name}, and holds none "
                "of its runs: go on there with --append, or sort all of the source again with --mode replace"
            )
        unknown = sorted(runs.difference(known_runs(ledger, folder.output, marker)))
        if unknown and (job.replaces or last is None):
            view.require_current_ledger()
            what = "a replacement would remove it" if job.replaces else "its ledger was lost; permit it with --append"
            raise SettingsError(
                f"output {folder.output} holds {unknown[0]}, which no run in the ledger of job {job.name} wrote: "
                f"{what}; or choose another folder"
            )


def _last_written(ledger: Ledger, output: str) -> WrittenSort | None:
    """Return what the last run wrote to an output; None if no run has placed a record."""
    sorts = ledger.last.sorts if ledger.last and ledger.placed else ()
    return next((sort for sort in sorts if sort.topic == output), None)


def known_runs(ledger: Ledger, output: str, marker: Marker | None) -> dict[str, int]:
    """Return the names of the runs' folders that the ledger knows, each with its run's number."""
    names = dict[str, int]()
    for run in ledger.written():
        for sort in run.sorts:
            if (sort.topic, sort.topic_id) == (output, marker.id if marker else ""):
                # Of runs that were folded into one the usual names are known.
                names |= {f"run-{number:06}": number for number in range(run.first_run, run.last_run)}
                names[sort.folder if run.first_run == run.last_run else f"run-{run.last_run:06}"] = run.last_run
    return names


def prepare_folders(owner: Owner, partitions: int) -> ParquetFolders:
    """Return the folders as they are now; absent ones are created, and become the job's own."""
    job, folders, ids, counts = owner.job, {}, {}, {}
    for folder in _folders(job):
        with reaching(folder.output):
            marker = find_marker(folder)
            if marker is None:
                marker = Marker(job.name, cluster_id(owner.admin), uuid4().hex)
                folder.claim(marker)
        folders[folder.output], ids[folder.output] = folder, marker.id
        counts[folder.output] = count_files(owner, folder.output, partitions)
    return ParquetFolders(job, folders, ids, counts)


def count_files(view: JobView, output: str, partitions: int) -> int:
    """Return the number of files of a run; by hash it stays, so that equal keys are in files of one number."""
    last = _last_written(view.ledger, output)
    if last is None or view.job.partition_by != "hash" or view.job.replaces:
        return partitions
    if view.job.output_partitions not in {None, last.partition_count}:
        raise SettingsError(
            f"output {output} had {last.partition_count} files a run, and --output-partitions is "
            f"{view.job.output_partitions}: --partition-by hash would place equal keys in files of other numbers; "
            "leave it out, or take another folder and another --job-name"
        )
    return last.partition_count


def check_folder_space(job: Job, snapshot: Snapshot) -> None:
    """Raise SettingsError if the disk of a folder has too little space for the files of the run."""
    needed, free = defaultdict[object, int](int), dict[object, int]()
    for folder in _folders(job):
        with _named(folder):
            found = folder.free_bytes()
        if found is None:
            continue
        disk, free[disk] = found
        needed[disk] += int(snapshot.span * (snapshot.mean_record_bytes + _ROW_OVERHEAD_BYTES))
        if needed[disk] > free[disk]:
            raise SettingsError(
                f"the disk of output {folder.output} has {free[disk] / 1e9:.2f} GB free, the run may need "
                f"{needed[disk] / 1e9:.2f} GB there: make space, choose another folder, or take less at once with "
                "--max-records"
            )
