"""Settlement, the work that a commit leaves: files get their places, then what the run takes the place of is deleted.

Guarantee 2 (all or nothing, exactly once): only a committed record permits either, and it names all that is to be done.
Each start of the job settles the newest records first, whatever the start is for; to do it twice changes nothing.
"""

from dataclasses import replace

from tasks.errors import TerminalError, TransientError
from tasks.folders.base import FilesLostError
from tasks.folders.registry import open_folder
from tasks.observe.logs import get_logger
from tasks.ownership import Owner
from tasks.replacement import finish_deletion
from tasks.run_record import RunRecord, WrittenSort
from tasks.targets.parquet_folders import reaching


class FilesNotPlacedError(TerminalError):
    """A run is committed, and its files could not be given their names."""

    action = "Remove the cause that the line names, and start the job again: each start places the files first."
    at_risk = "No: the run is committed, and its files are whole. Until then readers do not see them."


def settle(owner: Owner) -> None:
    """Do what the newest runs leave to be done, unless that is done.

    FilesNotPlacedError or DeletionError say why not; FilesLostError if there are no files to place.
    """
    if owner.ledger.last is not None:
        place_files(owner, owner.ledger.last)
        _place_rewritten(owner)
    finish_deletion(owner)


def _place_rewritten(owner: Owner) -> None:
    """Place files of former runs that were written again, where that ended before they were placed."""
    outputs = [sort.topic for sort in owner.job.folder_sorts]
    stages = {}
    for output in outputs:
        with reaching(output):
            stages[output] = open_folder(output).stages()
    for record in owner.ledger.runs.values():
        left = tuple(sort for sort in record.sorts if sort.staged and sort.staged in stages.get(sort.topic, ()))
        if left:
            place_files(owner, replace(record, sorts=left))


def place_files(owner: Owner, record: RunRecord) -> None:
    """Give the files of a committed run their names, or find that done."""
    for sort in record.sorts:
        if sort.has_folder and _place(owner, record, sort):
            get_logger().info("files placed", run=record.run, output=sort.topic, folder=sort.folder)


def _place(owner: Owner, record: RunRecord, sort: WrittenSort) -> bool:
    try:
        return open_folder(sort.topic).place(sort)
    except FilesLostError as error:
        if not owner.job.append:
            raise
        get_logger().warning(str(error))
        return False
    except (OSError, TransientError) as error:
        raise FilesNotPlacedError(
            f"run {record.run} of job {record.job} is committed; the next start places its files in {sort.topic}, "
            f"which failed now: {error}"
        ) from error


def take_over(owner: Owner) -> None:
    """Settle, and remove what dead attempts left in the folders of outputs.

    The caller has fenced and read the ledger: from then on no other attempt can be committed.
    """
    settle(owner)
    for sort in owner.job.folder_sorts:
        try:
            removed = open_folder(sort.topic).remove_leftovers()
        except OSError as error:
            get_logger().warning("leftovers cannot be removed", output=sort.topic, error=str(error))
            continue
        if removed:
            get_logger().info("removed leftovers of former attempts", output=sort.topic, attempts=removed)
