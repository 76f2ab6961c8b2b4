"""The job as its runs recorded it: whoever reads an output need not know more than the job's name.

The ledger has the source, the format with its columns and types, and the sorts. A schema's file or registry is given.
"""

from collections.abc import Mapping
from typing import Any, Final

from tasks.errors import SettingsError
from tasks.formats.registry import describe_format
from tasks.run_record import RunRecord
from tasks.settings.job import Job
from tasks.settings.load import load_model
from tasks.settings.options import JobOptions
from tasks.settings.sorts import Sort, parse_sort, read_columns

# What a reader gives itself.
_GIVEN: Final = ("schema_registry", "avro_schema", "protobuf_descriptor", "unknown_schema", "request_timeout")
_RECORDED: Final = ("timestamps", "partition_by", "output_key", "split_heavy_keys")


def recorded_job(given: JobOptions, record: RunRecord, **more: Any) -> Job:
    """Return the job of a run. `given`: has the schema's file or registry, where the format needs one.

    `more`: other options. SettingsError if that is missing, or is another than the run's.
    """
    facts = record.format
    name = facts.get("name", "csv")
    values: dict[str, Any] = {option: getattr(given, option) for option in _GIVEN} | more
    values |= {option: record.options[option] for option in _RECORDED if option in record.options}
    values |= {
        "source_topic": record.source_topic,
        "job_name": record.job,
        "dead_letter_topic": record.dead_letter_topic,
        "format": name,
        "key_format": facts.get("key_format", "text"),
        "columns": facts.get("columns") or None,
        "sorts": [_write_sort(sort.columns, sort.topic, facts) for sort in record.sorts],
    }
    if name == "csv":
        values |= {"delimiter": facts.get("delimiter", ","), "csv_quote": facts.get("quote", "double")}
        values |= {"csv_header": "header" in facts}
    if name == "protobuf" and "message" in facts:
        values["protobuf_message"] = facts["message"]
    values |= _without_registry(values, facts)
    job = load_model(Job, {option: value for option, value in values.items() if value is not None}, {}, {})
    _check_schema(job, record)
    return job


def _write_sort(columns: str, output: str, facts: Mapping[str, str]) -> str:
    """Write a sort of the ledger, whose terms have no types, with the types of record fields."""
    kinds = read_columns(facts["fields"], paths=True) if facts.get("fields") else {}
    by, _ = parse_sort(columns)
    terms = (key.written(str(kinds[key.column]) if kinds.get(key.column) else None) for key in by)
    return f"{','.join(terms)}={output}"


def _without_registry(values: Mapping[str, Any], facts: Mapping[str, str]) -> dict[str, Any]:
    """Leave out what the recorded format does not take: a job file may be of a job with more sorts."""
    kinds = {str(values["format"]), str(values["key_format"])} & {"avro", "protobuf"}
    unused: dict[str, Any] = {}
    if "schema" in facts and values["key_format"] not in {"avro", "protobuf"}:
        unused["schema_registry"] = None
    if not kinds:
        unused = {"schema_registry": None, "unknown_schema": "stop"}
    if values["format"] != "avro":
        unused["avro_schema"] = None
    if values["format"] != "protobuf":
        unused["protobuf_descriptor"] = None
    if unused.get("schema_registry", "") is None:
        unused["unknown_schema"] = "stop"
    return unused


def _check_schema(job: Job, record: RunRecord) -> None:
    recorded = record.format.get("schema")
    if recorded and describe_format(job).get("schema") != recorded:
        raise SettingsError(
            f"the schema's file is not the one by which run {record.run} of job {record.job} read its records: give "
            "that one with --avro-schema or --protobuf-descriptor"
        )


def choose_sort(job: Job, output: str | None) -> Sort:
    """Return the sort whose output, or whose columns, are `output`; the only one, if None.

    SettingsError names those that there are.
    """
    found = [s for s in job.sort_list if output in {None, s.topic, s.columns}]
    known = ", ".join(f"{sort.topic} ({sort.columns})" for sort in job.sort_list)
    if len(found) != 1:
        what = "has several sorts" if output is None else f"has no single sort {output!r}"
        raise SettingsError(f"job {job.name} {what}: name one with --sort OUTPUT: {known}")
    if found[0].has_folder:
        raise SettingsError(f"sort {found[0].columns} wrote files, {found[0].topic}: read them as Parquet")
    return found[0]
