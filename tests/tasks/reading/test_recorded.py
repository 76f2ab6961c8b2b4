"""The job as a reader has it from a run's record: it reads the keys that the run read."""

from typing import Any

import pytest

from tasks.errors import SettingsError
from tasks.formats.registry import describe_format, with_schema_types
from tasks.reading.keys import KeyReader
from tasks.reading.recorded import choose_sort, recorded_job
from tasks.run_record import RunRecord, WrittenSort
from tasks.settings.job import Job
from tasks.settings.options import JobOptions

JOBS: dict[str, dict[str, Any]] = {
    "csv": {"sorts": ["continent,id:desc=a", "name=b"]},
    "other columns": {"columns": "a:decimal,b:text(nocase),c:time(ms)", "sorts": ["c,b:desc=x"], "delimiter": "tab"},
    "no quotes": {"columns": "a,b:uuid", "sorts": ["b=x"], "csv_quote": "none"},
    "header line": {"csv_header": True, "sorts": ["a:int=x", '"odd,name":desc=y']},
    "json": {"format": "json", "sorts": ["a.b:int:nulls-last,items[0]:text=x", '"odd.name".c:decimal=y']},
    "nulls in one sort only": {"format": "json", "sorts": ["a:int:nulls-last=x", "a:int,b:text=y"]},
    "record fields": {
        "format": "none",
        "timestamps": "keep",
        "sorts": ["@timestamp:time(ms):desc=x", "@header.trace.id:uuid:nulls-first,@key=y"],
    },
    "integer keys": {"key_format": "int64", "sorts": ["@key:desc=x", "id=y"]},
    "document keys": {"key_format": "json", "format": "none", "sorts": ["@key.id:int=x"]},
    "files beside a topic": {"sorts": ["name=x", "id=parquet:/tmp/files"]},
}


def record_of(job: Job) -> RunRecord:
    """Return what a run of the job records of its settings."""
    sorts = tuple(WrittenSort(s.topic, "id", s.columns, (), folder="run-1" * s.has_folder) for s in job.sort_list)
    return RunRecord(
        job=job.name,
        run=1,
        attempt="",
        source_topic=job.source_topic,
        source_topic_id="",
        format=describe_format(job),
        read=(),
        lost=(),
        records=1,
        dead_letter_topic=job.dead_letters,
        dead_letters=0,
        checksum={},
        sorts=sorts,
        started="",
        published="",
        options={name: getattr(job, name) for name in ("timestamps", "partition_by", "output_key")},
    )


@pytest.mark.parametrize("name", JOBS)
def test_the_record_says_enough(name: str) -> None:
    """Columns, types, nulls and directions are those of the job, whatever its format."""
    job = Job.model_validate({"source_topic": "s", **JOBS[name]})
    read = recorded_job(JobOptions(job_name="s"), RunRecord.from_json(record_of(job).to_json()))
    assert read.key_columns == job.key_columns
    assert [(str(s), s.columns) for s in read.sort_list] == [(str(s), s.columns) for s in job.sort_list]
    assert describe_format(read) == describe_format(job)
    for sort in job.topic_sorts:
        assert choose_sort(read, sort.topic).by[0].column == sort.by[0].column
        KeyReader(read, choose_sort(read, sort.topic))


@pytest.mark.parametrize(
    ("sorts", "row", "values"),
    [
        ("name=x", '"a,""b"', ('a,"b',)),
        ("name,id=x", "a", ("a",)),
        ("name,id:desc=x", "a,-5", ("a", -5)),
        ("name=x", "", ("",)),
        ("@key:nulls-last,id=x", ",3", (None, 3)),
        ("@key:nulls-last,id=x", '"",3', ("", 3)),
    ],
)
def test_keys_as_rows_and_as_values(sorts: str, row: str, values: tuple[Any, ...]) -> None:
    """A row of the command line is the key that Python's values are."""
    job = Job(source_topic="s", sorts=[sorts])
    keys = KeyReader(job, job.sort_list[0])
    assert keys.encode_row(row) == keys.encode_values(values, "key")


def test_another_schema(tmp_path: Any) -> None:
    """A schema's file must be the one by which the run read its records; without one the line names the flag."""
    file = tmp_path / "a.avsc"
    text = '{"type":"record","name":"r","fields":[{"name":"id","type":"long"}]}'
    file.write_text(text)
    job = Job.model_validate({"source_topic": "s", "format": "avro", "avro_schema": file, "sorts": ["id=x"]})
    record = record_of(job)
    assert (
        recorded_job(JobOptions(job_name="s", avro_schema=file), record).key_columns
        == with_schema_types(job).key_columns
    )
    with pytest.raises(SettingsError, match="avro_schema"):
        recorded_job(JobOptions(job_name="s"), record)
    file.write_text(text.replace("long", "int"))
    with pytest.raises(SettingsError, match="is not the one by which run 1"):
        recorded_job(JobOptions(job_name="s", avro_schema=file), record)
