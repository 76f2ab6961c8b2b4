"""The check that a job is the one that its ledger records, as far as it decides keys."""

from types import SimpleNamespace
from typing import cast

import pytest

from tasks.errors import SettingsError
from tasks.formats.registry import describe_format
from tasks.kafka.ledger import Ledger
from tasks.preflight import check_job_unchanged
from tasks.settings.job import Job


def make_job(**settings: object) -> Job:
    return Job.model_validate({"source_topic": "s", "sorts": ["@key=a"], **settings})


def ledger_of(job: Job) -> Ledger:
    """Return what a ledger says of a job that has placed records."""
    options = {"partition_by": job.partition_by, "output_key": job.output_key}
    last = SimpleNamespace(run=1, source_topic="s", sorts=job.sort_list, format=describe_format(job), **options)
    return cast(Ledger, SimpleNamespace(last=last, placed=True))


# What was, what is now, and the words of the line.
CHANGES: dict[str, tuple[dict[str, object], dict[str, object], str]] = {
    "key format": ({}, {"key_format": "int64"}, "has no fields by its ledger, and was started with '@key:int'"),
    "width": ({"key_format": "int32"}, {"key_format": "int64"}, "has key_format 'int32' .* with 'int64'"),
    "type": ({"sorts": ["@key:int=a"]}, {}, "has fields '@key:int' by its ledger, and was started without: start it"),
    "header": ({"sorts": ["id=a"]}, {"csv_header": True, "sorts": ["id=a"]}, "has columns|has header"),
    "quotes": ({}, {"csv_quote": "none"}, "has no quote by its ledger, and was started with 'none'"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_refused(change: str) -> None:
    """What decides keys is fixed, and the line has both."""
    then, now, words = CHANGES[change]
    check_job_unchanged(make_job(**then), ledger_of(make_job(**then)))
    with pytest.raises(SettingsError, match=words):
        check_job_unchanged(make_job(**now), ledger_of(make_job(**then)))


def test_a_header_without_columns() -> None:
    """A job whose sorts name no field of its rows has no columns, and is itself."""
    job = make_job(csv_header=True)
    check_job_unchanged(job, ledger_of(job))


def test_another_way_to_write_it() -> None:
    """A type that is a field's own, and the place where a type is given, change nothing."""
    check_job_unchanged(make_job(sorts=["@key:text=a"]), ledger_of(make_job()))
    before = make_job(csv_header=True, sorts=["id=a"], columns="id:int,x:int")
    check_job_unchanged(make_job(csv_header=True, sorts=["id:int=a"]), ledger_of(before))
