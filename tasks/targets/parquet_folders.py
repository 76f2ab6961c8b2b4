"""Outputs that are folders of Parquet files, which are written before the transaction begins.

Guarantee 2 (all or nothing, exactly once): files are fsynced under a name that readers skip. The ledger record in the
transaction names them, and is the commit; only after it they get the names that readers look for.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tasks.errors import TransientError
from tasks.file_columns import file_columns
from tasks.folders.base import OutputFolder, Stage, find_marker, name_run
from tasks.kafka.topics import Topic
from tasks.kafka.transaction import TransactionalProducer
from tasks.manifests import Snapshot, SortedRows
from tasks.run_record import WrittenRange, WrittenSort
from tasks.settings.job import Job
from tasks.targets.base import NO_WRITING, Columns, OutputChangedError, Sent, Writing
from tasks.targets.parquet_files import SortFiles, columns_with_nan


@dataclass(frozen=True)
class ParquetFolders:
    """The folders of a job. `ids`: those of their markers, by output; `counts`: the files that a run makes, at most."""

    job: Job
    folders: Mapping[str, OutputFolder]
    ids: Mapping[str, str]
    counts: Mapping[str, int]

    @property
    def sorts(self) -> frozenset[str]:
        """The names of the sorts, which are written before the transaction."""
        return frozenset(self.folders)

    @property
    def staged(self) -> frozenset[str]:
        """All of them."""
        return self.sorts

    @property
    def topics(self) -> Mapping[str, Topic]:
        """None: these are folders."""
        return {}

    def partitions(self, sort: str) -> int:
        """Return the number of files of a run, if each has rows."""
        return self.counts[sort]

    def takes(self, snapshot: Snapshot) -> bool:
        """Whether each source partition has its own file, where the job wants that."""
        fewest = min(self.counts.values())
        return self.job.partition_by != "source" or all(r.partition < fewest for r in snapshot.ranges)

    def check(self) -> None:
        """Raise OutputChangedError if a folder is gone, or belongs to another job now."""
        for output, folder in self.folders.items():
            with reaching(output):
                marker = find_marker(folder)
            if marker is None or marker.id != self.ids[output]:
                raise OutputChangedError(
                    f"output {output} was removed or replaced during the run: nothing was published; start again"
                )

    @contextmanager
    def stage(self, attempt: str, run: int, sorts: Sequence[SortedRows]) -> Iterator["_Staging"]:
        """Write an attempt's files; after an error nothing of them is left."""
        staging = _Staging(self, attempt, run, {rows.sort: rows for rows in sorts})
        try:
            yield staging
        except BaseException:
            staging.discard()
            raise

    def begin(self, producer: TransactionalProducer) -> Writing:
        """Return the writing of nothing: all rows are in files already."""
        del producer
        return NO_WRITING


class _Staging:
    """The writing of one attempt's files."""

    def __init__(self, target: ParquetFolders, attempt: str, run: int, rows: Mapping[str, SortedRows]) -> None:
        self._target = target
        self._attempt = attempt
        self._run = run
        self._rows = rows
        self._stages: dict[str, Stage] = {}
        self._files: dict[str, SortFiles] = {}

    def write(self, sort: str, partition: int, columns: Columns) -> None:
        """Append rows to a file."""
        with reaching(sort):
            self._begin(sort).write(partition, columns)

    def _begin(self, sort: str) -> SortFiles:
        """Return the files of a sort, which begin with its first rows."""
        if sort not in self._files:
            # Sorts come in turn: there is memory for a row group of one.
            for files in self._files.values():
                files.end_file()
            job = self._target.job
            columns = file_columns(job, next(s for s in job.folder_sorts if s.name == sort))
            stage = self._target.folders[sort].stage(self._attempt)
            self._stages[sort] = stage
            self._files[sort] = SortFiles(stage.create, columns, columns_with_nan(columns, self._rows[sort]))
        return self._files[sort]

    def finish(self, sent: list[Sent]) -> tuple[WrittenSort, ...]:
        """Make all files last, and return what was written."""
        return tuple(self._finish_sort(done) for done in sent)

    def _finish_sort(self, done: Sent) -> WrittenSort:
        name = done.rows.sort
        with reaching(name):
            files = self._begin(name)
            files.end_file()
            self._stages[name].seal()
            folder = name_run(self._run, self._target.folders[name].runs())
        ranges = tuple(
            WrittenRange(r.partition, 0, r.count - 1, r.count, r.first_key, r.last_key, r.first_bound, r.last_bound)
            for r in done.rows.ranges
            if r.count
        )
        return WrittenSort(
            name,
            self._target.ids[name],
            done.columns,
            ranges,
            f"{done.checksum:016x}",
            partition_count=self._target.counts[name],
            folder=folder,
            staged=self._stages[name].name,
            files=tuple(files.files),
        )

    def discard(self) -> None:
        """Remove what was written."""
        for sort, files in self._files.items():
            files.abandon()
            self._stages[sort].discard()


@contextmanager
def reaching(output: str) -> Iterator[None]:
    """Raise TransientError if the place of an output cannot be used just now."""
    try:
        yield
    except OSError as error:
        raise TransientError(f"output {output}: {error}") from error
