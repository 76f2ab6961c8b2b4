"""`kafka-sort get` and `kafka-sort read`: records of a sorted topic on standard output. Both work without Prefect."""

import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from kafka_sort.records import COLUMNS, print_records
from kafka_sort.streams import is_output_lost
from tasks.errors import SettingsError
from tasks.reading.reader import OutputReader
from tasks.reading.runs import Choice
from tasks.settings.connection import Connection
from tasks.settings.load import load_model, read_job_file
from tasks.settings.options import JobOptions
from tasks.sorting.encoded import end_of


def load_reading(flags: Mapping[str, Any], job_file: Path | None) -> JobOptions:
    """Load what a reader needs to know of a job, as `load_job` does; its sorts and format are in the ledger."""
    known = JobOptions.model_fields
    content = {name: value for name, value in read_job_file(job_file).items() if name in known}
    given = {name: value for name, value in flags.items() if name in known and value is not None}
    return load_model(JobOptions, given, os.environ, content, f"job file {job_file}")


def run_get(connection: Connection, given: JobOptions, keys: tuple[str, ...], choice: Choice, form: str) -> int:
    """Print the records of each key; return how many there are."""
    with closing(OutputReader(given, connection, choice)) as reader:
        width = len(reader.output.sort.by)
        # All keys are read first: a wrong one is an error before anything is printed.
        wanted = [reader.keys.encode_row(key) for key in keys]
        found = 0
        for key, encoded in zip(keys, wanted, strict=True):
            is_whole = len(reader.keys.split(key)) == width
            found += print_records(reader.get(encoded, is_whole=is_whole), form)
            if is_output_lost():
                # Nobody gets what the other keys have.
                break
        return found


def run_read(
    connection: Connection,
    given: JobOptions,
    choice: Choice,
    bounds: tuple[str | None, str | None],
    limit: int | None,
    form: str,
) -> int:
    """Print the records from one key to another, both included; return how many were printed."""
    with closing(OutputReader(given, connection, choice)) as reader:
        first, last = bounds
        low = None if first is None else reader.keys.encode_row(first)
        end = None if last is None else reader.keys.encode_row(last)
        high = None if end is None else end_of(end)
        if low is not None and high is not None and high <= low:
            raise SettingsError(f"--from {first} comes behind --to {last} in the order {reader.output.sort.columns}")
        # It may end before the records do.
        with closing(reader.read(low, high, columns=COLUMNS[form])) as blocks:
            return print_records(blocks, form, limit)
